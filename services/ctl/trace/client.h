#pragma once

#include <absl/status/statusor.h>

#include <functional>
#include <memory>
#include <string>

#include "scheduler/base/time.h"
#include "services/ctl/trace/worker_trace.h"
#include "services/runtime/link_security.h"

namespace tandem::ctl {

inline constexpr double kMaxTraceSeconds = 60;  // what a worker takes

// Watches the worker at `address` for so many seconds of its machine, and returns then; a worker
// that takes 10 s longer is given up. Errors name the worker: kUnavailable: nobody answers;
// kResourceExhausted: it has as many readers as it takes; kInvalidArgument: what it said is no
// trace.
absl::StatusOr<WorkerTrace> ReadTrace(const std::string& worker, const std::string& address,
                                      const LinkSecurity& security, double seconds);

// A trace that lasts until it is stopped, kMaxTraceSeconds at most.
class OpenTrace {
 public:
  // Returns once the worker watches: what its device does from now on is in the trace. Errors: as
  // ReadTrace.
  static absl::StatusOr<std::unique_ptr<OpenTrace>> Open(const std::string& worker,
                                                         const std::string& address,
                                                         const LinkSecurity& security);
  ~OpenTrace();  // gives it up

  // Until what the worker has told is enough. False: not within `limit`, or the trace has ended.
  bool Await(const std::function<bool(const WorkerTrace&)>& enough, Duration limit);
  // Ends the trace and returns what was told until then; once. Without the device's open wait, and
  // `ended_ns` is 0. kInvalidArgument: what the worker said is no trace.
  absl::StatusOr<WorkerTrace> Stop();

 private:
  friend absl::StatusOr<WorkerTrace> ReadTrace(const std::string& worker,
                                               const std::string& address,
                                               const LinkSecurity& security, double seconds);
  struct Call;
  explicit OpenTrace(std::unique_ptr<Call> call);
  std::unique_ptr<Call> call_;
};

}  // namespace tandem::ctl
