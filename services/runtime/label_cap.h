#pragma once

// A bound on the values of one metric label: a peer that registers under ever new names must not
// fill the memory of the daemon, nor that of who scrapes it.

#include <cstddef>
#include <set>
#include <string>

namespace tandem {

// What a label says of every value past its bound.
inline constexpr char kOtherLabel[] = "other";

// Not thread-safe.
class LabelCap {
 public:
  explicit LabelCap(size_t max_values) : max_values_(max_values) {}

  // `value` while it is one of the first `max_values` that were asked for, else kOtherLabel.
  std::string Of(const std::string& value) {
    if (values_.contains(value)) return value;
    if (values_.size() >= max_values_) return kOtherLabel;
    values_.insert(value);
    return value;
  }

 private:
  const size_t max_values_;
  std::set<std::string> values_;
};

}  // namespace tandem
