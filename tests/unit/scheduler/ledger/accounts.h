#pragma once

// Devices, small enough to add up by hand.

#include <string>

#include "scheduler/ledger/tco.h"

namespace tandem::ledger {

inline model::Figure FigureOf(double value, model::Mark mark = model::Mark::kStated) {
  return {value, mark, "a test"};
}

inline LedgerCell Cell(LedgerStage stage, Cause cause, double seconds) {
  return {stage, StateOf(cause), cause, Duration::FromSeconds(seconds)};
}

// A device with these cells; `dollars_per_hour` below 0: its price is unknown.
inline DeviceAccount Account(const std::string& pool, std::vector<LedgerCell> cells,
                             double dollars_per_hour) {
  DeviceAccount account;
  account.worker = pool + "-0";
  account.pool = pool;
  account.device = "emulated/" + pool + "-chip";
  for (const LedgerCell& cell : cells) account.elapsed += cell.time;
  account.wall = account.elapsed;
  account.cells = std::move(cells);
  account.price = RentedPrice(
      pool + "-chip", dollars_per_hour < 0 ? model::Figure() : FigureOf(dollars_per_hour), {});
  return account;
}

}  // namespace tandem::ledger
