#pragma once

// Strong ids. Ordered containers keyed by them give one order on every machine.

#include <absl/strings/str_cat.h>

#include <compare>
#include <cstdint>
#include <string>
#include <utility>

namespace tandem {

// A string of one meaning: a WorkerId is no GatewayId.
template <typename Tag>
class NamedId {
 public:
  NamedId() = default;
  explicit NamedId(std::string value) : value_(std::move(value)) {}
  const std::string& value() const { return value_; }
  bool empty() const { return value_.empty(); }
  auto operator<=>(const NamedId&) const = default;

 private:
  std::string value_;
};

using WorkerId = NamedId<struct WorkerIdTag>;
using GatewayId = NamedId<struct GatewayIdTag>;
using RequestId = NamedId<struct RequestIdTag>;
using ReservationId =
    NamedId<struct ReservationIdTag>;  // KV reserved on an attention worker for one Decode command

// One stream of tokens being generated.
struct SequenceKey {
  RequestId request;
  uint32_t choice = 0;   // 0 to n-1
  uint32_t attempt = 0;  // a higher attempt ends a lower one
  auto operator<=>(const SequenceKey&) const = default;
};

// "request#choice.attempt", for messages and logs.
inline std::string ToString(const SequenceKey& key) {
  return absl::StrCat(key.request.value(), "#", key.choice, ".", key.attempt);
}

}  // namespace tandem
