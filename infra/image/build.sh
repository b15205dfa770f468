#!/usr/bin/env bash
# Puts the program into an image for each of ARCHES: dist/image/holdfast-ARCH.tar,
# which docker load and podman load read. `make image` builds the program first and
# sets what is wanted here:
#
#	VERSION, COMMIT   what the labels say
#	IMAGE             the name that the image has once it is loaded
#	ARCHES            amd64, arm64, or both
#	BUILDER           buildah, podman or docker; by itself the first that is there
#
# With the argument check it only says what is missing, before the program is built.
#
# No step runs inside of the image, so no architecture needs emulation. The same
# program gives the same image, whenever and wherever it is built: see settle.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

fail() {
	printf 'image: %s\n' "$*" >&2
	exit 1
}

for name in VERSION COMMIT IMAGE ARCHES; do
	[[ -n ${!name-} ]] || fail "$name is not set; run make image, which sets it"
done

builder=${BUILDER-}
for candidate in buildah podman docker; do
	if [[ -z $builder ]] && command -v "$candidate" >/dev/null; then builder=$candidate; fi
done
[[ -n $builder ]] || fail "there is no builder of images; install buildah (apt-get install buildah), podman or docker"
command -v "$builder" >/dev/null || fail "BUILDER=$builder: there is no such command; name buildah, podman or docker, or none"
if [[ ${1-} == check ]]; then exit 0; fi

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT

for arch in $ARCHES; do
	program=dist/bin/linux-$arch/holdfast
	[[ -f $program ]] || fail "$program is not there; run make image ARCHES=$arch, which builds it (amd64 and arm64 are tried)"
	# Modes are part of the image, and must not hang on the umask.
	rm -rf "${context:?}"/*
	install -m 0644 LICENSE "$context/LICENSE"
	install -m 0755 "$program" "$context/holdfast"
	install -d -m 0700 "$context/data"

	archive=dist/image/holdfast-$arch.tar
	mkdir -p dist/image
	rm -f "$archive" # archives are added to, not replaced
	args=(--platform "linux/$arch" --build-arg "VERSION=$VERSION" --build-arg "COMMIT=$COMMIT"
		--file infra/image/Containerfile --tag "$IMAGE")
	# The docker format, because that of OCI has no health check.
	format=(--isolation chroot --format docker)
	if [[ ${builder##*/} == docker ]]; then format=(); fi # an empty one is an error to the bash of macOS
	"$builder" build --quiet ${format[@]+"${format[@]}"} "${args[@]}" "$context" >/dev/null
	if [[ ${builder##*/} == buildah ]]; then
		"$builder" push --quiet "$IMAGE" "docker-archive:$archive:$IMAGE"
	else
		"$builder" save --output "$archive" "$IMAGE" 2>/dev/null
	fi
	"$builder" rmi "$IMAGE" >/dev/null
	id=$("${GO:-go}" run ./infra/image/settle "$archive")
	size=$(wc -c <"$archive")
	printf '%s %s %d.%d MB, by %s\n' "$archive" "$id" $((size / 1000000)) $((size / 100000 % 10)) "${builder##*/}"
done
