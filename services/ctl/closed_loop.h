#pragma once

// Clients of a local gateway that each have one request at a time, for as long as they are let.

#include <absl/status/status.h>

#include <atomic>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "scheduler/cost/colocated.h"
#include "services/runtime/mutex.h"

namespace tandem::ctl {

// The body of one completion: a prompt of token ids that no other request has, and exactly
// `output_tokens` of output, streamed.
std::string CompletionOf(const std::string& model, uint64_t client, uint64_t number,
                         const cost::RequestShape& request);

// What client `client` of `clients` asks for first: between one token and all, so that the clients
// end one after the other and the load is steady from the start.
uint64_t FirstOutput(uint64_t client, uint64_t clients, uint64_t output_tokens);

class ClosedLoop {
 public:
  ClosedLoop(std::string gateway, std::string model, uint64_t clients,
             const cost::RequestShape& request);
  ~ClosedLoop();  // waits for requests in flight: stop the cluster first, or they run to their end
  ClosedLoop(const ClosedLoop&) = delete;
  ClosedLoop& operator=(const ClosedLoop&) = delete;

  uint64_t clients() const { return threads_.size(); }
  // Clients that have seen a token.
  uint64_t begun() const { return begun_; }
  // The first request that failed, and why.
  absl::Status error() const;
  void Stop() { stopping_ = true; }  // no further requests, and no further errors

 private:
  void Run(uint64_t client, uint64_t clients);
  absl::Status Send(const std::string& body, bool& seen);
  void Fail(const absl::Status& status);

  const std::string gateway_, model_;
  const cost::RequestShape request_;
  std::atomic<bool> stopping_ = false;
  std::atomic<uint64_t> begun_ = 0;
  mutable Mutex mutex_;
  absl::Status error_ TANDEM_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_;
};

}  // namespace tandem::ctl
