#pragma once

// The refusal of a call or stream that names another shard epoch than the holder's. It carries the
// current one beside its words, so that whoever answers the peer can say it as a number.

#include <absl/status/status.h>
#include <absl/strings/cord.h>
#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>

#include <cstdint>
#include <optional>
#include <string>

namespace tandem {

inline constexpr char kShardEpochPayload[] = "tandem/shard_epoch";

inline absl::Status StaleShardError(const std::string& worker, uint64_t current, uint64_t asked) {
  absl::Status status = absl::FailedPreconditionError(
      absl::StrCat("STALE_SHARD: FFN worker ", worker, " is at epoch ", current, ", not ", asked));
  status.SetPayload(kShardEpochPayload, absl::Cord(absl::StrCat(current)));
  return status;
}

// The holder's epoch; nothing of another error.
inline std::optional<uint64_t> CurrentShardEpoch(const absl::Status& status) {
  const auto payload = status.GetPayload(kShardEpochPayload);
  uint64_t epoch = 0;
  if (!payload.has_value() || !absl::SimpleAtoi(std::string(*payload), &epoch)) return std::nullopt;
  return epoch;
}

}  // namespace tandem
