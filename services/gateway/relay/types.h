#pragma once

// What passes between the relay, its streams and the connections, as values. The proto twins are in
// router.proto and step_tokens.proto.

#include <absl/status/status.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "scheduler/base/ids.h"
#include "scheduler/base/time.h"
#include "scheduler/view/request.h"
#include "services/gateway/text/choice_text.h"

namespace tandem::gateway {

struct NewToken {
  TokenId id = 0;
  TokenLogprob logprob;  // when asked for
};

// Device seconds of one stage at one worker that one sequence cost.
struct StageSeconds {
  std::string stage, worker;  // "prefill", "attention", "ffn"
  double seconds = 0;
  uint64_t calls = 0;
};

// How a sequence ended, as its attention worker says it.
struct SequenceResult {
  SequenceEnd end;
  std::vector<StageSeconds> times;
  double kv_transfer_seconds = 0;
};

// One sequence's part of a step.
struct SequenceTokens {
  SequenceKey sequence;
  uint32_t position = 0;  // of the first token, over all attempts
  std::vector<NewToken> tokens;
  std::optional<SequenceResult> result;
};

struct TokenBatch {
  uint64_t step = 0;
  std::vector<SequenceTokens> sequences;
};

struct Endpoint {
  WorkerId worker;
  std::string address;  // host:port
};

struct ClusterInfo {
  bool ready = false;
  std::string reason;           // when not ready
  uint32_t context_tokens = 0;  // the longest prompt + max_tokens; 0: not known
  std::vector<Endpoint> attention_workers;
  double time_scale = 0;  // of emulated workers; 0: real time
};

// How full a router's cluster is.
struct ClusterLoad {
  uint32_t queued_requests = 0;
  uint32_t running_sequences = 0;
  uint64_t kv_blocks = 0, kv_blocks_free = 0;  // free: at most all
  uint32_t block_tokens = 0;                   // 0: no attention worker
};

struct PlacedInfo {
  SequenceKey sequence;
  std::string topology, prefill_worker;
  Endpoint attention;
};

// A sequence that ended before any attention worker admitted it.
struct RefusedInfo {
  SequenceKey sequence;
  SequenceEnd end;
  double retry_after_seconds = 0;
};

// What a gateway has of one sequence, after a token stream broke.
struct ResumePoint {
  SequenceKey sequence;
  uint32_t received = 0;
};

// --- what a connection is told
// ------------------------------------------------------------------------------------------

struct Placement {
  std::string topology, prefill_worker, attention_worker;
};

struct ChoiceResult {
  SequenceResult result;  // never kPreempted or kSuperseded: those are the relay's to resume
  double retry_after_seconds = 0;
};

struct ChoiceEvent {
  uint32_t choice = 0;
  std::optional<Placement> placement;  // the latest wins
  std::vector<NewToken> tokens;        // in order, none twice, whatever was lost in between
  std::optional<ChoiceResult> result;  // the choice's last event
};

// Where a request's events go. Called from any thread, under the relay's lock: takes the event into
// memory and returns.
class ChoiceSink {
 public:
  virtual ~ChoiceSink() = default;
  // False: its bound is reached; the relay ends the choice and says nothing more of it.
  virtual bool Deliver(ChoiceEvent event) = 0;
};

// --- streams, as the relay sees them
// ------------------------------------------------------------------------------------

// The stream to one router. Calls come under the relay's lock, never block and never call back.
class RouterLink {
 public:
  virtual ~RouterLink() = default;
  virtual void Generate(const tandem::GenerateSpec& spec) = 0;
  virtual void Abort(const RequestId& request, const std::vector<uint32_t>& choices) = 0;
};

// The token stream to one attention worker; rules as above. It reconnects by itself until it is
// parked.
class WorkerLink {
 public:
  virtual ~WorkerLink() = default;
  virtual void Stop(const SequenceKey& sequence, uint32_t position, EndReason reason) = 0;
  virtual void Acknowledge(uint64_t step) = 0;
  // Dials `address` from now on; ends the stream to another one.
  virtual void Dial(const std::string& address) = 0;
};

class WorkerDialer {
 public:
  virtual ~WorkerDialer() = default;
  // A link that has not dialled yet, alive until Forget. Both are called under the relay's lock.
  virtual WorkerLink* Link(const WorkerId& worker) = 0;
  // The relay is done with that link, which goes; what its stream still says finds nobody.
  virtual void Forget(const WorkerId& worker) = 0;
};

}  // namespace tandem::gateway
