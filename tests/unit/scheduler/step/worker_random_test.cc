// Goal: whatever comes in whatever order, every sequence ends once, tokens are contiguous and
// right, credits hold, KV comes back to zero, and nothing gets stuck. Method: the decode, prefill
// and FFN machines in a world of chance, one seed a world; SIM_SEED=n replays one.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "tests/unit/scheduler/step/random_world.h"

namespace tandem::step {
namespace {

constexpr int kEvents = 4000;

RandomWorld::Seen Live(uint64_t seed) {
  SCOPED_TRACE(absl::StrCat("replay with SIM_SEED=", seed));
  RandomWorld world(seed);
  for (int i = 0; i < kEvents; i++) {
    world.Step();
    if (::testing::Test::HasFailure()) return world.seen();
  }
  world.Finish();
  return world.seen();
}

TEST(WorkerMachines, EndEverySequenceOnceWhateverHappens) {
  if (const char* seed = std::getenv("SIM_SEED")) {
    Live(std::strtoull(seed, nullptr, 10));
    return;
  }
  RandomWorld::Seen all;
  for (uint64_t seed = 1; seed <= 200; seed++) {
    const RandomWorld::Seen seen = Live(seed);
    all.admitted += seen.admitted;
    all.tokens += seen.tokens;
    all.preempted += seen.preempted;
    all.superseded += seen.superseded;
    all.stopped += seen.stopped;
    all.failed += seen.failed;
    all.resent += seen.resent;
    all.overlapped_steps += seen.overlapped_steps;
    all.forks += seen.forks;
    all.summed += seen.summed;
    all.crossed += seen.crossed;
    all.abandoned += seen.abandoned;
    if (::testing::Test::HasFailure()) return;
  }
  std::printf(
      "%lu sequences, %lu tokens; ended: %lu preempted, %lu superseded, %lu stopped, %lu failed; "
      "%lu calls sent again, %lu steps overlapped, %lu forks; %lu layers summed, %lu crossings, "
      "%lu replies abandoned\n",
      all.admitted, all.tokens, all.preempted, all.superseded, all.stopped, all.failed, all.resent,
      all.overlapped_steps, all.forks, all.summed, all.crossed, all.abandoned);
  for (const uint64_t count :
       {all.tokens, all.preempted, all.superseded, all.stopped, all.failed, all.resent,
        all.overlapped_steps, all.forks, all.summed, all.crossed, all.abandoned}) {
    EXPECT_GT(count, 20u) << "something never happened: the worlds prove nothing about it";
  }
}

TEST(WorkerMachines, OneSeedGivesOneHistory) {
  const RandomWorld::Seen first = Live(7), second = Live(7);
  EXPECT_EQ(first.tokens, second.tokens);
  EXPECT_EQ(first.resent, second.resent);
  EXPECT_EQ(first.overlapped_steps, second.overlapped_steps);
}

}  // namespace
}  // namespace tandem::step
