// What the cost model says of one sequence on an emulated cluster of deploy/local: the forecast
// that emulated_bench.py holds the running cluster against.
//
//   emulated_plan CLUSTER.yaml FIRST LAST     prints the mean TPOT in seconds, of the tokens whose
//                                             positions are in [FIRST, LAST)

#include <absl/strings/numbers.h>

#include <cstdint>
#include <cstdio>
#include <string>

#include "scheduler/base/status.h"
#include "scheduler/cost/cost_table.h"
#include "scheduler/cost/cycle.h"
#include "services/ctl/cluster.h"
#include "services/ctl/emulation.h"
#include "services/runtime/catalog_files.h"

namespace tandem {
namespace {

struct Plan {
  cost::CostTable attention, ffn;
  bool split = false;  // over a link
};

absl::StatusOr<cost::CostTable> TableOf(const model::Catalog& catalog,
                                        const ctl::WorkerSet& workers) {
  ASSIGN_OR_RETURN(const model::Device device, catalog.FindDevice(workers.flags.at("device")));
  ASSIGN_OR_RETURN(const model::ModelShape shape,
                   catalog.FindModel(workers.flags.at("model-shape")));
  cost::CostOptions options;
  ASSIGN_OR_RETURN(options.precision.weights, model::ParseDtype(workers.flags.at("weights")));
  return cost::CostTable::Create(device, shape, options);
}

absl::StatusOr<Plan> PlanOf(const std::string& file) {
  ASSIGN_OR_RETURN(ctl::ClusterConfig config, ctl::ReadClusterFile(file));
  RETURN_IF_ERROR(ctl::EmulateCluster(config));
  ASSIGN_OR_RETURN(const model::Catalog catalog, LoadCatalog({InstalledCatalog()}));
  const ctl::WorkerSet *attention = nullptr, *ffn = nullptr;
  for (const ctl::WorkerSet& workers : config.workers) {
    if (workers.stages.find("attention") != std::string::npos) attention = &workers;
    if (workers.stages.find("ffn") != std::string::npos) ffn = &workers;
  }
  if (attention == nullptr || ffn == nullptr)
    return absl::InvalidArgumentError(file + ": no pool decodes");
  ASSIGN_OR_RETURN(cost::CostTable attention_table, TableOf(catalog, *attention));
  ASSIGN_OR_RETURN(cost::CostTable ffn_table, TableOf(catalog, *ffn));
  return Plan{std::move(attention_table), std::move(ffn_table), attention != ffn};
}

// A step of one row at `position`.
Duration StepAt(const Plan& plan, uint64_t position) {
  const model::ModelShape& shape = plan.attention.shape();
  const auto rows = cost::AttentionRows::Even(shape, 1, position + 1);
  if (!plan.split) return plan.attention.DecodeStep(rows);
  const cost::LinkSpeed link = plan.attention.link().With(plan.ffn.link());
  Duration step = plan.attention.Embed(1) + plan.attention.Head(1) + plan.attention.StepOverhead(1);
  for (uint64_t layer = 0; layer < shape.layers; layer++) {
    cost::CycleTimes times;
    times.attention = plan.attention.AttentionLayer(layer, rows);
    times.ffn = plan.ffn.FfnLayer({}, layer, 1);
    times.a2f = link.Transfer(cost::A2fBytes(shape, plan.attention.precision(), layer, 1));
    times.f2a = link.Transfer(cost::F2aBytes(shape, plan.attention.precision(), 1));
    step = step + cost::FillTime(times);  // one micro-batch: nothing overlaps
  }
  return step;
}

int Main(int argc, char** argv) {
  uint64_t first = 0, last = 0;
  if (argc != 4 || !absl::SimpleAtoi(argv[2], &first) || !absl::SimpleAtoi(argv[3], &last) ||
      first >= last) {
    std::fprintf(stderr, "usage: emulated_plan CLUSTER.yaml FIRST LAST\n");
    return 2;
  }
  const absl::StatusOr<Plan> plan = PlanOf(argv[1]);
  if (!plan.ok()) {
    std::fprintf(stderr, "emulated_plan: %s\n", plan.status().ToString().c_str());
    return 1;
  }
  double seconds = 0;
  for (uint64_t position = first; position < last; position++)
    seconds += StepAt(*plan, position).seconds();
  std::printf("%.9f\n", seconds / static_cast<double>(last - first));
  return 0;
}

}  // namespace
}  // namespace tandem

int main(int argc, char** argv) { return tandem::Main(argc, argv); }
