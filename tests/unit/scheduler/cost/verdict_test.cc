// The rules on cases that are known: facts/chips.md sections 3 and 4e.

#include "scheduler/cost/verdict.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "scheduler/model/what_if.h"
#include "tests/unit/scheduler/cost/shapes.h"
#include "tests/unit/scheduler/model/shipped_catalog.h"

namespace tandem::cost {
namespace {

using model::Shipped;
using testing::HasSubstr;
using testing::StartsWith;

class Verdicts : public testing::Test {
 protected:
  void Compare(const std::vector<std::string>& names, const FitLoad& load,
               const std::vector<std::string>& what_ifs = {},
               const model::ModelShape& shape = Llama70B()) {
    std::vector<model::Device> devices;
    for (const std::string& name : names) devices.push_back(*Shipped().ResolveDevice(name));
    ASSERT_TRUE(model::ApplyWhatIfs(Shipped(), what_ifs, devices).ok());
    fits_.clear();
    for (const model::Device& device : devices)
      fits_.push_back(*FitDevice(device, shape, {*UsualWeights(device.chip)}, load));
    Judge(load, fits_);
  }
  const Verdict& Of(size_t device, Stage stage) const {
    return fits_.at(device).stages.at(static_cast<size_t>(stage)).verdict;
  }
  Grade GradeOf(size_t device, Stage stage) const { return Of(device, stage).grade; }

  std::vector<DeviceFit> fits_;
};

TEST_F(Verdicts, HbmIsStrongAtPrefillAndAtAttention) {
  Compare({"h100"}, {64, 8192, 8192});
  EXPECT_EQ(GradeOf(0, Stage::kPrefill), Grade::kStrong);
  EXPECT_THAT(Of(0, Stage::kPrefill).rule, StartsWith("computing is "));
  EXPECT_EQ(GradeOf(0, Stage::kAttention), Grade::kStrong);
  EXPECT_THAT(Of(0, Stage::kAttention).rule, HasSubstr("of its time; weights and KV fit on 3"));
}

TEST_F(Verdicts, HbmsFfnNeedsRows) {
  Compare({"h100"}, {1, 1024, 1024});
  EXPECT_EQ(GradeOf(0, Stage::kFfn), Grade::kWeak);
  EXPECT_THAT(Of(0, Stage::kFfn).rule,
              StartsWith(absl::StrCat("1 row, far below its ridge of ",
                                      absl::StrFormat("%.3g", fits_[0].ridge.reached), " rows")));
  const auto ridge = static_cast<uint64_t>(fits_[0].ridge.reached);
  Compare({"h100"}, {ridge / 2, 1024, 1024});
  EXPECT_EQ(GradeOf(0, Stage::kFfn), Grade::kMixed);
  Compare({"h100"}, {4 * ridge, 1024, 1024});
  EXPECT_EQ(GradeOf(0, Stage::kFfn), Grade::kStrong);
}

TEST_F(Verdicts, SramIsStrongAtFfnUpToItsRidge) {
  for (const char* chip : {"groq3-lpx", "cs-3", "groq-lpu-v1-x576"}) {
    SCOPED_TRACE(chip);
    Compare({chip}, {1, 1024, 1024});
    EXPECT_EQ(GradeOf(0, Stage::kFfn), Grade::kStrong);
    EXPECT_THAT(Of(0, Stage::kFfn).rule, HasSubstr("within its ridge of "));
    // B* is 4.0, 6.0 and 4.7 at peak: no efficiency can move it past 8.
    Compare({chip}, {8, 1024, 1024});
    EXPECT_EQ(GradeOf(0, Stage::kFfn), Grade::kMixed);
  }
}

TEST_F(Verdicts, SramIsWeakWhereKvGrows) {
  Compare({"groq3-lpx", "cs-3"}, {64, 131072, 131072});
  for (const size_t device : {0, 1}) {
    EXPECT_EQ(GradeOf(device, Stage::kPrefill), Grade::kWeak);
    EXPECT_EQ(GradeOf(device, Stage::kAttention), Grade::kWeak);
  }
  EXPECT_EQ(Of(1, Stage::kAttention).rule,
            "KV of 64 x 131072 tokens (2.749 TB) needs 64 devices, the weights 1");
  EXPECT_EQ(Of(0, Stage::kPrefill).rule,
            "KV of a prompt of 131072 tokens (1.374 TB in 32 copies for 256 chips that share each "
            "layer) needs 12 devices, the weights 1");
  // What fits beside the weights is no reason.
  Compare({"cs-3"}, {4, 1024, 1024});
  EXPECT_NE(GradeOf(0, Stage::kAttention), Grade::kWeak);
}

TEST_F(Verdicts, WeightsOfTooManyDevicesAreWeak) {
  Compare({"cs-3"}, {1, 1024, 1024}, {}, DeepSeekV3());
  EXPECT_EQ(GradeOf(0, Stage::kFfn), Grade::kWeak);
  EXPECT_EQ(Of(0, Stage::kFfn).rule, "the weights alone, 1.315 TB, need 30 devices, more than 16");
}

TEST_F(Verdicts, LinkThatTakesLongerThanTheWorkIsMixed) {
  Compare({"cs-3"}, {64, 1024, 1024});
  EXPECT_EQ(GradeOf(0, Stage::kFfn), Grade::kMixed);
  EXPECT_THAT(Of(0, Stage::kFfn).rule, StartsWith("its link is held for "));
}

TEST_F(Verdicts, BestIsTheCheapestOfThosePriced) {
  Compare({"h100", "h200", "b200", "groq3-lpx"}, {64, 8192, 8192});
  size_t best = 0;
  for (size_t device = 0; device < fits_.size(); device++) {
    const StageFit& fit = fits_[device].stages[static_cast<size_t>(Stage::kPrefill)];
    if (fit.verdict.grade != Grade::kBest) continue;
    best++;
    for (const DeviceFit& other : fits_) {
      const StageFit& compared = other.stages[static_cast<size_t>(Stage::kPrefill)];
      EXPECT_LE(*fit.dollars_per_mtok, compared.dollars_per_mtok.value_or(1e9));
    }
    EXPECT_THAT(fit.verdict.rule, HasSubstr("of the 3 that are not weak and have a price"));
  }
  EXPECT_EQ(best, 1u);
}

TEST_F(Verdicts, NothingIsBestWithoutSomethingToCompare) {
  Compare({"h100", "groq3-lpx", "cs-3"}, {64, 8192, 8192});  // one price
  for (const DeviceFit& fit : fits_) {
    for (const StageFit& stage : fit.stages) EXPECT_NE(stage.verdict.grade, Grade::kBest);
  }
}

TEST_F(Verdicts, WeakIsNeverBestHoweverCheap) {
  Compare({"h100", "h200", "cs-3"}, {64, 131072, 131072}, {"cs-3.price=0"});
  EXPECT_EQ(GradeOf(2, Stage::kAttention), Grade::kWeak);
  Compare({"h100", "groq3-lpx"}, {1, 1024, 1024}, {"groq3-lpu.price=0.001"});
  EXPECT_EQ(GradeOf(0, Stage::kFfn), Grade::kWeak);
  EXPECT_EQ(GradeOf(1, Stage::kFfn), Grade::kStrong);  // alone: the other is weak
}

TEST_F(Verdicts, SramIsBestAtFfnForAPrice) {
  Compare({"h200", "b200", "groq3-lpx"}, {4, 1024, 1024},
          {"groq3-lpu.price=0.01", "hbm.peak.fp8=99TFLOPS"});
  EXPECT_EQ(GradeOf(2, Stage::kFfn), Grade::kBest);
}

// HBM4 at 22 TB/s moves the ridge of an H100 to a sixth of its rows.
TEST_F(Verdicts, WhatIfMovesThem) {
  Compare({"h100"}, {1, 1024, 1024});
  const FitLoad below = {static_cast<uint64_t>(fits_[0].ridge.reached) / 2, 1024, 1024};
  Compare({"h100"}, below);
  EXPECT_EQ(GradeOf(0, Stage::kFfn), Grade::kMixed);
  Compare({"h100"}, below, {"hbm.bandwidth=22TB/s"});
  EXPECT_EQ(GradeOf(0, Stage::kFfn), Grade::kStrong);
}

}  // namespace
}  // namespace tandem::cost
