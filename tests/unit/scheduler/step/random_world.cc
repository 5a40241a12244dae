#include "tests/unit/scheduler/step/random_world.h"

#include <algorithm>

namespace tandem::step {
namespace {

constexpr uint32_t kBlocks = 24, kBlockTokens = 4, kLayers = 3;
constexpr TokenId kEos = 1;

// Who holds what in a world, one kind drawn for each.
const std::vector<std::vector<FfnShard>> kHolderKinds = {
    {{}, {}, {}},
    {{0, 2}, {2, 3}, {1, 3}, {0, 1}},
    {{0, 3, 0, 2}, {0, 3, 1, 2}, {0, 3, 0, 2}, {}},
    {{0, 3, 0, 2}, {0, 2, 1, 2}, {2, 3, 1, 2}, {0, 3, 2, 3}, {0, 3, 1, 3}, {0, 3, 0, 3}},
};

}  // namespace

RandomWorld::RandomWorld(uint64_t seed)
    : random_(seed), book_(kBlocks, kBlockTokens), prefill_book_(16, kBlockTokens) {
  config_.layers = kLayers;
  config_.context_tokens = 64;
  config_.max_sequences = 12;
  config_.max_batch = 6;
  config_.max_micro_batches = 2 + static_cast<uint32_t>(random_.Below(2));
  config_.hidden_bytes = kHiddenBytes;
  config_.end_tokens = {kEos};
  config_.max_ffn_wait = Duration::Seconds(10);
  decode_ = std::make_unique<DecodeMachine>(config_, book_);
  const PrefillConfig prefill{kLayers, 4, 4, 8, 64};
  local_ = std::make_unique<PrefillMachine>(prefill, book_);
  remote_ = std::make_unique<PrefillMachine>(prefill, prefill_book_);
  for (const FfnShard& shard : kHolderKinds[seed % kHolderKinds.size()]) {
    const FfnConfig ffn{kLayers, 6, 1u << 20, 64, kHiddenBytes, shard, {}};
    holders_.push_back(std::make_unique<Holder>(Holder{absl::StrCat("f", holders_.size() + 1),
                                                       shard,
                                                       FfnMachine(ffn),
                                                       1 + static_cast<uint32_t>(random_.Below(6)),
                                                       false,
                                                       {},
                                                       0,
                                                       0,
                                                       {},
                                                       {},
                                                       {}}));
    Open(*holders_.back());
  }
  decode_->SetGroup(WholeGroup(), now_);
}

// What greedy decoding would draw: a function of the sequence alone.
TokenId RandomWorld::TokenAt(uint64_t seed, uint32_t position) const {
  return 1 + static_cast<TokenId>(CounterUniform(seed, position) * 20);  // kEos once in 20
}

DecodeRequest RandomWorld::Draw(const RequestId& request, uint32_t attempt) {
  DecodeRequest drawn;
  drawn.request = request;
  drawn.gateway = GatewayId("g");
  drawn.reservation = ReservationId(absl::StrCat(request.value(), "/", attempt));
  const size_t prompt = 1 + random_.Below(Chance(20) ? 30 : 9);
  for (size_t i = 0; i < prompt; i++) drawn.prompt_ids.push_back(static_cast<TokenId>(100 + i));
  drawn.stop.max_tokens = 1 + static_cast<uint32_t>(random_.Below(24));
  drawn.local_prefill = Chance(50);
  drawn.lease = Duration::Seconds(60);
  const uint32_t choices = Chance(25) ? 1 + static_cast<uint32_t>(random_.Below(3)) : 1;
  for (uint32_t i = 0; i < choices; i++) drawn.choices.push_back({i, attempt, random_.Next(), {}});
  return drawn;
}

void RandomWorld::AdmitNew() { Admit(Draw(RequestId(absl::StrCat("r", next_request_++)), 0)); }

// A later attempt of a sequence, alive or ended, with what it has emitted; or a stale one.
void RandomWorld::AdmitAgain() {
  if (tracks_.empty()) return;
  auto it = tracks_.begin();
  std::advance(it, random_.Below(tracks_.size()));
  const auto& [key, track] = *it;
  if (track.emitted_ids.size() >= track.max_tokens) return;
  DecodeRequest again = Draw(key.request, key.attempt + (Chance(80) ? 1 : 0));
  again.reservation =
      ReservationId(absl::StrCat(again.reservation.value(), "/", key.choice, "/", next_request_++));
  again.prompt_ids = track.prompt_ids;
  again.stop.max_tokens = track.max_tokens;
  again.choices = {{key.choice, again.choices[0].attempt, track.seed, track.emitted_ids}};
  Admit(std::move(again));
}

void RandomWorld::Admit(DecodeRequest request) {
  const absl::Status admitted = decode_->Admit(request, now_);
  if (!admitted.ok()) {
    const bool stale = absl::IsAlreadyExists(admitted) || absl::IsFailedPrecondition(admitted);
    ASSERT_TRUE(stale || absl::IsResourceExhausted(admitted) || absl::IsInvalidArgument(admitted))
        << admitted;
    return;
  }
  for (const ChoiceStart& start : request.choices) {
    const SequenceKey key{request.request, start.choice, start.attempt};
    // The same attempt comes twice only when its reservation was released.
    ASSERT_TRUE(!tracks_.contains(key) || tracks_[key].released) << ToString(key);
    tracks_[key] = {start.seed, request.prompt_ids, start.emitted_ids, request.stop.max_tokens};
    seen_.admitted++;
  }
  const std::vector<TokenId>& emitted = request.choices.front().emitted_ids;
  std::vector<TokenId> ids = request.prompt_ids;
  ids.insert(ids.end(), emitted.begin(), emitted.end());
  if (request.local_prefill || ids.size() < 2) return;
  const ChoiceStart& first = request.choices.front();
  const absl::Status queued = remote_->Enqueue(
      {request.reservation, {request.request, first.choice, first.attempt}, ids, nullptr});
  if (queued.ok()) return;
  decode_->Release(request.reservation, EndReason::kCancelled, now_);
  for (const ChoiceStart& start : request.choices)
    tracks_[{request.request, start.choice, start.attempt}].released = true;
}

void RandomWorld::StopOne() {
  const std::vector<SequenceKey> live = decode_->live();
  if (live.empty()) return;
  const SequenceKey key = live[random_.Below(live.size())];
  const auto emitted = static_cast<uint32_t>(tracks_.at(key).emitted_ids.size());
  decode_->Stop(key, static_cast<uint32_t>(random_.Below(emitted + 1)), EndReason::kStopped, now_);
}

bool RandomWorld::TakeDeviceTask() {
  if (device_.has_value()) return false;
  if (decode_->HasTask() && (Chance(60) || !local_->HasWork())) {
    std::optional<DecodeTask> task = decode_->NextTask(now_);
    if (!task.has_value()) return false;  // no KV for a row now
    if (auto* attention = std::get_if<AttentionTask>(&*task)) {
      if (attention->step != step_) {
        if (most_in_flight_ >= 2) seen_.overlapped_steps++;
        step_ = attention->step;
        most_in_flight_ = 0;
        in_flight_.clear();
      }
      CheckRows(attention->rows);
    }
    device_ = *std::move(task);
    return true;
  }
  if (!local_->HasWork()) return false;
  std::optional<PrefillTask> task = local_->NextTask();
  EXPECT_TRUE(task.has_value());
  CheckRows(task->rows);
  device_ = *std::move(task);
  return true;
}

// No two rows write to one place, and every row's block exists.
void RandomWorld::CheckRows(const std::vector<KvRow>& rows) {
  std::set<std::pair<uint32_t, uint32_t>> places;
  for (const KvRow& row : rows) {
    ASSERT_LT(row.position / kBlockTokens, row.blocks->size());
    const uint32_t block = (*row.blocks)[row.position / kBlockTokens];
    ASSERT_LT(block, kBlocks);
    ASSERT_TRUE(places.insert({block, row.position % kBlockTokens}).second) << "block " << block;
  }
}

bool RandomWorld::FinishDeviceTask(bool may_fail) {
  if (!device_.has_value()) return false;
  const DeviceTask task = *std::exchange(device_, std::nullopt);
  const bool fails = may_fail && Chance(1);
  const absl::Status failure = absl::InternalError("device");
  if (const auto* prefill = std::get_if<PrefillTask>(&task)) {
    CheckRows(prefill->rows);
    fails ? local_->OnTaskFailed(*prefill, failure) : local_->OnTaskDone(*prefill);
    return true;
  }
  const DecodeTask& decode = std::get<DecodeTask>(task);
  if (fails) {
    decode_->OnTaskFailed(decode, failure, now_);
  } else if (const auto* attention = std::get_if<AttentionTask>(&decode)) {
    CheckRows(attention->rows);
    decode_->OnAttentionDone(*attention, now_);
  } else {
    const HeadTask& head = std::get<HeadTask>(decode);
    std::vector<SampledToken> tokens;
    for (const SampleRow& row : head.rows) {
      EXPECT_EQ(row.output_position, row.emitted_ids->size());
      tokens.push_back({TokenAt(row.seed, row.output_position), 0, {}});
    }
    decode_->OnHeadDone(head, std::move(tokens), now_);
  }
  return true;
}

bool RandomWorld::TurnPrefillWorker() {
  if (prefill_device_.has_value()) {
    remote_->OnTaskDone(*std::exchange(prefill_device_, std::nullopt));
    return true;
  }
  prefill_device_ = remote_->NextTask();
  return prefill_device_.has_value();
}

bool RandomWorld::DeliverFrame() {
  if (frames_.empty()) return false;
  const PushKv frame = frames_.front();
  frames_.pop_front();
  absl::StatusOr<const BlockTable*> destination = decode_->KvDestination(
      frame.reservation, frame.sequence.attempt, frame.layer, frame.first_position, frame.count);
  Ack ack{frame.reservation, frame.layer, 0, destination.status()};
  if (destination.ok()) {
    EXPECT_GE((*destination)->size() * kBlockTokens, frame.first_position + frame.count);
    ack.positions =
        decode_->OnKvRows(frame.reservation, frame.layer, frame.first_position, frame.count, now_);
  } else {
    EXPECT_TRUE(absl::IsNotFound(destination.status())) << destination.status();
  }
  acks_.push_back(ack);
  return true;
}

bool RandomWorld::DeliverAck() {
  if (acks_.empty()) return false;
  const Ack ack = acks_.front();
  acks_.pop_front();
  if (ack.status.ok()) {
    remote_->OnAck(ack.reservation, ack.layer, ack.positions);
  } else {
    remote_->OnPeerFailed(ack.reservation, ack.status);
  }
  return true;
}

bool RandomWorld::Progress(uint64_t kind) {
  switch (kind) {
    case 0:
      return TakeDeviceTask();
    case 1:
      return FinishDeviceTask(false);
    case 2:
      return TurnPrefillWorker();
    case 3:
      return DeliverFrame();
    case 4:
      return DeliverAck();
    default:
      return TurnHolder(*holders_[kind - 5]);
  }
}

void RandomWorld::Step() {
  now_ = now_ + Duration::Milliseconds(static_cast<int64_t>(random_.Below(20)));
  const uint64_t draw = random_.Below(1000);
  if (draw < 40) {
    AdmitNew();
  } else if (draw < 50) {
    AdmitAgain();
  } else if (draw < 56) {
    StopOne();
  } else if (draw < 66) {
    LoseOrOpenHolder();
  } else if (draw < 72) {
    ChangeGroup();
  } else if (draw < 74) {
    now_ = now_ + Duration::Seconds(1);
  } else if (draw < 120) {
    FinishDeviceTask(true);
  } else {
    for (int i = 0; i < 6; i++) {
      Progress(random_.Below(5 + holders_.size()));
      Pump();
    }
  }
  if (decode_->NextDeadline() <= now_) decode_->OnTime(now_);
  Pump();
  CheckAll();
}

void RandomWorld::Finish() {
  for (const auto& holder : holders_) {
    if (!holder->up) Open(*holder);
  }
  decode_->SetGroup(WholeGroup(), now_);
  Pump();
  constexpr int kIdleRounds = 40;  // TurnHolder draws: one idle round says little
  for (int idle = 0; idle < kIdleRounds;) {
    bool moved = false;
    for (uint64_t kind = 0; kind < 5 + holders_.size(); kind++) {
      moved |= Progress(kind);
      Pump();
      CheckAll();
    }
    // A step may be held back; leases and waits are further away.
    if (!moved && decode_->NextDeadline() <= now_ + Duration::Seconds(1)) {
      now_ = std::max(now_, decode_->NextDeadline());
      decode_->OnTime(now_);
      moved = true;
    }
    idle = moved ? 0 : idle + 1;
    if (::testing::Test::HasFailure()) return;
  }
  EXPECT_EQ(decode_->sequences(), 0u) << "stuck: " << ToString(decode_->live().front());
  for (const auto& [key, track] : tracks_) EXPECT_TRUE(track.ended) << ToString(key);
  EXPECT_EQ(book_.free_blocks(), kBlocks);
  EXPECT_EQ(prefill_book_.free_blocks(), prefill_book_.total_blocks());
  EXPECT_EQ(local_->jobs(), 0u);
  EXPECT_EQ(remote_->jobs(), 0u);
  for (const auto& holder : holders_) EXPECT_EQ(holder->owed_bytes, 0u);
  EXPECT_EQ(decode_->NextDeadline(), Instant::Never());
}

void RandomWorld::Pump() {
  for (bool more = true; more;) {
    const std::vector<DecodeEffect> decode = decode_->TakeEffects();
    for (const DecodeEffect& effect : decode)
      std::visit([&](const auto& e) { CarryOut(e); }, effect);
    const std::vector<PrefillEffect> local = local_->TakeEffects();
    for (const PrefillEffect& effect : local) CarryOutLocal(effect);
    const std::vector<PrefillEffect> remote = remote_->TakeEffects();
    for (const PrefillEffect& effect : remote) CarryOutRemote(effect);
    more = !decode.empty() || !local.empty() || !remote.empty();
  }
}

void RandomWorld::CarryOut(const StartLocalPrefill& effect) {
  const absl::Status queued =
      local_->Enqueue({effect.reservation, effect.sequence, effect.ids, effect.blocks});
  if (!queued.ok()) decode_->OnLocalPrefillFailed(effect.reservation, queued, now_);
}

void RandomWorld::CarryOut(const ReservationFreed& effect) {
  if (effect.local_prefill) local_->Cancel(effect.reservation);
}

void RandomWorld::CarryOut(const CopyBlocks& effect) {
  seen_.forks++;
  for (const KvBook::BlockCopy& copy : effect.copies) {
    EXPECT_NE(copy.from, copy.to);
    EXPECT_LT(copy.to, kBlocks);
  }
}

void RandomWorld::CarryOut(const HolderSuspected& effect) { EXPECT_FALSE(effect.status.ok()); }

void RandomWorld::CarryOut(const SequencesStarted& effect) {
  for (const SequenceKey& key : effect.sequences)
    EXPECT_TRUE(tracks_.contains(key)) << ToString(key);
}

void RandomWorld::CarryOut(const Emit& effect) {
  const std::string name = ToString(effect.sequence);
  ASSERT_TRUE(tracks_.contains(effect.sequence)) << name;
  Track& track = tracks_[effect.sequence];
  ASSERT_FALSE(track.ended) << name << " speaks after its end";
  ASSERT_EQ(effect.position, track.emitted_ids.size()) << name;
  ASSERT_TRUE(effect.token.has_value() || effect.end.has_value()) << name;
  if (effect.token.has_value()) {
    ASSERT_EQ(effect.token->id, TokenAt(track.seed, effect.position)) << name;
    track.emitted_ids.push_back(effect.token->id);
    seen_.tokens++;
  }
  const bool eos = effect.token.has_value() && effect.token->id == kEos;
  ASSERT_TRUE(!eos || effect.end.has_value()) << name << " goes on after its end token";
  if (!effect.end.has_value()) {
    ASSERT_LT(track.emitted_ids.size(), track.max_tokens) << name;
    return;
  }
  track.ended = true;
  ASSERT_EQ(effect.end->status.ok(), effect.end->reason != EndReason::kFailed) << name;
  if (effect.end->reason == EndReason::kEos) {
    ASSERT_TRUE(eos) << name;
  }
  if (effect.end->reason == EndReason::kLength) {
    ASSERT_EQ(track.emitted_ids.size(), track.max_tokens) << name;
  }
  if (effect.end->reason == EndReason::kPreempted) seen_.preempted++;
  if (effect.end->reason == EndReason::kSuperseded) seen_.superseded++;
  if (effect.end->reason == EndReason::kStopped) seen_.stopped++;
  if (effect.end->reason == EndReason::kFailed) seen_.failed++;
}

void RandomWorld::CarryOutLocal(const PrefillEffect& effect) {
  if (const auto* done = std::get_if<PrefillDone>(&effect))
    decode_->OnLocalPrefillDone(done->reservation, now_);
  if (const auto* failed = std::get_if<PrefillFailed>(&effect)) {
    decode_->OnLocalPrefillFailed(failed->reservation, failed->status, now_);
  }
  EXPECT_FALSE(std::holds_alternative<PushKv>(effect));
}

void RandomWorld::CarryOutRemote(const PrefillEffect& effect) {
  if (const auto* push = std::get_if<PushKv>(&effect)) frames_.push_back(*push);
}

void RandomWorld::CheckAll() {
  ASSERT_LE(book_.free_blocks(), kBlocks);
  ASSERT_LE(decode_->sequences(), config_.max_sequences);
  size_t live = 0;
  for (const auto& [key, track] : tracks_) live += track.ended ? 0 : 1;
  ASSERT_EQ(live, decode_->sequences())
      << "a sequence is held that has ended, or lost that has not";
  if (live == 0 && local_->jobs() == 0) {
    ASSERT_EQ(book_.free_blocks(), kBlocks);
  }
}

}  // namespace tandem::step
