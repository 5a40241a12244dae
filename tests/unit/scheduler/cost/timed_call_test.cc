#include "scheduler/cost/timed_call.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/unit/scheduler/cost/shapes.h"

namespace tandem::cost {
namespace {

// Goal: a call that was timed is forecast by what the emulated worker is paced by, and no other.
TEST(TimedCall, EachKindIsTheTablesOwnCall) {
  CostOptions options;
  options.precision.weights = model::Dtype::kBf16;
  const auto table = CostTable::Create(UnitDevice(), Llama70B(), options);
  ASSERT_TRUE(table.ok()) << table.status();
  const auto time = [&](CallKind kind, uint64_t rows, uint64_t positions) {
    return table->TimeOf(PartsOf(*table, {kind, rows, positions}));
  };
  EXPECT_EQ(time(CallKind::kAttention, 3, 100),
            table->AttentionLayer(0, AttentionRows::Even(table->shape(), 3, 300)));
  EXPECT_EQ(time(CallKind::kFfn, 3, 0), table->FfnLayer({}, 0, 3));
  EXPECT_EQ(time(CallKind::kHead, 3, 0), table->Head(3));
  EXPECT_EQ(time(CallKind::kPrefill, 8, 100), table->PrefillLayer(0, 100, 8));
}

TEST(TimedCall, FlopsAreThoseOfItsWork) {
  const model::ModelShape shape = Llama70B();
  const model::Precision precision;
  EXPECT_EQ(FlopsOf(shape, precision, {CallKind::kFfn, 5, 0}),
            FfnWork(shape, precision, FfnShard(), 0, 5).flops);
  EXPECT_EQ(FlopsOf(shape, precision, {CallKind::kPrefill, 5, 7}),
            PrefillWork(shape, precision, 0, PrefillRows::Of(shape, 7, 5)).flops);
  EXPECT_EQ(FlopsOf(shape, precision, {CallKind::kHead, 2, 0}),
            2 * FlopsOf(shape, precision, {CallKind::kHead, 1, 0}));
}

TEST(TimedCall, NamesReadBackAndOthersAreRefused) {
  for (const CallKind kind : kAllCallKinds) EXPECT_EQ(*ParseCallKind(CallKindName(kind)), kind);
  EXPECT_THAT(std::string(ParseCallKind("sampling").status().message()),
              testing::HasSubstr("'sampling' is none of attention, ffn, head, prefill"));
}

}  // namespace
}  // namespace tandem::cost
