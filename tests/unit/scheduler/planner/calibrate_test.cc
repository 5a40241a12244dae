#include "scheduler/planner/calibrate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "scheduler/base/random.h"

namespace tandem::planner {
namespace {

using cost::CallKind;
using cost::TimedCall;
using testing::HasSubstr;

// SmolLM2-135M's numbers.
model::ModelShape Shape() {
  model::ModelShape shape;
  shape.name = "small";
  shape.layers = 30;
  shape.hidden = 576;
  shape.vocabulary = 49152;
  shape.context_tokens = 8192;
  shape.heads = 9;
  shape.kv_heads = 3;
  shape.head_dim = 64;
  shape.ffn = 1536;
  return shape;
}

model::Precision Int4() {
  model::Precision precision;
  precision.weights = model::Dtype::kInt4;
  return precision;
}

struct Known {
  double bandwidth_efficiency = 0.6, compute_efficiency = 0.7, exponent = 1, layer_seconds = 40e-6;
  double prefill_compute_efficiency = 0.9, prefill_layer_seconds = 90e-6;
};
constexpr Peaks kPeaks = {10e9, 20e9};

std::vector<TimedCall> Times(const Known& known, const std::vector<uint64_t>& rows,
                             const std::vector<uint64_t>& positions,
                             const std::function<double()>& noise) {
  const auto figure = [](double value) { return model::Figure{value, model::Mark::kFitted, "x"}; };
  model::Chip chip;
  chip.bandwidth_bytes_per_s = figure(kPeaks.bytes_per_s);
  chip.dtypes[model::Dtype::kInt4] = {
      .peak_flops = figure(kPeaks.flops),
      .bandwidth_efficiency = figure(known.bandwidth_efficiency),
      .compute_efficiency = figure(known.compute_efficiency),
      .exponent = figure(known.exponent),
      .layer_seconds = figure(known.layer_seconds),
      .expert_factor = figure(1),
      .prefill_compute_efficiency = figure(known.prefill_compute_efficiency),
      .prefill_layer_seconds = figure(known.prefill_layer_seconds)};
  cost::CostOptions options;
  options.precision = Int4();
  const auto table = cost::CostTable::Create(model::SingleChip(chip), Shape(), options);
  EXPECT_TRUE(table.ok()) << table.status();
  std::vector<TimedCall> calls;
  const auto add = [&](CallKind kind, uint64_t n, uint64_t at) {
    const cost::CallShape shape{kind, n, at};
    calls.push_back({shape, table->TimeOf(PartsOf(*table, shape)).seconds() * noise()});
  };
  for (const uint64_t n : rows) {
    for (const uint64_t at : positions) {
      add(CallKind::kAttention, n, at);
      add(CallKind::kPrefill, n, at);
    }
    add(CallKind::kFfn, n, 0);
    add(CallKind::kHead, n, 0);
  }
  return calls;
}

std::vector<TimedCall> Exact(const Known& known) {
  return Times(known, {1, 4, 16, 64}, {16, 512, 4096}, [] { return 1.0; });
}

absl::StatusOr<Calibration> Fit(const std::vector<TimedCall>& calls) {
  return Calibrate(Shape(), Int4(), kPeaks, calls);
}

class KnownConstants : public testing::TestWithParam<double> {};

// Goal: what the formula made, the fit takes apart again, for every form of the roofline.
TEST_P(KnownConstants, ComeBack) {
  Known known;
  known.exponent = GetParam();
  const auto fit = Fit(Exact(known));
  ASSERT_TRUE(fit.ok()) << fit.status();
  EXPECT_EQ(fit->figures.exponent.value, known.exponent);
  EXPECT_NEAR(fit->figures.bandwidth_efficiency.value, known.bandwidth_efficiency, 0.006);
  EXPECT_NEAR(fit->figures.compute_efficiency.value, known.compute_efficiency, 0.007);
  EXPECT_NEAR(fit->figures.layer_seconds.value, known.layer_seconds, 0.4e-6);
  EXPECT_NEAR(fit->figures.prefill_compute_efficiency.value, known.prefill_compute_efficiency,
              0.009);
  EXPECT_NEAR(fit->figures.prefill_layer_seconds.value, known.prefill_layer_seconds, 1e-6);
  EXPECT_LT(fit->rms_log_error, 0.002);
  ASSERT_EQ(fit->errors.size(), 4u);
  for (const KindError& error : fit->errors) EXPECT_LT(std::abs(error.worst), 0.005);
}
INSTANTIATE_TEST_SUITE_P(Exponents, KnownConstants, testing::Values(1, 2, 4, 0));

TEST(Calibrate, NoiseMovesTheConstantsByLessThanItself) {
  Random random(7);
  const auto fit = Fit(Times({}, {1, 2, 4, 8, 16, 32}, {16, 256, 4096},
                             [&] { return 1 + 0.1 * (2 * random.Uniform() - 1); }));
  ASSERT_TRUE(fit.ok()) << fit.status();
  EXPECT_NEAR(fit->figures.compute_efficiency.value, Known().compute_efficiency, 0.07);
  EXPECT_NEAR(fit->figures.prefill_compute_efficiency.value, Known().prefill_compute_efficiency,
              0.09);
  EXPECT_GT(fit->rms_log_error, 0.02);
  EXPECT_LT(fit->rms_log_error, 0.08);
}

// One kind is quicker than the formula's one rate: the sum of a step stays right.
TEST(Calibrate, AKindThatDoesNotFitLeavesTheStepsSumRight) {
  std::vector<TimedCall> calls = Exact({});
  double measured = 0, forecast = 0;
  for (TimedCall& call : calls) {
    if (call.shape.kind == CallKind::kHead) call.seconds /= 1.5;
  }
  const auto fit = Fit(calls);
  ASSERT_TRUE(fit.ok()) << fit.status();
  double head_bias = 0;
  for (const KindError& error : fit->errors) {
    double seconds = 0;
    for (const TimedCall& call : calls) {
      const bool once = call.shape.kind == CallKind::kHead;
      if (call.shape.kind == error.kind)
        seconds += call.seconds * (once ? 1 : 30) / static_cast<double>(error.calls);
    }
    if (error.kind == CallKind::kPrefill) continue;
    if (error.kind == CallKind::kHead) head_bias = error.bias;
    measured += seconds;
    forecast += seconds * (1 + error.bias);
  }
  EXPECT_GT(head_bias, 0.2);
  EXPECT_NEAR(forecast / measured, 1, 0.05);
}

TEST(Calibrate, AWorkersOwnKindsAreEnough) {
  std::vector<TimedCall> calls = Exact({});
  std::erase_if(calls, [](const TimedCall& call) {
    return call.shape.kind == CallKind::kAttention || call.shape.kind == CallKind::kHead;
  });
  const auto fit = Fit(calls);
  ASSERT_TRUE(fit.ok()) << fit.status();
  EXPECT_EQ(fit->errors.size(), 2u);
}

TEST(Calibrate, RefusesWhatCannotBeFittedWithItsNumbers) {
  const auto refused = [](std::vector<TimedCall> calls, const char* why) {
    const auto fit = Fit(calls);
    EXPECT_EQ(fit.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(fit.status().message()), HasSubstr(why));
  };
  const auto one = [] { return 1.0; };
  refused({}, "0 sizes of prefill chunks");
  refused(Times({}, {8}, {16, 64}, one), "1 sizes of the rows of attention calls");
  refused(Times({}, {1, 8}, {16}, one), "1 sizes of the positions of attention calls");
  std::vector<TimedCall> calls = Exact({});
  std::erase_if(calls, [](const auto& call) { return call.shape.kind != CallKind::kPrefill; });
  refused(calls, "0 sizes of a decode step's calls");
  for (const double seconds : {0.0, -1.0, std::nan(""), HUGE_VAL}) {
    calls = Exact({});
    calls[2].seconds = seconds;
    refused(calls, "which is no time");
  }
  for (const Peaks& peaks : {Peaks{0, 1}, Peaks{1, std::nan("")}}) {
    const auto fit = Calibrate(Shape(), Int4(), peaks, Exact({}));
    EXPECT_THAT(std::string(fit.status().message()), HasSubstr("are none"));
  }
}

TEST(FitLink, LatencyAndRateComeBackThoughOneSizeIsDisturbed) {
  std::vector<RoundTrip> trips;
  for (const uint64_t bytes : {1000, 8000, 16000, 32000, 64000})
    trips.push_back({bytes, 2 * (50e-6 + static_cast<double>(bytes) / 1e9)});
  trips[2].seconds *= 3;
  const auto fit = FitLink(trips);
  ASSERT_TRUE(fit.ok()) << fit.status();
  EXPECT_NEAR(fit->latency_seconds, 50e-6, 1e-6);
  EXPECT_NEAR(fit->bytes_per_s, 1e9, 2e7);
  EXPECT_NEAR(fit->worst, -2.0 / 3, 0.02);
}

TEST(FitLink, ALinkWhoseTimeDoesNotGrowIsAllLatency) {
  const auto fit = FitLink({{1000, 80e-6}, {50000, 70e-6}});
  ASSERT_TRUE(fit.ok()) << fit.status();
  EXPECT_NEAR(fit->latency_seconds, 37.5e-6, 3e-6);
  EXPECT_GT(fit->bytes_per_s, 1e17);
}

TEST(FitLink, RefusesOneSizeAndTimesThatAreNone) {
  EXPECT_THAT(std::string(FitLink({{1000, 1e-4}, {1000, 2e-4}}).status().message()),
              HasSubstr("round trips of 1 sizes"));
  EXPECT_THAT(std::string(FitLink({{1000, 1e-4}, {2000, 0}}).status().message()),
              HasSubstr("2000 bytes took 0 s"));
}

}  // namespace
}  // namespace tandem::planner
