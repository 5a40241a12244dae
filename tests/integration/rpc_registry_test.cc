// Membership over real gRPC in one process: RegistryClient against a router that does what the test
// says.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <deque>
#include <memory>
#include <vector>

#include "services/runtime/real_time.h"
#include "services/runtime/server_stream.h"
#include "tandem/v1/registry.grpc.pb.h"
#include "tests/integration/rpc_support.h"
#include "workers/rpc/registry_client.h"

namespace tandem {
namespace {

using test::Watched;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Accepts registrations, or refuses them; remembers every message of each stream.
class FakeRouter final : public v1::Registry::CallbackService {
 public:
  struct Stream : ServerStream<v1::WorkerMessage, v1::RouterCommand> {
    explicit Stream(FakeRouter& router) : ServerStream({}), router(router) {}
    bool OnMessage(v1::WorkerMessage& message) override {
      if (message.has_registration()) {
        v1::RouterCommand reply;
        *reply.mutable_registered() = router.reply;
        Write(reply);
        if (router.reply.has_error()) End(absl::OkStatus());
      }
      messages.Change([&](auto& all) { all.push_back(message); });
      return true;
    }
    void OnClosed() override {
      closed.Change([](bool& value) { value = true; });
    }
    // The nth message for which `wanted` holds, from 1 on.
    template <typename Fn>
    v1::WorkerMessage Await(const char* what, Fn&& wanted, int nth = 1) {
      v1::WorkerMessage found;
      messages.Await(what, [&](const std::deque<v1::WorkerMessage>& all) {
        int count = 0;
        for (const v1::WorkerMessage& message : all) {
          if (wanted(message) && ++count == nth) {
            found = message;
            return true;
          }
        }
        return false;
      });
      return found;
    }
    FakeRouter& router;
    Watched<std::deque<v1::WorkerMessage>> messages;
    Watched<bool> closed;
  };

  FakeRouter() {
    reply.set_router_id("router-1");
    reply.set_router_epoch(100);
    reply.set_heartbeat_interval_seconds(0.02);
    reply.set_lease_seconds(5);
  }
  grpc::ServerBidiReactor<v1::WorkerMessage, v1::RouterCommand>* Register(
      grpc::CallbackServerContext*) override {
    auto stream = std::make_shared<Stream>(*this);
    stream->Start();
    streams.Change([&](auto& all) { all.push_back(stream); });
    return stream.get();
  }
  std::shared_ptr<Stream> AwaitStream(size_t nth) {
    if (!streams.Await("a stream", [&](const auto& all) { return all.size() >= nth; }))
      return nullptr;
    auto stream = streams.Get()[nth - 1];
    stream->messages.Await("the registration", [](const auto& all) {
      return !all.empty();
    });  // its reply is on the way
    return stream;
  }
  v1::RegistrationReply reply;  // set before the server starts, or between streams
  Watched<std::vector<std::shared_ptr<Stream>>> streams;
};

// Remembers commands; answers OK, or keeps the answer back.
class PuppetCommands final : public CommandDoor {
 public:
  void Decode(step::DecodeRequest request, Answer answer) override {
    decodes.Change([&](auto& all) { all.push_back(std::move(request)); });
    if (hold) {
      held.push_back(std::move(answer));
    } else {
      answer(decode_status);
    }
  }
  void Prefill(PrefillOrder order, Answer answer) override {
    prefills.push_back(std::move(order));
    answer(absl::OkStatus());
  }
  void Release(const ReservationId& reservation, const std::vector<SequenceKey>& sequences,
               EndReason, Answer answer) override {
    released.push_back(reservation.value() + "/" +
                       (sequences.empty() ? "" : ToString(sequences[0])));
    answer(absl::OkStatus());
  }
  void SetGroup(uint64_t router_epoch, uint64_t version, std::vector<FfnEndpoint> holders,
                Answer answer) override {
    group_epoch = router_epoch;
    group_version = version;
    group = std::move(holders);
    answer(absl::OkStatus());
  }
  void Drain(Answer answer) override {
    ++drains;
    answer(absl::OkStatus());
  }

  Watched<std::vector<step::DecodeRequest>> decodes;
  absl::Status decode_status;
  bool hold = false;
  std::vector<Answer> held;
  std::vector<PrefillOrder> prefills;
  std::vector<std::string> released;
  uint64_t group_epoch = 0, group_version = 0;
  std::vector<FfnEndpoint> group;
  int drains = 0;
};

SequenceKey Key(const char* request) {
  return {.request = RequestId(request), .choice = 0, .attempt = 0};
}

class RegistryRpc : public ::testing::Test {
 protected:
  void SetUp() override {
    report_.Change([](WorkerReport& report) {
      report.load.kv_blocks_free = 55;
      report.live = {Key("alive")};
      report.ledger.cells = {{.stage = ledger::LedgerStage::kAttention,
                              .state = ledger::LedgerState::kStall,
                              .cause = ledger::Cause::kHandoff,
                              .time = Duration::Milliseconds(1500)}};
      report.ledger.elapsed = Duration::Seconds(2);
    });
  }
  void TearDown() override {
    if (client_ != nullptr) client_->Stop();
  }
  void Join(std::vector<std::string> routers) {
    WorkerDescription worker;
    worker.id = WorkerId("a0");
    worker.incarnation = 77;
    worker.pool = "attention";
    worker.model = "m";
    worker.stages = {Stage::kAttention};
    worker.address = "127.0.0.1:1";
    worker.dimensions.layers = 30;
    RegistryOptions options;
    options.routers = std::move(routers);
    options.backoff = {.first = Duration::Milliseconds(10), .most = Duration::Milliseconds(50)};
    options.refused_retry = Duration::Milliseconds(100);
    client_ = std::make_unique<RegistryClient>(options, worker, time_, Random(1));
    client_->Start(door_, [this] { return report_.Get(); });
  }
  // Sends a command on the stream and returns its result.
  v1::CommandResult Command(FakeRouter::Stream& stream, v1::RouterCommand command) {
    command.set_command_id(++next_id_);
    stream.Write(command);
    return stream
        .Await("the result",
               [&](const v1::WorkerMessage& m) {
                 return m.has_result() && m.result().command_id() == next_id_;
               })
        .result();
  }
  static v1::RouterCommand Decode() {
    v1::RouterCommand command;
    v1::DecodeCommand& decode = *command.mutable_decode();
    decode.set_reservation("res");
    decode.set_gateway_id("g");
    decode.set_request_id("req");
    decode.add_choices()->set_seed(9);
    decode.add_prompt_ids(5);
    decode.mutable_stop()->set_max_tokens(3);
    return command;
  }

  Watched<WorkerReport> report_;
  PuppetCommands door_;
  FakeRouter router_;
  RealTimeSource time_;
  std::unique_ptr<test::TestServer> server_ =
      std::make_unique<test::TestServer>(std::vector<grpc::Service*>{&router_});
  std::unique_ptr<RegistryClient> client_;
  uint64_t next_id_ = 0;
};

TEST_F(RegistryRpc, RegistersWithItsLiveSequencesThenBeats) {
  Join({server_->address()});
  auto stream = router_.AwaitStream(1);
  const auto beat = stream->Await(
      "a heartbeat", [](const v1::WorkerMessage& m) { return m.has_heartbeat(); }, 3);
  const v1::Registration registration = stream->messages.Get()[0].registration();
  EXPECT_EQ(registration.worker_id(), "a0");
  EXPECT_EQ(registration.incarnation(), 77u);
  EXPECT_EQ(registration.protocol_version(), 1u);
  EXPECT_EQ(registration.stages(0), v1::STAGE_ATTENTION);
  EXPECT_EQ(registration.dimensions().layers(), 30u);
  ASSERT_EQ(registration.live_size(), 1);
  EXPECT_EQ(registration.live(0).request_id(), "alive");
  EXPECT_EQ(beat.heartbeat().kv_blocks_free(), 55u);
  EXPECT_EQ(beat.heartbeat().elapsed_seconds(), 2.0);
  ASSERT_EQ(beat.heartbeat().ledger_size(), 1);
  EXPECT_EQ(beat.heartbeat().ledger(0).state(), "stall");
  EXPECT_EQ(beat.heartbeat().ledger(0).cause(), "handoff");
  EXPECT_EQ(beat.heartbeat().ledger(0).seconds(), 1.5);
  EXPECT_TRUE(client_->registered());
  EXPECT_EQ(client_->Problem(), "");
}

TEST_F(RegistryRpc, EachCommandIsCarriedAndAnsweredOnce) {
  Join({server_->address()});
  auto stream = router_.AwaitStream(1);
  EXPECT_FALSE(Command(*stream, Decode()).has_error());
  EXPECT_EQ(door_.decodes.Get().at(0).choices.at(0).seed, 9u);
  EXPECT_EQ(door_.decodes.Get().at(0).stop.max_tokens, 3u);
  EXPECT_EQ(door_.decodes.Get().at(0).sampling.temperature, 1.0f);

  v1::RouterCommand prefill;
  prefill.mutable_prefill()->set_reservation("res");
  prefill.mutable_prefill()->mutable_sequence()->set_request_id("req");
  prefill.mutable_prefill()->add_ids(1);
  prefill.mutable_prefill()->add_ids(2);
  prefill.mutable_prefill()->set_attention_worker("a1");
  prefill.mutable_prefill()->set_attention_address("127.0.0.1:2");
  EXPECT_FALSE(Command(*stream, prefill).has_error());
  EXPECT_EQ(door_.prefills.at(0).attention_address, "127.0.0.1:2");
  EXPECT_EQ(door_.prefills.at(0).job.ids, (std::vector<TokenId>{1, 2}));

  v1::RouterCommand release;
  release.mutable_release()->set_reservation("res");
  release.mutable_release()->add_sequences()->set_request_id("req");
  EXPECT_FALSE(Command(*stream, release).has_error());
  EXPECT_THAT(door_.released, ElementsAre("res/req#0.0"));

  v1::RouterCommand group;
  group.mutable_set_group()->set_router_epoch(100);
  group.mutable_set_group()->set_group_version(4);
  v1::FfnHolder& holder = *group.mutable_set_group()->add_holders();
  holder.set_worker_id("f0");
  holder.set_address("127.0.0.1:3");
  holder.set_shard_epoch(8);
  holder.mutable_shard()->set_last_layer(15);
  holder.mutable_shard()->set_columns(1);
  EXPECT_FALSE(Command(*stream, group).has_error());
  EXPECT_EQ(door_.group_epoch, 100u);
  EXPECT_EQ(door_.group_version, 4u);
  ASSERT_EQ(door_.group.size(), 1u);
  EXPECT_EQ(door_.group[0].shard_epoch, 8u);
  EXPECT_EQ(door_.group[0].shard, (FfnShard{0, 15}));

  int results = 0;
  for (const v1::WorkerMessage& message : stream->messages.Get()) results += message.has_result();
  EXPECT_EQ(results, 4);
}

TEST_F(RegistryRpc, EnginesRefusalAndMalformedCommandsAreAnsweredWithTheirReason) {
  Join({server_->address()});
  auto stream = router_.AwaitStream(1);
  door_.decode_status = absl::ResourceExhaustedError("3 blocks free, 5 needed");
  const v1::CommandResult full = Command(*stream, Decode());
  EXPECT_EQ(full.error().code(), static_cast<int>(absl::StatusCode::kResourceExhausted));
  EXPECT_EQ(full.error().message(), "3 blocks free, 5 needed");

  struct Case {
    void (*spoil)(v1::DecodeCommand&);
    const char* reason;
  };
  const Case cases[] = {
      {[](v1::DecodeCommand& d) { d.clear_reservation(); }, "reservation: 0 bytes"},
      {[](v1::DecodeCommand& d) { d.clear_gateway_id(); }, "gateway_id: 0 bytes"},
      {[](v1::DecodeCommand& d) { d.set_request_id(std::string(129, 'x')); },
       "request_id: 129 bytes"},
      {[](v1::DecodeCommand& d) { d.clear_choices(); }, "choices: 0 entries"},
      {[](v1::DecodeCommand& d) { d.add_choices(); }, "choice 0 stands there twice"},
      {[](v1::DecodeCommand& d) { d.mutable_choices(0)->set_choice(128); }, "choice: 128"},
      {[](v1::DecodeCommand& d) { d.clear_prompt_ids(); }, "prompt_ids: 0 entries"},
      {[](v1::DecodeCommand& d) { d.mutable_stop()->set_max_tokens(0); }, "max_tokens: 0"},
      {[](v1::DecodeCommand& d) { d.mutable_sampling()->set_temperature(-1); }, "temperature: -1"},
      {[](v1::DecodeCommand& d) { d.mutable_sampling()->set_temperature(std::nanf("")); },
       "temperature: nan"},
      {[](v1::DecodeCommand& d) { d.mutable_sampling()->set_top_p(0); }, "top_p: 0"},
      {[](v1::DecodeCommand& d) { d.mutable_sampling()->set_top_logprobs(21); },
       "top_logprobs: 21"},
      {[](v1::DecodeCommand& d) { (*d.mutable_sampling()->mutable_logit_bias())[1] = 101; },
       "logit_bias: 101"},
  };
  const size_t before = door_.decodes.Get().size();
  for (const Case& c : cases) {
    SCOPED_TRACE(c.reason);
    v1::RouterCommand command = Decode();
    c.spoil(*command.mutable_decode());
    const v1::CommandResult result = Command(*stream, command);
    EXPECT_EQ(result.error().code(), static_cast<int>(absl::StatusCode::kInvalidArgument));
    EXPECT_THAT(result.error().message(), HasSubstr(c.reason));
  }
  EXPECT_EQ(door_.decodes.Get().size(), before);
  EXPECT_EQ(Command(*stream, v1::RouterCommand()).error().code(),
            static_cast<int>(absl::StatusCode::kUnimplemented));
  EXPECT_FALSE(stream->closed.Get());
}

TEST_F(RegistryRpc, DrainOfAnOldRouterIsRefused) {
  Join({server_->address()});
  auto stream = router_.AwaitStream(1);
  v1::RouterCommand drain;
  drain.mutable_drain()->set_router_epoch(99);
  EXPECT_EQ(Command(*stream, drain).error().code(),
            static_cast<int>(absl::StatusCode::kFailedPrecondition));
  EXPECT_EQ(door_.drains, 0);
  drain.mutable_drain()->set_router_epoch(100);
  EXPECT_FALSE(Command(*stream, drain).has_error());
  EXPECT_EQ(door_.drains, 1);
}

TEST_F(RegistryRpc, EventsFollowTheRegistrationInOrder) {
  Join({server_->address()});
  auto stream = router_.AwaitStream(1);
  client_->OnPrefilled(Key("one"));
  client_->OnEnded(Key("one"),
                   {.reason = EndReason::kFailed, .status = absl::InternalError("poison")});
  client_->OnShardLost(WorkerId("f0"), 8, "no answer for 5 s");
  const auto lost =
      stream->Await("shard_lost", [](const v1::WorkerMessage& m) { return m.has_shard_lost(); });
  EXPECT_EQ(lost.shard_lost().ffn_worker_id(), "f0");
  std::vector<int> kinds;
  for (const v1::WorkerMessage& m : stream->messages.Get()) {
    if (m.has_sequence()) kinds.push_back(m.sequence().kind());
    if (m.has_sequence() && m.sequence().kind() == v1::SequenceEvent::KIND_ENDED) {
      EXPECT_EQ(m.sequence().error().message(), "poison");
    }
  }
  EXPECT_THAT(kinds, ElementsAre(v1::SequenceEvent::KIND_PREFILLED, v1::SequenceEvent::KIND_ENDED));
  EXPECT_TRUE(stream->messages.Get()[0].has_registration());
}

TEST_F(RegistryRpc, LostRouterIsJoinedAgainWithWhatLivesThen) {
  Join({server_->address()});
  auto first = router_.AwaitStream(1);
  first->Await("a heartbeat", [](const v1::WorkerMessage& m) { return m.has_heartbeat(); });
  const std::string address = server_->address();
  server_->Kill();
  ASSERT_TRUE(first->closed.Await("the stream's end", [](bool closed) { return closed; }));
  client_->OnEnded(Key("alive"), {.reason = EndReason::kEos,
                                  .status = {}});  // nobody hears it: the list will tell
  report_.Change([](WorkerReport& report) { report.live = {Key("newer")}; });
  server_ = std::make_unique<test::TestServer>(std::vector<grpc::Service*>{&router_}, address);
  auto second = router_.AwaitStream(2);
  second->Await("a heartbeat", [](const v1::WorkerMessage& m) { return m.has_heartbeat(); });
  const v1::Registration registration = second->messages.Get()[0].registration();
  EXPECT_EQ(registration.incarnation(), 77u);
  ASSERT_EQ(registration.live_size(), 1);
  EXPECT_EQ(registration.live(0).request_id(), "newer");
  EXPECT_GE(client_->reconnects(), 1u);
}

TEST_F(RegistryRpc, AnswerAfterTheStreamsEndGoesNowhere) {
  door_.hold = true;
  Join({server_->address()});
  auto first = router_.AwaitStream(1);
  v1::RouterCommand command = Decode();
  command.set_command_id(5);
  first->Write(command);
  ASSERT_TRUE(door_.decodes.Await("the command", [](const auto& all) { return all.size() == 1; }));
  first->EndNow(absl::UnavailableError("restarting"));
  auto second = router_.AwaitStream(2);
  door_.held[0](absl::OkStatus());
  second->Await(
      "heartbeats", [](const v1::WorkerMessage& m) { return m.has_heartbeat(); }, 2);
  for (const v1::WorkerMessage& message : second->messages.Get())
    EXPECT_FALSE(message.has_result());
}

TEST_F(RegistryRpc, RefusalIsToldAndTriedAgain) {
  router_.reply.mutable_error()->set_code(static_cast<int>(absl::StatusCode::kFailedPrecondition));
  router_.reply.mutable_error()->set_message("pool attention holds 24 layers, a0 has 30");
  Join({server_->address()});
  ASSERT_NE(router_.AwaitStream(2), nullptr);  // again, by itself
  EXPECT_FALSE(client_->registered());
  EXPECT_THAT(client_->Problem(), HasSubstr("refused: pool attention holds 24 layers, a0 has 30"));
  for (const auto& stream : router_.streams.Get()) {
    for (const v1::WorkerMessage& message : stream->messages.Get())
      EXPECT_FALSE(message.has_heartbeat());
  }
}

TEST_F(RegistryRpc, EveryRouterGetsAStreamOfItsOwn) {
  FakeRouter other;
  other.reply.set_router_epoch(200);
  test::TestServer other_server({&other});
  Join({server_->address(), other_server.address()});
  const auto beat = [](const v1::WorkerMessage& m) { return m.has_heartbeat(); };
  auto mine = router_.AwaitStream(1);
  auto theirs = other.AwaitStream(1);
  mine->Await("a heartbeat", beat);
  theirs->Await("a heartbeat", beat);
  client_->OnEnded(Key("x"), {.reason = EndReason::kEos, .status = {}});
  const auto ended = [](const v1::WorkerMessage& m) { return m.has_sequence(); };
  EXPECT_EQ(mine->Await("the end", ended).sequence().reason(), v1::END_REASON_EOS);
  EXPECT_EQ(theirs->Await("the end", ended).sequence().reason(), v1::END_REASON_EOS);
  v1::RouterCommand drain;  // the router of epoch 200 rules
  drain.mutable_drain()->set_router_epoch(100);
  EXPECT_TRUE(Command(*mine, drain).has_error());
  client_->Stop();  // before the other server goes
}

}  // namespace
}  // namespace tandem
