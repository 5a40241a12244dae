#pragma once

// Numbers with their unit, as people write and read them: "3.35 TB/s".

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <string>

namespace tandem::model {

// Of the value itself: kBytesPerSecond is 1 B/s, kSeconds 1 s, kFlops one operation a second.
enum class Unit {
  kNone,  // a ratio or a count
  kBytes,
  kBytesPerSecond,
  kFlopCount,
  kFlops,
  kSeconds,
  kWatts,
  kDollarsPerHour,
  kDollars
};

// Four digits and the unit that leaves at least one before the point: "3.35 TB/s", "17.3 us",
// "1.978 PFLOPS", "$1.69/h", "0.92".
std::string FormatQuantity(double value, Unit unit);

// A number and one of the unit's names, with or without blanks between: "22TB/s", "44 GB", "80
// GiB", "10us". Dollars an hour also without a unit. kInvalidArgument: "'22' has none of the units
// B/s, kB/s, ...", or no finite number.
absl::StatusOr<double> ParseQuantity(absl::string_view text, Unit unit);

}  // namespace tandem::model
