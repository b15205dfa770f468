#!/usr/bin/env bash
# Checks the modules and the examples without an AWS account:
#
#	bash terraform/check.sh               format, validate, test; apply, with a stand-in
#	bash terraform/check.sh states DIR    what the examples make, as JSON, in DIR
#	bash terraform/check.sh plans DIR     what a plan of them says, likewise; wants a stand-in
#
# Wanted is terraform. The provider comes from the registry, or, where
# HOLDFAST_TERRAFORM_PROVIDER_DIR names a folder, from there: a built
# terraform-provider-aws, or a Go program that is one. Such a stand-in asks nothing
# of AWS, so that with it the examples are also planned, applied and planned again,
# which must then change nothing.
#
# Everything happens in a copy; nothing is left here.
set -euo pipefail

# Folders are the caller's, who may be elsewhere.
standin=${HOLDFAST_TERRAFORM_PROVIDER_DIR:+$(cd "$HOLDFAST_TERRAFORM_PROVIDER_DIR" && pwd)}
into=${2:+$(cd "$2" && pwd)}
cd "$(dirname "${BASH_SOURCE[0]}")"

if ! command -v terraform >/dev/null; then
	echo "terraform/check.sh: terraform: is not installed; get 1.9 or newer from https://developer.hashicorp.com/terraform/install" >&2
	exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export CHECKPOINT_DISABLE=1 TF_IN_AUTOMATION=1 TF_INPUT=0

# Loudly only where it fails.
quietly() {
	if ! "$@" >"$work/log" 2>&1; then
		cat "$work/log" >&2
		echo "terraform/check.sh: failed in $PWD: $*" >&2
		return 1
	fi
}

if [[ -n $standin ]]; then
	if [[ ! -x $standin/terraform-provider-aws ]]; then
		mkdir "$work/provider"
		(cd "$standin" && quietly go build -o "$work/provider/terraform-provider-aws" .)
		standin=$work/provider
	fi
	printf 'provider_installation {\n  dev_overrides { "hashicorp/aws" = "%s" }\n  direct {}\n}\n' "$standin" >"$work/terraformrc"
	export TF_CLI_CONFIG_FILE=$work/terraformrc
else
	# Fetched once; there are no lock files here that could be broken.
	export TF_PLUGIN_CACHE_DIR=$work/plugins TF_PLUGIN_CACHE_MAY_BREAK_DEPENDENCY_LOCK_FILE=1
	mkdir "$TF_PLUGIN_CACHE_DIR"
fi

mkdir -p "$work/dist" "$work/terraform"
cp -R modules examples "$work/terraform/"
find "$work/terraform" -name .terraform -prune -exec rm -rf {} +
find "$work/terraform" \( -name '*.tfstate*' -o -name '*.tfvars' -o -name .terraform.lock.hcl \) -delete
# Stands for the function's; nothing here looks into it.
echo function >"$work/dist/lambda-arm64.zip"

# prepare DIR: enters it, with what it needs installed.
prepare() {
	cd "$1"
	export TF_DATA_DIR=$work/data/${1//\//-}
	if [[ -n $standin ]]; then
		quietly terraform get
	else
		quietly terraform init -backend=false
	fi
}

states() {
	local example
	for example in "$work"/terraform/examples/*/; do
		(
			prepare "${example%/}"
			if ! terraform test -json -verbose >"$1/$(basename "$example").json"; then
				terraform test >&2 # once more, for people
				exit 1
			fi
		)
	done
}

plans() {
	local example
	if [[ -z $standin ]]; then
		echo "terraform/check.sh: plans: the real provider plans in an account; name a stand-in in HOLDFAST_TERRAFORM_PROVIDER_DIR" >&2
		exit 2
	fi
	for example in "$work"/terraform/examples/*/; do
		(
			prepare "${example%/}"
			cp terraform.tfvars.example terraform.tfvars
			quietly terraform plan -out=first.tfplan
			terraform show -json first.tfplan >"$1/$(basename "$example").json"
		)
	done
}

check() {
	local dir
	terraform fmt -check -diff -recursive .
	for dir in "$work"/terraform/modules/*/ "$work"/terraform/examples/*/; do
		(
			prepare "${dir%/}"
			quietly terraform validate
			quietly terraform test
			echo "$(basename "$(dirname "$dir")")/$(basename "$dir"): valid, $(grep -oE '[0-9]+ passed' "$work/log") of its tests"
		)
	done
	if [[ -z $standin ]]; then
		echo "the examples are not applied: that would be in your account; HOLDFAST_TERRAFORM_PROVIDER_DIR names a stand-in"
		return
	fi
	for dir in "$work"/terraform/examples/*/; do
		(
			prepare "${dir%/}"
			cp terraform.tfvars.example terraform.tfvars
			quietly terraform plan -out=first.tfplan
			quietly terraform apply first.tfplan
			quietly terraform plan -detailed-exitcode # 2, a failure: something would change
			echo "examples/$(basename "$dir"): $(terraform state list | grep -vc '\.data\.') resources applied; a second plan changes nothing"
		)
	done
}

case "${1:-}" in
"") check ;;
states) states "${into:?terraform/check.sh: states: wants the folder to write to}" ;;
plans) plans "${into:?terraform/check.sh: plans: wants the folder to write to}" ;;
*)
	echo "terraform/check.sh: $1: is no command; use none, states DIR, or plans DIR" >&2
	exit 2
	;;
esac
