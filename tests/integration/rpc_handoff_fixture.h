#pragma once

// What the hand-off tests share: a puppet for the FFN engine, a listener that remembers, a server
// and a connector.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "services/runtime/real_time.h"
#include "tests/integration/rpc_support.h"
#include "workers/rpc/handoff_connector.h"
#include "workers/rpc/handoff_service.h"

namespace tandem::test {

constexpr uint32_t kHidden = 576;
constexpr uint32_t kRows = 8;

// An FFN engine that does what the test says: grants, refuses, answers or keeps silent.
class PuppetDoor final : public FfnDoor {
 public:
  struct Seen {
    std::vector<HandoffHello> hellos;
    std::map<step::StreamId, std::shared_ptr<FfnReplySink>> sinks;
    std::deque<std::pair<step::StreamId, A2f>> calls;
    std::vector<step::StreamId> closed;
    std::vector<std::pair<bool, Instant>> live;
  };

  void OpenStream(
      const HandoffHello& hello, std::shared_ptr<FfnReplySink> sink,
      absl::AnyInvocable<void(absl::StatusOr<std::pair<step::StreamId, HandoffGrantInfo>>)> opened)
      override {
    if (!refusal.ok()) return opened(refusal);
    if (silent_open) {
      held_open = std::move(opened);
      seen.Change([&](Seen& s) { s.hellos.push_back(hello); });
      return;
    }
    step::StreamId stream{};
    seen.Change([&](Seen& s) {
      stream = step::StreamId(s.sinks.size() + 1);
      s.hellos.push_back(hello);
      s.sinks[stream] = std::move(sink);
    });
    opened(std::make_pair(
        stream, HandoffGrantInfo{.credit_bytes = 1 << 20, .max_rows = kRows, .shard_epoch = 7}));
  }
  void Call(step::StreamId stream, A2f call) override {
    std::shared_ptr<FfnReplySink> sink;
    seen.Change([&](Seen& s) {
      sink = s.sinks[stream];
      if (!echo) s.calls.emplace_back(stream, call);
    });
    if (echo) sink->Reply(Answer(call));
  }
  void SetLive(step::StreamId, bool live, Instant arrives_at) override {
    seen.Change([&](Seen& s) { s.live.emplace_back(live, arrives_at); });
  }
  void CloseStream(step::StreamId stream) override {
    seen.Change([&](Seen& s) { s.closed.push_back(stream); });
  }

  // Every value plus one: a reply that differs from its call, row by row.
  static F2a Answer(const A2f& call) {
    F2a reply;
    reply.call = call.call;
    reply.data = call.data;
    for (float& value : reply.data) value += 1;
    reply.queue_time = Duration::Microseconds(250);
    reply.compute_time = Duration::Milliseconds(2);
    reply.merged_rows = call.rows;
    return reply;
  }

  bool echo = true;
  bool silent_open = false;
  absl::Status refusal;
  // With silent_open: the answer that a stream waits for, from when its hello is seen.
  absl::AnyInvocable<void(absl::StatusOr<std::pair<step::StreamId, HandoffGrantInfo>>)> held_open;
  Watched<Seen> seen;
};

struct Heard {
  std::vector<HandoffGrantInfo> grants;
  std::vector<F2a> replies;
  std::vector<absl::Status> broken;
};

class Listener final : public FfnLinkListener {
 public:
  void OnGrant(const HandoffGrantInfo& grant) override {
    heard.Change([&](Heard& h) { h.grants.push_back(grant); });
  }
  void OnReply(F2a reply) override {
    heard.Change([&](Heard& h) { h.replies.push_back(std::move(reply)); });
  }
  void OnBroken(const absl::Status& status) override {
    heard.Change([&](Heard& h) { h.broken.push_back(status); });
  }
  bool AwaitGrant() {
    return heard.Await("the grant",
                       [](const Heard& h) { return !h.grants.empty() || !h.broken.empty(); });
  }
  bool AwaitReplies(size_t count) {
    return heard.Await("replies", [&](const Heard& h) { return h.replies.size() >= count; });
  }
  bool AwaitBroken() {
    return heard.Await("OnBroken", [](const Heard& h) { return !h.broken.empty(); });
  }
  Watched<Heard> heard;
};

inline A2f MakeCall(uint64_t step, uint32_t layer, uint32_t micro_batch, uint32_t rows) {
  A2f call;
  call.call = {.step = step, .layer = layer, .micro_batch = micro_batch, .attempt = 0};
  call.rows = rows;
  call.shard_epoch = 7;
  for (size_t i = 0; i < size_t{rows} * kHidden; ++i)
    call.data.push_back(static_cast<float>(i) + 0.25f * micro_batch);
  return call;
}

class HandoffRpc : public ::testing::Test {
 protected:
  std::unique_ptr<FfnLink> Open(std::shared_ptr<Listener> listener) {
    const HandoffHello hello{.attention_worker = "a0",
                             .model = "m",
                             .hidden = kHidden,
                             .layers = 30,
                             .ffn_class = "",
                             .shard_epoch = 7,
                             .max_rows = kRows};
    return connector_->Open(
        {.worker = WorkerId("f0"), .address = server_.address(), .shard_epoch = 7}, hello,
        listener);
  }
  void UseLimits(LinkLimits limits) {
    connector_ = std::make_unique<HandoffConnector>(time_, Random(1), limits);
  }

  PuppetDoor door_;
  HandoffService service_{door_};
  test::TestServer server_{{&service_}};
  RealTimeSource time_;
  std::unique_ptr<HandoffConnector> connector_ =
      std::make_unique<HandoffConnector>(time_, Random(1), LinkLimits());
};

}  // namespace tandem::test
