// The running step: its rows and their KV, and its end.
#include <absl/strings/str_cat.h>

#include <algorithm>

#include "scheduler/base/check.h"
#include "scheduler/policy/batch_join.h"
#include "scheduler/policy/micro_batch_count.h"
#include "scheduler/policy/preemption.h"
#include "scheduler/policy/stagger.h"
#include "scheduler/step/decode_state.h"

namespace tandem::step {

bool DecodeMachine::State::CanStartStep() const {
  const bool kv_blocked = kv_blocked_at.has_value() && book.free_blocks() <= *kv_blocked_at;
  const bool held = pace.held != Instant::Never();
  return !batches.running() && !held && running > 0 && !kv_blocked &&
         holders.RowLimit().has_value();
}

bool DecodeMachine::State::StartStep(Instant now) {
  if (!CanStartStep()) return false;
  const std::vector<Sequence*> rows = RowsWithKv();
  if (rows.empty()) {
    kv_blocked_at = book.free_blocks();
    return false;
  }
  pace.since = now;
  pace.calls = pace.shared = 0;
  batches.Start(++step, rows, MicroBatchesOf(static_cast<uint32_t>(rows.size())));
  return true;
}

uint32_t DecodeMachine::State::MicroBatchesOf(uint32_t rows) const {
  policy::MicroBatchLimits limits{config.max_micro_batches, *holders.RowLimit()};
  if (config.micro_batches == 0)
    return policy::MicroBatchCount(rows, limits, call_times, config.layers);
  limits.max_micro_batches = std::min(config.micro_batches, config.max_micro_batches);
  return policy::MostMicroBatches(rows, limits);
}

// The step's rows, by ascending admission, each with a block for its position.
std::vector<Sequence*> DecodeMachine::State::RowsWithKv() {
  std::vector<policy::JoinCandidate> candidates;
  for (const auto& [admitted, sequence] : sequences.all()) {
    if (sequence->state == SequenceState::kRunning) candidates.push_back({admitted});
  }
  std::vector<Sequence*> rows;
  for (size_t index : policy::JoinStep(candidates, config.max_batch)) {
    const auto it = sequences.all().find(candidates[index].admitted);
    if (it == sequences.all().end()) continue;  // preempted for an older one
    if (GrowOrPreempt(*it->second)) rows.push_back(it->second.get());
  }
  return rows;
}

bool DecodeMachine::State::GrowOrPreempt(Sequence& sequence) {
  const uint64_t admitted = sequence.admitted;
  while (!book.Grow(sequence.blocks, uint64_t{sequence.last_position()} + 1).ok()) {
    if (reservations.abandoned_blocks() > 0)
      return false;  // they come free soon: end nobody for them
    std::vector<policy::HeldSequence> held;
    for (const auto& [order, other] : sequences.all()) held.push_back({order});
    const std::optional<size_t> victim = policy::PreemptionVictim(held);
    if (!victim.has_value()) return false;
    const uint64_t victim_order = held[*victim].admitted;
    End(*sequences.all().at(victim_order), SequenceEventKind::kPreempt,
        {EndReason::kPreempted, absl::OkStatus()});
    if (victim_order == admitted) return false;
  }
  return true;
}

DecodeTask DecodeMachine::State::TaskOf(const MicroBatch& batch) const {
  if (batch.layer == config.layers) {
    HeadTask task{batches.step(), batch.index, {}};
    for (const Sequence* sequence : batch.rows) {
      task.rows.push_back({&sequence->request->sampling, sequence->seed,
                           static_cast<uint32_t>(sequence->emitted_ids.size()),
                           &sequence->request->prompt_ids, &sequence->emitted_ids});
    }
    return task;
  }
  AttentionTask task{batches.step(), batch.index, batch.layer, {}};
  for (const Sequence* sequence : batch.rows) {
    task.rows.push_back({sequence->last_id(), sequence->last_position(), &sequence->blocks});
  }
  return task;
}

void DecodeMachine::State::HoldBack(Instant now) {
  const auto [phase, phases] = holders.Phase();
  const Duration delay = policy::StaggerDelay(
      {phase, phases, pace.calls, pace.shared, now - pace.since, ++pace.steps_since_delay});
  if (delay <= Duration()) return;
  pace.held = now + delay;
  pace.steps_since_delay = 0;
}

void DecodeMachine::State::FinishStep(Instant now) {
  call_times.EndStep();
  HoldBack(now);
  std::vector<Sequence*> rows;
  for (const auto& batch : batches.all())
    rows.insert(rows.end(), batch->rows.begin(), batch->rows.end());
  batches.Clear();
  for (Sequence* sequence : rows) FinishRow(*sequence);  // ascending admission, as they were cut
}

void DecodeMachine::State::FinishRow(Sequence& sequence) {
  sequence.in_step = false;
  std::optional<SampledToken> token = std::exchange(sequence.drawn, std::nullopt);
  if (token.has_value() && sequence.leaving.has_value() &&
      sequence.emitted_ids.size() >= sequence.keep_tokens) {
    token.reset();
    tokens_wasted++;
  }
  std::optional<EndReason> last;
  if (token.has_value()) {
    CountToken(sequence);
    sequence.emitted_ids.push_back(token->id);
    last = EndAfter(sequence);
  }
  if (sequence.leaving.has_value()) {
    SequenceEnd end = *std::move(sequence.leaving);
    Finish(sequence, sequence.leaving_event, std::move(end), std::move(token));
  } else if (last.has_value()) {
    Finish(sequence, SequenceEventKind::kLastToken, {*last, absl::OkStatus()}, std::move(token));
  } else {
    TANDEM_CHECK(token.has_value());
    const uint32_t position = static_cast<uint32_t>(sequence.emitted_ids.size() - 1);
    effects.push_back(
        Emit{sequence.request->gateway, sequence.key, position, std::move(token), std::nullopt});
  }
}

void DecodeMachine::State::CountToken(const Sequence& sequence) {
  tokens_total++;
  const DecodeRequest& request = *sequence.request;
  if (!sequence.emitted_ids.empty() || sequence.key.choice != request.choices.front().choice)
    return;
  prompts_total++;
  prompt_tokens_total += request.prompt_ids.size();
}

std::optional<EndReason> DecodeMachine::State::EndAfter(const Sequence& sequence) const {
  const StopRules& stop = sequence.request->stop;
  const auto is_last = [&](const std::vector<TokenId>& ids) {
    return std::find(ids.begin(), ids.end(), sequence.emitted_ids.back()) != ids.end();
  };
  if (!stop.ignore_eos && is_last(config.end_tokens)) return EndReason::kEos;
  if (is_last(stop.stop_token_ids)) return EndReason::kStopToken;
  if (sequence.emitted_ids.size() >= stop.max_tokens ||
      sequence.length() >= config.context_tokens) {
    return EndReason::kLength;
  }
  return std::nullopt;
}

}  // namespace tandem::step
