#pragma once

// Drives one Controller by hand: events in, commands out, with short names for the workers of a
// test.

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "scheduler/control/controller.h"

namespace tandem::control {

inline const GatewayId kGateway("gw");

// "colocated", "prefill", "attention+prefill" ...: stages joined by '+'.
inline WorkerDescription MakeWorker(const std::string& id, std::set<Stage> stages,
                                    uint64_t incarnation = 1) {
  WorkerDescription worker;
  worker.id = WorkerId(id);
  worker.incarnation = incarnation;
  worker.pool = "pool";
  worker.model = "m";
  worker.stages = std::move(stages);
  worker.address = id + ":1";
  worker.dimensions = {4, 64, 2, 16, 1000, 2048};
  if (worker.Runs(Stage::kPrefill)) {
    worker.numerics.prefill = "p-class";
    worker.capacity.prefill_slots = 4;
  }
  if (worker.Runs(Stage::kAttention)) {
    worker.numerics.attention = "a-class";
    worker.capacity.kv_blocks = 64;
    worker.capacity.block_tokens = 16;
    worker.capacity.max_sequences = 8;
  }
  if (worker.Runs(Stage::kFfn)) {
    worker.numerics.ffn = "f-class";
    worker.capacity.max_handoff_rows = 64;
    worker.shard_epoch = 7;
  }
  return worker;
}

inline const std::set<Stage> kAllStages = {Stage::kPrefill, Stage::kAttention, Stage::kFfn};
inline const std::set<Stage> kPrefillOnly = {Stage::kPrefill};
inline const std::set<Stage> kAttentionOnly = {Stage::kAttention};
inline const std::set<Stage> kAttentionAndFfn = {Stage::kAttention, Stage::kFfn};
inline const std::set<Stage> kPrefillAndAttention = {Stage::kPrefill, Stage::kAttention};
inline const std::set<Stage> kFfnOnly = {Stage::kFfn};

inline GenerateSpec MakeSpec(const std::string& request, uint32_t prompt = 20,
                             uint32_t max_tokens = 10, uint32_t n = 1) {
  GenerateSpec spec;
  spec.request = RequestId(request);
  for (uint32_t i = 0; i < prompt; i++) spec.prompt_ids.push_back(i);
  spec.stop.max_tokens = max_tokens;
  for (uint32_t i = 0; i < n; i++) spec.choices.push_back({i, 0, i, {}});
  return spec;
}

inline SequenceKey Key(const std::string& request, uint32_t choice = 0, uint32_t attempt = 0) {
  return {RequestId(request), choice, attempt};
}

class ControllerTest : public testing::Test {
 protected:
  explicit ControllerTest(ControllerConfig config = {}) : config_(std::move(config)) {
    config_.model = "m";
    controller_ = std::make_unique<Controller>(config_);
  }

  // Handles the event and remembers its commands, in front of which the older ones are dropped.
  void Tell(const Event& event) { commands_ = controller_->Handle(event, now_); }

  // A gateway and workers; SetGroup commands are answered OK, as a worker does.
  void Connect() { Tell(GatewayConnected{kGateway}); }
  void Register(const WorkerDescription& worker) {
    incarnations_[worker.id] = worker.incarnation;
    Tell(WorkerRegistered{worker});
    AnswerGroups();
  }
  void AnswerGroups() {
    const std::vector<Command> before = commands_;
    for (const SendSetGroup& group : All<SendSetGroup>(before)) Answer(group.worker, group.command);
    commands_ = before;
  }
  void Answer(const WorkerId& worker, CommandId command, absl::Status status = absl::OkStatus()) {
    Tell(CommandAnswered{worker, incarnations_[worker], command, std::move(status)});
  }
  void Generate(GenerateSpec spec) { Tell(GenerateArrived{kGateway, std::move(spec)}); }
  void Advance(Duration by) { now_ = now_ + by; }
  void Heartbeat(const std::string& worker, WorkerLoad load) {
    Tell(WorkerHeartbeat{WorkerId(worker), incarnations_[WorkerId(worker)], load});
  }
  void Lose(const std::string& worker) {
    Tell(WorkerLost{WorkerId(worker), incarnations_[WorkerId(worker)], "stream broke"});
  }

  template <typename C>
  static std::vector<C> All(const std::vector<Command>& commands) {
    std::vector<C> found;
    for (const Command& command : commands) {
      if (const C* c = std::get_if<C>(&command)) found.push_back(*c);
    }
    return found;
  }
  template <typename C>
  std::vector<C> All() const {
    return All<C>(commands_);
  }
  // The only command of that kind among the last event's; an empty one, and a failure, when there
  // is not exactly one.
  template <typename C>
  C Only() const {
    const std::vector<C> found = All<C>();
    EXPECT_EQ(found.size(), 1u);
    return found.size() == 1 ? found[0] : C();
  }

  ControllerConfig config_;
  std::unique_ptr<Controller> controller_;
  Instant now_ = Instant::FromNanoseconds(1'000'000'000);
  std::vector<Command> commands_;
  std::map<WorkerId, uint64_t> incarnations_;
};

}  // namespace tandem::control
