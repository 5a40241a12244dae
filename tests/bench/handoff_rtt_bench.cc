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
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "services/runtime/grpc_server.h"
#include "services/runtime/log.h"
#include "services/runtime/mutex.h"
#include "services/runtime/real_time.h"
#include "workers/microbench/handoff_echo.h"
#include "workers/rpc/frame_memory.h"

namespace tandem {
namespace {

constexpr double kTarget = 1.3;
constexpr uint32_t kBatch = 500;  // round trips of one side before the other has its turn
constexpr uint32_t kWarmUp = 200;

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
  BareSide(const std::string& address, size_t bytes, const TimeSource& time)
      : payload_(bytes, 'x'), stub_(MakeChannel(address)), timer_(time) {
    stub_.PrepareBidiStreamingCall(&context_, "/bare/Echo", grpc::StubOptions(), this);
    AddHold();
    StartCall();
  }
  std::vector<double> Run(uint32_t count) {
    timer_.Begin(count);
    SendOne();
    return timer_.Await();
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
    if (timer_.Next()) SendOne();
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
  RoundTripTimer timer_;
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
  BareService bare_service;
  grpc::ServerBuilder builder;
  int bare_port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &bare_port);
  builder.SetMaxReceiveMessageSize(kMaxFrameBytes);
  builder.RegisterCallbackGenericService(&bare_service);
  std::unique_ptr<grpc::Server> bare_server = builder.BuildAndStart();

  const size_t bytes = size_t{rows} * hidden * sizeof(float);
  RealTimeSource time;
  const auto echo = *HandoffEcho::Start(rows, hidden, HandoffEcho::Ends::kStreams, time);
  BareSide bare_side("127.0.0.1:" + std::to_string(bare_port), bytes, time);
  echo->RoundTrips(kWarmUp);
  bare_side.Run(kWarmUp);
  std::vector<double> ours, bare;
  for (int i = 0; i < batches; ++i) {
    for (double rtt : echo->RoundTrips(kBatch)) ours.push_back(1e6 * rtt);
    for (double rtt : bare_side.Run(kBatch)) bare.push_back(1e6 * rtt);
  }
  bare_side.End();
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
  std::printf("%10s   %10s   %10s   ratio (median round trip, %d batches of %u)\n", "data",
              "hand-off", "bare gRPC", batches, tandem::kBatch);
  double worst = 0;
  for (const auto& [rows, hidden] : {std::pair<uint32_t, uint32_t>{1, 576}, {8, 512}, {32, 512}}) {
    worst = std::max(worst, tandem::Compare(rows, hidden, batches));
  }
  return worst <= tandem::kTarget ? 0 : 1;
}
