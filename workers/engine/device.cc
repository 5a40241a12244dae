#include "workers/engine/device.h"

#include <algorithm>
#include <utility>

#include "workers/connector/own_copy.h"

namespace tandem {

using ledger::Cause;
using ledger::LedgerState;

Device::Device(EngineContext& context, ActivationConnector& activation,
               LoopbackActivationConnector& own_ffn, KvConnector& kv)
    : context_(context) {
  const bool prefills = context.Runs(Stage::kPrefill), decodes = context.Runs(Stage::kAttention);
  const bool has_ffn = context.Runs(Stage::kFfn);
  if (prefills || decodes)
    book_ = std::make_unique<step::KvBook>(context.config.kv_blocks, context.config.block_tokens);
  if (has_ffn) ffn_ = std::make_unique<FfnEngine>(context);
  if (decodes) {
    ActivationConnector& group = has_ffn ? static_cast<ActivationConnector&>(own_ffn) : activation;
    decode_ = std::make_unique<DecodeEngine>(context, *book_, group);
  }
  if (prefills) {
    PrefillEngine::LocalCallbacks local;
    if (decodes) {
      local.on_done = [this](const ReservationId& reservation, const PrefillCost& cost) {
        decode_->OnLocalPrefillDone(reservation, cost);
      };
      local.on_failed = [this](const ReservationId& reservation, const absl::Status& status) {
        decode_->OnLocalPrefillFailed(reservation, status);
      };
    }
    prefill_ = std::make_unique<PrefillEngine>(context, *book_, kv, std::move(local));
    if (decodes) decode_->UsePrefill(prefill_.get());
  }
  if (decodes && has_ffn) {
    decode_->SetGroup(0, 0, {{context.config.worker, "", context.config.shard_epoch, {}}},
                      [](const absl::Status&) {});
  }
  Publish();
}

void Device::Start() {
  thread_ = std::thread([this] { Loop(); });
}

void Device::Stop() {
  context_.mailbox->PostBounded([this](const absl::Status& posted) {
    if (posted.ok()) stopping_ = true;
  });
  if (thread_.joinable()) {
    thread_.join();
  } else {
    EndAll();  // never started, or stopped before
  }
}

void Device::Loop() {
  for (;;) {
    DrainMailbox();
    if (stopping_) break;
    OnTime();
    ArmAlarm();
    AnswerDrain();
    Publish();
    const policy::DeviceWork work = NextWork();
    if (work == policy::DeviceWork::kNone) {
      EnterWait();
      context_.mailbox->Wait(context_.time);
      waited_ = true;
    } else {
      Run(work);
    }
  }
  EndAll();
}

void Device::DrainMailbox() {
  if (std::exchange(waited_, false)) {
    // One arrival at a time: the device goes on at the first, whatever else the host has by now.
    const Instant now = context_.Now();
    if (auto first = context_.mailbox->TakeFirstTimed(now)) {
      context_.line.Arrived(first->first);
      return first->second(absl::OkStatus());
    }
    context_.line.Woken(now);
  }
  for (Mailbox::Event& event : context_.mailbox->Take(context_.line.Now())) event(absl::OkStatus());
}

void Device::OnTime() {
  if (decode_ == nullptr) return;
  const Instant now = context_.Now();
  if (decode_->NextDeadline() <= now) decode_->OnTime(now);
}

// One alarm, for the first deadline. A deadline that has moved away lets it fire for nothing.
void Device::ArmAlarm() {
  Instant deadline = Instant::Never();
  if (decode_ != nullptr) deadline = decode_->NextDeadline();
  if (ffn_ != nullptr && ffn_->waits_to_merge()) deadline = std::min(deadline, ffn_->ReadyAt());
  if (deadline >= armed_for_) return;
  if (armed_for_ != Instant::Never()) context_.time.Cancel(alarm_);
  armed_for_ = deadline;
  // An emulated device goes on at the deadline, whenever the host gets to it.
  const Instant stamp = context_.line.Due(deadline);
  alarm_ = context_.time.CallAt(deadline, [this, stamp, mailbox = context_.mailbox] {
    mailbox->PostBoundedAt(stamp, [this](const absl::Status& posted) {
      if (posted.ok()) armed_for_ = Instant::Never();
    });
  });
}

policy::DeviceWork Device::NextWork() const {
  policy::DeviceReady ready;
  ready.ffn = ffn_ != nullptr && ffn_->HasWork();
  ready.decode = decode_ != nullptr && decode_->HasWork();
  ready.prefill = prefill_ != nullptr && prefill_->HasWork();
  return policy::NextDeviceWork(ready, turn_);
}

void Device::Run(policy::DeviceWork work) {
  turn_.Took(work);
  switch (work) {
    case policy::DeviceWork::kFfn:
      return ffn_->RunTask();
    case policy::DeviceWork::kDecode:
      return decode_->RunTask();
    case policy::DeviceWork::kPrefill:
      return prefill_->RunTask();
    case policy::DeviceWork::kNone:
      return;
  }
}

void Device::EnterWait() {
  const bool waits_for_kv = (decode_ != nullptr && decode_->sequences() > 0) ||
                            (prefill_ != nullptr && prefill_->jobs() > 0);
  const bool waits_for_ffn =
      decode_ != nullptr &&
      (decode_->waits_for_ffn() || (decode_->sequences() > 0 && !decode_->has_group()));
  if (waits_for_ffn) {
    context_.books.EnterWait(LedgerState::kStall,
                             Cause::kHandoff);  // a reply books it to its causes
  } else if (waits_for_kv) {
    context_.books.EnterWait(LedgerState::kStall, Cause::kKvTransfer);
  } else if (ffn_ != nullptr && ffn_->waits_to_merge()) {
    context_.books.EnterWait(LedgerState::kStall, Cause::kBatchWait);
  } else if (draining_) {
    context_.books.EnterWait(LedgerState::kIdle, Cause::kDraining);
  } else if (ffn_ != nullptr && ffn_->starved()) {
    context_.books.EnterWait(LedgerState::kIdle, Cause::kStarved);
  } else {
    context_.books.EnterWait(LedgerState::kIdle, Cause::kNoWork);
  }
}

void Device::Drain(Answer answer) {
  draining_ = true;
  drains_.push_back(std::move(answer));
}

void Device::AnswerDrain() {
  if (drains_.empty()) return;
  if (prefill_ != nullptr && prefill_->jobs() > 0) return;
  if (decode_ != nullptr && (decode_->sequences() > 0 || !decode_->all_acknowledged())) return;
  if (ffn_ != nullptr && ffn_->peers() > 0) return;
  std::vector<Answer> answers;
  answers.swap(drains_);
  for (Answer& answer : answers) answer(absl::OkStatus());
}

void Device::Publish() {
  WorkerReport report;
  report.load.draining = draining_;
  if (book_ != nullptr) report.load.kv_blocks_free = book_->free_blocks();
  if (prefill_ != nullptr) report.load.prefills = prefill_->jobs();
  if (decode_ != nullptr) {
    report.load.sequences = decode_->sequences();
    report.load.tokens_total = decode_->tokens_total();
    report.load.prompts_total = decode_->prompts_total();
    report.load.prompt_tokens_total = decode_->prompt_tokens_total();
    report.has_group = decode_->has_group();
    context_.counters.tokens_wasted = decode_->tokens_wasted();
    if (live_version_ != decode_->live_version()) {
      live_version_ = decode_->live_version();
      context_.books.PublishLive(decode_->live());
    }
  }
  CountHeld(report);
  if (ffn_ != nullptr) {
    report.ffn_streams = ffn_->streams();
    report.ffn_rows_queued = ffn_->queued_rows();
  }
  report.counters = context_.counters;
  context_.books.Publish(std::move(report));
}

// What runs, what waits, and KV that nobody's is. That is known for sure only while nothing is in
// hand: meanwhile the last finding stands.
void Device::CountHeld(WorkerReport& report) {
  const uint32_t begun = prefill_ != nullptr ? prefill_->jobs() - prefill_->queued() : 0;
  const uint32_t reserved = decode_ != nullptr ? decode_->waiting() : 0;
  if (decode_ != nullptr) {
    report.running = report.load.sequences - reserved + std::min(begun, reserved);
    report.waiting = reserved - std::min(begun, reserved);
  } else if (prefill_ != nullptr) {
    report.running = begun;
    report.waiting = prefill_->queued();
  }
  if (book_ != nullptr && report.load.sequences == 0 && report.load.prefills == 0) {
    const uint64_t owned = decode_ != nullptr ? decode_->abandoned_blocks() : 0;
    kv_blocks_leaked_ = static_cast<uint32_t>(book_->total_blocks() - book_->free_blocks() - owned);
  }
  report.kv_blocks_leaked = kv_blocks_leaked_;
}

void Device::EndAll() {
  const absl::Status status =
      absl::UnavailableError(absl::StrCat("worker ", context_.config.worker.value(), " stops"));
  if (decode_ != nullptr)
    decode_->EndAll(status);  // first: its local prefills end with it, for its reason
  if (prefill_ != nullptr) prefill_->CancelAll(status);
  if (ffn_ != nullptr) ffn_->EndAll(status);
  if (armed_for_ != Instant::Never()) context_.time.Cancel(alarm_);
  armed_for_ = Instant::Never();
  draining_ = true;
  std::vector<Answer> answers;
  answers.swap(drains_);
  for (Answer& answer : answers) answer(OwnCopy(status));
  Publish();
  context_.books.EnterWait(LedgerState::kIdle, Cause::kDraining);
  context_.mailbox->Close(status);
}

}  // namespace tandem
