#include "services/router/registry/registry_service.h"

#include <absl/strings/str_cat.h>

#include <atomic>
#include <type_traits>
#include <utility>
#include <variant>

#include "scheduler/base/check.h"
#include "scheduler/base/status.h"
#include "services/router/dispatch/hello_alarm.h"
#include "services/runtime/log.h"
#include "services/runtime/server_stream.h"

namespace tandem::router {
namespace {

using Stream = ServerStream<v1::WorkerMessage, v1::RouterCommand>;

struct Shared {
  const RouterIdentity& self;
  RouterCore& core;
  WorkerBook& book;
  TcoBook& tco;
  const TimeSource& time;
};

class WorkerStream final : public Stream, public WorkerLink {
 public:
  WorkerStream(ServerStreamOptions options, const Shared& shared, uint64_t number)
      : Stream(std::move(options)), shared_(shared), number_(number) {}

  const WorkerId& worker() const override { return worker_; }
  uint64_t incarnation() const override { return incarnation_; }
  HelloAlarm& hello() { return hello_; }

  void Send(const control::Command& command) override {
    std::visit([&](const auto& c) { SendOne(c); }, command);
  }
  // One that a newer stream replaces has a peer that reads; any other may be stuck.
  void Close(const absl::Status& why) override { EndNow(why, !absl::IsAborted(why)); }

 private:
  void SendOne(const control::AnswerRegistration& answer) {
    if (!answer.status.ok()) return Refuse(answer.status);
    shared_.tco.Add(number_, registration_, shared_.time.Now());
    shared_.book.Add(number_,
                     std::move(registration_));  // before the worker's next message is read
    if (gone_) Forget();                         // while it was added
    Write(ToProto(shared_.self, answer));
  }
  void SendOne(const control::SendSetGroup& command) { Write(ToProto(shared_.self, command)); }
  void SendOne(const control::SendDrain& command) { Write(ToProto(shared_.self, command)); }
  template <typename Command>
  void SendOne(const Command& command) {
    if constexpr (std::is_same_v<Command, control::SendDecode> ||
                  std::is_same_v<Command, control::SendPrefill> ||
                  std::is_same_v<Command, control::SendRelease>) {
      Write(ToProto(command));
    } else {
      TANDEM_CHECK(false && "the core sends a worker's commands to workers only");
    }
  }

  // The reason in a reply, for the worker's log, then as the stream's status.
  void Refuse(const absl::Status& why) {
    LogWarn("registration_refused", {{"worker", worker_.value()}, {"reason", why.message()}});
    Write(ToProto(shared_.self, control::AnswerRegistration{worker_, incarnation_, why}));
    End(why);
  }

  // The next one is read when the core has taken this one.
  bool OnMessage(v1::WorkerMessage& message) override {
    Handle(message);
    return false;
  }

  void Handle(v1::WorkerMessage& message) {
    if (!registered_) return OnFirst(message);
    if (message.has_heartbeat()) {
      shared_.book.Update(worker_, number_, message.heartbeat());
      shared_.tco.Update(worker_, number_, message.heartbeat(), shared_.time.Now());
    }
    absl::StatusOr<control::Event> event = ToEvent(message);
    if (!event.ok()) {
      LogWarn("worker_malformed",
              {{"worker", worker_.value()}, {"reason", event.status().message()}});
      // Not EndNow: that cancels a write in flight, and the peer would read of that, not of this.
      return End(event.status());
    }
    shared_.core.WorkerSaid(Link(), *std::move(event), Taken());
  }

  void OnFirst(v1::WorkerMessage& message) {
    hello_.Cancel();
    if (!message.has_registration()) {
      return Refuse(
          absl::InvalidArgumentError("the first message of a Register stream is its registration"));
    }
    absl::StatusOr<WorkerDescription> worker = ToWorker(message.registration());
    if (!worker.ok()) return Refuse(worker.status());
    worker_ = worker->id;
    incarnation_ = worker->incarnation;
    registered_ = true;
    registration_ = std::move(*message.mutable_registration());
    shared_.core.WorkerConnected(Link(), *std::move(worker), Taken());
  }

  absl::StatusOr<control::Event> ToEvent(const v1::WorkerMessage& message) const {
    switch (message.message_case()) {
      case v1::WorkerMessage::kHeartbeat:
        return control::WorkerHeartbeat{worker_, incarnation_, ToLoad(message.heartbeat())};
      case v1::WorkerMessage::kResult: {
        const v1::CommandResult& result = message.result();
        const absl::Status status =
            result.has_error() ? FromProto(result.error()) : absl::OkStatus();
        return control::CommandAnswered{worker_, incarnation_,
                                        control::CommandId{result.command_id()}, status};
      }
      case v1::WorkerMessage::kSequence:
        return router::ToEvent(worker_, message.sequence());
      case v1::WorkerMessage::kShardLost:
        return control::ShardLost{worker_, WorkerId(message.shard_lost().ffn_worker_id()),
                                  message.shard_lost().message()};
      case v1::WorkerMessage::kRegistration:
        return absl::InvalidArgumentError("a second registration on one stream");
      default:
        return absl::InvalidArgumentError("a message of unknown kind");
    }
  }

  void OnGone(const std::string& reason) override {
    hello_.Cancel();
    if (!registered_) return;
    gone_ = true;
    Forget();
    shared_.core.WorkerDisconnected(Link(), reason);
  }

  void Forget() {
    shared_.book.Remove(worker_, number_);
    shared_.tco.Remove(worker_, number_);
  }

  std::shared_ptr<WorkerLink> Link() {
    return std::static_pointer_cast<WorkerStream>(shared_from_this());
  }
  RouterCore::Taken Taken() {
    return [self = shared_from_this()] { self->ReadNext(); };
  }

  const Shared shared_;
  const uint64_t number_;  // rises with each stream
  HelloAlarm hello_;
  WorkerId worker_;  // these are set with the first message, before anyone else knows the link
  uint64_t incarnation_ = 0;
  v1::Registration registration_;
  std::atomic<bool> registered_ = false, gone_ = false;
};

}  // namespace

RegistryService::RegistryService(const RouterIdentity& self, const RegistryLimits& limits,
                                 RouterCore& core, WorkerBook& book, TcoBook& tco, TimeSource& time)
    : self_(self),
      limits_(limits),
      core_(core),
      book_(book),
      tco_(tco),
      time_(time),
      streams_(limits.max_streams) {}

grpc::ServerBidiReactor<v1::WorkerMessage, v1::RouterCommand>* RegistryService::Register(
    grpc::CallbackServerContext* context) {
  std::optional<StreamCount::Place> place = streams_.Take();
  if (!place.has_value()) {
    return new RefusedStream<v1::WorkerMessage, v1::RouterCommand>(absl::ResourceExhaustedError(
        absl::StrCat("max_streams: ", streams_.max_streams(), " worker streams are open")));
  }
  static std::atomic<uint64_t> next{1};
  auto stream = std::make_shared<WorkerStream>(
      ServerStreamOptions{.place = *std::move(place),
                          .context = context,
                          .max_queued_messages = limits_.max_queued_commands,
                          .open_at_once = false},
      Shared{self_, core_, book_, tco_, time_}, next.fetch_add(1));
  stream->hello().Arm(time_, limits_.hello_timeout, std::weak_ptr<Stream>(stream));
  stream->Start();
  return stream.get();
}

}  // namespace tandem::router
