#!/usr/bin/env bash
# Goal: a backend outside of the tree builds against an installed Tandem and passes the suite; a wrong one does not.
# Method: install the sdk into a folder of its own, build examples/backend against it as its README says, run it; then once
# more with a fault planted.
set -euo pipefail
: "${TANDEM_SOURCE_DIR:?}" "${TANDEM_BINARY_DIR:?}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cmake --install "$TANDEM_BINARY_DIR" --prefix "$work/prefix" --component sdk >/dev/null
cp -r "$TANDEM_SOURCE_DIR/examples/backend" "$work/example"
cmake -S "$work/example" -B "$work/build" -G Ninja -DCMAKE_PREFIX_PATH="$work/prefix" >/dev/null
ninja -C "$work/build" >/dev/null
! grep -rq "$TANDEM_SOURCE_DIR" "$work/prefix/lib/cmake" || { echo "the package names the source tree"; exit 1; }
"$work/build/loop_conformance" | tee "$work/table"
grep -q ' 0 failed$' "$work/table"

# The suite sees a device that lets a row depend on its neighbour, and one whose class lies about its cut.
cp "$work/example/loop_backend.cc" "$work/right.cc"
sed -i 's/ComputeRow(held, in.host() + row \* kHidden/ComputeRow(held, in.host() + (rows > 8 ? rows - 1 - row : row) * kHidden/' \
  "$work/example/loop_backend.cc"
grep -q 'rows > 8' "$work/example/loop_backend.cc"
ninja -C "$work/build" >/dev/null
if "$work/build/loop_conformance" >"$work/table"; then echo "a device that mixes rows passed"; exit 1; fi
grep 'ARowDoesNotDependOnTheBatchWhateverItsSize.*FAIL.*first differing element' "$work/table"

sed 's/tandem::GeometryOf(shard.columns)/"whole"/' "$work/right.cc" >"$work/example/loop_backend.cc"
! cmp -s "$work/right.cc" "$work/example/loop_backend.cc"
ninja -C "$work/build" >/dev/null
if "$work/build/loop_conformance" >"$work/table"; then echo "a device that lies about its class passed"; exit 1; fi
grep 'PiecesOfColumnsAddUpToTheLayerWhateverTheBatch.*FAIL' "$work/table"
