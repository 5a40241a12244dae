#pragma once

// A whole router in one object: what main starts, and tests too.

#include <absl/status/statusor.h>

#include <memory>
#include <string>

#include "scheduler/base/time.h"
#include "services/router/config.h"

namespace tandem::router {

class RouterDaemon {
 public:
  // Starts every server; `time` outlives the result. Errors name the address that cannot be
  // listened on.
  static absl::StatusOr<std::unique_ptr<RouterDaemon>> Start(const RouterConfig& config,
                                                             TimeSource& time);
  // Ends every stream at once.
  ~RouterDaemon();

  // Refuses new requests and waits for what is queued or in prefill, drain_timeout at most. False:
  // that passed first.
  bool Drain();

  int port() const;  // of `listen`
  int admin_port() const;
  int metrics_port() const;

 private:
  struct Parts;
  explicit RouterDaemon(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace tandem::router
