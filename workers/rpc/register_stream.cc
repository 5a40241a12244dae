#include "workers/rpc/register_stream.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <utility>

#include "scheduler/base/status.h"
#include "services/runtime/grpc_server.h"
#include "services/runtime/log.h"
#include "services/runtime/status_map.h"
#include "workers/rpc/convert.h"

namespace tandem {
namespace {

constexpr Duration kDefaultInterval = Duration::Seconds(1);
constexpr Duration kShortestInterval = Duration::Milliseconds(10);
constexpr Duration kLongestInterval = Duration::Seconds(60);
constexpr size_t kMaxMessagesAheadOfBeat =
    64;  // more wait to be written: this heartbeat is left out

v1::WorkerMessage ResultMessage(uint64_t command_id, const absl::Status& status) {
  v1::WorkerMessage message;
  message.mutable_result()->set_command_id(command_id);
  if (!status.ok()) ToProto(status, message.mutable_result()->mutable_error());
  return message;
}

}  // namespace

bool RegistryShared::Enter() {
  MutexLock lock(mu);
  if (stopping) return false;
  return running.Enter();
}

bool RegistryShared::RaiseEpoch(uint64_t epoch, uint64_t& highest) {
  MutexLock lock(mu);
  highest = highest_epoch;
  if (epoch < highest_epoch) return false;
  highest_epoch = epoch;
  return true;
}

RegisterStream::RegisterStream(std::shared_ptr<RegistryShared> shared, std::string router,
                               std::function<void()> on_registered, std::function<void(End)> on_end)
    : shared_(std::move(shared)),
      router_(std::move(router)),
      on_registered_(std::move(on_registered)),
      on_end_(std::move(on_end)),
      stub_(v1::Registry::NewStub(MakeChannel(router_, shared_->options.security))) {}

bool RegisterStream::Open() {
  if (!shared_->Enter()) return false;
  WorkerDescription description = shared_->description;
  description.live = shared_->report().live;
  v1::WorkerMessage registration;
  ToProto(description, registration.mutable_registration());
  {
    MutexLock lock(mu_);
    Write(std::move(registration));
    for (v1::WorkerMessage& event : early_) Write(std::move(event));
    early_.clear();
    opened_ = true;
  }
  const bool started = Start([this](grpc::ClientContext* context, auto* reactor) {
    stub_->async()->Register(context, reactor);
  });
  if (!started) shared_->Leave();
  return started;
}

void RegisterStream::Tell(v1::WorkerMessage message) {
  {
    MutexLock lock(mu_);
    const size_t waiting = opened_ ? queued() : early_.size();
    if (waiting < shared_->options.max_queued_messages) {
      if (opened_) return Write(std::move(message));
      early_.push_back(std::move(message));
      return;
    }
  }
  Cut(absl::StrCat(shared_->options.max_queued_messages, " messages wait for it"));
}

bool RegisterStream::OnMessage(v1::RouterCommand& command) {
  bool first = false;
  {
    MutexLock lock(mu_);
    first = !std::exchange(replied_, true);
  }
  if (first != command.has_registered()) {
    Cut(first ? "its first message was no reply" : "a second reply");
    return false;
  }
  if (first) return OnReply(command.registered());
  Carry(command);
  return true;
}

bool RegisterStream::OnReply(const v1::RegistrationReply& reply) {
  if (reply.has_error()) {
    {
      MutexLock lock(mu_);
      end_.refused = true;
      end_.reason = absl::StrCat("refused: ", reply.error().message());
    }
    Cancel();
    return false;
  }
  uint64_t highest = 0;
  shared_->RaiseEpoch(reply.router_epoch(), highest);
  {
    MutexLock lock(mu_);
    end_.registered = true;
    interval_ = ToDuration(reply.heartbeat_interval_seconds());
    interval_ = interval_ == Duration()
                    ? kDefaultInterval
                    : std::clamp(interval_, kShortestInterval, kLongestInterval);
    lease_ = std::max(ToDuration(reply.lease_seconds()), interval_ * 2);
  }
  LogInfo("registered", {{"router", reply.router_id()}, {"address", router_}});
  on_registered_();
  Beat();
  ScheduleBeat();
  return true;
}

void RegisterStream::Carry(const v1::RouterCommand& command) {
  const uint64_t id = command.command_id();
  Answer answer = [self = Self(), id](const absl::Status& status) {
    self->Tell(ResultMessage(id, status));
  };
  CommandDoor& door = *shared_->commands;
  const auto refuse = [&](const absl::Status& status) {
    LogWarn("command_malformed", {{"router", router_}, {"reason", status.ToString()}});
    answer(status);
  };
  switch (command.command_case()) {
    case v1::RouterCommand::kDecode: {
      auto request = ToDecodeRequest(command.decode());
      return request.ok() ? door.Decode(*std::move(request), std::move(answer))
                          : refuse(request.status());
    }
    case v1::RouterCommand::kPrefill: {
      auto order = ToPrefillOrder(command.prefill());
      return order.ok() ? door.Prefill(*std::move(order), std::move(answer))
                        : refuse(order.status());
    }
    case v1::RouterCommand::kRelease: {
      auto order = ToReleaseOrder(command.release());
      if (!order.ok()) return refuse(order.status());
      return door.Release(order->reservation, order->sequences, order->reason, std::move(answer));
    }
    case v1::RouterCommand::kSetGroup: {
      auto holders = ToHolders(command.set_group());
      if (!holders.ok()) return refuse(holders.status());
      return door.SetGroup(command.set_group().router_epoch(), command.set_group().group_version(),
                           *std::move(holders), std::move(answer));
    }
    case v1::RouterCommand::kDrain: {
      uint64_t highest = 0;
      if (!shared_->RaiseEpoch(command.drain().router_epoch(), highest)) {
        return refuse(absl::FailedPreconditionError(absl::StrCat("drain of router epoch ",
                                                                 command.drain().router_epoch(),
                                                                 ", epoch ", highest, " rules")));
      }
      LogInfo("drain_commanded", {{"router", router_}});
      return door.Drain(std::move(answer));
    }
    case v1::RouterCommand::kRegistered:
    case v1::RouterCommand::COMMAND_NOT_SET:
      break;
  }
  refuse(absl::UnimplementedError(
      absl::StrCat("command ", id, " is of a kind that this worker does not know")));
}

void RegisterStream::Beat() {
  {
    MutexLock lock(mu_);
    if (!end_.registered || queued() >= kMaxMessagesAheadOfBeat) return;
  }
  v1::WorkerMessage message;
  ToProto(shared_->report(), message.mutable_heartbeat());
  Write(std::move(message));
}

void RegisterStream::ScheduleBeat() {
  Instant due;
  {
    MutexLock lock(mu_);
    due = shared_->time.Now() + interval_;
  }
  shared_->time.CallAt(due, [weak = std::weak_ptr<RegisterStream>(Self()), due] {
    if (auto self = weak.lock()) self->OnBeatDue(due);
  });
}

void RegisterStream::OnBeatDue(Instant due) {
  if (!shared_->Enter()) return;
  const Instant now = shared_->time.Now();
  bool unread = false;
  {
    MutexLock lock(mu_);
    const bool frozen =
        now - due > lease_;  // this process stood still: it renews, and judges the router afresh
    if (frozen)
      LogWarn("timer_late", {{"router", router_}, {"late_seconds", (now - due).seconds()}});
    if (queued() == 0) {
      unread_since_ = Instant::Never();
    } else if (frozen || unread_since_ == Instant::Never()) {
      unread_since_ = now;
    }
    unread = unread_since_ != Instant::Never() && now - unread_since_ > lease_;
  }
  if (unread) {
    Cut("it has read nothing for a lease");
  } else {
    Beat();
    ScheduleBeat();
  }
  shared_->Leave();
}

void RegisterStream::Cut(const std::string& reason) {
  {
    MutexLock lock(mu_);
    if (end_.reason.empty()) end_.reason = reason;
  }
  Cancel();
}

void RegisterStream::OnClosed(const grpc::Status& status) {
  End end;
  {
    MutexLock lock(mu_);
    if (end_.reason.empty())
      end_.reason = status.ok() ? "it closed the stream" : status.error_message();
    end = end_;
    end_.registered = false;  // no heartbeat from now on
  }
  on_end_(end);
  shared_->Leave();
}

}  // namespace tandem
