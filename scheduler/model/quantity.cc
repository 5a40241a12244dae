#include "scheduler/model/quantity.h"

#include <absl/strings/ascii.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <absl/strings/str_join.h>
#include <absl/types/span.h>

#include <array>
#include <charconv>
#include <cmath>
#include <vector>

#include "scheduler/base/check.h"

namespace tandem::model {
namespace {

struct Scale {
  absl::string_view name;
  double factor;
  bool printed = true;  // else only understood
};

// Each in ascending order.
constexpr std::array<Scale, 1> kNone = {{{"", 1}}};
constexpr std::array<Scale, 10> kBytes = {{{"B", 1},
                                           {"kB", 1e3},
                                           {"KiB", 1024.0, false},
                                           {"MB", 1e6},
                                           {"MiB", 1048576.0, false},
                                           {"GB", 1e9},
                                           {"GiB", 1073741824.0, false},
                                           {"TB", 1e12},
                                           {"TiB", 1099511627776.0, false},
                                           {"PB", 1e15}}};
constexpr std::array<Scale, 6> kBytesPerSecond = {
    {{"B/s", 1}, {"kB/s", 1e3}, {"MB/s", 1e6}, {"GB/s", 1e9}, {"TB/s", 1e12}, {"PB/s", 1e15}}};
constexpr std::array<Scale, 5> kFlopCount = {
    {{"FLOP", 1}, {"MFLOP", 1e6}, {"GFLOP", 1e9}, {"TFLOP", 1e12}, {"PFLOP", 1e15}}};
constexpr std::array<Scale, 4> kFlops = {
    {{"GFLOPS", 1e9}, {"TFLOPS", 1e12}, {"PFLOPS", 1e15}, {"EFLOPS", 1e18}}};
constexpr std::array<Scale, 4> kSeconds = {{{"ns", 1e-9}, {"us", 1e-6}, {"ms", 1e-3}, {"s", 1}}};
constexpr std::array<Scale, 3> kWatts = {{{"W", 1}, {"kW", 1e3}, {"MW", 1e6}}};
constexpr std::array<Scale, 2> kDollarsPerHour = {{{"", 1}, {"$/h", 1}}};
constexpr std::array<Scale, 2> kDollars = {{{"", 1}, {"$", 1}}};

absl::Span<const Scale> ScalesOf(Unit unit) {
  switch (unit) {
    case Unit::kNone:
      return kNone;
    case Unit::kBytes:
      return kBytes;
    case Unit::kBytesPerSecond:
      return kBytesPerSecond;
    case Unit::kFlopCount:
      return kFlopCount;
    case Unit::kFlops:
      return kFlops;
    case Unit::kSeconds:
      return kSeconds;
    case Unit::kWatts:
      return kWatts;
    case Unit::kDollarsPerHour:
      return kDollarsPerHour;
    case Unit::kDollars:
      return kDollars;
  }
  TANDEM_CHECK(false);
}

// "B/s, kB/s, MB/s"
std::string NamesOf(Unit unit) {
  std::vector<absl::string_view> names;
  for (const Scale& scale : ScalesOf(unit)) {
    if (!scale.name.empty()) names.push_back(scale.name);
  }
  return absl::StrJoin(names, ", ");
}

// Four digits, and never an exponent where a reader would have to count zeros.
std::string Digits(double value) {
  if (std::abs(value) >= 1e4 && std::abs(value) < 1e15) return absl::StrFormat("%.0f", value);
  return absl::StrFormat("%.4g", value);
}

}  // namespace

std::string FormatQuantity(double value, Unit unit) {
  if (unit == Unit::kDollarsPerHour) return absl::StrCat("$", Digits(value), "/h");
  if (unit == Unit::kDollars) return absl::StrCat("$", Digits(value));
  const absl::Span<const Scale> scales = ScalesOf(unit);
  const Scale* chosen = &scales.front();
  for (const Scale& scale : scales) {
    if (scale.printed && std::abs(value) >= scale.factor) chosen = &scale;
  }
  // Seconds name zero by their own unit.
  if (value == 0 && unit == Unit::kSeconds) chosen = &scales.back();
  return absl::StrCat(Digits(value / chosen->factor), chosen->name.empty() ? "" : " ",
                      chosen->name);
}

absl::StatusOr<double> ParseQuantity(absl::string_view text, Unit unit) {
  double number = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || !std::isfinite(number))
    return absl::InvalidArgumentError(absl::StrCat("'", text, "' is no finite number"));
  const absl::string_view name =
      absl::StripLeadingAsciiWhitespace(text.substr(static_cast<size_t>(rest - text.data())));
  for (const Scale& scale : ScalesOf(unit)) {
    if (scale.name == name) return number * scale.factor;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("'", text, "' has none of the units ", NamesOf(unit)));
}

}  // namespace tandem::model
