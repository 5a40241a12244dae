#pragma once

// An attention worker's decode machine with a hand on every event, and its effects sorted by kind.

#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "scheduler/step/decode_machine.h"

namespace tandem::step {

class DecodeFixture : public ::testing::Test {
 protected:
  static constexpr uint32_t kBlockTokens = 4;
  static constexpr uint64_t kHiddenBytes = 16;

  DecodeFixture() {
    config_.layers = 2;
    config_.context_tokens = 64;
    config_.max_batch = 8;
    config_.max_micro_batches = 2;
    config_.hidden_bytes = kHiddenBytes;
    config_.end_tokens = {99};
    Make(64);
  }

  void Make(uint32_t blocks) {
    machine_.reset();
    book_ = std::make_unique<KvBook>(blocks, kBlockTokens);
    machine_ = std::make_unique<DecodeMachine>(config_, *book_);
  }

  // One holder, "f", that takes whole batches.
  void WithFfn() {
    machine_->SetGroup(WholeHolders({"f"}), now_);
    machine_->OnHolderUp("f", 2 * 8 * kHiddenBytes, 8, now_);
  }

  DecodeRequest Request(const std::string& name, size_t prompt, uint32_t max_tokens,
                        uint32_t choices = 1, uint32_t attempt = 0) const {
    DecodeRequest request;
    request.reservation = ReservationId(absl::StrCat(name, "/", attempt));
    request.gateway = GatewayId("g");
    request.request = RequestId(name);
    for (uint32_t i = 0; i < choices; i++) request.choices.push_back({i, attempt, 7 + i, {}});
    for (size_t i = 0; i < prompt; i++) request.prompt_ids.push_back(static_cast<TokenId>(100 + i));
    request.stop.max_tokens = max_tokens;
    return request;
  }
  static SequenceKey Key(const std::string& name, uint32_t choice = 0, uint32_t attempt = 0) {
    return {RequestId(name), choice, attempt};
  }

  absl::Status Admit(DecodeRequest request) {
    const absl::Status status = machine_->Admit(std::move(request), now_);
    Collect();
    return status;
  }
  // A sequence of one prompt id, which runs at once.
  void Run(const std::string& name, uint32_t max_tokens = 8) {
    ASSERT_TRUE(Admit(Request(name, 1, max_tokens)).ok());
  }
  // All KV rows of a reservation, layer by layer.
  void FillKv(const DecodeRequest& request, uint32_t rows) {
    for (uint32_t layer = 0; layer < config_.layers; layer++) {
      ASSERT_TRUE(
          machine_
              ->KvDestination(request.reservation, request.choices.front().attempt, layer, 0, rows)
              .ok());
      EXPECT_EQ(machine_->OnKvRows(request.reservation, layer, 0, rows, now_), rows);
    }
    Collect();
  }

  void Collect() {
    for (DecodeEffect& effect : machine_->TakeEffects()) {
      if (auto* emit = std::get_if<Emit>(&effect)) emits_.push_back(*emit);
      if (auto* send = std::get_if<SendA2f>(&effect)) sends_.push_back(*send);
      if (auto* copy = std::get_if<CopyBlocks>(&effect))
        copies_.insert(copies_.end(), copy->copies.begin(), copy->copies.end());
      if (auto* local = std::get_if<StartLocalPrefill>(&effect)) local_prefills_.push_back(*local);
      if (auto* freed = std::get_if<ReservationFreed>(&effect)) freed_.push_back(*freed);
      if (auto* suspected = std::get_if<HolderSuspected>(&effect)) suspected_.push_back(*suspected);
      if (auto* started = std::get_if<SequencesStarted>(&effect)) {
        started_.insert(started_.end(), started->sequences.begin(), started->sequences.end());
      }
    }
  }

  // The next task, which must be attention; it is done at once.
  AttentionTask Attend() {
    std::optional<DecodeTask> task = machine_->NextTask(now_);
    EXPECT_TRUE(task.has_value() && std::holds_alternative<AttentionTask>(*task));
    if (!task.has_value() || !std::holds_alternative<AttentionTask>(*task)) return {};
    AttentionTask attention = std::get<AttentionTask>(*task);
    machine_->OnAttentionDone(attention, now_);
    Collect();
    return attention;
  }
  // The next task, which must be the head; every row draws `token`.
  void Draw(TokenId token = 5) {
    std::optional<DecodeTask> task = machine_->NextTask(now_);
    ASSERT_TRUE(task.has_value() && std::holds_alternative<HeadTask>(*task));
    const HeadTask head = std::get<HeadTask>(*task);
    machine_->OnHeadDone(
        head, std::vector<SampledToken>(head.rows.size(), SampledToken{token, 0, {}}), now_);
    Collect();
  }
  bool Reply(const SendA2f& send) {
    const bool matched = machine_->OnFfnReply(send.holder, send.call, false, now_).has_value();
    Collect();
    return matched;
  }
  // Computes and answers until the running step is over (at least one task).
  void RunStep(TokenId token = 5) {
    const size_t before = emits_.size();
    while (emits_.size() == before) {
      for (const SendA2f& send : std::exchange(sends_, {})) EXPECT_TRUE(Reply(send));
      std::optional<DecodeTask> task = machine_->NextTask(now_);
      Collect();
      if (!task.has_value()) return;
      if (auto* attention = std::get_if<AttentionTask>(&*task))
        machine_->OnAttentionDone(*attention, now_);
      if (auto* head = std::get_if<HeadTask>(&*task)) {
        machine_->OnHeadDone(
            *head, std::vector<SampledToken>(head->rows.size(), SampledToken{token, 0, {}}), now_);
      }
      Collect();
    }
  }
  // The end that was said of the sequence; kFailed/kUnknown when none was.
  SequenceEnd EndOf(const SequenceKey& key) const {
    SequenceEnd end{EndReason::kFailed, absl::UnknownError("not ended")};
    for (const Emit& emit : emits_) {
      if (emit.sequence == key && emit.end.has_value()) end = *emit.end;
    }
    return end;
  }
  std::vector<TokenId> TokensOf(const SequenceKey& key) const {
    std::vector<TokenId> tokens;
    for (const Emit& emit : emits_) {
      if (emit.sequence == key && emit.token.has_value()) tokens.push_back(emit.token->id);
    }
    return tokens;
  }

  Instant now_ = Instant::FromNanoseconds(1'000'000'000);
  DecodeConfig config_;
  std::unique_ptr<KvBook> book_;
  std::unique_ptr<DecodeMachine> machine_;
  std::vector<Emit> emits_;
  std::vector<SendA2f> sends_;
  std::vector<KvBook::BlockCopy> copies_;
  std::vector<StartLocalPrefill> local_prefills_;
  std::vector<ReservationFreed> freed_;
  std::vector<HolderSuspected> suspected_;
  std::vector<SequenceKey> started_;
};

}  // namespace tandem::step
