#pragma once

// Rows queued on one FFN worker, from many attention workers: which calls are computed together,
// and when.

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "scheduler/base/time.h"
#include "scheduler/step/types.h"

namespace tandem::step {

struct FfnConfig {
  uint32_t layers = 0;
  uint32_t max_rows = 256;                 // of one call, and of one merged compute
  uint64_t max_queued_bytes = 256u << 20;  // of A2F rows over all streams, granted or queued; past
                                           // it a stream or call is refused
  uint32_t max_queued_calls = 4096;        // over all streams: calls of zero rows hold no bytes
  uint64_t hidden_bytes = 0;               // bytes of one row
  FfnShard shard{};                        // what is held; calls of other layers are refused
  Duration max_merge_wait;                 // policy::MergeUntil; zero: no call ever waits
};

enum class StreamId : uint64_t {};  // one attention worker's stream, as the shell numbers it

struct QueuedCall {
  StreamId stream{};
  CallId call;
  uint32_t rows = 0;
  Instant arrival;
  bool behind_others = false;  // filled by the machine: it came behind another stream's calls
};

// Calls of one layer whose rows are computed as one batch, in this order.
struct FfnTask {
  uint32_t layer = 0;
  uint32_t rows = 0;
  std::vector<QueuedCall> calls;
  // The call was computed with another stream's, or came behind them.
  bool Shared(const QueuedCall& call) const;
};

// Oldest arrival first; calls of the same layer join it up to max_rows. Zero-row calls are answered
// with the task that they join, or alone. The oldest may wait a little for rows that are expected
// to join it (policy/merge_wait.h): the wait is a part of its queue time. Not thread-safe; lives on
// the device's thread.
class FfnMachine {
 public:
  explicit FfnMachine(const FfnConfig& config);

  // The reply credit of a new stream, bytes: two of its largest calls, of min(max_rows,
  // config.max_rows) rows each. kInvalidArgument: max_rows is 0; kAlreadyExists; kResourceExhausted
  // when that cannot be granted beside the others'.
  absl::StatusOr<uint64_t> OpenStream(StreamId stream, uint32_t max_rows);
  // kNotFound: no such stream, or a layer that this shard does not hold; kInvalidArgument: layer or
  // rows out of range; kResourceExhausted:
  // the stream exceeded its credit, or the queue is full.
  absl::Status Enqueue(const QueuedCall& call);
  // The stream's end: its queued calls are dropped; those being computed are dropped by the shell.
  void CloseStream(StreamId stream);

  std::optional<FfnTask> NextTask(Instant now);
  bool HasWork() const { return !queue_.empty(); }
  // From when NextTask has one, unless a call comes before: ask again then. Never(): no call is
  // queued.
  Instant ReadyAt() const;
  // Gives the credit of each call back; the shell replies.
  void OnTaskDone(const FfnTask& task, Instant now);

  uint32_t streams() const { return static_cast<uint32_t>(credit_.size()); }
  uint64_t queued_rows() const;
  uint64_t granted_bytes() const { return granted_bytes_; }  // over all streams

 private:
  struct Credit {
    uint64_t granted_bytes = 0, outstanding_bytes = 0;
  };
  // What a sender's habits say of its next calls.
  struct Sender {
    Duration gap;  // from an answer to the next call of that micro-batch, mean of weight 1/8
    bool gap_known = false;
    struct Between {
      uint32_t layer = 0;  // of the next call
      Instant since;       // the answer
    };
    std::map<uint32_t, Between> between;  // micro-batches between two layers
  };
  void NoteCall(const QueuedCall& call);
  void NoteAnswer(const QueuedCall& call, Instant now);
  FfnConfig config_;
  std::deque<QueuedCall> queue_;  // arrival order
  std::map<StreamId, Credit> credit_;
  std::map<StreamId, Sender> senders_;
  std::set<StreamId> computing_;  // whose calls the device has
  uint64_t queued_bytes_ = 0, granted_bytes_ = 0;
};

}  // namespace tandem::step
