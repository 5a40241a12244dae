#pragma once

#include <absl/status/statusor.h>

#include <string>

#include "tandem/v1/admin.pb.h"

namespace tandem::ctl {

// Asks a router's admin port. kUnavailable: nobody answers at `address` (host:port).
absl::StatusOr<v1::StatusReply> AskRouterStatus(const std::string& address, int timeout_seconds);

}  // namespace tandem::ctl
