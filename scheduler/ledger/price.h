#pragma once

// What an hour of a device costs, and how well that is known: the catalog's price, or the user's.
//
// A prices file names devices as the catalog does, or pools; each is rented or owned:
//
//   prices:
//     - device: groq3-lpx-rack
//       dollars_per_hour: 180
//     - pool: attention
//       capex_dollars: {value: 450e3, mark: assumed, source: "a reseller's quote"}
//       life_years: 4
//       power_watts: 14.4e3
//       pue: 1.25
//       electricity_dollars_per_kwh: 0.08
//       hosting_dollars_per_hour: 1.5        # optional
//
// A plain number is `stated`, by the file.

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <map>
#include <string>
#include <vector>

#include "scheduler/model/device.h"
#include "scheduler/model/figure.h"

namespace tandem::ledger {

// A figure that a result depends on.
struct Input {
  std::string name;  // "price of groq3-lpx-rack, $/h"
  model::Figure figure;
};

// A result is as well known as the weakest of what went into it: unknown, assumed, stated, fitted,
// measured, in this order. kMeasured for none.
model::Mark Weakest(const std::vector<Input>& inputs);

struct Price {
  model::Figure dollars_per_hour;  // of the whole device
  model::Figure watts;             // likewise; under load
  std::vector<Input> inputs;       // of dollars_per_hour

  bool known() const { return dollars_per_hour.known(); }
};

// A rented device, or one whose price nobody knows. `device` stands in the input's name.
Price RentedPrice(absl::string_view device, model::Figure dollars_per_hour, model::Figure watts);
// By the catalog: of all its chips.
Price CatalogPrice(const model::Device& device);

// What a device of one's own costs by the hour: capex / life + power x PUE x electricity + hosting.
struct OwnedDevice {
  model::Figure capex_dollars, life_years;  // life above 0
  model::Figure power_watts, pue, electricity_dollars_per_kwh;
  model::Figure hosting_dollars_per_hour;  // unknown: none
};
inline constexpr double kHoursPerYear = 8766;  // of 365.25 days
Price OwnedPrice(absl::string_view device, const OwnedDevice& owned);

// "h100-x8" of "emulated/h100-x8": what a worker says that it computes on, as the catalog calls it.
absl::string_view CatalogName(absl::string_view device);

// A prices file's content. Immutable.
class PriceList {
 public:
  // kInvalidArgument names file, line and key: an unknown key, a number that is negative, none or
  // out of range, a life of 0, a device that is both rented and owned, or named twice.
  static absl::StatusOr<PriceList> Read(absl::string_view yaml, absl::string_view where);

  // The price of a worker's device by its pool's entry, else by its device's, else `otherwise`. A
  // power that the file does not have stays.
  Price PriceOf(const std::string& pool, absl::string_view device, Price otherwise) const;

 private:
  std::map<std::string, Price> pools_, devices_;
};

}  // namespace tandem::ledger
