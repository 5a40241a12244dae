#include "scheduler/policy/device_order.h"

namespace tandem::policy {
namespace {

DeviceWork NextStepWork(const DeviceReady& ready, DeviceWork last_step) {
  if (ready.ffn && ready.decode)
    return last_step == DeviceWork::kFfn ? DeviceWork::kDecode : DeviceWork::kFfn;
  if (ready.ffn) return DeviceWork::kFfn;
  return ready.decode ? DeviceWork::kDecode : DeviceWork::kNone;
}

}  // namespace

DeviceWork NextDeviceWork(const DeviceReady& ready, const DeviceTurn& turn) {
  const DeviceWork step = NextStepWork(ready, turn.last_step);
  if (!ready.prefill) return step;
  if (step == DeviceWork::kNone ||
      (turn.last != DeviceWork::kPrefill && turn.last != DeviceWork::kNone)) {
    return DeviceWork::kPrefill;
  }
  return step;
}

}  // namespace tandem::policy
