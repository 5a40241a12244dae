#include "workers/rpc/registry_client.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>

#include <atomic>
#include <utility>

#include "services/runtime/log.h"
#include "services/runtime/status_map.h"
#include "services/runtime/utf8.h"
#include "workers/rpc/convert.h"
#include "workers/rpc/register_stream.h"

namespace tandem {

// One router: the stream that is open or opening, or the wait for the next.
class RouterLink : public std::enable_shared_from_this<RouterLink> {
 public:
  RouterLink(std::shared_ptr<RegistryShared> shared, std::string address, Random random)
      : shared_(std::move(shared)),
        address_(std::move(address)),
        backoff_(shared_->options.backoff, random) {}

  void Connect() TANDEM_EXCLUDES(mu_) {
    std::weak_ptr<RouterLink> weak = weak_from_this();
    auto stream = std::make_shared<RegisterStream>(
        shared_, address_,
        [weak] {
          if (auto link = weak.lock()) link->OnRegistered();
        },
        [weak](const RegisterStream::End& end) {
          if (auto link = weak.lock()) link->OnEnd(end);
        });
    {
      MutexLock lock(mu_);
      if (stopped_) return;
      stream_ = stream;  // hears of events from here on, before `live` is listed
    }
    stream->Open();
  }
  void Stop() TANDEM_EXCLUDES(mu_) {
    std::shared_ptr<RegisterStream> stream;
    {
      MutexLock lock(mu_);
      stopped_ = true;
      stream = std::exchange(stream_, nullptr);
    }
    if (stream != nullptr) stream->Cancel();
  }
  void Tell(const v1::WorkerMessage& message) {
    if (auto stream = Current()) stream->Tell(message);
  }
  void Beat() {
    if (auto stream = Current()) stream->Beat();
  }
  bool registered() const TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    return registered_;
  }
  std::string problem() const TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    return registered_ ? "" : absl::StrCat("router ", address_, ": ", problem_);
  }
  uint64_t reconnects() const { return reconnects_.load(); }

 private:
  std::shared_ptr<RegisterStream> Current() TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    return stream_;
  }
  void OnRegistered() TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    registered_ = true;
    backoff_.Reset();
  }
  void OnEnd(const RegisterStream::End& end) TANDEM_EXCLUDES(mu_) {
    Duration wait = shared_->options.refused_retry;
    {
      MutexLock lock(mu_);
      registered_ = false;
      stream_ = nullptr;
      if (stopped_) return;
      if (!end.refused) wait = backoff_.Next();
      problem_ = end.reason;
    }
    reconnects_.fetch_add(1);
    LogWarn(end.refused      ? "registration_refused"
            : end.registered ? "router_lost"
                             : "router_unreachable",
            {{"router", address_}, {"reason", end.reason}, {"retry_seconds", wait.seconds()}});
    shared_->time.CallAt(shared_->time.Now() + wait, [weak = weak_from_this()] {
      auto link = weak.lock();
      if (link == nullptr || !link->shared_->Enter()) return;
      link->Connect();
      link->shared_->Leave();
    });
  }

  const std::shared_ptr<RegistryShared> shared_;
  const std::string address_;
  std::atomic<uint64_t> reconnects_{0};
  mutable Mutex mu_;
  Backoff backoff_ TANDEM_GUARDED_BY(mu_);
  std::shared_ptr<RegisterStream> stream_ TANDEM_GUARDED_BY(mu_);
  bool registered_ TANDEM_GUARDED_BY(mu_) = false;
  bool stopped_ TANDEM_GUARDED_BY(mu_) = false;
  std::string problem_ TANDEM_GUARDED_BY(mu_) = "not reached yet";
};

RegistryClient::RegistryClient(RegistryOptions options, WorkerDescription description,
                               TimeSource& time, Random random)
    : shared_(std::make_shared<RegistryShared>(std::move(options), std::move(description), time)) {
  for (const std::string& address : shared_->options.routers) {
    links_.push_back(std::make_shared<RouterLink>(shared_, address, random.Child(address)));
  }
}

RegistryClient::~RegistryClient() { Stop(); }

void RegistryClient::Start(CommandDoor& commands, std::function<WorkerReport()> report) {
  shared_->commands = &commands;
  shared_->report = std::move(report);
  for (const auto& link : links_) link->Connect();
}

void RegistryClient::Stop() {
  {
    MutexLock lock(shared_->mu);
    shared_->stopping = true;
  }
  for (const auto& link : links_) link->Stop();
  shared_->running.WaitForNone();
}

void RegistryClient::Beat() {
  if (!shared_->Enter()) return;
  for (const auto& link : links_) link->Beat();
  shared_->Leave();
}

bool RegistryClient::registered() const {
  for (const auto& link : links_) {
    if (link->registered()) return true;
  }
  return false;
}

std::string RegistryClient::Problem() const {
  if (registered()) return "";
  std::vector<std::string> problems;
  for (const auto& link : links_) problems.push_back(link->problem());
  return absl::StrJoin(problems, "; ");
}

uint64_t RegistryClient::reconnects() const {
  uint64_t sum = 0;
  for (const auto& link : links_) sum += link->reconnects();
  return sum;
}

void RegistryClient::OnPrefilled(const SequenceKey& sequence) {
  v1::WorkerMessage message;
  ToProto(sequence, message.mutable_sequence()->mutable_sequence());
  message.mutable_sequence()->set_kind(v1::SequenceEvent::KIND_PREFILLED);
  for (const auto& link : links_) link->Tell(message);
}

void RegistryClient::OnEnded(const SequenceKey& sequence, const SequenceEnd& end) {
  v1::WorkerMessage message;
  ToProto(sequence, message.mutable_sequence()->mutable_sequence());
  message.mutable_sequence()->set_kind(v1::SequenceEvent::KIND_ENDED);
  message.mutable_sequence()->set_reason(ToProto(end.reason));
  if (!end.status.ok()) ToProto(end.status, message.mutable_sequence()->mutable_error());
  for (const auto& link : links_) link->Tell(message);
}

void RegistryClient::OnShardLost(const WorkerId& ffn_worker, uint64_t shard_epoch,
                                 const std::string& reason) {
  v1::WorkerMessage message;
  message.mutable_shard_lost()->set_ffn_worker_id(ffn_worker.value());
  message.mutable_shard_lost()->set_shard_epoch(shard_epoch);
  message.mutable_shard_lost()->set_message(ToValidUtf8(reason));
  for (const auto& link : links_) link->Tell(message);
}

}  // namespace tandem
