// A2F and F2A over loopback TCP: one round trip through our link and service, with a door that
// answers at once, beside a bare gRPC bidi ping-pong of the same bytes, in the same run, batches of
// both taking turns.
//
//   handoff_rtt_bench [batches]
// prints for each size the median of a round trip in microseconds and the ratio; exit status 1 if a
// ratio exceeds kTarget.

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/generic/generic_stub.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "services/runtime/grpc_server.h"
#include "services/runtime/log.h"
#include "services/runtime/mutex.h"
#include "services/runtime/real_time.h"
#include "workers/rpc/frame_memory.h"
#include "workers/rpc/handoff_connector.h"
#include "workers/rpc/handoff_service.h"

namespace tandem {
namespace {

constexpr double kTarget = 1.3;
constexpr int kBatch = 500;  // round trips of one side before the other has its turn
constexpr int kWarmUp = 200;

using Clock = std::chrono::steady_clock;

// Round trips of one side: the next starts in the reaction to the last, so no thread of ours is
// woken in between.
class Batch {
 public:
  void Begin(int count) {
    MutexLock lock(mu_);
    left_ = count;
    microseconds_.clear();
    last_ = Clock::now();
  }
  // A round trip ended. False: it was the last.
  bool Next() {
    const Clock::time_point now = Clock::now();
    MutexLock lock(mu_);
    microseconds_.push_back(std::chrono::duration<double, std::micro>(now - last_).count());
    last_ = now;
    if (--left_ > 0) return true;
    done_.NotifyAll();
    return false;
  }
  std::vector<double> Await() {
    MutexLock lock(mu_);
    while (left_ > 0) done_.Wait(lock);
    return microseconds_;
  }

 private:
  Mutex mu_;
  CondVar done_;
  int left_ = 0;
  Clock::time_point last_;
  std::vector<double> microseconds_;
};

// ---- Ours.

class EchoDoor final : public FfnDoor {
 public:
  void OpenStream(
      const HandoffHello& hello, std::shared_ptr<FfnReplySink> sink,
      absl::AnyInvocable<void(absl::StatusOr<std::pair<step::StreamId, HandoffGrantInfo>>)> opened)
      override {
    sink_ = std::move(sink);
    opened(std::make_pair(
        step::StreamId(1),
        HandoffGrantInfo{.credit_bytes = 64 << 20, .max_rows = hello.max_rows, .shard_epoch = 1}));
  }
  void Call(step::StreamId, A2f call) override {
    F2a reply;
    reply.call = call.call;
    reply.data = std::move(call.data);
    reply.merged_rows = call.rows;
    sink_->Reply(std::move(reply));
  }
  void CloseStream(step::StreamId) override { sink_.reset(); }

 private:
  std::shared_ptr<FfnReplySink> sink_;
};

class OurSide final : public FfnLinkListener {
 public:
  OurSide(uint32_t rows, uint32_t hidden) : rows_(rows), data_(size_t{rows} * hidden, 0.5f) {}
  void OnGrant(const HandoffGrantInfo&) override {
    MutexLock lock(mu_);
    granted_ = true;
    changed_.NotifyAll();
  }
  void OnReply(F2a) override {
    if (batch_.Next()) SendOne();
  }
  void OnBroken(const absl::Status& status) override {
    std::fprintf(stderr, "the link broke: %s\n", status.ToString().c_str());
    std::abort();
  }
  void AwaitGrant() {
    MutexLock lock(mu_);
    while (!granted_) changed_.Wait(lock);
  }
  std::vector<double> Run(FfnLink& link, int count) {
    link_ = &link;
    batch_.Begin(count);
    SendOne();
    return batch_.Await();
  }

 private:
  void SendOne() {
    A2f call;
    call.call.step = ++step_;
    call.rows = rows_;
    call.shard_epoch = 1;
    call.data = data_;
    link_->Send(std::move(call));
  }
  const uint32_t rows_;
  const std::vector<float> data_;
  FfnLink* link_ = nullptr;
  uint64_t step_ = 0;
  Batch batch_;
  Mutex mu_;
  CondVar changed_;
  bool granted_ = false;
};

// ---- Bare: gRPC's own bytes, echoed; nothing is encoded, checked or copied.

class BareService final : public grpc::CallbackGenericService {
 public:
  grpc::ServerGenericBidiReactor* CreateReactor(grpc::GenericCallbackServerContext*) override {
    class Echo final : public grpc::ServerGenericBidiReactor {
     public:
      Echo() { StartRead(&buffer_); }
      void OnReadDone(bool ok) override {
        if (!ok) return Finish(grpc::Status::OK);
        StartWrite(&buffer_);
      }
      void OnWriteDone(bool ok) override {
        if (!ok) return;
        buffer_.Clear();
        StartRead(&buffer_);
      }
      void OnDone() override { delete this; }

     private:
      grpc::ByteBuffer buffer_;
    };
    return new Echo();
  }
};

class BareSide final : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  BareSide(const std::string& address, size_t bytes)
      : payload_(bytes, 'x'), stub_(MakeChannel(address)) {
    stub_.PrepareBidiStreamingCall(&context_, "/bare/Echo", grpc::StubOptions(), this);
    AddHold();
    StartCall();
  }
  std::vector<double> Run(int count) {
    batch_.Begin(count);
    SendOne();
    return batch_.Await();
  }
  void End() {
    context_.TryCancel();
    RemoveHold();
    MutexLock lock(mu_);
    while (!done_) changed_.Wait(lock);
  }

 private:
  void SendOne() {
    const grpc::Slice slice(payload_.data(), payload_.size(), grpc::Slice::STATIC_SLICE);
    out_ = grpc::ByteBuffer(&slice, 1);
    waiting_.store(2);  // the write, and the answer: the next write may start after both
    StartRead(&in_);
    StartWrite(&out_);
  }
  void OnReadDone(bool ok) override { Half(ok); }
  void OnWriteDone(bool ok) override { Half(ok); }
  void Half(bool ok) {
    if (!ok || waiting_.fetch_sub(1) > 1) return;
    in_.Clear();
    if (batch_.Next()) SendOne();
  }
  void OnDone(const grpc::Status&) override {
    MutexLock lock(mu_);
    done_ = true;
    changed_.NotifyAll();
  }

  const std::string payload_;
  grpc::TemplatedGenericStub<grpc::ByteBuffer, grpc::ByteBuffer> stub_;
  grpc::ClientContext context_;
  grpc::ByteBuffer in_, out_;
  std::atomic<int> waiting_{0};
  Batch batch_;
  Mutex mu_;
  CondVar changed_;
  bool done_ = false;
};

double Median(std::vector<double>& values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

// The ratio of the medians.
double Compare(uint32_t rows, uint32_t hidden, int batches) {
  EchoDoor door;
  HandoffService service(door);
  GrpcServer server = *StartGrpcServer("127.0.0.1:0", {&service});
  BareService bare_service;
  grpc::ServerBuilder builder;
  int bare_port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &bare_port);
  builder.SetMaxReceiveMessageSize(kMaxFrameBytes);
  builder.RegisterCallbackGenericService(&bare_service);
  std::unique_ptr<grpc::Server> bare_server = builder.BuildAndStart();

  const size_t bytes = size_t{rows} * hidden * sizeof(float);
  RealTimeSource time;
  std::vector<double> ours, bare;
  {
    HandoffConnector connector(time, Random(1), {});
    auto listener = std::make_shared<OurSide>(rows, hidden);
    const HandoffHello hello{.attention_worker = "bench",
                             .model = "m",
                             .hidden = hidden,
                             .layers = 1,
                             .ffn_class = "",
                             .shard_epoch = 1,
                             .max_rows = rows};
    auto link = connector.Open({.worker = WorkerId("f"),
                                .address = "127.0.0.1:" + std::to_string(server.port),
                                .shard_epoch = 1},
                               hello, listener);
    listener->AwaitGrant();
    BareSide bare_side("127.0.0.1:" + std::to_string(bare_port), bytes);
    listener->Run(*link, kWarmUp);
    bare_side.Run(kWarmUp);
    for (int i = 0; i < batches; ++i) {
      for (double rtt : listener->Run(*link, kBatch)) ours.push_back(rtt);
      for (double rtt : bare_side.Run(kBatch)) bare.push_back(rtt);
    }
    bare_side.End();
  }
  server.server->Shutdown();
  bare_server->Shutdown();
  const double our_median = Median(ours), bare_median = Median(bare);
  std::printf("%8zu B   %7.1f us   %7.1f us   %.2fx\n", bytes, our_median, bare_median,
              our_median / bare_median);
  return our_median / bare_median;
}

}  // namespace
}  // namespace tandem

int main(int argc, char** argv) {
  const int batches = argc > 1 ? std::max(1, std::atoi(argv[1])) : 20;
  tandem::KeepFrameMemory();  // as the daemon does; both sides profit
  tandem::InitLog({.daemon = "bench", .level = spdlog::level::warn});
  std::printf("%10s   %10s   %10s   ratio (median round trip, %d batches of %d)\n", "data",
              "hand-off", "bare gRPC", batches, tandem::kBatch);
  double worst = 0;
  for (const auto& [rows, hidden] : {std::pair<uint32_t, uint32_t>{1, 576}, {8, 512}, {32, 512}}) {
    worst = std::max(worst, tandem::Compare(rows, hidden, batches));
  }
  return worst <= tandem::kTarget ? 0 : 1;
}
