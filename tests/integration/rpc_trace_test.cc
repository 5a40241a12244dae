// Trace.Watch over real gRPC: what a reader gets, what it may not ask, and how many there may be.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "services/runtime/real_time.h"
#include "tests/fakes/manual_time.h"
#include "tests/integration/rpc_support.h"
#include "workers/rpc/trace_service.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;

class Reader {
 public:
  explicit Reader(const std::string& address) : stub_(v1::Trace::NewStub(MakeChannel(address))) {
    context_.set_deadline(std::chrono::system_clock::now() + test::kDeadline);  // no hang
    stream_ = stub_->Watch(&context_);
  }
  ~Reader() {
    if (finished_) return;
    context_.TryCancel();
    stream_->Finish();
  }
  bool Ask(double seconds) {
    v1::TraceRequest request;
    request.set_seconds(seconds);
    return stream_->Write(request);
  }
  bool Read(v1::TraceMessage& message) { return stream_->Read(&message); }
  void Leave() { stream_->WritesDone(); }
  grpc::Status Finish() {
    finished_ = true;
    v1::TraceMessage message;
    while (stream_->Read(&message)) {}
    return stream_->Finish();
  }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<v1::Trace::Stub> stub_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::TraceRequest, v1::TraceMessage>> stream_;
  bool finished_ = false;
};

Instant At(int64_t ns) { return Instant::FromNanoseconds(ns); }

class TraceRpc : public ::testing::Test {
 protected:
  TraceRpc() { time_.Advance(Duration::Seconds(100)); }
  void Await(const char* what, const std::function<bool()>& condition) {
    const auto end = std::chrono::steady_clock::now() + test::kDeadline;
    while (!condition() && std::chrono::steady_clock::now() < end) std::this_thread::yield();
    ASSERT_TRUE(condition()) << what;
  }

  test::ManualTime time_;
  TraceLog log_{64};
  Span open_wait_{.kind = SpanKind::kWait,
                  .cause = ledger::Cause::kNoWork,
                  .begin = At(1),
                  .end = At(102'000'000'000)};
  TraceService service_{{.worker = "w",
                         .device = "emulated/h100",
                         .stages = {Stage::kAttention},
                         .time_scale = 20,
                         .open_wait = [this] { return std::optional(open_wait_); }},
                        log_,
                        time_};
  test::TestServer server_{{&service_}};
};

TEST_F(TraceRpc, GivesTheSpansFromTheRequestOnAndTheOpenWait) {
  log_.Add({.kind = SpanKind::kHead, .begin = At(5), .end = At(6)});  // before it: not told
  Reader reader(server_.address());
  ASSERT_TRUE(reader.Ask(2));
  v1::TraceMessage message;
  ASSERT_TRUE(reader.Read(message));
  EXPECT_EQ(message.start().worker_id(), "w");
  EXPECT_EQ(message.start().device(), "emulated/h100");
  EXPECT_EQ(message.start().time_scale(), 20);
  EXPECT_EQ(message.start().stages(0), v1::STAGE_ATTENTION);
  EXPECT_EQ(message.start().started_at_nanoseconds(), 100'000'000'000);

  const Span call{.kind = SpanKind::kA2f,
                  .peer = log_.PeerIndex("ffn-0"),
                  .layer = 79,
                  .micro_batch = 1,
                  .attempt = 2,
                  .rows = 16,
                  .step = 1234,
                  .begin = At(100'000'001'000),
                  .end = At(100'000'002'000)};
  log_.Add(call);
  time_.Advance(kTracePeriod);
  ASSERT_TRUE(reader.Read(message));
  ASSERT_EQ(message.spans().spans_size(), 1);
  EXPECT_EQ(message.spans().peers(0), "ffn-0");
  const v1::TraceSpan& told = message.spans().spans(0);
  EXPECT_EQ(told.kind(), v1::SPAN_KIND_A2F);
  EXPECT_EQ(told.begin_nanoseconds(), call.begin.nanoseconds());
  EXPECT_EQ(told.end_nanoseconds(), call.end.nanoseconds());
  EXPECT_EQ(told.step(), 1234u);
  EXPECT_EQ(told.layer(), 79u);
  EXPECT_EQ(told.micro_batch(), 1u);
  EXPECT_EQ(told.attempt(), 2u);
  EXPECT_EQ(told.rows(), 16u);
  EXPECT_EQ(told.peer(), 0u);

  for (int i = 0; i < 100; i++) log_.Add(call);  // more than the ring holds
  time_.Advance(Duration::Seconds(2));
  ASSERT_TRUE(reader.Read(message));
  EXPECT_EQ(message.spans().lost(), 37u);
  EXPECT_EQ(message.spans().spans_size(), 63);
  EXPECT_EQ(message.spans().peers_size(), 0);
  ASSERT_TRUE(reader.Read(message));
  ASSERT_EQ(message.spans().spans_size(), 1);
  EXPECT_EQ(message.spans().spans(0).cause(), v1::WAIT_CAUSE_NO_WORK);
  EXPECT_EQ(message.spans().spans(0).begin_nanoseconds(), 100'000'000'000) << "clipped";
  ASSERT_TRUE(reader.Read(message));
  EXPECT_EQ(message.end().ended_at_nanoseconds(), time_.Now().nanoseconds());
  EXPECT_TRUE(reader.Finish().ok());
}

TEST_F(TraceRpc, RefusesSecondsOutOfRangeAndASecondRequest) {
  for (const double seconds : {0.0, -1.0, 60.5, double{NAN}, double{INFINITY}}) {
    Reader reader(server_.address());
    ASSERT_TRUE(reader.Ask(seconds));
    const grpc::Status status = reader.Finish();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << seconds;
    EXPECT_THAT(status.error_message(), HasSubstr("60 s"));
  }
  Reader reader(server_.address());
  ASSERT_TRUE(reader.Ask(1));
  ASSERT_TRUE(reader.Ask(1));
  EXPECT_EQ(reader.Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(TraceRpc, TakesSoManyReadersAndGivesPlacesBack) {
  std::vector<std::unique_ptr<Reader>> readers;
  v1::TraceMessage message;
  for (size_t i = 0; i < kMaxTraceReaders; i++) {
    readers.push_back(std::make_unique<Reader>(server_.address()));
    ASSERT_TRUE(readers.back()->Ask(60));
    ASSERT_TRUE(readers.back()->Read(message));
  }
  Reader refused(server_.address());
  const grpc::Status status = refused.Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("4 readers"));
  readers.front()->Leave();
  EXPECT_TRUE(readers.front()->Finish().ok());
  Await("the place of a reader that left", [&] { return service_.readers() < kMaxTraceReaders; });
  Reader next(server_.address());
  ASSERT_TRUE(next.Ask(60));
  ASSERT_TRUE(next.Read(message));
}

TEST_F(TraceRpc, DoesNotWaitForEverForARequest) {
  Reader silent(server_.address());
  Await("the stream", [&] { return service_.readers() == 1; });
  std::thread advance([&] {
    Await("its end", [&] {
      time_.Advance(Duration::Seconds(11));
      return service_.readers() == 0;
    });
  });
  EXPECT_FALSE(silent.Finish().ok());
  advance.join();
}

// The reader asks and then reads nothing: its queue has a bound, past which it loses its place.
TEST_F(TraceRpc, EndsAReaderThatDoesNotRead) {
  Reader slow(server_.address());
  ASSERT_TRUE(slow.Ask(60));
  Await("the stream", [&] { return service_.readers() == 1; });
  Await("its end", [&] {
    for (int i = 0; i < 60; i++) log_.Add({.kind = SpanKind::kHead});
    time_.Advance(kTracePeriod);
    return service_.readers() == 0;
  });
}

TEST(TraceRpcOnARealClock, EndsByItself) {
  RealTimeSource time;
  TraceLog log;
  TraceService service({.worker = "w",
                        .device = "d",
                        .stages = {Stage::kFfn},
                        .open_wait = [] { return std::optional<Span>(); }},
                       log, time);
  test::TestServer server({&service});
  Reader reader(server.address());
  ASSERT_TRUE(reader.Ask(0.05));
  EXPECT_TRUE(reader.Finish().ok());
}

}  // namespace
}  // namespace tandem
