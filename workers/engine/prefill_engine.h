#pragma once

// Prompts of one device: computes their layers chunk by chunk and pushes the KV to the attention
// worker that owns the reservation, or writes it where it is decoded (local). The order of work is
// step::PrefillMachine's.

#include <absl/status/status.h>

#include <cstdint>
#include <functional>
#include <map>
#include <utility>
#include <vector>

#include "scheduler/step/kv_book.h"
#include "scheduler/step/prefill_machine.h"
#include "workers/engine/context.h"
#include "workers/engine/kv_sender.h"

namespace tandem {

// What a prompt cost its device.
struct PrefillCost {
  double seconds = 0;
  uint32_t calls = 0;
};

// Lives on the device's thread; so do its callbacks.
class PrefillEngine {
 public:
  // The decode engine of the same device hears of local prefills.
  struct LocalCallbacks {
    std::function<void(const ReservationId&, const PrefillCost&)> on_done;
    std::function<void(const ReservationId&, const absl::Status&)> on_failed;
  };
  PrefillEngine(EngineContext& context, step::KvBook& book, KvConnector& connector,
                LocalCallbacks local);

  // For another attention worker. Errors as PrefillMachine::Enqueue's.
  absl::Status Prefill(PrefillOrder order);
  // Into blocks of this device's decode engine. A failure is returned and not called back.
  absl::Status PrefillLocal(step::PrefillJob job);
  void Cancel(const ReservationId& reservation);
  // Cancels the sequence's remote prefill.
  void Cancel(const SequenceKey& sequence);
  void CancelAll(const absl::Status& status);

  bool HasWork() const { return machine_.HasWork(); }
  // Computes one layer of one chunk. Call when HasWork.
  void RunTask();
  uint32_t jobs() const { return machine_.jobs(); }
  uint32_t queued() const { return machine_.queued(); }

 private:
  struct Job {
    SequenceKey sequence;
    WorkerId attention_worker;  // empty: local
    uint32_t rows = 0;          // positions to compute
    PrefillCost cost;
    Instant began{}, computed_until{};  // its first task's start, its last one's end; the line's
  };

  absl::Status Compute(const step::PrefillTask& task);
  void CarryOut();  // the machine's effects
  void CarryOut(const step::PushKv& push);
  void CarryOut(const step::PrefillDone& done);
  void CarryOut(const step::PrefillFailed& failed);
  void CarryOut(const step::CancelPush& cancel);
  void OnAck(const KvAckInfo& ack);
  void OnBroken(const WorkerId& attention_worker, const absl::Status& status);

  EngineContext& context_;
  step::PrefillMachine machine_;
  KvSender sender_;
  LocalCallbacks local_;
  std::map<ReservationId, Job> jobs_;
  std::vector<std::pair<ReservationId, absl::Status>>
      unread_;           // whose KV the backend could not read
  uint64_t chunks_ = 0;  // begun
  RowBuffers buffers_;   // the chunk's that is being computed: the machine finishes a chunk before
                         // another job's
};

}  // namespace tandem
