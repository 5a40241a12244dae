#include "workers/engine/worker_core.h"

#include <utility>

#include "scheduler/base/check.h"
#include "workers/connector/activation/loopback.h"
#include "workers/connector/own_copy.h"
#include "workers/engine/device.h"

namespace tandem {
namespace {

// The doors put every call into the mailbox and touch nothing else.
class Doors {
 public:
  explicit Doors(EngineContext& context) : context_(context) {}
  void set_device(Device* device) { device_ = device; }

 protected:
  absl::Status NoStage(const char* stage) const {
    return absl::FailedPreconditionError(
        absl::StrCat("worker ", context_.config.worker.value(), " does not run ", stage));
  }
  absl::Status Draining() const {
    if (!device_->draining()) return absl::OkStatus();
    return absl::UnavailableError(
        absl::StrCat("worker ", context_.config.worker.value(), " is draining"));
  }

  EngineContext& context_;
  Device* device_ = nullptr;
};

class Commands final : public Doors, public CommandDoor {
 public:
  using Doors::Doors;

  void Decode(step::DecodeRequest request, Answer answer) override {
    context_.mailbox->Post([this, request = std::move(request),
                            answer = std::move(answer)](absl::Status status) mutable {
      if (status.ok() && device_->decode() == nullptr) status = NoStage("attention");
      if (status.ok()) status = Draining();
      if (status.ok()) status = device_->decode()->Admit(std::move(request));
      answer(OwnCopy(status));
    });
  }
  void Prefill(PrefillOrder order, Answer answer) override {
    context_.mailbox->Post(
        [this, order = std::move(order), answer = std::move(answer)](absl::Status status) mutable {
          if (status.ok() && device_->prefill() == nullptr) status = NoStage("prefill");
          if (status.ok()) status = Draining();
          if (status.ok()) status = device_->prefill()->Prefill(std::move(order));
          answer(OwnCopy(status));
        });
  }
  void Release(const ReservationId& reservation, const std::vector<SequenceKey>& sequences,
               EndReason reason, Answer answer) override {
    context_.mailbox->PostBounded([this, reservation, sequences, reason,
                                   answer = std::move(answer)](const absl::Status& status) mutable {
      if (status.ok()) DoRelease(reservation, sequences, reason);
      answer(OwnCopy(status));
    });
  }
  void SetGroup(uint64_t router_epoch, uint64_t version, std::vector<FfnEndpoint> holders,
                Answer answer) override {
    context_.mailbox->Post([this, router_epoch, version, holders = std::move(holders),
                            answer = std::move(answer)](absl::Status status) mutable {
      if (status.ok() && device_->decode() == nullptr) status = NoStage("attention");
      if (status.ok() && device_->ffn() != nullptr) {
        status = absl::FailedPreconditionError(
            absl::StrCat("worker ", context_.config.worker.value(), " runs its own FFN stage"));
      }
      if (status.ok()) {
        device_->decode()->SetGroup(router_epoch, version, std::move(holders), std::move(answer));
      } else {
        answer(OwnCopy(status));
      }
    });
  }
  void Drain(Answer answer) override {
    context_.mailbox->PostBounded(
        [this, answer = std::move(answer)](const absl::Status& status) mutable {
          if (status.ok()) {
            device_->Drain(std::move(answer));
          } else {
            answer(OwnCopy(status));
          }
        });
  }

 private:
  void DoRelease(const ReservationId& reservation, const std::vector<SequenceKey>& sequences,
                 EndReason reason) {
    if (device_->decode() != nullptr) device_->decode()->Release(reservation, sequences, reason);
    if (device_->prefill() == nullptr) return;
    if (!reservation.empty()) device_->prefill()->Cancel(reservation);
    for (const SequenceKey& sequence : sequences) device_->prefill()->Cancel(sequence);
  }
};

class Ffn final : public Doors, public FfnDoor {
 public:
  using Doors::Doors;

  void OpenStream(const HandoffHello& hello, std::shared_ptr<FfnReplySink> sink,
                  Opened opened) override {
    context_.mailbox->Post([this, hello, sink = std::move(sink),
                            opened = std::move(opened)](absl::Status status) mutable {
      if (status.ok() && device_->ffn() == nullptr) status = NoStage("ffn");
      if (status.ok()) status = Draining();
      if (!status.ok()) return opened(OwnCopy(status));
      opened(device_->ffn()->OpenStream(hello, std::move(sink)));
    });
  }
  void Call(step::StreamId stream, A2f call) override {
    // Credit bounds the calls of a stream, and the grants the streams.
    const Instant due = context_.line.Due(call.arrives_at);
    context_.mailbox->PostBoundedAt(
        due, [this, stream, call = std::move(call)](const absl::Status& status) mutable {
          if (status.ok() && device_->ffn() != nullptr)
            device_->ffn()->Call(stream, std::move(call));
        });
  }
  // A flood of them is dropped: the next one puts the account right.
  void SetLive(step::StreamId stream, bool live, Instant arrives_at) override {
    context_.mailbox->PostNoteAt(context_.line.Due(arrives_at),
                                 [this, stream, live](const absl::Status& status) {
                                   if (status.ok() && device_->ffn() != nullptr)
                                     device_->ffn()->SetLive(stream, live);
                                 });
  }
  void CloseStream(step::StreamId stream) override {
    context_.mailbox->PostBounded([this, stream](const absl::Status& status) {
      if (status.ok() && device_->ffn() != nullptr) device_->ffn()->CloseStream(stream);
    });
  }
};

class Kv final : public Doors, public KvDoor {
 public:
  using Doors::Doors;

  void OnKvFrame(KvRows frame, absl::AnyInvocable<void(KvAckInfo)> ack) override {
    // The sender's window bounds what waits for its time; without one, the box does.
    const Instant due = context_.line.Due(frame.arrives_at);
    auto event = [this, frame = std::move(frame),
                  ack = std::move(ack)](absl::Status status) mutable {
      if (status.ok() && device_->decode() == nullptr) status = NoStage("attention");
      if (status.ok()) {
        KvAckInfo answer = device_->decode()->OnKvFrame(frame);
        answer.arrives_at = context_.line.SendKv(0, {});
        ack(std::move(answer));
      } else {
        ack({frame.reservation, frame.attempt, frame.layer, 0, OwnCopy(status)});
      }
    };
    if (due == Instant()) {
      context_.mailbox->Post(std::move(event));
    } else {
      context_.mailbox->PostBoundedAt(due, std::move(event));
    }
  }
};

class Tokens final : public Doors, public TokenDoor {
 public:
  using Doors::Doors;

  void Attach(const GatewayId& gateway, std::vector<step::ResumePoint> resume,
              std::shared_ptr<TokenSink> sink) override {
    context_.mailbox->Post([this, gateway, resume = std::move(resume),
                            sink = std::move(sink)](absl::Status status) mutable {
      if (status.ok() && device_->decode() == nullptr) status = NoStage("attention");
      if (status.ok()) {
        device_->decode()->Attach(gateway, resume, std::move(sink));
      } else {
        sink->Close(OwnCopy(status));
      }
    });
  }
  void Detach(const GatewayId& gateway, const TokenSink* sink) override {
    context_.mailbox->PostBounded([this, gateway, sink](const absl::Status& status) {
      if (status.ok() && device_->decode() != nullptr) device_->decode()->Detach(gateway, sink);
    });
  }
  void Acknowledge(const GatewayId& gateway, uint64_t step) override {
    context_.mailbox->PostNote([this, gateway, step](const absl::Status& status) {
      if (status.ok() && device_->decode() != nullptr)
        device_->decode()->Acknowledge(gateway, step);
    });
  }
  void Stop(const SequenceKey& sequence, uint32_t position, EndReason reason) override {
    context_.mailbox->PostBounded([this, sequence, position, reason](const absl::Status& status) {
      if (status.ok() && device_->decode() != nullptr)
        device_->decode()->Stop(sequence, position, reason);
    });
  }
};

}  // namespace

struct WorkerCore::Parts {
  Parts(EngineConfig engine_config, StageBackend& backend, TimeSource& time,
        ActivationConnector& activation, KvConnector& kv_connector, WorkerListener& listener)
      : config(std::move(engine_config)),
        machine(time),
        books(ledger::StageOf(config.stages), time, LineOf(backend), trace),
        context{config,          backend,  time,
                LineOf(backend), listener, std::make_shared<Mailbox>(config.max_mailbox_events),
                books,           trace,    {}},
        commands(context),
        ffn(context),
        kv(context),
        tokens(context) {
    TANDEM_CHECK(!config.stages.empty());
    own_ffn.Add(config.worker, ffn);
    device = std::make_unique<Device>(context, activation, own_ffn, kv_connector);
    for (Doors* doors : {static_cast<Doors*>(&commands), static_cast<Doors*>(&ffn),
                         static_cast<Doors*>(&kv), static_cast<Doors*>(&tokens)}) {
      doors->set_device(device.get());
    }
  }

  DeviceTimeline& LineOf(StageBackend& backend) {
    DeviceTimeline* const own = backend.timeline();
    return own != nullptr ? *own : machine;
  }

  const EngineConfig config;
  MachineTimeline machine;
  TraceLog trace;
  DeviceBooks books;
  EngineContext context;
  Commands commands;
  Ffn ffn;
  Kv kv;
  Tokens tokens;
  LoopbackActivationConnector own_ffn;
  std::unique_ptr<Device> device;
};

WorkerCore::WorkerCore(EngineConfig config, StageBackend& backend, TimeSource& time,
                       ActivationConnector& activation, KvConnector& kv, WorkerListener& listener)
    : parts_(std::make_unique<Parts>(std::move(config), backend, time, activation, kv, listener)) {}
WorkerCore::~WorkerCore() { Stop(); }

void WorkerCore::Start() { parts_->device->Start(); }
void WorkerCore::Stop() { parts_->device->Stop(); }
CommandDoor& WorkerCore::commands() { return parts_->commands; }
FfnDoor& WorkerCore::ffn() { return parts_->ffn; }
KvDoor& WorkerCore::kv() { return parts_->kv; }
TokenDoor& WorkerCore::tokens() { return parts_->tokens; }
WorkerReport WorkerCore::Report() const { return parts_->books.Report(); }
const TraceLog& WorkerCore::trace() const { return parts_->trace; }
Instant WorkerCore::opened() const { return parts_->books.opened(); }

std::optional<Span> WorkerCore::OpenWait() const { return parts_->books.OpenWait(); }
const EngineConfig& WorkerCore::config() const { return parts_->config; }

}  // namespace tandem
