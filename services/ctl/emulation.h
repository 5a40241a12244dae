#pragma once

// A cluster of emulated devices: which model, which device runs which pool, in which time. In a
// cluster file:
//
//   emulated:
//     model_shape: llama-3-70b   # required; of share/tandem/catalog
//     devices: rubin-lpx         # a set of DeviceSets(); or a `device` flag for each worker
//     weights: fp8               # the set's by default
//     time_scale: auto           # machine seconds for one of the devices'; auto: the host decides
//     perturbation: 0            # share that each worker's cost table is off by
//     numerics: synthetic        # or model, or model:FILE.gguf: the text of a real model
//     payload: elided            # or real; what the numerics need by default

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <string>
#include <vector>

#include "services/ctl/cluster.h"

namespace tandem::ctl {

// Devices for one real system; a name stands for a device of the catalog.
struct DeviceSet {
  absl::string_view name;
  absl::string_view prefill;    // pools that only prefill
  absl::string_view attention;  // pools that decode attention, whatever else they run
  absl::string_view ffn;        // pools that only run the FFN
  absl::string_view weights;    // number format that all of them take
  absl::string_view stands_for;
};
const std::vector<DeviceSet>& DeviceSets();

// Makes every worker of `config` emulated: fills in the flags that its set does not have. The time
// scale stays 1 when it is auto: ScaleCluster sets it. Numerics `model` are those of
// `config.model`, which is set and absolute. kInvalidArgument names the key: no model shape, an
// unknown set, a worker without a device, a time scale or numerics that are none.
absl::Status EmulateCluster(ClusterConfig& config);

// What of `given` is not empty goes before what `emulation` has.
void Override(Emulation& emulation, const Emulation& given);
Emulation NothingGiven();

// The file of numerics model:FILE.gguf; empty for others.
std::string NumericsFile(const Emulation& emulation);

// Sets every emulated worker's time scale.
void ScaleCluster(ClusterConfig& config, double time_scale);

// A positive number, or "auto" (0). kInvalidArgument otherwise.
absl::StatusOr<double> ParseTimeScale(const std::string& text);

}  // namespace tandem::ctl
