#pragma once

// The relay between fake streams.

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "services/gateway/relay/relay.h"
#include "tests/fakes/manual_time.h"

namespace tandem::gateway {

struct FakeRouter final : RouterLink {
  void Generate(const tandem::GenerateSpec& spec) override { sent.push_back(spec); }
  void Abort(const RequestId&, const std::vector<uint32_t>& choices) override {
    aborted.push_back(choices);
  }
  std::vector<tandem::GenerateSpec> sent;
  std::vector<std::vector<uint32_t>> aborted;
};

struct FakeWorker final : WorkerLink {
  void Stop(const SequenceKey& sequence, uint32_t position, EndReason) override {
    stopped.emplace_back(ToString(sequence), position);
  }
  void Acknowledge(uint64_t step) override { acknowledged = step; }
  void Dial(const std::string& to) override { address = to; }
  std::vector<std::pair<std::string, uint32_t>> stopped;
  uint64_t acknowledged = 0;
  std::string address;
};

struct FakeDialer final : WorkerDialer {
  WorkerLink* Link(const WorkerId& worker) override { return &workers[worker.value()]; }
  void Forget(const WorkerId& worker) override { workers.erase(worker.value()); }
  std::map<std::string, FakeWorker> workers;
};

struct Client final : ChoiceSink {
  bool Deliver(ChoiceEvent event) override {
    if (full) return false;
    for (const NewToken& token : event.tokens) tokens[event.choice].push_back(token.id);
    if (event.result.has_value()) ends[event.choice].push_back(event.result->result.end);
    return true;
  }
  bool full = false;
  std::map<uint32_t, std::vector<TokenId>> tokens;
  std::map<uint32_t, std::vector<SequenceEnd>> ends;
};

class RelayTest : public ::testing::Test {
 protected:
  RelayTest() {
    relay_->AddRouter(router_);
    relay_->RouterUp(0, Duration::Seconds(10));
    relay_->ClusterChanged(0, {true, "", 8192, {{WorkerId("A"), "a:1"}, {WorkerId("B"), "b:1"}}});
    relay_->WorkerUp(WorkerId("A"));
    relay_->WorkerUp(WorkerId("B"));
  }
  std::shared_ptr<Client> Send(uint32_t n = 1) {
    tandem::GenerateSpec spec;
    spec.request = RequestId("r");
    spec.prompt_ids = {1, 2, 3};
    spec.stop.max_tokens = 100;
    for (uint32_t i = 0; i < n; ++i) spec.choices.push_back({i, 0, 7, {}});
    auto client = std::make_shared<Client>();
    EXPECT_TRUE(relay_->Start(std::move(spec), client).ok());
    return client;
  }
  void Place(const char* worker, uint32_t choice = 0, uint32_t attempt = 0) {
    relay_->Placed({{RequestId("r"), choice, attempt},
                    "pd-afd",
                    "P",
                    {WorkerId(worker), worker == std::string("A") ? "a:1" : "b:1"}});
  }
  void Token(const char* worker, uint32_t position, std::vector<TokenId> ids, uint32_t attempt = 0,
             std::optional<EndReason> end = std::nullopt, absl::Status status = {}) {
    SequenceTokens part;
    part.sequence = {RequestId("r"), 0, attempt};
    part.position = position;
    for (const TokenId id : ids) part.tokens.push_back({id, {}});
    if (end.has_value()) part.result = SequenceResult{{*end, std::move(status)}, {}, 0};
    relay_->Tokens(WorkerId(worker), {++step_, {part}});
  }

  test::ManualTime time_;
  FakeDialer dialer_;
  FakeRouter router_;
  uint64_t step_ = 0;
  std::shared_ptr<Relay> relay_ = Relay::Create({}, time_, dialer_);
};

}  // namespace tandem::gateway
