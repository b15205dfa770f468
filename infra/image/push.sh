#!/usr/bin/env bash
# Pushes the images in dist/image to a registry, as one with several architectures:
#
#	bash infra/image/push.sh ghcr.io/somebody/holdfast TAG…
#
# `make image` has made them; log in with buildah login before. It prints the digest
# and keeps it in dist/image/digest. PUSH_FLAGS are handed to buildah, such as
# --tls-verify=false for a registry on this machine.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

fail() {
	printf 'push: %s\n' "$*" >&2
	exit 1
}

(($# >= 2)) || fail "wants a repository and at least one tag, such as ghcr.io/somebody/holdfast v1.2.3"
command -v buildah >/dev/null || fail "buildah is not installed; run: apt-get install buildah"
repository=$1
shift

archives=(dist/image/holdfast-*.tar)
[[ -f ${archives[0]} ]] || fail "there is no dist/image/holdfast-ARCH.tar; run make image"
read -ra flags <<<"${PUSH_FLAGS-}"

list=localhost/holdfast-push:$$
trap 'buildah manifest rm "$list" >/dev/null 2>&1 || true' EXIT
buildah manifest create "$list" >/dev/null
for archive in "${archives[@]}"; do
	arch=${archive##*-}
	buildah manifest add --os linux --arch "${arch%.tar}" "$list" "docker-archive:$archive" >/dev/null
done
# The docker format, because that of OCI has no health check.
digest=dist/image/digest
for tag in "$@"; do
	rm -f "$digest"
	buildah manifest push --all --quiet --format v2s2 --digestfile "$digest" ${flags[@]+"${flags[@]}"} "$list" "docker://$repository:$tag"
	# Some releases of buildah take a registry without TLS for a success.
	[[ -f $digest && $(<"$digest") == sha256:* ]] ||
		fail "$repository:$tag: buildah pushed nothing; is it a registry with TLS? PUSH_FLAGS=--tls-verify=false is for one without, on this machine"
done
printf '%s@%s %s\n' "$repository" "$(<"$digest")" "$*"
