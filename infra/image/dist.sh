#!/usr/bin/env bash
# Puts together what a release offers for download, in dist/release: the program
# for each of PLATFORMS, the Lambda function, and the sums of both. `make dist`
# builds them first and sets what is wanted here. The same commit and Go make the
# same files, whoever runs it.
#
#	VERSION     what the files' names say
#	PLATFORMS   OS/ARCH, which dist/bin has a program for each of
#	SBOM        a document that lists what the program is made of, if there is one
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

for name in VERSION PLATFORMS; do
	if [[ -z ${!name-} ]]; then
		echo "dist: $name is not set; run make dist, which sets it" >&2
		exit 1
	fi
done

out=dist/release
rm -rf "$out"
mkdir -p "$out"
for platform in $PLATFORMS; do
	name=${platform%/*}-${platform#*/}
	"${GO:-go}" run ./infra/image/bundle "$out/holdfast-$VERSION-$name.tar.gz" "dist/bin/$name/holdfast" LICENSE README.md CHANGELOG.md
done
for arch in arm64 amd64; do
	cp "dist/lambda-$arch.zip" "$out/holdfast-$VERSION-lambda-$arch.zip"
done
if [[ -n ${SBOM-} ]]; then cp "$SBOM" "$out/holdfast-$VERSION-sbom.cdx.json"; fi

sums() { if command -v sha256sum >/dev/null; then sha256sum "$@"; else shasum -a 256 "$@"; fi; }
(cd "$out" && LC_ALL=C && sums holdfast-* >SHA256SUMS)
cat "$out/SHA256SUMS"
