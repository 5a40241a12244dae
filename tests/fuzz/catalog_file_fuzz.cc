// The catalog's files, an operator's own among them: refused with the file's name, or values with
// which every time is a time, and every price a price.
//
// Input: 'c' and a chip, 'd' and a device of the chip below, 'm' and a model, 'p' and prices; any
// other byte and a chip.

#include <absl/strings/match.h>

#include <cmath>

#include "scheduler/cost/cost_table.h"
#include "scheduler/ledger/price.h"
#include "scheduler/model/catalog.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/unit/scheduler/model/catalog_texts.h"

namespace tandem {
namespace {

using cost::AttentionRows;
using cost::CostTable;

constexpr const char* kFile = "fuzzed.yaml";

model::Catalog Small() {
  model::Catalog catalog;
  TANDEM_CHECK(catalog.AddChip(model::kChipText, "chip.yaml").ok());
  TANDEM_CHECK(catalog.AddModel(model::kModelText, "model.yaml").ok());
  return catalog;
}

void CheckFileRefusal(const absl::Status& status) {
  TANDEM_CHECK(absl::StrContains(status.message(), kFile));
  fuzz::CheckRefusal(status);
}

void CheckTime(Duration time) {
  TANDEM_CHECK(time >= Duration() && time.seconds() <= cost::kMaxCallSeconds);
}

void CheckTimes(const CostTable& table) {
  const AttentionRows one = AttentionRows::Even(table.shape(), 1, 1);
  const AttentionRows many = AttentionRows::Even(table.shape(), 4096, 4096ull << 20);
  const uint64_t layers = table.shape().layers;
  for (const uint64_t layer : {uint64_t{0}, layers / 2, layers - 1}) {
    CheckTime(table.AttentionLayer(layer, one));
    CheckTime(table.AttentionLayer(layer, many));
    CheckTime(table.FfnLayer(FfnShard(), layer, 4096));
    CheckTime(table.PrefillLayer(layer, 1 << 20, 1 << 13));
    TANDEM_CHECK(table.AttentionLayer(layer, one) <= table.AttentionLayer(layer, many));
    TANDEM_CHECK(table.FfnLayer(FfnShard(), layer, 1) <= table.FfnLayer(FfnShard(), layer, 4096));
  }
  TANDEM_CHECK(table.DecodeStep(one) <= table.DecodeStep(many));
  TANDEM_CHECK(table.Prefill(0, 1) > Duration() || table.Embed(1) == Duration());
}

void CheckDevice(const model::Device& device, const model::ModelShape& shape) {
  for (const auto& [dtype, figures] : device.chip.dtypes) {
    cost::CostOptions options;
    options.precision.weights = dtype;
    const auto table = CostTable::Create(device, shape, options);
    TANDEM_CHECK(table.ok() == figures.peak_flops.known());
    if (table.ok()) CheckTimes(*table);
    const auto tokens =
        cost::KvTokensThatFit(device, shape, options.precision, cost::Holding::Everything());
    if (tokens == 0) continue;
    TANDEM_CHECK(cost::CheckFits(device, shape,
                                 cost::FootprintOf(device, shape, options.precision,
                                                   cost::Holding::Everything(), tokens))
                     .ok());
  }
}

void CheckModel(const model::ModelShape& shape) {
  TANDEM_CHECK(shape.active_parameters() <= shape.parameters());
  TANDEM_CHECK(shape.kv_elements_growing() <= shape.kv_elements_per_token());
  CheckDevice(*Small().FindDevice("tiny"), shape);
}

// Of pool "p" or device "d", which the corpus prices.
void CheckPrice(const ledger::Price& price) {
  if (!price.known()) return;
  TANDEM_CHECK(price.dollars_per_hour.value >= 0 && std::isfinite(price.dollars_per_hour.value));
  TANDEM_CHECK(price.dollars_per_hour.mark == ledger::Weakest(price.inputs));
}

}  // namespace
}  // namespace tandem

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tandem;
  fuzz::FuzzInput input(data, size);
  model::Catalog catalog = Small();
  switch (input.Byte()) {
    case 'd': {
      const absl::Status added = catalog.AddDevice(input.Rest(), kFile);
      if (!added.ok()) {
        CheckFileRefusal(added);
      } else {
        CheckDevice(*catalog.FindDevice(catalog.DeviceNames().front()),
                    *catalog.FindModel("small"));
      }
      break;
    }
    case 'm': {
      const auto shape = model::ReadModelShape(input.Rest(), kFile);
      shape.ok() ? CheckModel(*shape) : CheckFileRefusal(shape.status());
      break;
    }
    case 'p': {
      const auto prices = ledger::PriceList::Read(input.Rest(), kFile);
      prices.ok() ? CheckPrice(prices->PriceOf("p", "d", {})) : CheckFileRefusal(prices.status());
      break;
    }
    default: {
      const auto chip = model::ReadChip(input.Rest(), kFile);
      chip.ok() ? CheckDevice(model::SingleChip(*chip), *catalog.FindModel("small"))
                : CheckFileRefusal(chip.status());
    }
  }
  return 0;
}
