#pragma once

// One worker on virtual time: the production step machines, a device that takes as long as
// scheduler/cost says, and the hash model in its memory.

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "scheduler/control/events.h"
#include "scheduler/policy/device_order.h"
#include "scheduler/sim/world.h"
#include "scheduler/step/decode_machine.h"
#include "scheduler/step/ffn_machine.h"
#include "scheduler/step/kv_book.h"
#include "scheduler/step/prefill_machine.h"
#include "scheduler/step/token_outbox.h"

namespace tandem::sim {

// Rows of one layer's KV on their way.
struct KvFrame {
  ReservationId reservation;
  uint32_t attempt = 0, layer = 0, first_position = 0;
  std::vector<uint64_t> rows;
};
struct F2aReply {
  step::CallId call;
  std::vector<uint64_t> rows;  // a piece's partials, where columns are cut
  Duration queue, compute;
  bool shared = false;
  absl::Status status;  // not OK: refused, no rows
};

class SimWorker {
 public:
  SimWorker(World& world, const WorkerSpec& spec, uint64_t incarnation);
  ~SimWorker();

  void Start();
  void Kill();  // the process is gone: streams break, memory is lost
  void SetSlow(uint32_t percent) { slow_percent_ = percent; }
  bool alive() const { return alive_; }
  bool computing() const { return busy_; }
  const WorkerId& id() const { return id_; }
  // Blocks taken although no sequence and no prompt is held.
  uint64_t leaked_blocks() const;
  std::vector<SequenceKey> live() const {
    return decode_ ? decode_->live() : std::vector<SequenceKey>();
  }
  bool Serves(const WorkerId& ffn) const { return links_.contains(ffn); }
  void BreakTokens();

  // ---- Messages that arrive.
  void OnCommand(const control::Command& command);
  void OnGatewayStream(SimGateway& gateway, const std::shared_ptr<Stream>& stream,
                       const std::vector<step::ResumePoint>& resume);
  void OnTokenAck(const GatewayId& gateway, uint64_t step);
  void OnStop(const SequenceKey& sequence, uint32_t position, EndReason reason);
  void OnGatewayBroken(const GatewayId& gateway, const Stream* stream);
  void OnKvStream(const std::shared_ptr<Stream>& stream) { kv_callers_.push_back(stream); }
  void OnKvFrame(const KvFrame& frame, const std::shared_ptr<Stream>& stream, SimWorker& from);
  void OnKvAck(const ReservationId& reservation, uint32_t layer,
               const absl::StatusOr<uint32_t>& positions);
  void OnHandoffStream(const std::shared_ptr<Stream>& stream, SimWorker& attention);
  void OnGrant(const WorkerId& holder, step::StreamId stream, uint64_t credit_bytes,
               uint32_t max_rows);
  void OnA2f(step::StreamId stream, const step::CallId& call, std::vector<uint64_t> rows);
  void OnCallerBroken(const Stream* stream);
  void OnF2a(const WorkerId& holder, const F2aReply& reply);

 private:
  struct Gateway {
    step::TokenOutbox outbox;
    SimGateway* gateway = nullptr;
    std::shared_ptr<Stream> stream;
    uint64_t pushed = 0;
    std::map<SequenceKey, uint64_t> ends;  // unacknowledged: in which message
  };
  struct Caller {  // FFN: an attention worker's stream; null ends: this worker itself
    SimWorker* worker = nullptr;
    std::shared_ptr<Stream> stream;
  };
  struct Link {  // attention: to a holder
    SimWorker* worker = nullptr;
    std::shared_ptr<Stream> stream;
    step::StreamId id{};  // the holder's number for it
  };
  using Task = std::variant<step::AttentionTask, step::HeadTask, step::PrefillTask, step::FfnTask>;

  // ---- sim_worker.cc: commands, streams, effects
  void DialRouter();
  void Report(control::Event event);
  void Beat();
  void Answer(control::CommandId command, const absl::Status& status);
  absl::Status OnDecode(const control::SendDecode& decode);
  absl::Status OnPrefill(const control::SendPrefill& prefill);
  void OnRelease(const control::SendRelease& release);
  void SetGroup(const control::SendSetGroup& group);
  LinkSpec LinkTo(const SimWorker& peer) const;
  void DialHolder(const WorkerId& holder);
  void OnHolderBroken(const WorkerId& holder, const Stream* stream);
  void OnAttentionBroken(const WorkerId& attention, const Stream* stream);
  bool Idle() const;  // holds no sequence, no prompt and no call
  Gateway& Expect(const GatewayId& gateway);
  void Push(const GatewayId& id, std::vector<step::Emit> emits);
  void SendTokens(Gateway& gateway);
  void Settle();  // after every event: effects, then the next task
  void ArmAlarm();
  void OnAlarm();
  bool TakeEffects();
  void On(const step::DecodeEffect& effect);
  void On(const step::PrefillEffect& effect);
  void PushRows(const step::PushKv& push);
  void SendCall(const step::SendA2f& send);
  void ExitIfDrained();

  // ---- sim_device.cc: what the device computes, and its books
  bool StartTask();
  // Of the task that starts now, beside what others of its host compute.
  Duration TimeOf(const Task& task) const;
  void Finish(const Task& task);
  void Compute(const step::AttentionTask& task);
  void Compute(const step::HeadTask& task);
  void Compute(const step::PrefillTask& task);
  void Compute(const step::FfnTask& task);
  uint64_t RunAttention(uint64_t row, const step::KvRow& kv_row, uint32_t layer);
  uint64_t& KvAt(const step::BlockTable& blocks, uint32_t position, uint32_t layer);
  void BookIdle();
  void BookReply(const WorkerId& holder, const F2aReply& reply);
  void TakeRows(const step::TakenReply& taken, const F2aReply& reply);

  World& world_;
  const WorkerSpec spec_;
  const WorkerId id_;
  const uint64_t incarnation_;
  const LinkSpec link_;  // this end's
  bool alive_ = true, draining_ = false, settling_ = false;
  uint32_t slow_percent_ = 100;
  Instant armed_ = Instant::Never();
  std::shared_ptr<Stream> router_;

  step::KvBook book_;
  std::vector<std::vector<uint64_t>> kv_;  // [layers][blocks * block_tokens]
  std::unique_ptr<step::DecodeMachine> decode_;
  std::unique_ptr<step::PrefillMachine> prefill_;
  std::unique_ptr<step::FfnMachine> ffn_;

  // Device.
  bool busy_ = false;
  Duration task_time_;  // of the last task
  policy::DeviceTurn turn_;
  std::optional<ledger::Ledger> ledger_;
  ledger::LedgerState book_state_ = ledger::LedgerState::kIdle;

  // Attention.
  std::map<GatewayId, Gateway> gateways_;
  std::map<GatewayId, std::vector<step::Emit>> emits_;  // of this event
  std::map<std::pair<uint64_t, uint32_t>, std::vector<uint64_t>>
      rows_;  // residual stream by (step, micro-batch)
  std::map<WorkerId, Link> links_;
  std::vector<WorkerId> group_;
  std::map<std::pair<WorkerId, step::CallId>, Instant> sent_;
  std::map<std::pair<uint64_t, uint32_t>, std::vector<std::vector<uint64_t>>>
      partials_;  // by (step, micro-batch), then piece
  std::vector<std::weak_ptr<Stream>> kv_callers_;

  // Prefill.
  struct PrefillTarget {
    WorkerId attention;
    bool local = false;
  };
  std::map<ReservationId, PrefillTarget> targets_;
  std::map<ReservationId, std::vector<uint64_t>> chunk_;  // rows of the running chunk
  std::map<WorkerId, std::shared_ptr<Stream>> kv_streams_;

  // FFN.
  std::map<step::StreamId, Caller> callers_;
  std::map<std::pair<step::StreamId, step::CallId>, std::vector<uint64_t>> calls_;
  uint64_t next_stream_ = 1;
};

}  // namespace tandem::sim
