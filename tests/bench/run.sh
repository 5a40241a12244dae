#!/usr/bin/env bash
# Runs the benchmarks whose figures stand in RESULTS.md, from a release build.
#   tests/bench/run.sh BUILD_DIR [split_decode|device|handoff|trace|cluster|gateway|emulated|occupancy|tco|ledger|closed_loop|truth|other_ffn ...]    default: all
#   tests/bench/run.sh BUILD_DIR truth --rows FILE.csv[.gz]     how far the checked-in coefficients are from these rows
set -euo pipefail
build=${1:?usage: run.sh BUILD_DIR [NAME ...]}; shift
here=$(dirname "$(readlink -f "$0")")
model=${TANDEM_MODEL:-$HOME/.cache/tandem/models/SmolLM2-135M-Instruct.Q4_1.gguf}
[ $# -gt 0 ] || set -- split_decode device handoff trace cluster gateway emulated occupancy tco ledger closed_loop truth other_ffn
rows=''
if [ $# -ge 2 ] && [ "$1" = truth ] && [ "$2" = --rows ]; then
  rows=${3:?truth --rows needs a file}
  set -- truth
fi
echo "# $(date -u +%F) $(git -C "$here" rev-parse --short HEAD) $(nproc) cores, load $(cut -d' ' -f1 /proc/loadavg): $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1)"
for name in "$@"; do
  echo "## $name"
  case $name in
    split_decode) "$build/tests/split_decode_bench" "$model" ;;
    device) "$build/tests/device_bench" "$model" ;;
    handoff) "$build/tests/handoff_rtt_bench" ;;
    trace) "$build/tests/trace_bench" ;;
    cluster) /usr/bin/python3 "$here/cluster_bench.py" --bin "$build/bin" --model "$model" ;;
    gateway) /usr/bin/python3 "$here/gateway_bench.py" --build "$build" --model "$model" ;;
    emulated)
      /usr/bin/python3 "$here/emulated_bench.py" "$build"
      /usr/bin/python3 "$here/emulated_bench.py" "$build" --perturbation 0.2 --rounds 1 ;;
    ledger) "$build/tests/ledger_bench" ;;
    truth) "$here/truth/run.sh" "$build" "$rows" ;;
    occupancy) /usr/bin/python3 "$here/occupancy_bench.py" "$build" ;;
    tco) /usr/bin/python3 "$here/tco_bench.py" "$build" ;;
    closed_loop) /usr/bin/python3 "$here/closed_loop_bench.py" --build "$build" --model "$model" ;;
    other_ffn) "${TANDEM_PYTHON:-${TANDEM_CACHE:-$HOME/.cache/tandem}/venv/bin/python}" "$here/other_ffn_bench.py" --build "$build" ;;
    *) echo "run.sh: no benchmark '$name'" >&2; exit 2 ;;
  esac
done
