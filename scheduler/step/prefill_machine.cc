#include "scheduler/step/prefill_machine.h"

#include <absl/strings/str_cat.h>

#include <algorithm>

#include "scheduler/base/check.h"
#include "scheduler/policy/prefill_chunk.h"

namespace tandem::step {

// One prompt. Its cursor is (chunk_first, layer): the task to compute next.
struct PrefillMachine::Job {
  PrefillJob order;
  PrefillState state = PrefillState::kQueued;
  BlockTable own_blocks;  // remote
  uint32_t rows = 0;      // positions to compute: all ids but the last
  uint32_t chunk_first = 0, chunk_rows = 0, layer = 0;
  std::deque<PushKv> unsent;            // computed, waiting for room in the window
  uint64_t in_flight_bytes = 0;         // pushed and not acknowledged
  std::vector<uint32_t> pushed, acked;  // [layers] positions
  std::optional<PrefillEffect> last;  // ended early while its task is out: what remains to be said

  bool local() const { return order.local_blocks != nullptr; }
  const BlockTable* blocks() const { return local() ? order.local_blocks : &own_blocks; }
};

const char* ToString(PrefillState state) {
  switch (state) {
    case PrefillState::kQueued:
      return "kQueued";
    case PrefillState::kComputing:
      return "kComputing";
    case PrefillState::kDraining:
      return "kDraining";
    case PrefillState::kDone:
      return "kDone";
  }
  return "unknown";
}

const char* ToString(PrefillEvent event) {
  switch (event) {
    case PrefillEvent::kFirstChunk:
      return "kFirstChunk";
    case PrefillEvent::kLastLayer:
      return "kLastLayer";
    case PrefillEvent::kAllAcknowledged:
      return "kAllAcknowledged";
    case PrefillEvent::kCancelled:
      return "kCancelled";
    case PrefillEvent::kPeerLost:
      return "kPeerLost";
    case PrefillEvent::kRefused:
      return "kRefused";
    case PrefillEvent::kTaskFailed:
      return "kTaskFailed";
  }
  return "unknown";
}

PrefillMachine::PrefillMachine(const PrefillConfig& config, KvBook& book)
    : config_(config), book_(book) {
  TANDEM_CHECK(config.layers >= 1 && config.chunk_tokens >= 1);
}

std::shared_ptr<PrefillMachine::Job> PrefillMachine::Find(const ReservationId& reservation) const {
  for (const auto& job : jobs_) {
    if (job->order.reservation == reservation) return job;
  }
  return nullptr;
}

absl::Status PrefillMachine::Enqueue(PrefillJob order) {
  const std::string& name = order.reservation.value();
  if (order.ids.size() < 2) {
    return absl::InvalidArgumentError(
        absl::StrCat("prefill ", name, ": ", order.ids.size(), " ids; at least 2 are needed"));
  }
  if (Find(order.reservation) != nullptr)
    return absl::AlreadyExistsError(absl::StrCat("prefill ", name, " is in hand"));
  if (jobs_.size() >= config_.max_jobs) {
    return absl::ResourceExhaustedError(
        absl::StrCat("prefill ", name, ": ", config_.max_jobs, " prompts are in hand"));
  }
  auto job = std::make_shared<Job>();
  job->rows = static_cast<uint32_t>(order.ids.size() - 1);
  job->order = std::move(order);
  job->pushed.resize(config_.layers);
  job->acked.resize(config_.layers);
  if (!job->local()) {
    const absl::Status grown = book_.Grow(job->own_blocks, job->rows);
    if (!grown.ok())
      return absl::Status(grown.code(), absl::StrCat("prefill ", name, ": ", grown.message()));
  }
  jobs_.push_back(std::move(job));
  return absl::OkStatus();
}

bool PrefillMachine::HasWork() const {
  return running_ == nullptr && std::any_of(jobs_.begin(), jobs_.end(), [](const auto& job) {
           return job->state == PrefillState::kQueued || job->state == PrefillState::kComputing;
         });
}

uint32_t PrefillMachine::queued() const {
  return static_cast<uint32_t>(std::count_if(jobs_.begin(), jobs_.end(), [](const auto& job) {
    return job->state == PrefillState::kQueued;
  }));
}

std::optional<PrefillTask> PrefillMachine::NextTask() {
  TANDEM_CHECK(running_ == nullptr);
  const auto first = std::find_if(jobs_.begin(), jobs_.end(), [](const auto& job) {
    return job->state == PrefillState::kQueued || job->state == PrefillState::kComputing;
  });
  if (first == jobs_.end()) return std::nullopt;
  Job& job = **first;
  if (job.state == PrefillState::kQueued) {
    job.state = MustNext(kPrefillTransitions, job.state, PrefillEvent::kFirstChunk);
  }
  if (job.layer == 0)
    job.chunk_rows = policy::PrefillChunkRows(job.rows - job.chunk_first, config_.chunk_tokens);
  running_ = *first;

  PrefillTask task{job.order.reservation, job.order.sequence, job.layer, job.chunk_first, {}};
  task.rows.reserve(job.chunk_rows);
  for (uint32_t i = 0; i < job.chunk_rows; i++) {
    const uint32_t position = job.chunk_first + i;
    task.rows.push_back({job.order.ids[position], position, job.blocks()});
  }
  return task;
}

void PrefillMachine::OnTaskDone(const PrefillTask& task) {
  TANDEM_CHECK(running_ != nullptr && running_->order.reservation == task.reservation);
  const std::shared_ptr<Job> job = std::move(running_);
  running_ = nullptr;
  if (job->state == PrefillState::kDone) {  // ended early, while it computed
    Drop(job);
    return;
  }
  TANDEM_CHECK(job->layer == task.layer && job->chunk_first == task.first_position);
  if (!job->local()) {
    job->unsent.push_back({job->order.reservation, job->order.sequence, job->layer,
                           job->chunk_first, job->chunk_rows, job->blocks()});
    PushRows(*job);
  }
  if (++job->layer == config_.layers) {
    job->layer = 0;
    job->chunk_first += job->chunk_rows;
  }
  if (job->chunk_first < job->rows) return;
  job->state = MustNext(kPrefillTransitions, job->state, PrefillEvent::kLastLayer);
  FinishIfAcknowledged(job);
}

void PrefillMachine::OnTaskFailed(const PrefillTask& task, const absl::Status& status) {
  TANDEM_CHECK(running_ != nullptr && running_->order.reservation == task.reservation);
  const std::shared_ptr<Job> job = std::move(running_);
  running_ = nullptr;
  if (job->state == PrefillState::kDone) {
    Drop(job);
    return;
  }
  if (!job->local()) effects_.push_back(CancelPush{job->order.reservation, job->order.sequence});
  EndEarly(job, PrefillEvent::kTaskFailed,
           PrefillFailed{job->order.reservation, job->order.sequence, status});
}

// A frame larger than the window goes alone.
void PrefillMachine::PushRows(Job& job) {
  while (!job.unsent.empty()) {
    const PushKv& frame = job.unsent.front();
    const uint64_t bytes = frame.count * config_.kv_row_bytes;
    if (job.in_flight_bytes > 0 && job.in_flight_bytes + bytes > config_.send_window_bytes) return;
    job.in_flight_bytes += bytes;
    job.pushed[frame.layer] = frame.first_position + frame.count;
    effects_.push_back(frame);
    job.unsent.pop_front();
  }
}

void PrefillMachine::OnAck(const ReservationId& reservation, uint32_t layer, uint32_t positions) {
  const std::shared_ptr<Job> job = Find(reservation);
  if (job == nullptr || job->local() || job->state == PrefillState::kDone ||
      layer >= config_.layers)
    return;
  // A peer may acknowledge late or twice; more than was pushed it cannot have.
  positions = std::min(positions, job->pushed[layer]);
  if (positions <= job->acked[layer]) return;
  job->in_flight_bytes -= (positions - job->acked[layer]) * config_.kv_row_bytes;
  job->acked[layer] = positions;
  PushRows(*job);
  FinishIfAcknowledged(job);
}

void PrefillMachine::FinishIfAcknowledged(const std::shared_ptr<Job>& job) {
  if (job->state != PrefillState::kDraining) return;
  const bool all =
      job->local() || std::all_of(job->acked.begin(), job->acked.end(),
                                  [&](uint32_t positions) { return positions == job->rows; });
  if (!all) return;
  job->state = MustNext(kPrefillTransitions, job->state, PrefillEvent::kAllAcknowledged);
  job->last = PrefillDone{job->order.reservation, job->order.sequence};
  Drop(job);
}

void PrefillMachine::OnPeerFailed(const ReservationId& reservation, const absl::Status& status) {
  const std::shared_ptr<Job> job = Find(reservation);
  if (job == nullptr || job->state == PrefillState::kDone) return;
  const PrefillEvent event =
      absl::IsUnavailable(status) ? PrefillEvent::kPeerLost : PrefillEvent::kRefused;
  EndEarly(job, event, PrefillFailed{job->order.reservation, job->order.sequence, status});
}

void PrefillMachine::Cancel(const ReservationId& reservation) {
  const std::shared_ptr<Job> job = Find(reservation);
  if (job == nullptr || job->state == PrefillState::kDone) return;
  PrefillEffect last = CancelPush{job->order.reservation, job->order.sequence};
  if (job->local()) {
    last = PrefillFailed{job->order.reservation, job->order.sequence,
                         absl::CancelledError("the prefill was cancelled")};
  }
  EndEarly(job, PrefillEvent::kCancelled, std::move(last));
}

void PrefillMachine::EndEarly(const std::shared_ptr<Job>& job, PrefillEvent event,
                              PrefillEffect last) {
  job->state = MustNext(kPrefillTransitions, job->state, event);
  job->last = std::move(last);
  job->unsent.clear();
  if (running_ != job) Drop(job);
}

void PrefillMachine::Drop(const std::shared_ptr<Job>& job) {
  TANDEM_CHECK(job->state == PrefillState::kDone && job->last.has_value());
  // Pushes that nobody took yet name blocks that are about to go.
  std::erase_if(effects_, [&](const PrefillEffect& effect) {
    const auto* push = std::get_if<PushKv>(&effect);
    return push != nullptr && push->reservation == job->order.reservation;
  });
  book_.Release(job->own_blocks);
  effects_.push_back(*std::move(job->last));
  std::erase(jobs_, job);
}

std::vector<PrefillEffect> PrefillMachine::TakeEffects() {
  std::vector<PrefillEffect> effects;
  effects.swap(effects_);
  return effects;
}

}  // namespace tandem::step
