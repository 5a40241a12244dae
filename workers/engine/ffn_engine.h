#pragma once

// Layer calls of attention workers on one device: gathers the rows of calls that step::FfnMachine
// merges, computes them, scatters the replies.

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "scheduler/step/ffn_machine.h"
#include "workers/engine/context.h"

namespace tandem {

// Lives on the device's thread.
class FfnEngine {
 public:
  explicit FfnEngine(EngineContext& context);

  // kFailedPrecondition: another model, shape, numerics class, shard or shard epoch
  // ("STALE_SHARD"); others as FfnMachine::OpenStream's.
  absl::StatusOr<std::pair<step::StreamId, HandoffGrantInfo>> OpenStream(
      const HandoffHello& hello, std::shared_ptr<FfnReplySink> sink);
  // Answered on the stream's sink, once; without a stream it is dropped.
  void Call(step::StreamId stream, A2f call);
  // A sequence lives on the sender, or none does any more.
  void SetLive(step::StreamId stream, bool live);
  void CloseStream(step::StreamId stream);
  // Answers every queued call with `status`.
  void EndAll(const absl::Status& status);

  bool HasWork() const { return machine_.ReadyAt() <= context_.line.Now(); }
  // The oldest call waits for rows that may join it, until then. Never(): none is queued.
  Instant ReadyAt() const { return machine_.ReadyAt(); }
  bool waits_to_merge() const { return machine_.HasWork() && !HasWork(); }
  // Computes one merged call. Call when HasWork.
  void RunTask();

  uint32_t streams() const { return machine_.streams(); }
  uint32_t peers() const {
    return static_cast<uint32_t>(streams_.size() - own_streams_);
  }  // streams of other workers
  uint64_t queued_rows() const { return machine_.queued_rows(); }
  // A sequence lives on some sender, so a call is to come.
  bool starved() const;

 private:
  struct Stream {
    std::shared_ptr<FfnReplySink> sink;
    cost::LinkSpeed link;                               // the sender's, when emulated
    bool own = false;                                   // of the attention stage of this worker
    bool live = false;                                  // a sequence lives on the sender
    uint16_t peer = kNoPeer;                            // the sender, in the trace
    std::map<step::CallId, std::vector<float>> queued;  // rows of calls in the machine
  };

  absl::Status CheckHello(const HandoffHello& hello) const;
  absl::Status CheckCall(const A2f& call) const;
  absl::Status Gather(const step::FfnTask& task);
  void Answer(const step::FfnTask& task, const absl::Status& status, Instant start,
              Duration compute);
  void TraceTask(const step::FfnTask& task, Instant start, Instant end);
  void TraceServed(const step::QueuedCall& call, uint16_t peer);  // answered now

  EngineContext& context_;
  step::FfnMachine machine_;
  std::map<step::StreamId, Stream> streams_;
  size_t own_streams_ = 0;
  uint64_t next_stream_ = 1;
  RowBuffers buffers_;  // residual: the calls' rows; ffn_out: their results
};

}  // namespace tandem
