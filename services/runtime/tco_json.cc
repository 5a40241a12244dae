#include "services/runtime/tco_json.h"

#include <boost/json.hpp>

#include <optional>
#include <string>

namespace tandem {
namespace {

namespace json = boost::json;
using ledger::Cause;
using ledger::LedgerState;

json::value OrNull(const std::optional<double>& value) {
  return value.has_value() ? json::value(*value) : json::value(nullptr);
}

// Null where some second has no price; what is known of it stands beside.
json::value DollarsJson(const ledger::Dollars& dollars) {
  return {{"dollars", dollars.complete() ? json::value(dollars.known) : json::value(nullptr)},
          {"known_dollars", dollars.known},
          {"unpriced_seconds", dollars.unpriced_seconds}};
}

const char* MemoryClassName(MemoryClass memory_class) {
  return memory_class == MemoryClass::kSram ? "sram" : "hbm";
}

json::value WorkerJson(const ledger::DeviceAccount& device) {
  json::array cells;
  for (const ledger::LedgerCell& cell : device.cells) {
    cells.push_back({{"stage", ledger::ToString(cell.stage)},
                     {"state", ledger::ToString(cell.state)},
                     {"cause", cell.cause == Cause::kNone ? "" : ledger::ToString(cell.cause)},
                     {"seconds", cell.time.seconds()}});
  }
  return {{"worker", device.worker},
          {"pool", device.pool},
          {"device", device.device},
          {"memory_class", MemoryClassName(device.memory_class)},
          {"time_scale", device.time_scale},
          {"lost", device.lost},
          {"wall_seconds", device.wall.seconds()},
          {"elapsed_seconds", device.elapsed.seconds()},
          {"ledger", std::move(cells)},
          {"prompts", device.tokens.prompts},
          {"tokens_in", device.tokens.tokens_in},
          {"tokens_out", device.tokens.tokens_out},
          {"dollars_per_hour", ToJson(device.price.dollars_per_hour)},
          {"watts", ToJson(device.price.watts)}};
}

json::value RowJson(const ledger::CostRow& row) {
  json::object stall, idle, dollars;
  for (int c = 1; c < ledger::kCauses; c++) {
    const auto cause = static_cast<Cause>(c);
    json::object& of = ledger::StateOf(cause) == LedgerState::kStall ? stall : idle;
    of[ledger::ToString(cause)] = row.seconds[static_cast<size_t>(c)];
  }
  for (int state = 0; state < ledger::kStates; state++)
    dollars[ledger::ToString(static_cast<LedgerState>(state))] =
        DollarsJson(row.dollars[static_cast<size_t>(state)]);
  const ledger::Dollars all = row.AllDollars();
  dollars["all"] = DollarsJson(all);
  return {{"pool", row.pool},
          {"stage", row.stage.has_value() ? ledger::ToString(*row.stage) : "unattributed"},
          {"memory_class", MemoryClassName(row.memory_class)},
          {"devices", row.devices},
          {"dollars_per_hour",
           all.complete() ? json::value(row.dollars_per_hour) : json::value(nullptr)},
          {"seconds", row.AllSeconds()},
          {"busy_seconds", row.Seconds(LedgerState::kBusy)},
          {"stall_seconds", std::move(stall)},
          {"idle_seconds", std::move(idle)},
          {"cost", std::move(dollars)}};
}

json::value TotalsJson(const ledger::Tco& tco) {
  json::array unpriced;
  for (const std::string& device : tco.unpriced) unpriced.emplace_back(device);
  return {{"device_seconds", tco.device_seconds},
          {"prompts", tco.tokens.prompts},
          {"tokens_in", tco.tokens.tokens_in},
          {"tokens_out", tco.tokens.tokens_out},
          {"dollars_per_hour",
           tco.unpriced.empty() ? json::value(tco.dollars_per_hour()) : json::value(nullptr)},
          {"input", DollarsJson(tco.input)},
          {"output", DollarsJson(tco.output)},
          {"unattributed", DollarsJson(tco.unattributed)},
          {"total", DollarsJson(tco.total())},
          {"idle", DollarsJson(tco.idle)},
          {"stall", DollarsJson(tco.stall)},
          {"dollars_per_mtok_in", OrNull(tco.per_mtok_in())},
          {"dollars_per_mtok_out", OrNull(tco.per_mtok_out())},
          {"dollars_per_mtok_total", OrNull(tco.per_mtok_total())},
          {"joules_per_token", OrNull(tco.joules_per_token())},
          {"unpriced_devices", std::move(unpriced)},
          {"mark", std::string(model::MarkName(tco.mark))}};
}

}  // namespace

json::value ToJson(const model::Figure& figure) {
  return {{"value", figure.known() ? json::value(figure.value) : json::value(nullptr)},
          {"mark", std::string(model::MarkName(figure.mark))},
          {"source", figure.source}};
}

json::value ToJson(const std::vector<ledger::Input>& inputs) {
  json::array out;
  for (const ledger::Input& input : inputs) {
    json::value figure = ToJson(input.figure);
    figure.as_object()["name"] = input.name;
    out.push_back(std::move(figure));
  }
  return out;
}

EmulatedTime EmulatedTimeOf(const std::vector<ledger::DeviceAccount>& devices) {
  EmulatedTime time;
  for (const ledger::DeviceAccount& device : devices) {
    if (device.time_scale <= 0) continue;
    time.devices++;
    time.device_seconds += device.elapsed.seconds();
    time.wall_seconds += device.wall.seconds();
  }
  return time;
}

json::object TcoJson(const std::vector<ledger::DeviceAccount>& devices, const ledger::Tco& tco) {
  json::array workers, rows;
  for (const ledger::DeviceAccount& device : devices) workers.push_back(WorkerJson(device));
  for (const ledger::CostRow& row : tco.rows) rows.push_back(RowJson(row));
  const EmulatedTime emulated = EmulatedTimeOf(devices);
  json::value time = nullptr;
  if (emulated.devices > 0) {
    time = {{"devices", emulated.devices},
            {"device_seconds", emulated.device_seconds},
            {"wall_seconds", emulated.wall_seconds}};
  }
  return {{"workers", std::move(workers)},
          {"rows", std::move(rows)},
          {"totals", TotalsJson(tco)},
          {"emulated", std::move(time)},
          {"inputs", ToJson(tco.inputs)}};
}

}  // namespace tandem
