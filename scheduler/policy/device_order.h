#pragma once

// Which of a worker's engines gets the device next, when it runs several.

namespace tandem::policy {

// kFfn and kDecode are work of running steps; kPrefill is one layer of one chunk of a prompt.
enum class DeviceWork { kNone, kFfn, kDecode, kPrefill };

// What the engines could compute now.
struct DeviceReady {
  bool ffn = false;
  bool decode = false;
  bool prefill = false;
};

// What the device computed before; the caller keeps it (DeviceTurn::Took).
struct DeviceTurn {
  DeviceWork last = DeviceWork::kNone;       // of all
  DeviceWork last_step = DeviceWork::kNone;  // of kFfn and kDecode

  void Took(DeviceWork work) {
    last = work;
    if (work == DeviceWork::kFfn || work == DeviceWork::kDecode) last_step = work;
  }
};

// Prefill takes every second turn while there is step work, and step work every second turn while
// there is prefill; within step work FFN and decode take turns (FFN first: others wait for it). So
// whoever has work is served within three turns, and a running step is delayed by at most one
// prefill layer a task. kNone: nothing is ready. Pure.
DeviceWork NextDeviceWork(const DeviceReady& ready, const DeviceTurn& turn);

}  // namespace tandem::policy
