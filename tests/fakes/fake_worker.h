#pragma once

// A worker as a router sees it: a Register stream of its own, answers, and no device behind them.

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "services/runtime/mutex.h"
#include "tandem/v1/registry.grpc.pb.h"
#include "tests/integration/rpc_support.h"

namespace tandem::test {

// A registration that a router takes: stages {kPrefill, kAttention, kFfn} by their first letters,
// "pa" or "f". 64 KV blocks of 16 tokens, 8 sequences, 4 prefill slots, a context of 1,024.
v1::Registration WorkerNamed(const std::string& id, const std::string& stages);

// By default every command is answered OK; a Decode is held until it is ended or released, and a
// prefill (local or for another) is reported done at once. Safe from any thread.
class FakeWorker {
 public:
  // What the worker answers a command with; nullopt: it never answers.
  using Answer = std::function<std::optional<absl::Status>(const v1::RouterCommand&)>;

  // Dials and registers. `answer` replaces the default of OK.
  FakeWorker(const std::string& router, v1::Registration registration, Answer answer = nullptr);
  ~FakeWorker();  // cuts the stream

  const std::string& id() const { return registration_.worker_id(); }
  // Waits for the answer to the registration; OK, or the refusal.
  absl::Status AwaitRegistered();
  // Waits for the stream's end; its status.
  absl::Status AwaitEnd();
  // Waits until `count` commands that satisfy `matches` came; the last of them.
  v1::RouterCommand AwaitCommand(const char* what,
                                 const std::function<bool(const v1::RouterCommand&)>& matches,
                                 size_t count = 1);
  size_t CountCommands(const std::function<bool(const v1::RouterCommand&)>& matches);
  void AwaitHolds(size_t sequences);  // by "request#choice.attempt"
  std::set<std::string> holds();

  void set_report_prefills(bool report) { report_prefills_ = report; }
  void Send(const v1::WorkerMessage& message);
  void SendHeartbeat(const v1::Heartbeat& heartbeat);
  void SendPrefilled(const std::string& request, uint32_t choice = 0, uint32_t attempt = 0);
  void SendEnded(const std::string& request, uint32_t choice, uint32_t attempt,
                 v1::EndReason reason);
  void Cut();  // as a dead process would

 private:
  struct Seen {
    std::optional<absl::Status> registered, ended;
    v1::RegistrationReply reply;
    std::vector<v1::RouterCommand> commands;
    std::set<std::string> holds;
  };

  void Read();
  void Obey(const v1::RouterCommand& command);

  const v1::Registration registration_;
  const Answer answer_;
  std::atomic<bool> report_prefills_ = true;
  std::unique_ptr<v1::Registry::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::WorkerMessage, v1::RouterCommand>> stream_;
  Mutex write_mu_;
  Watched<Seen> seen_;
  std::thread reader_;
};

}  // namespace tandem::test
