#pragma once

#include <absl/status/statusor.h>

#include <string>

#include "services/runtime/link_security.h"
#include "tandem/v1/admin.pb.h"

namespace tandem::ctl {

// Asks a router's admin port. kUnavailable: nobody answers at `address` (host:port).
absl::StatusOr<v1::StatusReply> AskRouterStatus(const std::string& address,
                                                const LinkSecurity& security, int timeout_seconds);

// What devices did and cost in the last `window_seconds`. kUnavailable: nobody answers, or nothing
// is known of that window.
absl::StatusOr<v1::TcoReply> AskRouterTco(const std::string& address, const LinkSecurity& security,
                                          double window_seconds, int timeout_seconds);

}  // namespace tandem::ctl
