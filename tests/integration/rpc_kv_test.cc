// KV transfer over real gRPC in one process: GrpcKvConnector against KvService, with a puppet for
// the attention engine.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "services/runtime/real_time.h"
#include "tests/integration/rpc_support.h"
#include "workers/rpc/kv_connector.h"
#include "workers/rpc/kv_service.h"

namespace tandem {
namespace {

using test::Watched;
using ::testing::HasSubstr;

// Takes frames of reservation "r", answers kNotFound to others; or keeps the answers back.
class PuppetDoor final : public KvDoor {
 public:
  void OnKvFrame(KvRows frame, absl::AnyInvocable<void(KvAckInfo)> ack) override {
    KvAckInfo answer;
    answer.reservation = frame.reservation;
    answer.attempt = frame.attempt;
    answer.layer = frame.layer;
    answer.positions = frame.first_position + frame.count;
    if (frame.reservation.value() != "r") {
      answer.positions = 0;
      answer.status = absl::NotFoundError("no reservation " + frame.reservation.value());
    }
    frames.Change([&](std::vector<KvRows>& all) { all.push_back(std::move(frame)); });
    if (silent) {
      held.push_back(std::move(ack));
    } else {
      ack(answer);
    }
  }
  Watched<std::vector<KvRows>> frames;
  bool silent = false;
  std::vector<absl::AnyInvocable<void(KvAckInfo)>> held;
};

struct Heard {
  std::vector<KvAckInfo> acks;
  std::vector<absl::Status> broken;
};

class Listener final : public KvLinkListener {
 public:
  void OnAck(const KvAckInfo& ack) override {
    heard.Change([&](Heard& h) { h.acks.push_back(ack); });
  }
  void OnBroken(const absl::Status& status) override {
    heard.Change([&](Heard& h) { h.broken.push_back(status); });
  }
  bool AwaitAcks(size_t count) {
    return heard.Await("acknowledgements", [&](const Heard& h) { return h.acks.size() >= count; });
  }
  bool AwaitBroken() {
    return heard.Await("OnBroken", [](const Heard& h) { return !h.broken.empty(); });
  }
  Watched<Heard> heard;
};

KvRows Frame(uint32_t layer, uint32_t first, uint32_t count, const char* reservation = "r") {
  KvRows rows;
  rows.reservation = ReservationId(reservation);
  rows.attempt = 2;
  rows.layer = layer;
  rows.first_position = first;
  rows.count = count;
  for (uint32_t i = 0; i < count * 24; ++i)
    rows.rows.push_back(static_cast<uint8_t>(i * 7 + layer));
  return rows;
}

class KvRpc : public ::testing::Test {
 protected:
  std::unique_ptr<KvLink> Open(std::shared_ptr<Listener> listener,
                               const std::string& address = "") {
    return connector_->Open(WorkerId("a0"), address.empty() ? server_.address() : address,
                            std::move(listener));
  }

  PuppetDoor door_;
  KvService service_{door_};
  test::TestServer server_{{&service_}};
  RealTimeSource time_;
  std::unique_ptr<GrpcKvConnector> connector_ =
      std::make_unique<GrpcKvConnector>(time_, Random(1), LinkLimits());
};

TEST_F(KvRpc, FramesArriveInOrderWithTheirBytesAndAreAcknowledged) {
  auto listener = std::make_shared<Listener>();
  auto link = Open(listener);
  for (uint32_t layer = 0; layer < 30; ++layer) link->Push(Frame(layer, 0, 32));
  KvRows last = Frame(29, 32, 5);
  last.prefill_seconds = 0.25;
  last.prefill_calls = 60;
  last.prefill_worker = "p0";
  link->Push(last);
  ASSERT_TRUE(listener->AwaitAcks(31));
  const std::vector<KvRows> frames = door_.frames.Get();
  ASSERT_EQ(frames.size(), 31u);
  for (uint32_t layer = 0; layer < 30; ++layer) {
    EXPECT_EQ(frames[layer].layer, layer);
    EXPECT_EQ(frames[layer].attempt, 2u);
    EXPECT_EQ(frames[layer].rows, Frame(layer, 0, 32).rows);
    EXPECT_EQ(listener->heard.Get().acks[layer].positions, 32u);
  }
  EXPECT_EQ(frames[30].prefill_worker, "p0");
  EXPECT_EQ(frames[30].prefill_seconds, 0.25);
  EXPECT_EQ(frames[30].prefill_calls, 60u);
  EXPECT_EQ(listener->heard.Get().acks[30].positions, 37u);
}

TEST_F(KvRpc, UnknownReservationIsAnsweredNotFoundAndCountedAndTheStreamLives) {
  auto listener = std::make_shared<Listener>();
  auto link = Open(listener);
  link->Push(Frame(0, 0, 4, "gone"));
  link->Push(Frame(0, 0, 4));
  ASSERT_TRUE(listener->AwaitAcks(2));
  const Heard heard = listener->heard.Get();
  EXPECT_TRUE(absl::IsNotFound(heard.acks[0].status));
  EXPECT_EQ(heard.acks[0].reservation.value(), "gone");
  EXPECT_TRUE(heard.acks[1].status.ok());
  EXPECT_EQ(service_.dropped_frames(), 1u);
  EXPECT_TRUE(heard.broken.empty());
}

TEST_F(KvRpc, CancelTravelsWithoutRows) {
  auto listener = std::make_shared<Listener>();
  auto link = Open(listener);
  KvRows cancel;
  cancel.reservation = ReservationId("r");
  cancel.cancel = true;
  link->Push(cancel);
  ASSERT_TRUE(listener->AwaitAcks(1));
  EXPECT_TRUE(door_.frames.Get().at(0).cancel);
}

TEST_F(KvRpc, DeathOfTheReceiverBreaksTheLinkOnce) {
  door_.silent = true;
  auto listener = std::make_shared<Listener>();
  auto link = Open(listener);
  link->Push(Frame(0, 0, 4));
  ASSERT_TRUE(
      door_.frames.Await("the frame", [](const std::vector<KvRows>& f) { return f.size() == 1; }));
  server_.Kill();
  ASSERT_TRUE(listener->AwaitBroken());
  link->Push(Frame(0, 4, 4));  // dropped
  link.reset();
  connector_.reset();
  EXPECT_EQ(listener->heard.Get().broken.size(), 1u);
  EXPECT_TRUE(listener->heard.Get().acks.empty());
  for (auto& ack : door_.held) ack(KvAckInfo());  // the engine answers a stream that is gone
}

TEST_F(KvRpc, ReceiverThatNeverAcknowledgesIsGivenUp) {
  connector_ = std::make_unique<GrpcKvConnector>(
      time_, Random(1),
      LinkLimits{
          .stall = {.base = Duration::Milliseconds(100), .per_piece = Duration::Milliseconds(10)},
          .backoff = {}});
  door_.silent = true;
  auto listener = std::make_shared<Listener>();
  auto link = Open(listener);
  link->Push(Frame(0, 0, 4));
  ASSERT_TRUE(listener->AwaitBroken());
  EXPECT_THAT(std::string(listener->heard.Get().broken[0].message()),
              HasSubstr("attention worker a0: no acknowledgement for 0."));
}

TEST_F(KvRpc, MalformedFramesAreAnsweredAndNeverReachTheEngine) {
  struct Case {
    const char* name;
    void (*spoil)(v1::KvFrame&);
    const char* reason;
  };
  const Case cases[] = {
      {"no reservation", [](v1::KvFrame& f) { f.clear_reservation(); }, "reservation: 0 bytes"},
      {"long reservation", [](v1::KvFrame& f) { f.set_reservation(std::string(300, 'r')); },
       "reservation: 300 bytes"},
      {"no rows", [](v1::KvFrame& f) { f.clear_rows(); }, "rows: 0 bytes for 2"},
      {"rows without count",
       [](v1::KvFrame& f) {
         f.set_count(0);
         f.set_cancel(true);
       },
       "for 0 positions"},
      {"nothing at all",
       [](v1::KvFrame& f) {
         f.set_count(0);
         f.clear_rows();
       },
       "count: 0 without cancel"},
      {"huge count", [](v1::KvFrame& f) { f.set_count(UINT32_MAX); }, "count: 4294967295"},
      {"huge position", [](v1::KvFrame& f) { f.set_first_position(UINT32_MAX); },
       "first_position: 4294967295"},
      {"huge layer", [](v1::KvFrame& f) { f.set_layer(UINT32_MAX); }, "layer: 4294967295"},
  };
  auto stub = v1::KvTransfer::NewStub(MakeChannel(server_.address()));
  grpc::ClientContext context;
  auto stream = stub->Push(&context);
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    v1::KvFrame frame;
    frame.set_reservation("r");
    frame.set_count(2);
    frame.set_rows("0123456789");
    c.spoil(frame);
    ASSERT_TRUE(stream->Write(frame));
    v1::KvAck ack;
    ASSERT_TRUE(stream->Read(&ack));
    EXPECT_EQ(ack.error().code(), static_cast<int>(absl::StatusCode::kInvalidArgument));
    EXPECT_THAT(ack.error().message(), HasSubstr(c.reason));
  }
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(service_.malformed_frames(), std::size(cases));
  EXPECT_TRUE(door_.frames.Get().empty());
}

}  // namespace
}  // namespace tandem
