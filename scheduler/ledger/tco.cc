#include "scheduler/ledger/tco.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>
#include <utility>

namespace tandem::ledger {
namespace {

constexpr double kSecondsPerHour = 3600, kMillion = 1e6;
constexpr int kUnattributed = kStages;  // behind the stages

// Where rows are while they are added up; in the order of the report.
using RowKey = std::tuple<std::string, MemoryClass, int>;

// Seconds of one device by cause, and of its busy ones by stage.
struct DeviceSeconds {
  std::array<double, kStages> busy = {};
  std::array<double, kCauses> waits = {};
  double all_busy = 0, all = 0;
};

DeviceSeconds SecondsOf(const DeviceAccount& device) {
  DeviceSeconds seconds;
  for (const LedgerCell& cell : device.cells) {
    const double time = cell.time.seconds();
    seconds.all += time;
    if (cell.state == LedgerState::kBusy) {
      seconds.busy[static_cast<size_t>(cell.stage)] += time;
      seconds.all_busy += time;
    } else {
      seconds.waits[static_cast<size_t>(cell.cause)] += time;
    }
  }
  return seconds;
}

void AddTo(CostRow& row, const Price& price, Cause cause, double seconds) {
  row.seconds[static_cast<size_t>(cause)] += seconds;
  Dollars& dollars = row.dollars[static_cast<size_t>(StateOf(cause))];
  if (price.known()) {
    dollars.known += seconds * price.dollars_per_hour.value / kSecondsPerHour;
  } else {
    dollars.unpriced_seconds += seconds;
  }
}

// `busy` of the device's busy seconds, and `share` of what it waited.
void AddShare(CostRow& row, const DeviceAccount& device, const DeviceSeconds& seconds, double busy,
              double share) {
  row.devices++;
  AddTo(row, device.price, Cause::kNone, busy);
  double all = busy;
  for (int cause = 1; cause < kCauses; cause++) {
    const double wait = seconds.waits[static_cast<size_t>(cause)] * share;
    AddTo(row, device.price, static_cast<Cause>(cause), wait);
    all += wait;
  }
  if (device.price.known() && seconds.all > 0)
    row.dollars_per_hour += device.price.dollars_per_hour.value * all / seconds.all;
}

void AddDevice(const DeviceAccount& device, std::map<RowKey, CostRow>& rows) {
  const DeviceSeconds seconds = SecondsOf(device);
  const auto row = [&](int stage) -> CostRow& {
    CostRow& found = rows[{device.pool, device.memory_class, stage}];
    found.pool = device.pool;
    found.memory_class = device.memory_class;
    if (stage != kUnattributed) found.stage = static_cast<LedgerStage>(stage);
    return found;
  };
  if (seconds.all_busy == 0) return AddShare(row(kUnattributed), device, seconds, 0, 1);
  for (int stage = 0; stage < kStages; stage++) {
    const double busy = seconds.busy[static_cast<size_t>(stage)];
    if (busy > 0) AddShare(row(stage), device, seconds, busy, busy / seconds.all_busy);
  }
}

// Each input once, by its name.
void AddInputs(const Price& price, std::vector<Input>& inputs) {
  for (const Input& input : price.inputs) {
    const bool known = std::any_of(inputs.begin(), inputs.end(), [&](const Input& other) {
      return other.name == input.name && other.figure.value == input.figure.value;
    });
    if (!known) inputs.push_back(input);
  }
}

std::optional<double> PerMillion(const Dollars& dollars, uint64_t tokens) {
  if (!dollars.complete() || tokens == 0) return std::nullopt;
  return dollars.known * kMillion / static_cast<double>(tokens);
}

void Summarize(Tco& tco) {
  for (const CostRow& row : tco.rows) {
    tco.device_seconds += row.AllSeconds();
    tco.idle += row.dollars[static_cast<size_t>(LedgerState::kIdle)];
    tco.stall += row.dollars[static_cast<size_t>(LedgerState::kStall)];
    Dollars& kind = !row.stage.has_value()                ? tco.unattributed
                    : *row.stage == LedgerStage::kPrefill ? tco.input
                                                          : tco.output;
    kind += row.AllDollars();
  }
}

}  // namespace

TokenCounts& TokenCounts::operator+=(const TokenCounts& more) {
  prompts += more.prompts;
  tokens_in += more.tokens_in;
  tokens_out += more.tokens_out;
  return *this;
}

double DeviceAccount::Seconds() const { return SecondsOf(*this).all; }
double DeviceAccount::BusySeconds() const { return SecondsOf(*this).all_busy; }

Dollars& Dollars::operator+=(const Dollars& more) {
  known += more.known;
  unpriced_seconds += more.unpriced_seconds;
  return *this;
}

double CostRow::Seconds(LedgerState state) const {
  double sum = 0;
  for (int cause = 0; cause < kCauses; cause++) {
    if (StateOf(static_cast<Cause>(cause)) == state) sum += seconds[static_cast<size_t>(cause)];
  }
  return sum;
}

double CostRow::AllSeconds() const {
  double sum = 0;
  for (const double part : seconds) sum += part;
  return sum;
}

Dollars CostRow::AllDollars() const {
  Dollars sum;
  for (const Dollars& part : dollars) sum += part;
  return sum;
}

Dollars Tco::total() const {
  Dollars sum = input;
  sum += output;
  sum += unattributed;
  return sum;
}

double Tco::dollars_per_hour() const {
  double sum = 0;
  for (const CostRow& row : rows) sum += row.dollars_per_hour;
  return sum;
}

std::optional<double> Tco::per_mtok_in() const { return PerMillion(input, tokens.tokens_in); }
std::optional<double> Tco::per_mtok_out() const { return PerMillion(output, tokens.tokens_out); }
std::optional<double> Tco::per_mtok_total() const {
  return PerMillion(total(), tokens.tokens_in + tokens.tokens_out);
}

std::optional<double> Tco::joules_per_token() const {
  const uint64_t all = tokens.tokens_in + tokens.tokens_out;
  if (!joules.has_value() || all == 0) return std::nullopt;
  return *joules / static_cast<double>(all);
}

void AddCells(const std::vector<LedgerCell>& more, std::vector<LedgerCell>& cells) {
  for (const LedgerCell& cell : more) {
    const auto found = std::find_if(cells.begin(), cells.end(), [&](const LedgerCell& other) {
      return other.stage == cell.stage && other.cause == cell.cause;
    });
    if (found == cells.end()) {
      cells.push_back(cell);
    } else {
      found->time += cell.time;
    }
  }
}

LedgerSnapshot Difference(const LedgerSnapshot& later, const LedgerSnapshot& earlier) {
  std::map<std::pair<LedgerStage, Cause>, Duration> gained;
  for (const LedgerCell& cell : later.cells) gained[{cell.stage, cell.cause}] += cell.time;
  for (const LedgerCell& cell : earlier.cells) gained[{cell.stage, cell.cause}] -= cell.time;
  for (auto& [from, time] : gained) {
    for (const bool same_state : {true, false}) {
      for (auto& [to, gain] : gained) {
        if (time >= Duration()) break;
        if (gain <= Duration() || (StateOf(to.second) == StateOf(from.second)) != same_state)
          continue;
        const Duration taken = std::min(gain, -time);
        gain -= taken;
        time += taken;
      }
    }
  }
  LedgerSnapshot difference;
  difference.elapsed = later.elapsed - earlier.elapsed;
  for (const auto& [cell, time] : gained) {
    if (time > Duration())
      difference.cells.push_back({cell.first, StateOf(cell.second), cell.second, time});
  }
  return difference;
}

Tco CostOf(const std::vector<DeviceAccount>& devices) {
  Tco tco;
  std::map<RowKey, CostRow> rows;
  std::set<std::string> unpriced;
  double joules = 0;
  bool power_known = true;
  for (const DeviceAccount& device : devices) {
    AddDevice(device, rows);
    tco.tokens += device.tokens;
    AddInputs(device.price, tco.inputs);
    if (!device.price.known()) unpriced.insert(std::string(CatalogName(device.device)));
    power_known = power_known && device.price.watts.known();
    joules += device.price.watts.value * device.Seconds();
  }
  for (auto& [key, row] : rows) tco.rows.push_back(std::move(row));
  tco.unpriced.assign(unpriced.begin(), unpriced.end());
  tco.mark = Weakest(tco.inputs);
  if (power_known) tco.joules = joules;
  Summarize(tco);
  return tco;
}

}  // namespace tandem::ledger
