#include "workers/microbench/handoff_echo.h"

#include <absl/functional/any_invocable.h>
#include <absl/strings/str_cat.h>

#include <atomic>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "scheduler/base/check.h"
#include "scheduler/base/random.h"
#include "scheduler/base/status.h"
#include "services/runtime/grpc_server.h"
#include "workers/engine/mailbox.h"
#include "workers/rpc/handoff_connector.h"
#include "workers/rpc/handoff_service.h"

namespace tandem {
namespace {

constexpr uint32_t kMaxEvents = 64;
constexpr uint64_t kCreditBytes = 64 << 20;

// A thread at a mailbox, as a device's; without one, things are done where they come.
class Desk {
 public:
  Desk(bool own_thread, const TimeSource& time) : mailbox_(kMaxEvents) {
    if (own_thread) thread_.emplace([this, &time] { Loop(time); });
  }
  ~Desk() { Stop(); }
  Desk(const Desk&) = delete;
  Desk& operator=(const Desk&) = delete;

  void Do(absl::AnyInvocable<void()> what) {
    if (!thread_.has_value()) return what();
    mailbox_.PostBounded([what = std::move(what)](const absl::Status& status) mutable {
      if (status.ok()) what();
    });
  }
  void Stop() {
    if (!thread_.has_value() || !thread_->joinable()) return;
    stopping_ = true;
    Do([] {});
    thread_->join();
    mailbox_.Close(absl::UnavailableError("the desk is closed"));
  }

 private:
  void Loop(const TimeSource& time) {
    while (!stopping_) {
      mailbox_.Wait(time);
      for (Mailbox::Event& event : mailbox_.Take()) event(absl::OkStatus());
    }
  }

  Mailbox mailbox_;
  std::atomic<bool> stopping_ = false;
  std::optional<std::thread> thread_;
};

// Keeps the thread busy for so long.
void Spin(const TimeSource& time, Duration turn) {
  const Instant end = time.Now() + turn;
  while (time.Now() < end) {}
}

// The FFN worker's end: gives back what it gets.
class EchoDoor final : public FfnDoor {
 public:
  EchoDoor(bool own_thread, const TimeSource& time, Duration turn)
      : time_(time), turn_(turn), desk_(own_thread, time) {}
  void OpenStream(const HandoffHello& hello, std::shared_ptr<FfnReplySink> sink,
                  Opened opened) override {
    sink_ = std::move(sink);
    opened(std::make_pair(step::StreamId(1), HandoffGrantInfo{.credit_bytes = kCreditBytes,
                                                              .max_rows = hello.max_rows,
                                                              .shard_epoch = 1}));
  }
  void Call(step::StreamId, A2f call) override {
    desk_.Do([this, call = std::move(call)]() mutable {
      Spin(time_, turn_);
      F2a reply;
      reply.call = call.call;
      reply.data = std::move(call.data);
      reply.merged_rows = call.rows;
      sink_->Reply(std::move(reply));
    });
  }
  void CloseStream(step::StreamId) override {
    desk_.Stop();
    sink_.reset();
  }

 private:
  const TimeSource& time_;
  const Duration turn_;
  std::shared_ptr<FfnReplySink> sink_;
  Desk desk_;
};

// The attention worker's end: each reply starts the next call.
class Caller final : public FfnLinkListener {
 public:
  Caller(uint32_t rows, uint32_t hidden, bool own_thread, const TimeSource& time, Duration turn)
      : time_(time),
        turn_(turn),
        rows_(rows),
        data_(size_t{rows} * hidden, 0.5f),
        timer_(time),
        desk_(own_thread, time) {}
  void OnGrant(const HandoffGrantInfo&) override {
    MutexLock lock(mu_);
    granted_ = true;
    changed_.NotifyAll();
  }
  void OnReply(F2a) override {
    desk_.Do([this] {
      if (timer_.Next()) SendOne();
    });
  }
  // Nobody but this process can break a loopback link to itself.
  void OnBroken(const absl::Status&) override { TANDEM_CHECK(false); }
  void AwaitGrant() {
    MutexLock lock(mu_);
    while (!granted_) changed_.Wait(lock);
  }
  std::vector<double> Run(FfnLink& link, uint32_t count) {
    link_ = &link;
    timer_.Begin(count);
    desk_.Do([this] { SendOne(); });
    return timer_.Await();
  }
  void Stop() { desk_.Stop(); }

 private:
  void SendOne() {
    Spin(time_, turn_);
    A2f call;
    call.call.step = ++step_;
    call.rows = rows_;
    call.shard_epoch = 1;
    call.data = data_;
    link_->Send(std::move(call));
  }

  const TimeSource& time_;
  const Duration turn_;
  const uint32_t rows_;
  const std::vector<float> data_;
  FfnLink* link_ = nullptr;
  uint64_t step_ = 0;
  RoundTripTimer timer_;
  Mutex mu_;
  CondVar changed_;
  bool granted_ TANDEM_GUARDED_BY(mu_) = false;
  Desk desk_;
};

}  // namespace

void RoundTripTimer::Begin(uint32_t count) {
  MutexLock lock(mu_);
  left_ = count;
  seconds_.clear();
  last_ = time_.Now();
}

bool RoundTripTimer::Next() {
  const Instant now = time_.Now();
  MutexLock lock(mu_);
  seconds_.push_back((now - last_).seconds());
  last_ = now;
  if (--left_ > 0) return true;
  done_.NotifyAll();
  return false;
}

std::vector<double> RoundTripTimer::Await() {
  MutexLock lock(mu_);
  while (left_ > 0) done_.Wait(lock);
  return seconds_;
}

struct HandoffEcho::Impl {
  Impl(uint32_t rows, uint32_t hidden, Ends ends, TimeSource& time, Duration turn)
      : turns(turn * 2),
        door(ends == Ends::kDevices, time, turn),
        service(door),
        connector(time, Random(1), {}),
        caller(std::make_shared<Caller>(rows, hidden, ends == Ends::kDevices, time, turn)) {}
  const Duration turns;  // of a round trip
  EchoDoor door;
  HandoffService service;
  GrpcServer server;
  HandoffConnector connector;
  std::shared_ptr<Caller> caller;
  std::unique_ptr<FfnLink> link;
};

HandoffEcho::HandoffEcho(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

HandoffEcho::~HandoffEcho() {
  impl_->caller->Stop();
  impl_->link.reset();
  impl_->server.server->Shutdown();
}

absl::StatusOr<std::unique_ptr<HandoffEcho>> HandoffEcho::Start(uint32_t rows, uint32_t hidden,
                                                                Ends ends, TimeSource& time,
                                                                Duration turn) {
  auto impl = std::make_unique<Impl>(rows, hidden, ends, time, turn);
  ASSIGN_OR_RETURN(impl->server, StartGrpcServer("127.0.0.1:0", {&impl->service}, LinkSecurity()));
  const HandoffHello hello{.attention_worker = "echo",
                           .model = "m",
                           .hidden = hidden,
                           .layers = 1,
                           .ffn_class = "",
                           .shard_epoch = 1,
                           .max_rows = rows};
  impl->link = impl->connector.Open({.worker = WorkerId("f"),
                                     .address = absl::StrCat("127.0.0.1:", impl->server.port),
                                     .shard_epoch = 1},
                                    hello, impl->caller);
  impl->caller->AwaitGrant();
  return std::unique_ptr<HandoffEcho>(new HandoffEcho(std::move(impl)));
}

std::vector<double> HandoffEcho::RoundTrips(uint32_t count) {
  std::vector<double> seconds = impl_->caller->Run(*impl_->link, count);
  for (double& trip : seconds) trip -= impl_->turns.seconds();
  return seconds;
}

}  // namespace tandem
