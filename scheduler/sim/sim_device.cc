// A simulated worker's device: which task it takes, how long that lasts, what it computes, and how
// its time is booked.

#include <algorithm>

#include "scheduler/cost/cost_table.h"
#include "scheduler/sim/hash_model.h"
#include "scheduler/sim/sim_worker.h"

namespace tandem::sim {
namespace {

using ledger::Cause;
using ledger::LedgerStage;
using ledger::LedgerState;

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <class... F>
Overloaded(F...) -> Overloaded<F...>;

}  // namespace

// True: the machines were asked, so there may be new effects.
bool SimWorker::StartTask() {
  if (busy_) return false;
  const policy::DeviceReady ready{ffn_ && ffn_->ReadyAt() <= world_.Now(),
                                  decode_ && decode_->HasTask(), prefill_ && prefill_->HasWork()};
  const policy::DeviceWork work = policy::NextDeviceWork(ready, turn_);
  std::optional<Task> task;
  LedgerStage stage = LedgerStage::kShared;
  if (work == policy::DeviceWork::kFfn) {
    if (auto next = ffn_->NextTask(world_.Now())) task = std::move(*next);
    stage = LedgerStage::kFfn;
  } else if (work == policy::DeviceWork::kDecode) {
    if (auto next = decode_->NextTask(world_.Now())) {
      std::visit([&](auto& t) { task = std::move(t); }, *next);
    }
    stage = LedgerStage::kAttention;
  } else if (work == policy::DeviceWork::kPrefill) {
    if (auto next = prefill_->NextTask()) task = std::move(*next);
    stage = LedgerStage::kPrefill;
  }
  if (!task.has_value()) return work == policy::DeviceWork::kDecode;
  turn_.Took(work);
  task_time_ = TimeOf(*task);
  busy_ = true;
  book_state_ = LedgerState::kBusy;
  ledger_->Enter(stage, LedgerState::kBusy, Cause::kNone, world_.Now());
  world_.digest.Add(static_cast<uint64_t>(world_.Now().nanoseconds()) ^ (task->index() << 60));
  world_.time.CallAt(world_.Now() + task_time_, [this, task = std::move(*task)] {
    if (!alive_) return;
    busy_ = false;
    Finish(task);
    Settle();
  });
  return true;
}

Duration SimWorker::TimeOf(const Task& task) const {
  const uint32_t computing = world_.Computing() + 1;
  const cost::CostTable& costs = computing > 1 && spec_.beside ? *spec_.beside : *spec_.costs;
  const Duration time = std::visit(
      Overloaded{
          [&](const step::AttentionTask& t) {
            std::vector<uint32_t> context;
            for (const step::KvRow& row : t.rows) context.push_back(row.position + 1);
            return costs.AttentionLayer(t.layer, cost::AttentionRows::Of(costs.shape(), context)) +
                   (t.layer == 0 ? costs.Embed(t.rows.size()) : Duration());
          },
          [&](const step::HeadTask& t) { return costs.Head(t.rows.size()); },
          [&](const step::PrefillTask& t) {
            return costs.PrefillLayer(t.layer, t.first_position, t.rows.size());
          },
          [&](const step::FfnTask& t) { return costs.FfnLayer(spec_.shard, t.layer, t.rows); }},
      task);
  const Duration slowed = time * slow_percent_ / 100;
  const uint32_t cores = world_.scenario.host_cores;
  return cores > 0 && computing > cores ? slowed * computing / cores : slowed;
}

void SimWorker::Finish(const Task& task) {
  std::visit([this](const auto& t) { Compute(t); }, task);
}

uint64_t& SimWorker::KvAt(const step::BlockTable& blocks, uint32_t position, uint32_t layer) {
  const uint32_t tokens = book_.block_tokens();
  return kv_[layer][size_t{blocks.at(position / tokens)} * tokens + position % tokens];
}

uint64_t SimWorker::RunAttention(uint64_t row, const step::KvRow& kv_row, uint32_t layer) {
  const uint64_t before =
      kv_row.position == 0 ? kNoKv : KvAt(*kv_row.blocks, kv_row.position - 1, layer);
  uint64_t& kv = KvAt(*kv_row.blocks, kv_row.position, layer);
  kv = KvOf(before, row, layer);
  return AttentionOf(row, kv);
}

void SimWorker::Compute(const step::AttentionTask& task) {
  std::vector<uint64_t>& rows = rows_[{task.step, task.micro_batch}];
  if (task.layer == 0) {
    rows.clear();
    for (const step::KvRow& row : task.rows) rows.push_back(EmbedOf(row.token, row.position));
  }
  TANDEM_CHECK(rows.size() == task.rows.size());
  for (size_t i = 0; i < rows.size(); i++)
    rows[i] = RunAttention(rows[i], task.rows[i], task.layer);
  if (task.layer > 0)  // the first one's time has the embedding in it
    decode_->call_times().AddAttention(static_cast<uint32_t>(rows.size()), task_time_);
  decode_->OnAttentionDone(task, world_.Now());
}

void SimWorker::Compute(const step::HeadTask& task) {
  const auto rows = rows_.extract({task.step, task.micro_batch});
  TANDEM_CHECK(!rows.empty() && rows.mapped().size() == task.rows.size());
  std::vector<step::SampledToken> tokens(task.rows.size());
  for (size_t i = 0; i < tokens.size(); i++) {
    tokens[i].id = TokenOf(rows.mapped()[i], task.rows[i].seed, task.rows[i].output_position,
                           world_.scenario.vocabulary);
  }
  // Steps end with their heads; a micro-batch that failed never got there.
  std::erase_if(rows_, [&](const auto& older) { return older.first.first < task.step; });
  std::erase_if(sent_, [&](const auto& older) { return older.first.second.step < task.step; });
  std::erase_if(partials_, [&](const auto& older) { return older.first.first < task.step; });
  decode_->call_times().AddHead(static_cast<uint32_t>(tokens.size()), task_time_);
  decode_->OnHeadDone(task, std::move(tokens), world_.Now());
}

void SimWorker::Compute(const step::PrefillTask& task) {
  std::vector<uint64_t>& rows = chunk_[task.reservation];
  if (task.layer == 0) {
    rows.clear();
    for (const step::KvRow& row : task.rows) rows.push_back(EmbedOf(row.token, row.position));
  }
  TANDEM_CHECK(rows.size() == task.rows.size());
  for (size_t i = 0; i < rows.size(); i++) {
    rows[i] = FfnOf(RunAttention(rows[i], task.rows[i], task.layer), task.layer);
  }
  prefill_->OnTaskDone(task);
}

void SimWorker::Compute(const step::FfnTask& task) {
  ffn_->OnTaskDone(task, world_.Now());
  const Duration compute = task_time_;
  for (const step::QueuedCall& call : task.calls) {
    auto rows = calls_.extract({call.stream, call.call});
    const auto caller = callers_.find(call.stream);
    if (rows.empty() || caller == callers_.end()) continue;
    F2aReply reply{call.call, std::move(rows.mapped()), world_.Now() - compute - call.arrival,
                   compute,   task.Shared(call),        {}};
    for (uint64_t& row : reply.rows)
      row = PieceOf(row, task.layer, spec_.shard.column, spec_.shard.columns);
    if (!caller->second.stream) {
      OnF2a(id_, reply);
      continue;
    }
    const uint64_t bytes =
        cost::F2aBytes(spec_.costs->shape(), spec_.costs->precision(), reply.rows.size());
    caller->second.stream->ToDialler(
        bytes, [to = caller->second.worker, me = id_, reply] { to->OnF2a(me, reply); });
  }
}

void SimWorker::BookIdle() {
  if (busy_) return;
  LedgerState state = LedgerState::kIdle;
  Cause cause = draining_ ? Cause::kDraining : Cause::kNoWork;
  if (decode_ && decode_->waits_for_ffn()) {
    state = LedgerState::kStall, cause = Cause::kHandoff;
  } else if ((decode_ && decode_->sequences() > 0) || (prefill_ && prefill_->jobs() > 0)) {
    state = LedgerState::kStall, cause = Cause::kKvTransfer;
  } else if (ffn_ && ffn_->HasWork()) {
    state = LedgerState::kStall, cause = Cause::kBatchWait;
  } else if (ffn_) {
    const bool starved = std::any_of(callers_.begin(), callers_.end(), [](const auto& caller) {
      return caller.second.worker->alive() && !caller.second.worker->live().empty();
    });
    if (starved && !draining_) cause = Cause::kStarved;
  }
  book_state_ = state;
  ledger_->Enter(LedgerStage::kShared, state, cause, world_.Now());
}

// A reply that ended a wait of the device takes that wait on its account (PROTOCOL section 7).
void SimWorker::BookReply(const WorkerId& holder, const F2aReply& reply) {
  const auto sent = sent_.find({holder, reply.call});
  if (sent == sent_.end()) return;
  const Duration round_trip = world_.Now() - sent->second;
  decode_->call_times().AddFfn(static_cast<uint32_t>(reply.rows.size()), reply.compute,
                               round_trip - reply.queue - reply.compute);
  if (busy_ || book_state_ != LedgerState::kStall) return;
  ledger_->BookExposedWait({round_trip, reply.queue, reply.compute}, world_.Now());
}

}  // namespace tandem::sim
