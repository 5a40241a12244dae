#pragma once

// What devices cost over a window of time, by pool and stage, and what a token of it costs.
//
// Rule: prefill busy seconds are input cost, attention and ffn busy seconds output cost. A device's
// stall and idle seconds are split among its stages as its busy seconds are; those of a device
// without busy seconds are nobody's: "unattributed". So each second of each device is in one row.

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "scheduler/ledger/ledger.h"
#include "scheduler/ledger/price.h"
#include "scheduler/view/worker.h"

namespace tandem::ledger {

// What was served in a window, and what a device counts of it since it was started.
struct TokenCounts {
  uint64_t prompts = 0;     // that got their first output token
  uint64_t tokens_in = 0;   // of those prompts, each once
  uint64_t tokens_out = 0;  // emitted

  TokenCounts& operator+=(const TokenCounts& more);
  bool operator==(const TokenCounts&) const = default;
};

// One device over a window.
struct DeviceAccount {
  std::string worker, pool;
  std::string device;  // as it registered: "emulated/h100-x8"
  MemoryClass memory_class = MemoryClass::kHbm;
  std::vector<LedgerCell> cells;  // of the window; they sum to `elapsed`
  Duration elapsed;               // device time
  Duration wall;                  // machine time that `elapsed` covers
  double time_scale = 0;          // machine seconds for one of an emulated device's; 0: real time
  bool lost = false;              // its stream is gone
  TokenCounts tokens;
  Price price;
  std::string model_shape, weights;  // of the catalog, where the device is of it

  double Seconds() const;  // of all cells
  double BusySeconds() const;
};

// Dollars of device seconds, of which some may have no price.
struct Dollars {
  double known = 0;
  double unpriced_seconds = 0;

  bool complete() const { return unpriced_seconds == 0; }
  Dollars& operator+=(const Dollars& more);
};

// A stage of a pool, or what of the pool is nobody's.
struct CostRow {
  std::string pool;
  MemoryClass memory_class = MemoryClass::kHbm;
  std::optional<LedgerStage> stage;          // prefill, attention or ffn; nullopt: unattributed
  uint32_t devices = 0;                      // that have seconds in it
  std::array<double, kCauses> seconds = {};  // device seconds by cause; kNone is busy
  std::array<Dollars, kStates> dollars = {};
  // What its share of its devices costs by the hour; of those with a price.
  double dollars_per_hour = 0;

  double Seconds(LedgerState state) const;
  double AllSeconds() const;
  Dollars AllDollars() const;
};

struct Tco {
  std::vector<CostRow> rows;  // by pool, then stage, unattributed last
  TokenCounts tokens;
  double device_seconds = 0;            // of all devices
  Dollars input, output, unattributed;  // they are the total
  Dollars idle, stall;                  // that much of the total
  std::optional<double> joules;         // of all devices, by their power under load; none: unknown
  std::vector<Input> inputs;            // prices; each once
  std::vector<std::string> unpriced;    // devices whose price nobody knows; each once
  model::Mark mark = model::Mark::kMeasured;  // of every dollar: the weakest of `inputs`

  Dollars total() const;
  double dollars_per_hour() const;  // of devices with a price
  // Dollars per million; nullopt: some device has no price, or there was no such token. Total is
  // all dollars, unattributed ones too, over tokens in and out.
  std::optional<double> per_mtok_in() const;
  std::optional<double> per_mtok_out() const;
  std::optional<double> per_mtok_total() const;
  std::optional<double> joules_per_token() const;  // in and out
};

// `later` less `earlier`, two snapshots of one ledger. A snapshot books an open wait to the state
// that the device is in, and the end of its call to the causes that it had: what a cell has less of
// in `later` is taken from those that gained, of the same state first. So no cell is negative, and
// they sum to the difference of the sums.
LedgerSnapshot Difference(const LedgerSnapshot& later, const LedgerSnapshot& earlier);

// Adds their times to `cells`, which has each cell once.
void AddCells(const std::vector<LedgerCell>& more, std::vector<LedgerCell>& cells);

// Pure; the order of `devices` decides nothing but the last bits of sums.
Tco CostOf(const std::vector<DeviceAccount>& devices);

}  // namespace tandem::ledger
