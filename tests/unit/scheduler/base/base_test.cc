#include <gtest/gtest.h>

#include <set>

#include "scheduler/base/ids.h"
#include "scheduler/base/random.h"
#include "scheduler/base/time.h"
#include "scheduler/base/transitions.h"

namespace tandem {
namespace {

TEST(Instant, AddingToNeverOrInfinityIsNever) {
  EXPECT_EQ(Instant::Never() + Duration::Seconds(1), Instant::Never());
  EXPECT_EQ(Instant::FromNanoseconds(5) + Duration::Infinite(), Instant::Never());
  EXPECT_EQ((Instant::FromNanoseconds(5) + Duration::Nanoseconds(2)).nanoseconds(), 7);
}

TEST(Random, OneSeedGivesOneSequence) {
  Random a(7), b(7);
  for (int i = 0; i < 100; i++) EXPECT_EQ(a.Next(), b.Next());
  // The first value is part of the contract: event digests of checked-in scenarios depend on it.
  EXPECT_EQ(Random(0).Next(), 0xe220a8397b1dcdafULL);
}

TEST(Random, ChildrenAreIndependentOfDrawsInTheParentsOtherChildren) {
  const Random parent(7);
  Random links = parent.Child("links");
  Random faults = parent.Child("faults");
  const uint64_t first_fault = parent.Child("faults").Next();
  links.Next();
  EXPECT_EQ(faults.Next(), first_fault);
  EXPECT_NE(parent.Child("links").Next(), first_fault);
}

TEST(Random, BelowStaysBelowAndReachesEveryValue) {
  Random random(1);
  std::set<uint64_t> seen;
  for (int i = 0; i < 1000; i++) {
    const uint64_t value = random.Below(7);
    ASSERT_LT(value, 7u);
    seen.insert(value);
  }
  EXPECT_EQ(seen.size(), 7u);
}

TEST(CounterUniform, DependsOnSeedAndPositionAlone) {
  EXPECT_EQ(CounterUniform(1, 2), CounterUniform(1, 2));
  EXPECT_NE(CounterUniform(1, 2), CounterUniform(1, 3));
  EXPECT_NE(CounterUniform(1, 2), CounterUniform(2, 2));
  double sum = 0;
  for (int i = 0; i < 10000; i++) {
    const double u = CounterUniform(42, i);
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum += u;
  }
  EXPECT_NEAR(sum / 10000, 0.5, 0.02);
}

enum class Light { kRed, kGreen };
enum class Press { kButton };
constexpr Transition<Light, Press> kLight[] = {{Light::kRed, Press::kButton, Light::kGreen}};

TEST(Transitions, UnknownEventGivesNothing) {
  EXPECT_EQ(Next(kLight, Light::kRed, Press::kButton), Light::kGreen);
  EXPECT_EQ(Next(kLight, Light::kGreen, Press::kButton), std::nullopt);
}

TEST(SequenceKey, PrintsRequestChoiceAndAttempt) {
  EXPECT_EQ(ToString(SequenceKey{RequestId("r"), 1, 2}), "r#1.2");
}

}  // namespace
}  // namespace tandem
