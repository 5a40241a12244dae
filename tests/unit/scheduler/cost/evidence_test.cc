// Goal: docs/evidence.md says what the catalog and the cost model say. Method: each figure of the
// page that is ours is computed here, and looked for, as it is printed, in its claim's section.

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <absl/strings/str_split.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>
#include <string>

#include "scheduler/cost/cost_table.h"
#include "scheduler/cost/stage_fit.h"
#include "scheduler/cost/verdict.h"
#include "tests/unit/scheduler/model/shipped_catalog.h"

namespace tandem::cost {
namespace {

using model::Dtype;

std::string SourcePath(absl::string_view file) {
  return absl::StrCat(std::getenv("TANDEM_SOURCE_DIR"), "/", file);
}

// The page's sections, by heading.
std::map<std::string, std::string> Sections() {
  std::ifstream file(SourcePath("docs/evidence.md"));
  EXPECT_TRUE(file.is_open());
  std::stringstream text;
  text << file.rdbuf();
  std::map<std::string, std::string> sections;
  const std::vector<std::string> parts = absl::StrSplit(text.str(), "\n## ");
  for (size_t i = 1; i < parts.size(); i++) {
    const std::pair<std::string, std::string> part =
        absl::StrSplit(parts[i], absl::MaxSplits('\n', 1));
    sections.insert(part);
  }
  return sections;
}

class Evidence : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { sections_ = new std::map<std::string, std::string>(Sections()); }

  static model::ModelShape Shape(const char* name) { return *model::Shipped().FindModel(name); }
  static model::Device Device(const char* name) { return *model::Shipped().FindDevice(name); }
  static CostTable Table(const model::Device& device, const char* shape, Dtype weights) {
    CostOptions options;
    options.precision.weights = weights;
    auto table = CostTable::Create(device, Shape(shape), options);
    EXPECT_TRUE(table.ok()) << table.status();
    return *table;
  }
  static CostTable Table(const char* device, const char* shape, Dtype weights) {
    return Table(Device(device), shape, weights);
  }
  // A decode step of one sequence of 512 positions, alone on the device.
  static double StepMs(const CostTable& table) {
    return 1e3 * table.DecodeStep(AttentionRows::Even(table.shape(), 1, 512)).seconds();
  }
  // All layers' FFN calls of one step.
  static double FfnMs(const CostTable& table, uint64_t rows) {
    Duration time;
    for (uint64_t layer = 0; layer < table.shape().layers; layer++)
      time += table.FfnLayer(FfnShard(), layer, rows);
    return 1e3 * time.seconds();
  }

  static void Says(const char* claim, const std::string& figure) {
    const auto section = sections_->find(claim);
    ASSERT_NE(section, sections_->end()) << "docs/evidence.md has no section '" << claim << "'";
    EXPECT_TRUE(absl::StrContains(section->second, figure)) << claim << ": \"" << figure << "\"";
  }

  static const std::map<std::string, std::string>* sections_;
};
const std::map<std::string, std::string>* Evidence::sections_;

// Weights of the whole model over what the device's memory could stream in a step of that time.
std::string BandwidthUsed(const CostTable& table, double step_ms, uint32_t chips) {
  const double bytes =
      static_cast<double>(WeightBytes(table.shape(), table.precision(), Holding::Everything()));
  const double rate = table.device().chip.bandwidth_bytes_per_s.value * chips;
  return absl::StrFormat("%.2f %%", 100 * bytes / rate / (step_ms / 1e3));
}

TEST_F(Evidence, TheBandwidthLadder) {
  const char* claim = "The bandwidth ladder";
  const CostTable cs3 = Table("cs-3", "llama-3-8b", Dtype::kBf16);
  Says(claim, BandwidthUsed(cs3, 1e3 / 1800, 1));
  Says(claim,
       BandwidthUsed(Table("groq-lpu-v1-x576", "llama-2-70b", Dtype::kInt8), 1e3 / 300, 576));
  const CostTable h100 = Table("h100-x8", "llama-3-70b", Dtype::kFp8);
  Says(claim, BandwidthUsed(h100, StepMs(h100), 8));
  model::Device doubled = Device("h100-x8");
  doubled.chip.bandwidth_bytes_per_s.value *= 2;
  Says(claim, absl::StrFormat(
                  "%.0f %%",
                  100 * (1 - StepMs(Table(doubled, "llama-3-70b", Dtype::kFp8)) / StepMs(h100))));
  model::Device wafer = Device("cs-3");
  wafer.chip.bandwidth_bytes_per_s.value *= 2;
  Says(claim,
       absl::StrFormat("%.2f %%",
                       100 * (1 - StepMs(Table(wafer, "llama-3-8b", Dtype::kBf16)) / StepMs(cs3))));
}

TEST_F(Evidence, SixTimesTheBandwidth) {
  const char* claim = "Six times the bandwidth";
  const double lpu = Device("groq3-lpu").chip.bandwidth_bytes_per_s.value;
  const double rubin = Device("vera-rubin").chip.bandwidth_bytes_per_s.value;
  Says(claim, absl::StrFormat("%.1fx", lpu / rubin));
  const CostTable rack = Table("groq3-lpx-rack", "llama-3-70b", Dtype::kFp8);
  const CostTable gpus = Table("vera-rubin-x8", "llama-3-70b", Dtype::kFp8);
  for (const uint64_t rows : {1, 64, 512}) {
    Says(claim, absl::StrFormat("| %d | %.2f | %.2f | %.1f |", rows, FfnMs(gpus, rows),
                                FfnMs(rack, rows), FfnMs(gpus, rows) / FfnMs(rack, rows)));
  }
  Says(claim, absl::StrFormat("%.3f GB", 6e-9 * 8192 * 28672));
}

TEST_F(Evidence, TheFixedFootprint) {
  const char* claim = "FFN weights have a fixed size";
  const model::ModelShape llama = Shape("llama-3-70b");
  uint64_t ffn = 0;
  for (uint64_t layer = 0; layer < llama.layers; layer++) ffn += llama.ffn_parameters(layer);
  Says(claim, absl::StrFormat("%.1f GB", 2e-9 * static_cast<double>(ffn)));
  Says(claim, absl::StrFormat("%.0f %%", 100.0 * static_cast<double>(ffn) /
                                             static_cast<double>(llama.parameters())));
  const model::ModelShape deepseek = Shape("deepseek-v3");
  const uint64_t moe_layer = deepseek.layers - 1;
  model::Precision fp8;
  fp8.weights = Dtype::kFp8;
  for (const uint64_t rows : {1, 8, 64}) {
    Says(claim,
         absl::StrFormat("| %d | %.1f | %.2f |", rows,
                         ExpectedExperts(deepseek.experts, deepseek.experts_per_token, rows),
                         1e-9 * FfnWork(deepseek, fp8, FfnShard(), moe_layer, rows).weight_bytes));
  }
}

TEST_F(Evidence, TheKvCacheGrows) {
  const char* claim = "The KV cache grows";
  const model::ModelShape llama = Shape("llama-3-70b");
  const model::Precision bf16;
  Says(claim, absl::StrFormat("%d bytes", KvBytesPerToken(llama, bf16)));
  const double one = static_cast<double>(KvBytes(llama, bf16, 131072));
  Says(claim, absl::StrFormat("%.2f GB", 1e-9 * one));
  Says(claim, absl::StrFormat("%.2f TB", 64e-12 * one));
  const double chip = Device("groq3-lpx-rack").memory_bytes();
  Says(claim, absl::StrFormat("%.0f racks", std::ceil(64 * one / chip)));
  Says(claim, absl::StrFormat("%.0f CS-3", std::ceil(64 * one / Device("cs-3").memory_bytes())));
  Says(claim, absl::StrFormat("%.0f Vera Rubin",
                              std::ceil(64 * one / Device("vera-rubin").memory_bytes())));
}

TEST_F(Evidence, FortyFourGigabytes) {
  const char* claim = "44 GB on a wafer";
  const model::Precision bf16;
  const model::ModelShape small = Shape("llama-3-8b"), large = Shape("llama-3-70b");
  Says(claim, absl::StrFormat("%.1f GB", 1e-9 * static_cast<double>(WeightBytes(
                                                    small, bf16, Holding::Everything()))));
  Says(claim, absl::StrFormat("%d tokens",
                              KvTokensThatFit(Device("cs-3"), small, bf16, Holding::Everything())));
  Says(claim, absl::StrFormat("%d tokens", KvTokensThatFit(Device("cs-3-x4"), large, bf16,
                                                           Holding::Everything())));
  Holding ffn;
  ffn.ffn = FfnShard();
  Says(claim, absl::StrFormat("%.0f %%", 100 * Device("cs-3").memory_bytes() /
                                             static_cast<double>(WeightBytes(large, bf16, ffn))));
}

TEST_F(Evidence, HotExperts) {
  const char* claim = "Hot experts";
  const double hit = 0.78;  // half of the experts resident: facts/moe-skew.md
  for (const int batch : {1, 4}) {
    Says(claim, absl::StrFormat("%.2f %%", 100 * std::pow(hit, 8 * batch)));
  }
  Says(claim, absl::StrFormat("%.0f of 256", ExpectedExperts(256, 8, 64)));
}

// The table of `tandemctl fit llama-3-70b --chip h100,groq3-lpx,cs-3`, at two loads.
TEST_F(Evidence, WhichStageFitsWhichChip) {
  for (const FitLoad& load : {FitLoad{1, 1024, 1024}, FitLoad{64, 8192, 8192}}) {
    std::vector<DeviceFit> fits;
    for (const char* name : {"h100-sxm", "groq3-lpx-rack", "cs-3"}) {
      const model::Device device = Device(name);
      fits.push_back(*FitDevice(device, Shape("llama-3-70b"), {*UsualWeights(device.chip)}, load));
    }
    Judge(load, fits);
    for (const DeviceFit& fit : fits) {
      std::string line = absl::StrFormat("| %d | %s |", load.batch, fit.device.name);
      for (const StageFit& stage : fit.stages) {
        absl::StrAppendFormat(&line, " %s: %s, on %d |", GradeName(stage.verdict.grade),
                              BoundName(stage.bound), stage.devices);
      }
      Says("Which stage fits which chip", line);
    }
  }
}

TEST_F(Evidence, Hbm4) {
  const char* claim = "HBM4 closes the gap";
  const double h100 = Device("h100-sxm").chip.bandwidth_bytes_per_s.value;
  Says(claim,
       absl::StrFormat("%.1fx", Device("vera-rubin").chip.bandwidth_bytes_per_s.value / h100));
  const double before = StepMs(Table("h100-x8", "llama-3-70b", Dtype::kFp8));
  const double after = StepMs(Table("vera-rubin-x8", "llama-3-70b", Dtype::kFp8));
  Says(claim, absl::StrFormat("%.2f ms", before));
  Says(claim, absl::StrFormat("%.2f ms", after));
  Says(claim, absl::StrFormat("%.1f times", before / after));
}

}  // namespace
}  // namespace tandem::cost
