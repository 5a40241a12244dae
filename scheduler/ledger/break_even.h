#pragma once

// Whether a pool of specialist devices pays: the price, and the occupancy, at which a token costs
// what it costs on the baseline.

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "scheduler/ledger/tco.h"

namespace tandem::ledger {

// A window of a topology, its specialist pools apart from the rest.
struct SpecialistView {
  std::vector<std::string> pools;          // the specialists
  uint32_t devices = 0;                    // in them
  double device_hours = 0;                 // of them, in the window
  double occupancy = 0;                    // busy over elapsed, of them
  std::optional<double> dollars_per_hour;  // of one device, the mean; nullopt: unknown
  // Of all other devices, in the window. Incomplete: some of them has no price, and no break-even
  // is known.
  Dollars others;
  double mtok = 0;  // million tokens, in and out, that the whole topology served in the window

  // Dollars per million tokens at this price of a specialist device, $/h. Needs complete `others`
  // and mtok > 0.
  double PerMtok(double specialist_dollars_per_hour) const;
};

// Pools that no device is of are left out of `pools`.
SpecialistView ViewSpecialists(const std::vector<DeviceAccount>& devices,
                               const std::set<std::string>& specialist_pools);

// Either is there, or a sentence says why it is not.
struct BreakEven {
  std::optional<double> value;
  std::string why_not;
};

// p*, $/h of one specialist device: PerMtok(p*) = baseline. Linear in the price, so p* = (baseline
// x mtok - others) / device_hours. Not positive: at no price.
BreakEven BreakEvenPrice(const SpecialistView& view, double baseline_per_mtok);

// The occupancy of the specialist pools at which the topology costs what the baseline does, at
// their price. Assumed: tokens grow with the specialists' busy time, constant work per token, while
// every pool's cost by the hour stays. So o* = occupancy x PerMtok(price) / baseline. Above 1: at
// no occupancy.
BreakEven BreakEvenOccupancy(const SpecialistView& view, double baseline_per_mtok);

}  // namespace tandem::ledger
