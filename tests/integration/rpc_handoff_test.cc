// A2F/F2A over real gRPC in one process: HandoffConnector against HandoffService, with a puppet for
// the FFN engine.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "services/runtime/real_time.h"
#include "services/runtime/server_stream.h"
#include "tandem/v1/handoff.grpc.pb.h"
#include "tests/integration/rpc_handoff_fixture.h"
#include "tests/integration/rpc_support.h"
#include "workers/rpc/handoff_connector.h"
#include "workers/rpc/handoff_service.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;
using namespace test;  // the fixture

TEST_F(HandoffRpc, ReplyCarriesTheRowsAndTheHoldersTimes) {
  auto listener = std::make_shared<Listener>();
  auto link = Open(listener);
  ASSERT_TRUE(listener->AwaitGrant());
  EXPECT_EQ(listener->heard.Get().grants.at(0).max_rows, kRows);
  EXPECT_EQ(listener->heard.Get().grants.at(0).shard_epoch, 7u);
  EXPECT_EQ(door_.seen.Get().hellos.at(0).attention_worker, "a0");
  const A2f call = MakeCall(3, 29, 1, kRows);
  link->Send(call);
  ASSERT_TRUE(listener->AwaitReplies(1));
  const F2a reply = listener->heard.Get().replies.at(0);
  EXPECT_EQ(reply.call, call.call);
  EXPECT_EQ(reply.data, PuppetDoor::Answer(call).data);
  EXPECT_EQ(reply.queue_time, Duration::Microseconds(250));
  EXPECT_EQ(reply.compute_time, Duration::Milliseconds(2));
  EXPECT_EQ(reply.merged_rows, kRows);
  EXPECT_TRUE(reply.status.ok());
}

TEST_F(HandoffRpc, ZeroRowsAreACallLikeAnyOther) {
  auto listener = std::make_shared<Listener>();
  auto link = Open(listener);
  ASSERT_TRUE(listener->AwaitGrant());
  link->Send(MakeCall(1, 0, 0, 0));
  ASSERT_TRUE(listener->AwaitReplies(1));
  EXPECT_TRUE(listener->heard.Get().replies.at(0).status.ok());
  EXPECT_TRUE(listener->heard.Get().replies.at(0).data.empty());
}

TEST_F(HandoffRpc, WhetherASequenceLivesIsToldInOrder) {
  auto listener = std::make_shared<Listener>();
  auto link = Open(listener);
  ASSERT_TRUE(listener->AwaitGrant());
  const Instant at = Instant::FromNanoseconds(5'000'000'000);
  link->SetLive(true, at);
  link->SetLive(false, Instant());
  ASSERT_TRUE(door_.seen.Await("two words", [](const auto& s) { return s.live.size() == 2; }));
  const auto live = door_.seen.Get().live;
  EXPECT_EQ(live[0], std::pair(true, at));
  EXPECT_EQ(live[1], std::pair(false, Instant()));
}

TEST_F(HandoffRpc, CallsInFlightAreAnsweredInAnyOrder) {
  door_.echo = false;
  auto listener = std::make_shared<Listener>();
  auto link = Open(listener);
  ASSERT_TRUE(listener->AwaitGrant());
  for (uint32_t m = 0; m < 4; ++m) link->Send(MakeCall(1, 5, m, m + 1));
  ASSERT_TRUE(door_.seen.Await("four calls",
                               [](const PuppetDoor::Seen& s) { return s.calls.size() == 4; }));
  const PuppetDoor::Seen seen = door_.seen.Get();
  for (int i : {2, 0, 3, 1})
    seen.sinks.begin()->second->Reply(PuppetDoor::Answer(seen.calls[i].second));
  ASSERT_TRUE(listener->AwaitReplies(4));
  const Heard heard = listener->heard.Get();
  for (size_t i = 0; i < 4; ++i) {
    const uint32_t m = heard.replies[i].call.micro_batch;
    EXPECT_EQ(m, (std::vector<uint32_t>{2, 0, 3, 1})[i]);
    EXPECT_EQ(heard.replies[i].data, PuppetDoor::Answer(MakeCall(1, 5, m, m + 1)).data);
  }
}

TEST_F(HandoffRpc, ManyCallsOfManyThreadsAllComeBackWithTheirOwnRows) {
  auto listener = std::make_shared<Listener>();
  auto link = Open(listener);
  ASSERT_TRUE(listener->AwaitGrant());
  constexpr uint32_t kThreads = 4, kCalls = 100;
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (uint32_t i = 0; i < kCalls; ++i) link->Send(MakeCall(i, t, t, 1 + t));
    });
  }
  for (std::thread& thread : threads) thread.join();
  ASSERT_TRUE(listener->AwaitReplies(kThreads * kCalls));
  const Heard heard = listener->heard.Get();
  EXPECT_TRUE(heard.broken.empty());
  for (const F2a& reply : heard.replies) {
    ASSERT_EQ(reply.data, PuppetDoor::Answer(MakeCall(reply.call.step, reply.call.layer,
                                                      reply.call.micro_batch, 1 + reply.call.layer))
                              .data);
  }
}

TEST_F(HandoffRpc, RefusedOpenTellsTheReasonAndBreaksOnce) {
  door_.refusal = absl::FailedPreconditionError("f0 holds 24 layers, the peer has 30");
  auto listener = std::make_shared<Listener>();
  auto link = Open(listener);
  ASSERT_TRUE(listener->AwaitBroken());
  link.reset();
  const Heard heard = listener->heard.Get();
  ASSERT_EQ(heard.broken.size(), 1u);
  EXPECT_THAT(std::string(heard.broken[0].message()), HasSubstr("24 layers"));
  EXPECT_TRUE(heard.grants.empty());
}

TEST_F(HandoffRpc, DeathInMidCallBreaksTheLinkOnceAndFreesTheStream) {
  door_.echo = false;
  auto listener = std::make_shared<Listener>();
  auto link = Open(listener);
  ASSERT_TRUE(listener->AwaitGrant());
  link->Send(MakeCall(1, 0, 0, kRows));
  ASSERT_TRUE(
      door_.seen.Await("the call", [](const PuppetDoor::Seen& s) { return s.calls.size() == 1; }));
  server_.Kill();
  ASSERT_TRUE(listener->AwaitBroken());
  ASSERT_TRUE(door_.seen.Await("CloseStream",
                               [](const PuppetDoor::Seen& s) { return s.closed.size() == 1; }));
  door_.seen.Get().sinks.begin()->second->Reply(
      PuppetDoor::Answer(MakeCall(1, 0, 0, kRows)));  // too late: dropped
  link->Send(MakeCall(1, 1, 0, kRows));               // dropped as well
  link.reset();
  EXPECT_EQ(listener->heard.Get().broken.size(), 1u);
  EXPECT_TRUE(listener->heard.Get().replies.empty());
}

TEST_F(HandoffRpc, ClosingTheLinkClosesTheStreamWithoutAnotherWord) {
  auto listener = std::make_shared<Listener>();
  auto link = Open(listener);
  ASSERT_TRUE(listener->AwaitGrant());
  link.reset();
  ASSERT_TRUE(door_.seen.Await("CloseStream",
                               [](const PuppetDoor::Seen& s) { return s.closed.size() == 1; }));
  EXPECT_TRUE(listener->heard.Get().broken.empty());
  connector_.reset();  // waits for gRPC's last word
  EXPECT_TRUE(listener->heard.Get().broken.empty());
}

TEST_F(HandoffRpc, SilentHolderIsGivenUpAfterTheStallTime) {
  UseLimits(
      {.stall = {.base = Duration::Milliseconds(100), .per_piece = Duration::Milliseconds(10)},
       .backoff = {}});
  door_.echo = false;
  auto listener = std::make_shared<Listener>();
  auto link = Open(listener);
  ASSERT_TRUE(listener->AwaitGrant());
  link->Send(MakeCall(1, 0, 0, 1));
  ASSERT_TRUE(listener->AwaitBroken());
  EXPECT_THAT(std::string(listener->heard.Get().broken[0].message()),
              HasSubstr("FFN worker f0: no answer for 0."));
}

TEST_F(HandoffRpc, HolderThatNeverGrantsIsGivenUp) {
  UseLimits({.stall = {.base = Duration::Milliseconds(500)}, .backoff = {}});
  door_.silent_open = true;
  auto listener = std::make_shared<Listener>();
  auto link = Open(listener);
  ASSERT_TRUE(listener->AwaitBroken());
  EXPECT_TRUE(listener->heard.Get().grants.empty());
  link.reset();
  ASSERT_TRUE(door_.seen.Await("the hello", [](const auto& s) { return s.hellos.size() == 1; }));
  // The engine's late grant finds the peer gone, and the stream is closed again.
  door_.held_open(std::make_pair(
      step::StreamId(9), HandoffGrantInfo{.credit_bytes = 1, .max_rows = 1, .shard_epoch = 7}));
  door_.held_open = nullptr;
  ASSERT_TRUE(door_.seen.Await("CloseStream",
                               [](const PuppetDoor::Seen& s) { return s.closed.size() == 1; }));
}

TEST_F(HandoffRpc, DeadHolderIsDialledAgainOnlyAfterItsBackoffAndFoundWhenItReturns) {
  UseLimits({.stall = {},
             .backoff = {.first = Duration::Milliseconds(40), .most = Duration::Milliseconds(80)}});
  const std::string address = server_.address();
  server_.Kill();
  const Instant start = time_.Now();
  for (int i = 0; i < 3; ++i) {
    auto listener = std::make_shared<Listener>();
    auto link = Open(listener);
    ASSERT_TRUE(listener->AwaitBroken());
  }
  EXPECT_GE(time_.Now() - start,
            Duration::Milliseconds(20 + 40));  // the first try is free; waits are at least half
  HandoffService revived(door_);
  test::TestServer server({&revived}, address);
  auto listener = std::make_shared<Listener>();
  auto link = Open(listener);
  ASSERT_TRUE(listener->AwaitGrant());
  EXPECT_EQ(listener->heard.Get().grants.size(), 1u);
}

// ---- A peer that is not ours: what it may do wrong, message by message.

class RawPeer {
 public:
  explicit RawPeer(const std::string& address)
      : stub_(v1::Handoff::NewStub(MakeChannel(address))), stream_(stub_->Exchange(&context_)) {}
  ~RawPeer() {
    if (!finished_) {
      context_.TryCancel();
      stream_->Finish();
    }
  }
  bool Open(uint32_t hidden = kHidden, uint32_t max_rows = kRows) {
    v1::A2fMessage message = OpenMessage(hidden, max_rows);
    v1::F2aMessage reply;
    return stream_->Write(message) && stream_->Read(&reply) && reply.has_grant() &&
           !reply.grant().has_error();
  }
  static v1::A2fMessage OpenMessage(uint32_t hidden = kHidden, uint32_t max_rows = kRows) {
    v1::A2fMessage message;
    v1::HandoffOpen& open = *message.mutable_open();
    open.set_protocol_version(1);
    open.set_attention_worker("raw");
    open.set_model("m");
    open.set_hidden(hidden);
    open.set_layers(30);
    open.set_shard_epoch(7);
    open.set_max_rows(max_rows);
    return message;
  }
  bool Write(const v1::A2fMessage& message) { return stream_->Write(message); }
  bool Read(v1::F2aMessage& message) { return stream_->Read(&message); }
  grpc::Status Finish() {
    finished_ = true;
    return stream_->Finish();
  }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<v1::Handoff::Stub> stub_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::A2fMessage, v1::F2aMessage>> stream_;
  bool finished_ = false;
};

v1::A2fMessage GoodCall() {
  v1::A2fMessage message;
  v1::A2fCall& call = *message.mutable_call();
  call.set_step(1);
  call.set_layer(2);
  call.set_rows(2);
  call.set_dtype(v1::DATA_TYPE_F32);
  call.set_data(std::string(2 * kHidden * sizeof(float), '\0'));
  call.set_shard_epoch(7);
  return message;
}

TEST_F(HandoffRpc, PlainProtobufPeerIsUnderstood) {
  RawPeer peer(server_.address());
  ASSERT_TRUE(peer.Open());
  ASSERT_TRUE(peer.Write(GoodCall()));
  v1::F2aMessage reply;
  ASSERT_TRUE(peer.Read(reply));
  ASSERT_TRUE(reply.has_reply());
  EXPECT_EQ(reply.reply().layer(), 2u);
  EXPECT_EQ(reply.reply().data().size(), 2 * kHidden * sizeof(float));
  float first = 0;
  memcpy(&first, reply.reply().data().data(), sizeof(first));
  EXPECT_EQ(first, 1.0f);
}

TEST_F(HandoffRpc, MalformedCallsAreAnsweredWithAnErrorAndTheStreamLives) {
  struct Case {
    const char* name;
    void (*spoil)(v1::A2fCall&);
    const char* reason;
  };
  const Case cases[] = {
      {"a row short", [](v1::A2fCall& c) { c.mutable_data()->resize(kHidden * 4); },
       "bytes of data"},
      {"a byte long", [](v1::A2fCall& c) { c.mutable_data()->push_back('x'); },
       "4609 bytes of data"},
      {"no data", [](v1::A2fCall& c) { c.clear_data(); }, "0 bytes of data"},
      {"data without rows", [](v1::A2fCall& c) { c.set_rows(0); }, "0 rows"},
      {"rows past the grant", [](v1::A2fCall& c) { c.set_rows(kRows + 1); }, "9 rows exceed 8"},
      {"huge rows", [](v1::A2fCall& c) { c.set_rows(UINT32_MAX); }, "4294967295 rows exceed 8"},
      {"unknown layer", [](v1::A2fCall& c) { c.set_layer(30); }, "layer 30 of 30"},
      {"huge layer", [](v1::A2fCall& c) { c.set_layer(UINT32_MAX); }, "layer 4294967295"},
      {"no data type", [](v1::A2fCall& c) { c.clear_dtype(); }, "data type 0"},
      {"unknown data type", [](v1::A2fCall& c) { c.set_dtype(static_cast<v1::DataType>(99)); },
       "data type 99"},
      {"segments of other rows", [](v1::A2fCall& c) { c.add_segments(1); },
       "segments of 1 rows in a call of 2"},
      {"scales", [](v1::A2fCall& c) { c.set_scales("1234"); }, "4 bytes of scales with F32"},
  };
  RawPeer peer(server_.address());
  ASSERT_TRUE(peer.Open());
  uint64_t step = 10;
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    v1::A2fMessage message = GoodCall();
    message.mutable_call()->set_step(++step);
    c.spoil(*message.mutable_call());
    ASSERT_TRUE(peer.Write(message));
    v1::F2aMessage reply;
    ASSERT_TRUE(peer.Read(reply));
    EXPECT_EQ(reply.reply().step(), step);
    EXPECT_EQ(reply.reply().error().code(), static_cast<int>(absl::StatusCode::kInvalidArgument));
    EXPECT_THAT(reply.reply().error().message(), HasSubstr(c.reason));
    EXPECT_TRUE(reply.reply().data().empty());
  }
  EXPECT_EQ(service_.malformed_calls(), std::size(cases));
  ASSERT_TRUE(peer.Write(GoodCall()));
  v1::F2aMessage reply;
  ASSERT_TRUE(peer.Read(reply));
  EXPECT_FALSE(reply.reply().has_error());
}

TEST_F(HandoffRpc, RoutingToADenseLayerIsUnimplementedAndSegmentsAreTaken) {
  RawPeer peer(server_.address());
  ASSERT_TRUE(peer.Open());
  v1::A2fMessage routed = GoodCall(), gathered = GoodCall();
  routed.mutable_call()->mutable_routing()->set_slots(2);
  ASSERT_TRUE(peer.Write(routed));
  v1::F2aMessage reply;
  ASSERT_TRUE(peer.Read(reply));
  EXPECT_EQ(reply.reply().error().code(), static_cast<int>(absl::StatusCode::kUnimplemented));
  EXPECT_THAT(reply.reply().error().message(), HasSubstr("routing to 2 experts a row"));
  for (const uint32_t rows : {0u, 2u, 0u}) gathered.mutable_call()->add_segments(rows);
  ASSERT_TRUE(peer.Write(gathered));
  ASSERT_TRUE(peer.Read(reply));
  EXPECT_FALSE(reply.reply().has_error()) << reply.reply().error().message();
  EXPECT_EQ(reply.reply().data().size(), 2 * kHidden * sizeof(float));
}

// A peer that keeps to its credit never owes so many; one that does not shall not fill our memory.
TEST_F(HandoffRpc, APeerThatLeavesItsRepliesUnreadIsEnded) {
  door_.echo = false;
  RawPeer peer(server_.address());
  ASSERT_TRUE(peer.Open());
  ASSERT_TRUE(peer.Write(GoodCall()));
  ASSERT_TRUE(door_.seen.Await("the call", [](const auto& s) { return s.calls.size() == 1; }));
  const PuppetDoor::Seen seen = door_.seen.Get();
  for (int i = 0; i < 8192; ++i)
    seen.sinks.begin()->second->Reply(PuppetDoor::Answer(seen.calls[0].second));
  v1::F2aMessage reply;
  while (peer.Read(reply)) continue;
  const grpc::Status status = peer.Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(),
              HasSubstr("1024 messages are queued for a peer that does not"));
}

TEST_F(HandoffRpc, MessagesOutOfOrderEndTheStream) {
  const auto ends_with = [&](RawPeer& peer, const char* reason) {
    v1::F2aMessage reply;
    EXPECT_FALSE(peer.Read(reply));
    const grpc::Status status = peer.Finish();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_THAT(status.error_message(), HasSubstr(reason));
  };
  RawPeer no_open(server_.address());
  ASSERT_TRUE(no_open.Write(GoodCall()));
  ends_with(no_open, "before the grant");
  RawPeer early(server_.address());
  v1::A2fMessage live;
  live.mutable_live()->set_live(true);
  ASSERT_TRUE(early.Write(live));
  ends_with(early, "live before the grant");
  RawPeer twice(server_.address());
  ASSERT_TRUE(twice.Open());
  ASSERT_TRUE(twice.Write(RawPeer::OpenMessage()));
  ends_with(twice, "second open");
  RawPeer empty(server_.address());
  ASSERT_TRUE(empty.Write(v1::A2fMessage()));
  ends_with(empty, "without open, call or live");
  EXPECT_TRUE(door_.seen.Await("CloseStream",
                               [](const PuppetDoor::Seen& s) { return s.closed.size() == 1; }));
}

TEST_F(HandoffRpc, OpenThatCannotBeServedIsRefusedWithTheReason) {
  struct Case {
    void (*spoil)(v1::HandoffOpen&);
    const char* reason;
  };
  const Case cases[] = {
      {[](v1::HandoffOpen& o) { o.set_protocol_version(2); }, "protocol version 2"},
      {[](v1::HandoffOpen& o) { o.clear_attention_worker(); }, "name is empty"},
      {[](v1::HandoffOpen& o) { o.set_model(std::string(5000, 'm')); }, "longer than 256"},
      {[](v1::HandoffOpen& o) { o.set_hidden(0); }, "hidden 0"},
      {[](v1::HandoffOpen& o) { o.set_hidden(UINT32_MAX); }, "hidden 4294967295"},
      {[](v1::HandoffOpen& o) { o.set_layers(0); }, "layers 0"},
      {[](v1::HandoffOpen& o) { o.set_max_rows(0); }, "0 rows"},
      {[](v1::HandoffOpen& o) { o.set_max_rows(UINT32_MAX); }, "exceed a frame"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.reason);
    RawPeer peer(server_.address());
    v1::A2fMessage message = RawPeer::OpenMessage();
    c.spoil(*message.mutable_open());
    ASSERT_TRUE(peer.Write(message));
    v1::F2aMessage reply;
    ASSERT_TRUE(peer.Read(reply));
    EXPECT_EQ(reply.grant().error().code(), static_cast<int>(absl::StatusCode::kInvalidArgument));
    EXPECT_THAT(reply.grant().error().message(), HasSubstr(c.reason));
    EXPECT_FALSE(peer.Read(reply));
    peer.Finish();
  }
  EXPECT_TRUE(door_.seen.Get().hellos.empty());
}

// A holder that answers with the wrong number of bytes, or to calls that nobody made.
class LyingHolder final : public v1::Handoff::CallbackService {
 public:
  explicit LyingHolder(v1::F2aReply lie) : lie_(std::move(lie)) {}
  grpc::ServerBidiReactor<v1::A2fMessage, v1::F2aMessage>* Exchange(
      grpc::CallbackServerContext*) override {
    class Stream : public ServerStream<v1::A2fMessage, v1::F2aMessage> {
     public:
      explicit Stream(v1::F2aReply lie) : ServerStream({}), lie_(std::move(lie)) {}
      bool OnMessage(v1::A2fMessage& message) override {
        v1::F2aMessage out;
        if (message.has_open()) {
          out.mutable_grant()->set_max_rows(kRows);
          out.mutable_grant()->set_credit_bytes(1 << 20);
        } else {
          *out.mutable_reply() = lie_;
        }
        Write(out);
        return true;
      }
      v1::F2aReply lie_;
    };
    auto stream = std::make_shared<Stream>(lie_);
    stream->Start();
    return stream.get();
  }
  v1::F2aReply lie_;
};

TEST_F(HandoffRpc, ReplyOfTheWrongSizeBreaksTheLink) {
  v1::F2aReply lie;
  lie.set_step(1);
  lie.set_data("not a row");
  LyingHolder holder(lie);
  test::TestServer server({&holder});
  auto listener = std::make_shared<Listener>();
  auto link =
      connector_->Open({.worker = WorkerId("liar"), .address = server.address(), .shard_epoch = 7},
                       {.attention_worker = "a0",
                        .model = "m",
                        .hidden = kHidden,
                        .layers = 30,
                        .ffn_class = "",
                        .shard_epoch = 7,
                        .max_rows = kRows},
                       listener);
  ASSERT_TRUE(listener->AwaitGrant());
  link->Send(MakeCall(1, 0, 0, 1));
  ASSERT_TRUE(listener->AwaitBroken());
  EXPECT_THAT(std::string(listener->heard.Get().broken[0].message()),
              HasSubstr("reply of 9 bytes to a call of 2304"));
  EXPECT_TRUE(listener->heard.Get().replies.empty());
}

TEST_F(HandoffRpc, ReplyToNoCallIsDroppedAndCounted) {
  v1::F2aReply lie;
  lie.set_step(77);
  LyingHolder holder(lie);
  test::TestServer server({&holder});
  UseLimits(
      {.stall = {.base = Duration::Milliseconds(200), .per_piece = Duration::Milliseconds(10)},
       .backoff = {}});
  auto listener = std::make_shared<Listener>();
  auto link =
      connector_->Open({.worker = WorkerId("liar"), .address = server.address(), .shard_epoch = 7},
                       {.attention_worker = "a0",
                        .model = "m",
                        .hidden = kHidden,
                        .layers = 30,
                        .ffn_class = "",
                        .shard_epoch = 7,
                        .max_rows = kRows},
                       listener);
  ASSERT_TRUE(listener->AwaitGrant());
  link->Send(MakeCall(1, 0, 0, 1));
  ASSERT_TRUE(listener->AwaitBroken());  // the call itself was never answered
  EXPECT_TRUE(listener->heard.Get().replies.empty());
  EXPECT_EQ(connector_->mismatched_replies(), 1u);
}

}  // namespace
}  // namespace tandem
