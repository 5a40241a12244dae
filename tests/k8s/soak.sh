#!/usr/bin/env bash
# What of image and chart is too long for CI: the chart with Helm 4, and the image of programs compiled a second time, elsewhere: through ccache,
# which makes paths relative to the checkout (__FILE__ is in what asserts say), but with nothing taken from it.
#   tests/k8s/soak.sh BUILD_DIR      a built tree
set -euo pipefail
build=$(readlink -f "${1:?usage: soak.sh BUILD_DIR}")
cd "$(dirname "$(readlink -f "$0")")/../.."
. deploy/setup/setup.sh

tests/k8s/setup.sh
tests/k8s/setup.sh --helm4
echo "== the chart with Helm 4"
TANDEM_SOURCE_DIR=$PWD TANDEM_BINARY_DIR=$build TANDEM_HELM=helm4 tests/e2e/run.sh "$PWD/tests/k8s/test_chart.py"

echo "== the image of another checkout, compiled anew"
again=$(mktemp -d)
trap 'rm -rf "$again"' EXIT
git ls-files --cached --others --exclude-standard -z | xargs -0 cp --parents -P -t "$again"
type=$(sed -n 's/^CMAKE_BUILD_TYPE:.*=//p' "$build/CMakeCache.txt")
cmake -S "$again" -B "$again/build/again" -G Ninja -DCMAKE_BUILD_TYPE="$type" >/dev/null
CCACHE_RECACHE=1 ninja -C "$again/build/again" -j "${TANDEM_JOBS:-$(nproc)}" bin/tandem-gateway bin/tandem-router bin/tandem-worker bin/tandemctl
deploy/images/build.sh --build-dir "$build" --output "$again/first.tar"
"$again/deploy/images/build.sh" --build-dir "$again/build/again" --output "$again/second.tar"
cmp "$again/first.tar" "$again/second.tar" || { trap - EXIT; echo "soak.sh: the same sources gave two images, in $again" >&2; exit 1; }
sha256sum "$again/first.tar"
