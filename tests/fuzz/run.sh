#!/usr/bin/env bash
# Runs the libFuzzer targets, one after the other, each from its corpus and what earlier runs added in BUILD_DIR.
#   tests/fuzz/run.sh BUILD_DIR [SECONDS [TARGET...]]      default: 60 seconds each, every target
# An input that breaks one lands in BUILD_DIR/fuzz/found; the fix takes it into tests/fuzz/corpus/TARGET.
set -euo pipefail
build=$(readlink -f "${1:?usage: run.sh BUILD_DIR [SECONDS [TARGET...]]}")
seconds=${2:-60}
shift $(($# < 2 ? $# : 2))
cd "$(dirname "$(readlink -f "$0")")"
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(corpus/*)
failed=()
for target in "${targets[@]##*/}"; do
  grown=$build/fuzz/grown/$target
  mkdir -p "$grown" "$build/fuzz/found"
  words=()
  [ ! -f "dictionaries/$target" ] || words=("-dict=dictionaries/$target")
  echo "== $target, $seconds s"
  "$build/fuzz/${target}_fuzz" -max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=2048 \
    -artifact_prefix="$build/fuzz/found/$target-" -print_final_stats=1 "${words[@]}" "$grown" "corpus/$target" \
    >"$build/fuzz/$target.log" 2>&1 || failed+=("$target")
  grep -E 'DONE|cov:|average_exec|SUMMARY|check failed' "$build/fuzz/$target.log" | tail -3
done
[ ${#failed[@]} -eq 0 ] || { echo "broken: ${failed[*]}; see $build/fuzz/TARGET.log" >&2; exit 1; }
