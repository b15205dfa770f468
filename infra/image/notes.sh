#!/usr/bin/env bash
# Prints what CHANGELOG.md says of a version, for the page of its release:
#
#	bash infra/image/notes.sh v1.2.3
#
# A pre-release, such as v1.2.3-rc.1, without a section of its own has what is under
# [Unreleased]. Any other version without one is an error.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

tag=${1-}
if [[ ! $tag =~ ^v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$ ]]; then
	echo "notes: \"$tag\" is no version; tags are v1.2.3, or v1.2.3-rc.1 before it" >&2
	exit 1
fi

section() { # section NAME: without its heading, and without empty lines around it
	awk -v name="[$1]" '
		/^## / { inside = ($2 == name); next }
		inside && (NF || seen) { seen = 1; if (NF) { printf "%s%s\n", gap, $0; gap = "" } else gap = gap "\n" }
	' CHANGELOG.md
}

text=$(section "${tag#v}")
if [[ -z $text && $tag == *-* ]]; then text=$(section Unreleased); fi
if [[ -z $text ]]; then
	echo "notes: CHANGELOG.md has no section [${tag#v}]; move what is under [Unreleased] to one of this name" >&2
	exit 1
fi
printf '%s\n' "$text"
