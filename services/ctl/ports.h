#pragma once

// Which loopback ports a local cluster listens on.

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <functional>
#include <set>
#include <string>
#include <vector>

namespace tandem::ctl {

// Ports of a cluster, kept from other clusters of this user while its daemons do not listen on them
// yet, or do not because they died: a locked file each, which the kernel lets go of when the last
// process that inherited it has ended. Programs that are not Tandem know nothing of it.
class PortClaims {
 public:
  // `folder` is shared by all that shall not meet; made when it is missing. Without one that can
  // be written nothing is kept.
  explicit PortClaims(std::string folder);
  ~PortClaims();
  PortClaims(const PortClaims&) = delete;
  PortClaims& operator=(const PortClaims&) = delete;

  // False while another process claims it.
  bool Claim(int port);
  // The descriptors that hold them: a process that inherits them claims the same.
  const std::vector<int>& locks() const { return locks_; }

 private:
  const std::string folder_;
  std::vector<int> locks_;
};

// Hands out each port once. A port is probed and not held, so another program can still take it
// before the daemon does; the daemon then fails, says so in its log, and the supervisor tries
// again.
class PortAllotter {
 public:
  // `is_free` tells whether 127.0.0.1:port can be listened on.
  explicit PortAllotter(std::function<bool(int port)> is_free) : is_free_(std::move(is_free)) {}

  // Exactly this port: kFailedPrecondition, naming `what`, when somebody has it.
  absl::StatusOr<int> Take(int port, absl::string_view what);
  // The first free port from `first` on, at most kSearch further: kResourceExhausted when there is
  // none.
  absl::StatusOr<int> TakeFrom(int first, absl::string_view what);

  static constexpr int kSearch = 500;

 private:
  std::function<bool(int)> is_free_;
  std::set<int> taken_;
};

// Asks the kernel, by binding.
bool LoopbackPortIsFree(int port);

}  // namespace tandem::ctl
