#pragma once

// A worker's machines in a world of chance: one attention worker that also prefills, one prefill
// worker beside it, and FFN workers that hold the model whole, by layers, by columns or mixed.
// Messages, tasks, losses and requests happen in an order drawn from one seed; invariants are
// checked after each.

#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "scheduler/base/random.h"
#include "scheduler/step/decode_machine.h"
#include "scheduler/step/ffn_machine.h"
#include "scheduler/step/prefill_machine.h"

namespace tandem::step {

class RandomWorld {
 public:
  explicit RandomWorld(uint64_t seed);

  // One event drawn by chance; then the invariants.
  void Step();
  // No new requests and no more losses: everything that is here must end by itself.
  void Finish();

  // What a run had in it: a test that never sees a preemption proves nothing about it.
  struct Seen {
    uint64_t admitted = 0, tokens = 0, preempted = 0, superseded = 0, stopped = 0, failed = 0,
             resent = 0, overlapped_steps = 0, forks = 0, summed = 0, crossed = 0, abandoned = 0;
  };
  const Seen& seen() const { return seen_; }

 private:
  static constexpr uint64_t kHiddenBytes = 16;

  struct Track {  // of one admitted sequence
    uint64_t seed = 0;
    std::vector<TokenId> prompt_ids, emitted_ids;
    uint32_t max_tokens = 0;
    bool ended = false, released = false;
  };
  struct Holder {
    std::string name;
    FfnShard shard;
    FfnMachine machine;
    uint32_t max_rows = 0;
    bool up = false;
    StreamId stream{};
    uint64_t credit_bytes = 0, owed_bytes = 0;  // as the attention worker may count them
    std::deque<QueuedCall> to_ffn;
    std::optional<FfnTask> computing;
    std::deque<QueuedCall> to_attention;
  };
  using DeviceTask = std::variant<DecodeTask, PrefillTask>;

  bool Chance(uint64_t percent) { return random_.Below(100) < percent; }
  // Events; false: nothing of the kind is possible now.
  void AdmitNew();
  void AdmitAgain();
  void StopOne();
  void LoseOrOpenHolder();
  void ChangeGroup();
  bool TakeDeviceTask();
  bool FinishDeviceTask(bool may_fail);
  bool TurnPrefillWorker();
  bool DeliverFrame();
  bool DeliverAck();
  bool TurnHolder(Holder& holder);
  bool Progress(uint64_t kind);  // one of the events that carry work on
  void Open(Holder& holder);
  void Lose(Holder& holder);
  void TakeReply(Holder& holder, const QueuedCall& call);
  std::vector<GroupHolder> WholeGroup() const;

  DecodeRequest Draw(const RequestId& request, uint32_t attempt);
  void Admit(DecodeRequest request);
  void Pump();  // carries effects out until there are none
  void CarryOut(const StartLocalPrefill& effect);
  void CarryOut(const ReservationFreed& effect);
  void CarryOut(const CopyBlocks& effect);
  void CarryOut(const SendA2f& effect);
  void CarryOut(const HolderSuspected& effect);
  void CarryOut(const SequencesStarted& effect);
  void CarryOut(const Emit& effect);
  void CarryOutLocal(const PrefillEffect& effect);
  void CarryOutRemote(const PrefillEffect& effect);
  void CheckRows(const std::vector<KvRow>& rows);
  void CheckAll();
  TokenId TokenAt(uint64_t seed, uint32_t position) const;

  Random random_;
  Instant now_ = Instant::FromNanoseconds(0);
  KvBook book_, prefill_book_;
  DecodeConfig config_;
  std::unique_ptr<DecodeMachine> decode_;
  std::unique_ptr<PrefillMachine> local_, remote_;
  std::vector<std::unique_ptr<Holder>> holders_;
  uint64_t next_stream_ = 1;
  std::optional<DeviceTask> device_;
  std::optional<PrefillTask> prefill_device_;
  std::deque<PushKv> frames_;
  struct Ack {
    ReservationId reservation;
    uint32_t layer = 0, positions = 0;
    absl::Status status;
  };
  std::deque<Ack> acks_;
  std::map<SequenceKey, Track> tracks_;
  std::map<ReservationId, bool> local_reservations_;
  uint64_t step_ = 0;
  // By micro-batch of step_: where its layer's pieces are, and which pieces came.
  struct Pieces {
    uint32_t columns = 0;
    std::map<uint32_t, std::string> at;
    std::set<uint32_t> taken;
  };
  std::map<uint32_t, Pieces> in_flight_;
  size_t most_in_flight_ = 0;
  uint64_t next_request_ = 1;
  Seen seen_;
};

}  // namespace tandem::step
