#include "services/ctl/calibration.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_replace.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <map>
#include <string>

#include "scheduler/model/chip.h"
#include "tests/unit/scheduler/model/shipped_catalog.h"

namespace tandem::ctl {
namespace {

namespace json = boost::json;
using model::Shipped;
using testing::HasSubstr;

// Everything takes so much longer in turns with a neighbour, and beside it.
const std::map<std::string, double> kPatterns = {{"alone", 1}, {"turns", 1.1}, {"contended", 1.25}};

// A machine on which a row takes 100 us of attention, 2 a position, 300 us of FFN, 3 ms of head.
json::array Calls() {
  json::array calls;
  const auto add = [&](const char* kind, int rows, int positions, double seconds) {
    for (const auto& [pattern, factor] : kPatterns) {
      calls.push_back({{"kind", kind},
                       {"rows", rows},
                       {"positions", positions},
                       {"pattern", pattern},
                       {"seconds", seconds * factor},
                       {"spread", factor > 1 ? 0.5 : 0.04}});
    }
  };
  for (const int rows : {1, 4, 16}) {
    for (const int at : {16, 64}) add("attention", rows, at, 1e-6 * rows * (100 + 2 * at));
    add("ffn", rows, 0, 300e-6 * rows);
    add("head", rows, 0, 3e-3 * rows);
    for (const int at : {0, 64}) add("prefill", rows, at, 20e-6 + 420e-6 * rows);
  }
  return calls;
}

json::object Json() {
  json::array handoffs;
  for (const int rows : {1, 4, 16}) {
    for (const char* pattern : {"turns", "contended"})
      handoffs.push_back({{"rows", rows},
                          {"bytes", rows * 2304},
                          {"pattern", pattern},
                          {"seconds", 100e-6 + 4e-6 * rows},
                          {"spread", 0.1}});
  }
  return {{"model",
           {{"file", "/models/small.gguf"},
            {"name", "small"},
            {"layers", 30},
            {"hidden", 576},
            {"kv_heads", 3},
            {"head_dim", 64},
            {"vocabulary", 49152},
            {"attention_bytes", 16657920},
            {"ffn_bytes", 49835520},
            {"head_bytes", 30083328}}},
          {"machine",
           {{"cpu", "A \"CPU\": 2 GHz"},
            {"cores", 2},
            {"memory_bytes", 24e9},
            {"memory_bytes_free", 20e9},
            {"load_before", 0.25},
            {"load_after", 1.5}}},
          {"backend", "ggml-cpu"},
          {"numerics", "n"},
          {"threads", 1},
          {"rounds", 7},
          {"read_bytes_per_s", {{"alone", 11e9}, {"contended", 9e9}}},
          {"calls", Calls()},
          {"handoffs", std::move(handoffs)}};
}

Measurement Read(const json::object& value = Json()) {
  auto read = ReadMeasurement(json::serialize(value), "m.json");
  EXPECT_TRUE(read.ok()) << read.status();
  return read.value_or(Measurement());
}

CalibrationOptions Options() {
  CalibrationOptions options;
  options.date = "2026-11-28";
  return options;
}

absl::StatusOr<CalibrationReport> Make(const CalibrationOptions& options = Options()) {
  return MakeCalibration(Read(), Shipped(), options);
}

TEST(Calibration, WritesAChipForEachRoleAloneAndContended) {
  const auto report = Make();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->model_shape, "smollm2-135m");
  EXPECT_EQ(report->weights, model::Dtype::kInt4);
  std::vector<std::string> names;
  for (const CalibratedChip& chip : report->chips) names.push_back(chip.chip.name);
  EXPECT_THAT(names, testing::ElementsAre("local-cpu", "local-cpu-attention", "local-cpu-ffn",
                                          "local-cpu-contended", "local-cpu-attention-contended",
                                          "local-cpu-ffn-contended"));
}

// Goal: the file is one of the catalog's, and holds what was fitted, marked and dated.
TEST(Calibration, AChipsFileReadsBack) {
  const auto report = Make();
  ASSERT_TRUE(report.ok()) << report.status();
  for (const CalibratedChip& calibrated : report->chips) {
    const std::string yaml = ChipYaml(calibrated.chip);
    const auto chip = model::ReadChip(yaml, "chip.yaml");
    ASSERT_TRUE(chip.ok()) << chip.status() << "\n" << yaml;
    EXPECT_EQ(chip->name, calibrated.chip.name);
    const model::DtypeFigures& figures = chip->dtypes.at(model::Dtype::kInt4);
    const model::DtypeFigures& fitted = calibrated.calibration.figures;
    EXPECT_NEAR(figures.compute_efficiency.value, fitted.compute_efficiency.value, 1e-6);
    EXPECT_EQ(figures.compute_efficiency.mark, model::Mark::kFitted);
    EXPECT_EQ(figures.peak_flops.mark, model::Mark::kMeasured);
    EXPECT_EQ(chip->bandwidth_bytes_per_s.mark, model::Mark::kMeasured);
    EXPECT_EQ(chip->scale_out.latency_seconds.mark, model::Mark::kFitted);
    EXPECT_FALSE(chip->dollars_per_hour.known());
    for (const std::string& text : {std::string("2026-11-28"), std::string("A \"CPU\": 2 GHz"),
                                    std::string("small.gguf"), std::string("residual")})
      EXPECT_THAT(figures.compute_efficiency.source, HasSubstr(text));
  }
  EXPECT_NEAR(report->chips[0].chip.scale_out.latency_seconds.value, 50e-6, 1e-6);
}

TEST(Calibration, AWorkersChipIsAsMuchSlowerAsItsCallsAre) {
  const auto report = Make();
  ASSERT_TRUE(report.ok()) << report.status();
  model::Precision precision;
  precision.weights = report->weights;
  const auto seconds = [&](size_t chip, const cost::CallShape& shape) {
    cost::CostOptions options;
    options.precision = precision;
    const auto table = cost::CostTable::Create(model::SingleChip(report->chips[chip].chip),
                                               *Shipped().FindModel("smollm2-135m"), options);
    EXPECT_TRUE(table.ok()) << table.status();
    return table->TimeOf(PartsOf(*table, shape)).seconds();
  };
  const cost::CallShape ffn{cost::CallKind::kFfn, 16, 0};
  EXPECT_NEAR(seconds(2, ffn), 1.1 * 16 * 300e-6, 0.03 * 16 * 300e-6);  // its own kind, closely
  EXPECT_NEAR(seconds(5, ffn) / seconds(2, ffn), 1.25 / 1.1, 0.03);
}

TEST(Calibration, SaysWhatWasMeasuredAndHowFarTheFitIsOff) {
  const auto report = Make();
  ASSERT_TRUE(report.ok()) << report.status();
  const std::string text = CalibrationText(*report);
  EXPECT_THAT(text, HasSubstr("/models/small.gguf (smollm2-135m, int4) on A \"CPU\": 2 GHz"));
  EXPECT_THAT(text, HasSubstr("load 0.25 to 1.50"));
  EXPECT_THAT(text, HasSubstr("4.0 % apart"));
  EXPECT_THAT(text, testing::ContainsRegex("attention +6 +[0-9.]+ %"));
  EXPECT_THAT(text, HasSubstr("local-cpu-ffn-contended: "));
}

TEST(Calibration, ABusyMachineIsRefusedWithItsSpread) {
  CalibrationOptions options = Options();
  options.max_spread = 0.03;
  const auto busy = Make(options);
  EXPECT_EQ(busy.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(busy.status().message()),
              testing::AllOf(HasSubstr("4.0 % apart"), HasSubstr("at most 3.0 %"),
                             HasSubstr("load of 0.25 to 1.50"), HasSubstr("--max-spread")));
}

TEST(Calibration, AModelThatTheCatalogDoesNotHaveIsNamedByItsDimensions) {
  json::object other = Json();
  other["model"].as_object()["layers"] = 31;
  const auto unknown = MakeCalibration(Read(other), Shipped(), Options());
  EXPECT_THAT(std::string(unknown.status().message()),
              testing::AllOf(HasSubstr("31 layers, hidden 576"), HasSubstr("--model-shape")));
  CalibrationOptions options = Options();
  options.model_shape = "llama-3-8b";
  EXPECT_THAT(std::string(Make(options).status().message()),
              HasSubstr("'llama-3-8b' is not of /models/small.gguf"));
}

TEST(Calibration, AMeasurementThatIsNoneIsRefused) {
  const auto refused = [](const std::string& text) {
    const auto read = ReadMeasurement(text, "m.json");
    EXPECT_EQ(read.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(read.status().message()), testing::StartsWith("m.json: "));
  };
  refused("");
  refused("[]");
  refused("{\"model\": 3}");
  json::object bad = Json();
  bad.erase("handoffs");
  refused(json::serialize(bad));
  bad = Json();
  bad["calls"].as_array()[0].as_object()["kind"] = "sampling";
  refused(json::serialize(bad));
  bad = Json();
  bad["calls"].as_array()[0].as_object()["rows"] = -1;
  refused(json::serialize(bad));
  bad = Json();
  bad["calls"].as_array().clear();
  EXPECT_EQ(MakeCalibration(Read(bad), Shipped(), Options()).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace tandem::ctl
