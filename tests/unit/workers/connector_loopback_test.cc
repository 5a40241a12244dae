// The loopback connectors' promises, with the far side on a thread of its own: nothing is heard
// after a link is gone, one Broken at most, and a stream that nobody wants any more is closed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "services/runtime/mutex.h"
#include "tests/fakes/latch.h"
#include "workers/connector/activation/loopback.h"
#include "workers/connector/kv/loopback.h"

namespace tandem {
namespace {

using testing::ElementsAre;

A2f OneRow() {
  A2f call;
  call.rows = 1;
  call.data = {1, 2};
  return call;
}

KvRows Rows(uint32_t first, uint32_t count) {
  KvRows frame;
  frame.first_position = first;
  frame.count = count;
  return frame;
}

// Runs what is posted, in order, on its own thread, as a device does.
class DeviceThread {
 public:
  DeviceThread() : thread_([this] { Run(); }) {}
  ~DeviceThread() {
    Post(nullptr);
    thread_.join();
  }
  void Post(absl::AnyInvocable<void()> task) TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    tasks_.push_back(std::move(task));
    filled_.NotifyOne();
  }
  // Returns when all that was posted before has run.
  void Flush() {
    test::Latch done;
    Post([&done] { done.Open(); });
    done.Wait();
  }

 private:
  void Run() {
    for (;;) {
      absl::AnyInvocable<void()> task;
      {
        MutexLock lock(mu_);
        while (tasks_.empty()) filled_.Wait(lock);
        task = std::move(tasks_.front());
        tasks_.pop_front();
      }
      if (task == nullptr) return;
      task();
    }
  }

  Mutex mu_;
  CondVar filled_;
  std::deque<absl::AnyInvocable<void()>> tasks_ TANDEM_GUARDED_BY(mu_);
  std::thread thread_;
};

// An FFN worker that answers each call with its own rows. Fields are the device thread's.
class EchoFfnDoor final : public FfnDoor {
 public:
  void OpenStream(const HandoffHello& /*hello*/, std::shared_ptr<FfnReplySink> sink,
                  Opened opened) override {
    device_.Post([this, sink = std::move(sink), opened = std::move(opened)]() mutable {
      const step::StreamId id = static_cast<step::StreamId>(sinks_.size());
      sinks_.push_back(std::move(sink));
      opened(
          std::pair(id, HandoffGrantInfo{.credit_bytes = 1024, .max_rows = 8, .shard_epoch = 3}));
    });
  }
  void Call(step::StreamId stream, A2f call) override {
    device_.Post([this, stream, call = std::move(call)]() mutable {
      F2a reply;
      reply.call = call.call;
      reply.data = std::move(call.data);
      sinks_[static_cast<size_t>(stream)]->Reply(std::move(reply));
    });
  }
  void CloseStream(step::StreamId stream) override {
    device_.Post([this, stream] { closed_.push_back(stream); });
  }
  void StopAll() {
    device_.Post([this] {
      for (const auto& sink : sinks_) sink->Close(absl::UnavailableError("the worker stops"));
    });
  }
  std::vector<step::StreamId> Closed() {
    device_.Flush();
    return closed_;
  }
  DeviceThread& device() { return device_; }

 private:
  std::vector<std::shared_ptr<FfnReplySink>> sinks_;
  std::vector<step::StreamId> closed_;
  DeviceThread device_;
};

// Its fields have no lock of their own: the link's promise orders every call before the link's end.
class Listener final : public FfnLinkListener {
 public:
  void OnGrant(const HandoffGrantInfo& /*grant*/) override {
    calls++;
    granted.Open();
  }
  void OnReply(F2a /*reply*/) override {
    EXPECT_FALSE(gone) << "a reply after the link was destroyed";
    calls++;
    replies++;
    replied.Open();
  }
  void OnBroken(const absl::Status& status) override {
    EXPECT_FALSE(gone) << status;
    broken++;
    heard_broken.Open();
  }

  bool gone = false;
  int calls = 0, replies = 0, broken = 0;
  test::Latch granted, replied, heard_broken;
};

class LoopbackActivationTest : public testing::Test {
 protected:
  LoopbackActivationTest() { connector_.Add(WorkerId("f"), door_); }
  std::unique_ptr<FfnLink> Open(const std::shared_ptr<Listener>& listener, const char* to = "f") {
    return connector_.Open({WorkerId(to), "", 3}, {}, listener);
  }

  EchoFfnDoor door_;
  LoopbackActivationConnector connector_;
};

TEST_F(LoopbackActivationTest, ACallComesBackAsAReply) {
  const auto listener = std::make_shared<Listener>();
  const auto link = Open(listener);
  ASSERT_TRUE(listener->granted.Wait());
  link->Send(OneRow());
  EXPECT_TRUE(listener->replied.Wait());
  door_.device().Flush();
  EXPECT_EQ(listener->replies, 1);
}

TEST_F(LoopbackActivationTest, AnUnknownHolderIsBrokenOnceAndItsCallsGoNowhere) {
  const auto listener = std::make_shared<Listener>();
  const auto link = Open(listener, "elsewhere");
  link->Send(OneRow());
  EXPECT_EQ(listener->broken, 1);
  EXPECT_EQ(listener->calls, 0);
}

TEST_F(LoopbackActivationTest, AWorkerThatStopsBreaksTheLinkOnce) {
  const auto listener = std::make_shared<Listener>();
  const auto link = Open(listener);
  ASSERT_TRUE(listener->granted.Wait());
  door_.StopAll();
  ASSERT_TRUE(listener->heard_broken.Wait());
  door_.StopAll();
  link->Send(OneRow());
  door_.device().Flush();
  EXPECT_EQ(listener->broken, 1);
  EXPECT_EQ(listener->replies, 0);
}

TEST_F(LoopbackActivationTest, AStreamThatOpensAfterItsLinkIsGoneIsClosed) {
  test::Latch hold;
  door_.device().Post([&hold] { hold.Wait(); });
  const auto listener = std::make_shared<Listener>();
  Open(listener).reset();
  hold.Open();
  door_.device().Flush();  // the opening has run, and posted the close
  EXPECT_THAT(door_.Closed(), ElementsAre(step::StreamId{0}));
  EXPECT_EQ(listener->calls, 0);
}

// The far thread replies while this one lets the link go: under TSan an unordered call is a report.
TEST_F(LoopbackActivationTest, NothingIsHeardAfterALinkIsGoneHoweverTheThreadsMeet) {
  for (int round = 0; round < 200; round++) {
    const auto listener = std::make_shared<Listener>();
    auto link = Open(listener);
    listener->granted.Wait();
    for (uint32_t i = 0; i < 8; i++) link->Send(OneRow());
    if (round % 2 == 0) listener->replied.Wait();
    link.reset();
    listener->gone = true;
  }
  EXPECT_EQ(door_.Closed().size(), 200u);
}

// ---- KV.

class AckingKvDoor final : public KvDoor {
 public:
  void OnKvFrame(KvRows frame, absl::AnyInvocable<void(KvAckInfo)> ack) override {
    device_.Post([frame = std::move(frame), ack = std::move(ack)]() mutable {
      KvAckInfo info;
      info.positions = frame.first_position + frame.count;
      ack(info);
    });
  }
  DeviceThread& device() { return device_; }

 private:
  DeviceThread device_;
};

class KvListener final : public KvLinkListener {
 public:
  void OnAck(const KvAckInfo& ack) override {
    EXPECT_FALSE(gone) << "an acknowledgement after the link was destroyed";
    positions.push_back(ack.positions);
    acked.Open();
  }
  void OnBroken(const absl::Status& /*status*/) override { broken++; }

  bool gone = false;
  int broken = 0;
  std::vector<uint32_t> positions;
  test::Latch acked;
};

class LoopbackKvTest : public testing::Test {
 protected:
  LoopbackKvTest() { connector_.Add(WorkerId("a"), door_); }

  AckingKvDoor door_;
  LoopbackKvConnector connector_;
};

TEST_F(LoopbackKvTest, FramesAreAcknowledgedInOrder) {
  const auto listener = std::make_shared<KvListener>();
  const auto link = connector_.Open(WorkerId("a"), "", listener);
  for (uint32_t i = 0; i < 3; i++) link->Push(Rows(4 * i, 4));
  door_.device().Flush();
  EXPECT_THAT(listener->positions, ElementsAre(4u, 8u, 12u));
}

TEST_F(LoopbackKvTest, AnUnknownAttentionWorkerIsBrokenOnce) {
  const auto listener = std::make_shared<KvListener>();
  const auto link = connector_.Open(WorkerId("elsewhere"), "", listener);
  link->Push(Rows(0, 1));
  EXPECT_EQ(listener->broken, 1);
  EXPECT_TRUE(listener->positions.empty());
}

TEST_F(LoopbackKvTest, NothingIsHeardAfterALinkIsGoneHoweverTheThreadsMeet) {
  for (int round = 0; round < 200; round++) {
    const auto listener = std::make_shared<KvListener>();
    auto link = connector_.Open(WorkerId("a"), "", listener);
    for (uint32_t i = 0; i < 8; i++) link->Push(Rows(0, 1));
    if (round % 2 == 0) listener->acked.Wait();
    link.reset();
    listener->gone = true;
  }
  door_.device().Flush();
}

}  // namespace
}  // namespace tandem
