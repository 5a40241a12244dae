// The FFN workers of the world: their streams, losses, groups and replies.
#include <algorithm>

#include "tests/unit/scheduler/step/random_world.h"

namespace tandem::step {

std::vector<GroupHolder> RandomWorld::WholeGroup() const {
  std::vector<GroupHolder> group;
  for (const auto& holder : holders_) group.push_back({holder->name, holder->shard});
  return group;
}

void RandomWorld::Open(Holder& holder) {
  holder.stream = StreamId{next_stream_++};
  absl::StatusOr<uint64_t> credit = holder.machine.OpenStream(holder.stream, holder.max_rows);
  ASSERT_TRUE(credit.ok()) << credit.status();
  holder.up = true;
  holder.credit_bytes = *credit;
  holder.owed_bytes = 0;
  decode_->OnHolderUp(holder.name, *credit, holder.max_rows, now_);
}

void RandomWorld::Lose(Holder& holder) {
  holder.machine.CloseStream(holder.stream);
  holder.up = false;
  holder.to_ffn.clear();
  holder.to_attention.clear();
  for (auto& [index, pieces] : in_flight_)
    std::erase_if(pieces.at, [&](const auto& piece) { return piece.second == holder.name; });
  decode_->OnHolderLost(holder.name, absl::UnavailableError("lost"), now_);
}

void RandomWorld::LoseOrOpenHolder() {
  Holder& holder = *holders_[random_.Below(holders_.size())];
  if (holder.up) {
    Lose(holder);
  } else {
    Open(holder);
  }
}

void RandomWorld::ChangeGroup() {
  std::vector<GroupHolder> group;
  for (const GroupHolder& holder : WholeGroup()) {
    if (Chance(70))
      group.insert(group.begin() + static_cast<ptrdiff_t>(random_.Below(group.size() + 1)), holder);
  }
  decode_->SetGroup(group, now_);
}

bool RandomWorld::TurnHolder(Holder& holder) {
  if (!holder.to_attention.empty() && Chance(50)) {
    const QueuedCall call = holder.to_attention.front();
    holder.to_attention.pop_front();
    holder.owed_bytes -= call.rows * kHiddenBytes;
    TakeReply(holder, call);
    return true;
  }
  if (holder.computing.has_value()) {
    const FfnTask task = *std::exchange(holder.computing, std::nullopt);
    holder.machine.OnTaskDone(task, now_);
    for (const QueuedCall& call : task.calls) {
      if (call.stream == holder.stream && holder.up) holder.to_attention.push_back(call);
    }
    return true;
  }
  if (!holder.to_ffn.empty()) {
    const absl::Status queued = holder.machine.Enqueue(holder.to_ffn.front());
    EXPECT_TRUE(queued.ok()) << queued;  // credit was held
    holder.to_ffn.pop_front();
    if (Chance(30)) return true;
  }
  holder.computing = holder.machine.NextTask(now_);
  return holder.computing.has_value() || !holder.to_attention.empty();
}

// A reply is dropped only when its call, cut by columns, was begun anew or failed.
void RandomWorld::TakeReply(Holder& holder, const QueuedCall& call) {
  const std::optional<TakenReply> taken =
      decode_->OnFfnReply(holder.name, call.call, Chance(50), now_);
  EXPECT_FALSE(decode_->OnFfnReply(holder.name, call.call, Chance(50), now_).has_value())
      << "taken twice";
  if (!taken.has_value()) {
    EXPECT_GT(holder.shard.columns, 1u) << "the reply of a whole layer was dropped";
    seen_.abandoned++;
    return;
  }
  EXPECT_EQ(taken->column, holder.shard.column);
  EXPECT_EQ(taken->columns, holder.shard.columns);
  if (call.call.step != step_) return;
  Pieces& pieces = in_flight_[call.call.micro_batch];
  pieces.at.erase(taken->column);
  EXPECT_EQ(pieces.columns, taken->columns) << "pieces of two cuts";
  EXPECT_TRUE(pieces.taken.insert(taken->column).second) << "a piece was added twice";
  EXPECT_EQ(taken->last, pieces.taken.size() == taken->columns) << "a piece is left out";
  if (!taken->last) return;
  if (taken->columns > 1) seen_.summed++;
  in_flight_.erase(call.call.micro_batch);
}

void RandomWorld::CarryOut(const SendA2f& effect) {
  const auto found = std::find_if(holders_.begin(), holders_.end(),
                                  [&](const auto& h) { return h->name == effect.holder; });
  ASSERT_NE(found, holders_.end());
  Holder& holder = **found;
  ASSERT_TRUE(holder.up) << "a call to " << holder.name << ", which is down";
  ASSERT_LE(effect.rows, holder.max_rows);
  holder.owed_bytes += effect.rows * kHiddenBytes;
  ASSERT_LE(holder.owed_bytes, holder.credit_bytes) << "credit of " << holder.name;
  holder.to_ffn.push_back({holder.stream, effect.call, effect.rows, now_});
  if (effect.call.attempt > 0) seen_.resent++;
  ASSERT_TRUE(holder.shard.HoldsLayer(effect.call.layer)) << holder.name;
  ASSERT_EQ(holder.shard.column, effect.column);
  ASSERT_EQ(holder.shard.columns, effect.columns);
  if (effect.crosses_from != 0) seen_.crossed++;
  if (effect.call.step != step_) return;
  Pieces& pieces = in_flight_[effect.call.micro_batch];
  if (pieces.columns != effect.columns) pieces = {effect.columns, {}, {}};
  pieces.at[effect.column] = holder.name;
  const size_t now_in_flight =
      std::count_if(in_flight_.begin(), in_flight_.end(),
                    [](const auto& micro_batch) { return !micro_batch.second.at.empty(); });
  most_in_flight_ = std::max(most_in_flight_, now_in_flight);
  // Pieces of a failed call may still be there.
  if (effect.columns == 1) {
    ASSERT_LE(now_in_flight, config_.max_micro_batches);
  }
}

}  // namespace tandem::step
