#include "scheduler/ledger/break_even.h"

#include <absl/strings/str_format.h>

#include "scheduler/base/check.h"

namespace tandem::ledger {
namespace {

constexpr double kSecondsPerHour = 3600, kMillion = 1e6;

// Empty: the topology's cost can be told but for the specialists'.
std::string WhyUnknown(const SpecialistView& view, double baseline_per_mtok) {
  if (view.pools.empty()) return "there is no specialist pool";
  if (view.device_hours <= 0) return "the specialists have no time in the window";
  if (view.mtok <= 0) return "no token was served in the window";
  if (!view.others.complete()) return "the price of a device beside the specialists is unknown";
  if (!(baseline_per_mtok > 0)) return "the baseline costs nothing";
  return "";
}

}  // namespace

double SpecialistView::PerMtok(double specialist_dollars_per_hour) const {
  TANDEM_CHECK(others.complete() && mtok > 0);
  return (others.known + specialist_dollars_per_hour * device_hours) / mtok;
}

SpecialistView ViewSpecialists(const std::vector<DeviceAccount>& devices,
                               const std::set<std::string>& specialist_pools) {
  SpecialistView view;
  std::set<std::string> pools;
  double busy = 0, dollars = 0;
  bool priced = true;
  TokenCounts tokens;
  for (const DeviceAccount& device : devices) {
    tokens += device.tokens;
    const double hours = device.Seconds() / kSecondsPerHour;
    if (specialist_pools.contains(device.pool)) {
      pools.insert(device.pool);
      view.devices++;
      view.device_hours += hours;
      busy += device.BusySeconds();
      priced = priced && device.price.known();
      dollars += device.price.dollars_per_hour.value * hours;
    } else if (device.price.known()) {
      view.others.known += device.price.dollars_per_hour.value * hours;
    } else {
      view.others.unpriced_seconds += device.Seconds();
    }
  }
  view.pools.assign(pools.begin(), pools.end());
  view.mtok = static_cast<double>(tokens.tokens_in + tokens.tokens_out) / kMillion;
  if (view.device_hours > 0) {
    view.occupancy = busy / (view.device_hours * kSecondsPerHour);
    if (priced) view.dollars_per_hour = dollars / view.device_hours;
  }
  return view;
}

BreakEven BreakEvenPrice(const SpecialistView& view, double baseline_per_mtok) {
  if (std::string why = WhyUnknown(view, baseline_per_mtok); !why.empty())
    return {std::nullopt, std::move(why)};
  const double price = (baseline_per_mtok * view.mtok - view.others.known) / view.device_hours;
  if (price > 0) return {price, ""};
  return {std::nullopt,
          absl::StrFormat("at no price: the other devices alone cost $%.4g per Mtok, the baseline "
                          "$%.4g",
                          view.PerMtok(0), baseline_per_mtok)};
}

BreakEven BreakEvenOccupancy(const SpecialistView& view, double baseline_per_mtok) {
  if (std::string why = WhyUnknown(view, baseline_per_mtok); !why.empty())
    return {std::nullopt, std::move(why)};
  if (!view.dollars_per_hour.has_value())
    return {std::nullopt, "the specialist's price is unknown"};
  if (view.occupancy <= 0) return {std::nullopt, "the specialists were never busy"};
  const double occupancy =
      view.occupancy * view.PerMtok(*view.dollars_per_hour) / baseline_per_mtok;
  if (occupancy <= 1) return {occupancy, ""};
  return {
      std::nullopt,
      absl::StrFormat("at no occupancy: always busy it would still cost %.3g times the baseline",
                      occupancy)};
}

}  // namespace tandem::ledger
