#pragma once

// The sequences that one device decodes: their KV, the steps of the running batch, the calls to the
// FFN group, the tokens. What happens when is step::DecodeMachine's; this class feeds it and
// carries its word out.

#include <absl/status/status.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "scheduler/step/decode_machine.h"
#include "workers/engine/context.h"
#include "workers/engine/ffn_group.h"
#include "workers/engine/gateway_streams.h"
#include "workers/engine/prefill_engine.h"
#include "workers/engine/sequence_costs.h"

namespace tandem {

// Lives on the device's thread.
class DecodeEngine {
 public:
  // `prefill` computes local prompts; null on a worker without a prefill stage.
  DecodeEngine(EngineContext& context, step::KvBook& book, ActivationConnector& activation);
  void UsePrefill(PrefillEngine* prefill) { prefill_ = prefill; }

  // ---- Doors.
  absl::Status Admit(step::DecodeRequest request);
  void Release(const ReservationId& reservation, const std::vector<SequenceKey>& sequences,
               EndReason reason);
  void SetGroup(uint64_t router_epoch, uint64_t version, std::vector<FfnEndpoint> holders,
                Answer answer);
  KvAckInfo OnKvFrame(const KvRows& frame);
  void OnLocalPrefillDone(const ReservationId& reservation, const PrefillCost& cost);
  void OnLocalPrefillFailed(const ReservationId& reservation, const absl::Status& status);
  void Attach(const GatewayId& gateway, const std::vector<step::ResumePoint>& resume,
              std::shared_ptr<TokenSink> sink);
  void Detach(const GatewayId& gateway, const TokenSink* sink) { gateways_.Detach(gateway, sink); }
  void Acknowledge(const GatewayId& gateway, uint64_t step) {
    gateways_.Acknowledge(gateway, step);
  }
  void Stop(const SequenceKey& sequence, uint32_t position, EndReason reason);
  // Ends everything; the machine and the links are empty afterwards.
  void EndAll(const absl::Status& status);

  // ---- Device.
  bool HasWork() const { return machine_.HasTask(); }
  // Computes one layer of one micro-batch, or its head. Call when HasWork.
  void RunTask();
  Instant NextDeadline() const;
  void OnTime(Instant now);

  // ---- For the report.
  bool waits_for_ffn() const { return machine_.waits_for_ffn(); }
  bool has_group() const { return group_.AnyUp(); }
  bool all_acknowledged() const { return gateways_.AllAcknowledged(); }
  uint32_t sequences() const { return machine_.sequences(); }
  uint32_t waiting() const { return machine_.waiting(); }
  uint64_t abandoned_blocks() const { return machine_.abandoned_blocks(); }
  uint64_t tokens_total() const { return machine_.tokens_total(); }
  uint64_t prompts_total() const { return machine_.prompts_total(); }
  uint64_t prompt_tokens_total() const { return machine_.prompt_tokens_total(); }
  uint64_t tokens_wasted() const { return machine_.tokens_wasted(); }
  // Of live(): changes with every sequence that comes or goes.
  uint64_t live_version() const { return live_version_; }
  std::vector<SequenceKey> live() const { return machine_.live(); }

 private:
  // Rows of one micro-batch. The residual is kept until its call's reply, for the call may have to
  // be sent again.
  struct Slot {
    RowBuffers buffers;
    uint32_t rows = 0;
    step::CallId call;                         // the last one sent
    std::vector<Instant> sent_at;              // by piece
    std::vector<std::vector<float>> partials;  // [rows, hidden] by piece, of a layer cut by columns
  };
  // How a prompt's KV came to its reservation.
  struct Arrival {
    std::optional<Instant> first_frame;
    StageTime prefill;
    double transfer_seconds = 0;
  };

  // ---- decode_compute.cc
  void NoteTime(const step::DecodeTask& task, Duration took);
  // `start`: now, by the line. What is computed goes to the trace.
  absl::Status Compute(const step::AttentionTask& task, Instant start);
  absl::Status Compute(const step::HeadTask& task, Instant start,
                       std::vector<step::SampledToken>& tokens);
  void TraceStep(uint64_t step, Instant start);  // a task of it was computed
  void OnReply(const std::string& holder, F2a& reply);
  void TakeReply(const std::string& holder, Slot& slot, F2a& reply);
  // The FFN output: the partials added in shard order.
  void SumPartials(Slot& slot);
  void NoteCrossing(const step::SendA2f& send);
  void CarryOut(step::SendA2f& send);

  // ---- decode_engine.cc: the machine's effects, until there are none.
  void CarryOut();
  void CarryOut(step::StartLocalPrefill& start);
  void CarryOut(step::ReservationFreed& freed);
  void CarryOut(step::CopyBlocks& copy);
  void CarryOut(step::HolderSuspected& suspected);
  void CarryOut(step::SequencesStarted& started);
  void CarryOut(step::Emit& emit);
  void SendTokens();

  EngineContext& context_;
  step::DecodeMachine machine_;
  FfnGroup group_;
  GatewayStreams gateways_;
  PrefillEngine* prefill_ = nullptr;

  std::pair<uint64_t, uint64_t> group_version_{0,
                                               0};  // (router epoch, version) of the last SetGroup
  std::vector<Slot> slots_;                         // by micro-batch
  uint64_t crossing_logged_ = 0;                    // the step
  Span step_span_;                                  // of the running step; `end`: its last task's
  StepCost step_cost_;
  SequenceCosts costs_;
  std::map<ReservationId, Arrival> arrivals_;           // of prompts that are not complete
  std::map<GatewayId, std::vector<step::Emit>> emits_;  // of the effects being carried out
  std::map<GatewayId, std::map<SequenceKey, SequenceCost>> bills_;
  bool carrying_out_ = false;
  uint64_t live_version_ = 0;
};

}  // namespace tandem
