#pragma once

// One Register stream: registration, reply, heartbeats up, commands down. registry_client.h opens a
// new one when it ends.

#include <deque>
#include <functional>
#include <memory>
#include <string>

#include "services/runtime/client_stream.h"
#include "services/runtime/stream_count.h"
#include "tandem/v1/registry.grpc.pb.h"
#include "workers/connector/ports.h"
#include "workers/rpc/registry_client.h"

namespace tandem {

// What the streams to all routers have in common.
struct RegistryShared {
  RegistryShared(RegistryOptions options, WorkerDescription description, TimeSource& time)
      : options(std::move(options)), description(std::move(description)), time(time) {}

  // Work that Stop waits for; false when stopping. Leave ends it.
  bool Enter() TANDEM_EXCLUDES(mu);
  void Leave() { running.Leave(); }
  // The highest router's epoch rules. False: `epoch` is lower than one seen before, returned in
  // `highest`.
  bool RaiseEpoch(uint64_t epoch, uint64_t& highest) TANDEM_EXCLUDES(mu);

  const RegistryOptions options;
  const WorkerDescription description;
  TimeSource& time;
  CommandDoor* commands = nullptr;       // set before the first stream
  std::function<WorkerReport()> report;  // likewise
  StreamCount running;                   // streams, and calls of the clock
  Mutex mu;
  bool stopping TANDEM_GUARDED_BY(mu) = false;
  uint64_t highest_epoch TANDEM_GUARDED_BY(mu) = 0;
};

class RegisterStream final : public ClientStream<v1::WorkerMessage, v1::RouterCommand> {
 public:
  struct End {
    bool registered = false;  // it had been
    bool refused = false;
    std::string reason;
  };
  // `on_registered` and `on_end` come from gRPC's threads; on_end once, last.
  RegisterStream(std::shared_ptr<RegistryShared> shared, std::string router,
                 std::function<void()> on_registered, std::function<void(End)> on_end);

  // Opens the stream with the sequences that are live now. False: cancelled before; on_end will not
  // follow.
  bool Open();
  // An event for the router, in order, after the registration. From the construction on.
  void Tell(v1::WorkerMessage message) TANDEM_EXCLUDES(mu_);
  // Sends a heartbeat; nothing before the registration's reply.
  void Beat();

 private:
  std::shared_ptr<RegisterStream> Self() {
    return std::static_pointer_cast<RegisterStream>(shared_from_this());
  }
  bool OnMessage(v1::RouterCommand& command) override;
  void OnClosed(const grpc::Status& status) override;
  bool OnReply(const v1::RegistrationReply& reply);
  void Carry(const v1::RouterCommand& command);
  void ScheduleBeat();
  void OnBeatDue(Instant due);
  void Cut(const std::string& reason);

  const std::shared_ptr<RegistryShared> shared_;
  const std::string router_;
  const std::function<void()> on_registered_;
  const std::function<void(End)> on_end_;
  const std::unique_ptr<v1::Registry::Stub> stub_;

  Mutex mu_;
  bool opened_ TANDEM_GUARDED_BY(mu_) = false;                  // the registration is in the queue
  std::deque<v1::WorkerMessage> early_ TANDEM_GUARDED_BY(mu_);  // events from before
  bool replied_ TANDEM_GUARDED_BY(mu_) = false;
  End end_ TANDEM_GUARDED_BY(mu_);
  Duration interval_ TANDEM_GUARDED_BY(mu_), lease_ TANDEM_GUARDED_BY(mu_);
  Instant unread_since_ TANDEM_GUARDED_BY(mu_) =
      Instant::Never();  // the router has not taken what was written
};

}  // namespace tandem
