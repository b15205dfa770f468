#!/usr/bin/env bash
# Checks ownership.pml, and that each of its broken variants is found out. Wanted:
# spin and a C compiler; 2 GB of memory, about two minutes of one core.
set -euo pipefail
model=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/ownership.pml
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

# errors FLAGS…: the number of errors that the model has with these flags.
errors() {
	spin -a "$@" "$model" >spin.log || {
		cat spin.log >&2
		return 1
	}
	cc -O2 -DSAFETY -DNOREDUCE -DCOLLAPSE -DBFS -o pan pan.c
	./pan >pan.log
	if grep -qE 'max search depth too small|out of memory|Search not completed' pan.log && ! grep -q 'errors: 1' pan.log; then
		cat pan.log >&2
		return 1
	fi
	sed -n 's/.*errors: \([0-9]*\).*/\1/p' pan.log
}

found=$(errors)
echo "the protocol: $found errors in $(awk '/states, stored/ {print $1}' pan.log) states"
[[ $found == 0 ]]
for broken in -DF=2 -DLATE=1 -DDECLARE=0 -DFENCE=0 -DCLOSE=0 -DASK=0 -DBURY=0 -DCUT=0; do
	found=$(errors "$broken")
	echo "$broken: $found error, as there must be: $(sed -n 's/^pan:1: \(.*\) (at.*/\1/p' pan.log)"
	[[ $found == 1 ]]
done
