#pragma once

// Device accounts over the wire, and the words of a window: the router tells, tandemctl reads.

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include "scheduler/ledger/history.h"
#include "scheduler/ledger/tco.h"
#include "tandem/v1/admin.pb.h"

namespace tandem {

inline constexpr Duration kMaxWindow = Duration::Nanoseconds(
    ledger::kSamplePeriod.nanoseconds() * static_cast<int64_t>(ledger::kMaxSamples));

// "60s", "1.5m", "1h"; a number without a unit is seconds. kInvalidArgument: anything else, or not
// in (0, kMaxWindow].
absl::StatusOr<Duration> ParseWindow(absl::string_view text);
absl::Status CheckWindow(Duration window);

// What a heartbeat says of the device's time. kInvalidArgument: an entry that names no cell of any
// device, more of them than there are cells, seconds that are negative, no number or more than
// ledger::kMaxLedgerTime. Whether it can be true is ledger::DeviceHistory's to say.
absl::StatusOr<ledger::LedgerReport> ToLedgerReport(const v1::Heartbeat& heartbeat);
void ToProto(const ledger::LedgerCell& cell, v1::LedgerEntry* out);

void ToProto(const ledger::DeviceAccount& account, v1::DeviceAccount* out);
// kInvalidArgument names the device and the field.
absl::StatusOr<ledger::DeviceAccount> ToAccount(const v1::DeviceAccount& account);

}  // namespace tandem
