#pragma once

// Where the engine meets the outside: plain values and small interfaces, no socket and no protobuf.
// The loopback connector and workers/rpc implement the far sides.
//
// Direction: a *Link is what the engine holds to send; a *Listener is what it hears from that link;
// a *Door is what the engine offers to streams that others opened; a *Sink is how it answers them.

#include <absl/functional/any_invocable.h>
#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/types/span.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "scheduler/cost/link.h"
#include "scheduler/ledger/ledger.h"
#include "scheduler/step/decode_machine.h"
#include "scheduler/step/ffn_machine.h"
#include "scheduler/step/prefill_machine.h"
#include "scheduler/step/token_outbox.h"
#include "scheduler/view/worker.h"
#include "services/runtime/latency_buckets.h"

namespace tandem {

// ---- A2F/F2A.

// How the sender introduces itself on a hand-off stream.
struct HandoffHello {
  std::string attention_worker;
  std::string model;
  uint32_t hidden = 0;
  uint32_t layers = 0;
  std::string ffn_class;  // empty takes any
  uint64_t shard_epoch = 0;
  uint32_t max_rows = 0;                         // of the sender's largest call
  std::optional<FfnShard> shard = std::nullopt;  // what the holder should hold; unset takes any
  cost::LinkSpeed link{};                        // the sender's, when emulated; zeros: real
};

struct HandoffGrantInfo {
  uint64_t credit_bytes = 0;
  uint32_t max_rows = 0;
  uint64_t shard_epoch = 0;
  cost::LinkSpeed link{};  // the holder's, when emulated; zeros: real
};

// One A2F call; `data` is [rows, hidden] F32.
struct A2f {
  step::CallId call;
  uint32_t rows = 0;
  uint64_t shard_epoch = 0;
  std::vector<float> data;
  Instant arrives_at{};  // over an emulated link, in the machine's clock; Instant(): when it comes
};

// Its F2A reply; `data` is [rows, hidden] F32, empty with an error.
struct F2a {
  step::CallId call;
  std::vector<float> data;
  Duration queue_time, compute_time;  // of the device's time
  uint32_t merged_rows = 0;
  bool shared = false;   // computed with another attention worker's rows, or behind them
  Instant arrives_at{};  // as A2f's; when it came, once it is there
  absl::Status
      status;  // kFailedPrecondition "STALE_SHARD ...", kInvalidArgument, kResourceExhausted
};

// Calls may come from any thread; after Broken none follows.
class FfnLinkListener {
 public:
  virtual ~FfnLinkListener() = default;
  virtual void OnGrant(const HandoffGrantInfo& grant) = 0;
  virtual void OnReply(F2a reply) = 0;
  virtual void OnBroken(
      const absl::Status& status) = 0;  // refused, lost, or no reply within the stall time
};

// One attention worker's stream to one FFN holder. Destroying it closes the stream; no listener
// call follows.
class FfnLink {
 public:
  virtual ~FfnLink() = default;
  virtual void Send(A2f call) = 0;  // never blocks: the caller holds credit for the reply
  // Whether a sequence lives on the sender: for the holder's account. After the grant.
  virtual void SetLive(bool /*live*/, Instant /*arrives_at*/) {}
};

struct FfnEndpoint {
  WorkerId worker;
  std::string address;
  uint64_t shard_epoch = 0;
  FfnShard shard{};
};

class ActivationConnector {
 public:
  virtual ~ActivationConnector() = default;
  virtual std::unique_ptr<FfnLink> Open(const FfnEndpoint& holder, const HandoffHello& hello,
                                        std::shared_ptr<FfnLinkListener> listener) = 0;
};

// How the FFN engine answers one stream. Room for the reply was reserved by the call's credit, so
// it never blocks.
class FfnReplySink {
 public:
  virtual ~FfnReplySink() = default;
  virtual void Reply(F2a reply) = 0;
  // The engine stops: the last call. A transport whose server ends its streams anyway needs nothing
  // more.
  virtual void Close(const absl::Status& /*status*/) {}
};

// The FFN engine's door; safe from any thread, never blocks on compute.
class FfnDoor {
 public:
  virtual ~FfnDoor() = default;
  using Opened =
      absl::AnyInvocable<void(absl::StatusOr<std::pair<step::StreamId, HandoffGrantInfo>>)>;
  // `opened` is called once, from the device's thread. The stream is known by the id that it gives.
  virtual void OpenStream(const HandoffHello& hello, std::shared_ptr<FfnReplySink> sink,
                          Opened opened) = 0;
  virtual void Call(step::StreamId stream, A2f call) = 0;
  virtual void SetLive(step::StreamId /*stream*/, bool /*live*/, Instant /*arrives_at*/) {}
  virtual void CloseStream(step::StreamId stream) = 0;
};

// ---- KV transfer.

struct KvRows {
  ReservationId reservation;
  uint32_t attempt = 0;
  uint32_t layer = 0;
  uint32_t first_position = 0;
  uint32_t count = 0;
  std::vector<uint8_t> rows;  // K [count, kv_heads, head_dim], then V
  bool cancel = false;
  double prefill_seconds = 0;  // with the last frame: what the prefill cost its device
  uint32_t prefill_calls = 0;
  std::string prefill_worker;  // with the last frame
  Instant arrives_at{};        // as A2f's
};

struct KvAckInfo {
  ReservationId reservation;
  uint32_t attempt = 0;
  uint32_t layer = 0;
  uint32_t positions = 0;  // rows 0 to positions-1 are there
  absl::Status status;     // kNotFound: no such reservation
  Instant arrives_at{};    // as A2f's
};

class KvLinkListener {
 public:
  virtual ~KvLinkListener() = default;
  virtual void OnAck(const KvAckInfo& ack) = 0;
  virtual void OnBroken(const absl::Status& status) = 0;
};

// One prefill worker's stream to one attention worker, carrying many transfers.
class KvLink {
 public:
  virtual ~KvLink() = default;
  virtual void Push(KvRows frame) = 0;
};

class KvConnector {
 public:
  virtual ~KvConnector() = default;
  virtual std::unique_ptr<KvLink> Open(const WorkerId& attention_worker, const std::string& address,
                                       std::shared_ptr<KvLinkListener> listener) = 0;
};

// The attention engine's door for KV frames; safe from any thread. `ack` is called once, from the
// device's thread.
class KvDoor {
 public:
  virtual ~KvDoor() = default;
  virtual void OnKvFrame(KvRows frame, absl::AnyInvocable<void(KvAckInfo)> ack) = 0;
};

// ---- Tokens.

struct StageTime {
  Stage stage = Stage::kAttention;
  std::string worker;
  double seconds = 0;
  uint32_t calls = 0;
};

// What one sequence cost; sent with its end.
struct SequenceCost {
  std::vector<StageTime> times;
  double kv_transfer_seconds = 0;
};

// One gateway's stream: messages in order. `costs` is parallel to message.emits; empty but for
// ends.
class TokenSink {
 public:
  virtual ~TokenSink() = default;
  virtual void Send(const step::OutboxMessage& message, const std::vector<SequenceCost>& costs) = 0;
  // The last call. kAborted: a newer stream replaces it; kResourceExhausted: too many gateways;
  // kUnavailable: the worker stops, and what was sent is still delivered, or (IsGatewayOverloaded)
  // the gateway fell behind, and its sequences here have ended for good.
  virtual void Close(const absl::Status& status) = 0;
};

// The attention engine's door for gateways; safe from any thread.
class TokenDoor {
 public:
  virtual ~TokenDoor() = default;
  // A sequence of `resume` that the worker does not hold (it was started anew, or the lease ran
  // out) is told as superseded: it is lost here, and the gateway asks for it again.
  virtual void Attach(const GatewayId& gateway, std::vector<step::ResumePoint> resume,
                      std::shared_ptr<TokenSink> sink) = 0;
  // The stream of `sink` broke; ignored when a newer one has replaced it.
  virtual void Detach(const GatewayId& gateway, const TokenSink* sink) = 0;
  virtual void Acknowledge(const GatewayId& gateway, uint64_t step) = 0;
  virtual void Stop(const SequenceKey& sequence, uint32_t position, EndReason reason) = 0;
};

// ---- Commands of the router, and what it is told.

struct PrefillOrder {
  step::PrefillJob job;
  WorkerId attention_worker;
  std::string attention_address;
};

using Answer = absl::AnyInvocable<void(absl::Status)>;  // called once, from the device's thread

class CommandDoor {
 public:
  virtual ~CommandDoor() = default;
  virtual void Decode(step::DecodeRequest request, Answer answer) = 0;
  virtual void Prefill(PrefillOrder order, Answer answer) = 0;
  virtual void Release(const ReservationId& reservation, const std::vector<SequenceKey>& sequences,
                       EndReason reason, Answer answer) = 0;
  // kFailedPrecondition: (router_epoch, version) is lower than one seen before.
  virtual void SetGroup(uint64_t router_epoch, uint64_t version, std::vector<FfnEndpoint> holders,
                        Answer answer) = 0;
  virtual void Drain(
      Answer answer) = 0;  // no new work from now on; answered when all that was in hand has ended
};

// What happens on a worker that its routers want to know; called from the device's thread.
class WorkerListener {
 public:
  virtual ~WorkerListener() = default;
  virtual void OnPrefilled(const SequenceKey& sequence) = 0;
  virtual void OnEnded(const SequenceKey& sequence, const SequenceEnd& end) = 0;
  virtual void OnShardLost(const WorkerId& ffn_worker, uint64_t shard_epoch,
                           const std::string& message) = 0;
};

// Since the engine started.
struct EngineCounters {
  uint64_t tokens_wasted = 0;      // computed after a Stop
  uint64_t kv_frames_dropped = 0;  // of unknown (reservation, attempt), or out of range
  uint64_t replies_dropped = 0;    // F2A that matched nothing awaited
  uint64_t calls_resent = 0;       // layer calls sent again after a holder's loss
  uint64_t holders_lost = 0;
  uint64_t class_crossings = 0;   // layer calls computed in another cut of the FFN than before
  uint64_t steps = 0;             // decode steps computed
  uint64_t ffn_calls = 0;         // layer calls computed as an FFN worker
  uint64_t ffn_merged_calls = 0;  // of those, computed together with another
  RequestLatencies prefills;      // of a prompt, first chunk to last; of the device's time
  TokenLatencies token_gaps;      // between two tokens of one sequence; of the device's time
};

// For heartbeats, metrics and readiness; a copy.
struct WorkerReport {
  WorkerLoad load;
  EngineCounters counters;
  uint32_t running = 0;           // sequences that decode, and prompts that compute for others
  uint32_t waiting = 0;           // sequences and prompts in hand that do neither yet
  uint32_t kv_blocks_leaked = 0;  // taken, when last neither sequence nor prompt was in hand
  uint32_t ffn_streams = 0;       // FFN: open streams of attention workers
  uint64_t ffn_rows_queued = 0;
  std::vector<SequenceKey> live;
  ledger::LedgerSnapshot ledger;  // cumulative seconds by (stage, state, cause); sums to elapsed
  bool has_group = true;          // attention: some FFN holder's stream is open
};

}  // namespace tandem
