#!/usr/bin/env bash
# What is too long for CI: many seeds of every simulated scenario, and the tests that kill and drain, over and over.
#   tests/bench/soak.sh BUILD_DIR [SEEDS [ROUNDS]]      default: 1000 seeds, 5 rounds
set -euo pipefail
build=$(readlink -f "${1:?usage: soak.sh BUILD_DIR [SEEDS [ROUNDS]]}")
seeds=${2:-1000}
rounds=${3:-5}
cd "$(dirname "$(readlink -f "$0")")/../.."
export TANDEM_SOURCE_DIR=$PWD TANDEM_BINARY_DIR=$build
echo "== $seeds seeds of every scenario"
SIM_SEEDS=$seeds "$build/tests/sim_scenario_test" --gtest_filter='*HoldsForManySeeds*' --gtest_brief=1
for ((round = 1; round <= rounds; round++)); do
  echo "== round $round of $rounds: every process killed, every process drained"
  tests/e2e/run.sh test_kill_each.py test_drain.py
done
