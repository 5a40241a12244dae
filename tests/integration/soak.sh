#!/usr/bin/env bash
# What is too long for CI: the unit and integration tests with their threads held up at random where they take and leave locks, each
# time with another seed (lock_delays.cc).
#   tests/integration/soak.sh BUILD_DIR [SEEDS]      default: 20, a minute or two each
set -euo pipefail
build=$(readlink -f "${1:?usage: soak.sh BUILD_DIR [SEEDS]}")
for ((seed = 1; seed <= ${2:-20}; seed++)); do
  echo "== locks delayed with seed $seed"
  LOCK_DELAYS_SEED=$seed LD_PRELOAD=$build/tests/liblock_delays.so \
    ctest --test-dir "$build" --output-on-failure -j "${TANDEM_JOBS:-$(nproc)}" -L '^(unit|integration)$'
done
