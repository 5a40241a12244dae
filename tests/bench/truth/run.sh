#!/usr/bin/env bash
# The tables of RESULTS.md's section `truth`.
#   tests/bench/truth/run.sh BUILD_DIR ''           everything; refits for the tables of unseen rows, some minutes of one core
#   tests/bench/truth/run.sh BUILD_DIR FILE         the checked-in coefficients against the rows of FILE (.csv or .csv.gz)
set -euo pipefail
build=${1:?usage: run.sh BUILD_DIR [FILE]}
here=$(dirname "$(readlink -f "$0")")
catalog=$here/../../../scheduler/model/catalog
calibration=$here/../../../../shared/calibration/inferencex_silicon_e2e.csv.gz
bench=$build/tests/truth_bench
if [ -n "${2:-}" ]; then
  exec "$bench" --catalog "$catalog" --rows "$2"
fi
"$bench" --catalog "$catalog" --published --afd
if [ ! -f "$calibration" ]; then
  echo "truth: $calibration is not there: no table of errors" >&2
  exit 1
fi
"$bench" --catalog "$catalog" --rows "$calibration"
python=$("$here/setup.sh")
# One thread: more only help the other programs of the machine wait.
OPENBLAS_NUM_THREADS=1 "$python" "$here/fit.py" --bench "$bench" --catalog "$catalog" --rows "$calibration" \
  --held-out --ablation --leave-out
