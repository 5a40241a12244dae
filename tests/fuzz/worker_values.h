#pragma once

// What the targets of workers/rpc/convert.h share.

#include "tests/fuzz/fuzz_input.h"
#include "workers/rpc/convert.h"
#include "workers/rpc/limits.h"

namespace tandem::fuzz {

// Whether it was taken; a refusal must be the sender's fault and say so.
template <typename Value>
bool Taken(const absl::StatusOr<Value>& value) {
  if (value.ok()) return true;
  CheckRefusal(value.status());
  TANDEM_CHECK(absl::IsInvalidArgument(value.status()));
  return false;
}

inline void CheckName(const std::string& name) {
  TANDEM_CHECK(!name.empty() && name.size() <= kMaxNameBytes);
}

inline void CheckKey(const SequenceKey& key) {
  TANDEM_CHECK(!key.request.empty() && key.request.value().size() <= kMaxRequestIdBytes);
  TANDEM_CHECK(key.choice < kMaxChoices);
}

}  // namespace tandem::fuzz
