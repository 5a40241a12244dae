#pragma once

// The engine of one worker: everything that one device computes, behind plain doors
// (workers/connector/ports.h).
//
//   WorkerCore core(config, backend, time, activation, kv, listener);
//   core.Start();
//   core.commands().Decode(...); core.tokens().Attach(...);   // any thread; returns at once
//   core.commands().Drain(answer);                            // answered when nothing is left
//   core.Stop();
//
// One thread of its own computes: it drains the doors' mailbox into the stages' state machines,
// carries their effects out, picks one task (scheduler/policy/device_order), runs it on the
// backend, reports it, and sleeps when there is nothing to do. Answers, listeners and sinks are
// called from that thread, or at once from the caller's when the mailbox is full
// (kResourceExhausted) or the core has stopped (kUnavailable).

#include <memory>
#include <optional>

#include "scheduler/base/time.h"
#include "workers/backend/stage_backend.h"
#include "workers/connector/ports.h"
#include "workers/engine/config.h"
#include "workers/trace/trace_log.h"

namespace tandem {

class WorkerCore {
 public:
  // All references outlive the core. `activation` is used by an attention worker without an FFN
  // stage of its own, `kv` by prefill for other workers. An attention worker with an FFN stage
  // calls its own over the loopback connector, as its only holder.
  WorkerCore(EngineConfig config, StageBackend& backend, TimeSource& time,
             ActivationConnector& activation, KvConnector& kv, WorkerListener& listener);
  ~WorkerCore();  // stops

  // Starts the device's thread. Once.
  void Start();
  // Ends every sequence, prompt and call with kUnavailable, closes what is open and joins the
  // thread. Idempotent.
  void Stop();

  // A door of a stage that the worker does not run answers kFailedPrecondition.
  CommandDoor& commands();
  FfnDoor& ffn();
  KvDoor& kv();
  TokenDoor& tokens();

  // Safe from any thread; waits for no compute.
  WorkerReport Report() const;
  // What the device did; the wait that it is in, which is not in the log yet. As Report.
  const TraceLog& trace() const;
  std::optional<Span> OpenWait() const;
  Instant opened() const;  // DeviceBooks::opened
  const EngineConfig& config() const;

 private:
  struct Parts;  // worker_core.cc
  std::unique_ptr<Parts> parts_;
};

}  // namespace tandem
