#pragma once

// The loop of one device: drains the mailbox into the engines, runs what
// scheduler/policy/device_order picks, and sleeps when there is nothing to do.

#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "scheduler/policy/device_order.h"
#include "workers/connector/activation/loopback.h"
#include "workers/engine/context.h"
#include "workers/engine/decode_engine.h"
#include "workers/engine/ffn_engine.h"
#include "workers/engine/prefill_engine.h"

namespace tandem {

// Start and Stop are the owner's; everything else is the device's thread's, where the mailbox
// brings it.
class Device {
 public:
  // `own_ffn` leads to this device's FFN engine; it is used when the worker runs attention and FFN.
  Device(EngineContext& context, ActivationConnector& activation,
         LoopbackActivationConnector& own_ffn, KvConnector& kv);

  void Start();
  void Stop();  // ends everything kUnavailable, joins

  PrefillEngine* prefill() { return prefill_.get(); }  // null: the worker does not run the stage
  DecodeEngine* decode() { return decode_.get(); }
  FfnEngine* ffn() { return ffn_.get(); }

  bool draining() const { return draining_; }
  void Drain(Answer answer);

 private:
  void Loop();
  // What is there by the device's time; after a wait, first what it waited for.
  void DrainMailbox();
  void OnTime();
  void ArmAlarm();
  policy::DeviceWork NextWork() const;
  void Run(policy::DeviceWork work);
  // What the device waits for when it has nothing to compute (PROTOCOL section 7).
  void EnterWait();
  void AnswerDrain();
  void Publish();
  void CountHeld(WorkerReport& report);
  void EndAll();

  EngineContext& context_;
  std::unique_ptr<step::KvBook> book_;  // null on an FFN worker
  std::unique_ptr<PrefillEngine> prefill_;
  std::unique_ptr<DecodeEngine> decode_;
  std::unique_ptr<FfnEngine> ffn_;

  policy::DeviceTurn turn_;
  bool stopping_ = false;
  bool waited_ = true;  // nothing was computed since the last look into the mailbox
  bool draining_ = false;
  std::vector<Answer> drains_;
  Instant armed_for_ = Instant::Never();
  AlarmId alarm_{};
  uint64_t live_version_ = 0;  // of what is published
  uint32_t kv_blocks_leaked_ = 0;
  std::thread thread_;
};

}  // namespace tandem
