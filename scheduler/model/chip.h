#pragma once

// A chip of the catalog, in one dtype, as the cost model sees it.

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <string>

#include "scheduler/model/yaml_fields.h"

namespace tandem::model {

// Every figure names its source; what is assumed says so there.
struct Chip {
  std::string name;          // "h100-sxm"
  std::string dtype;         // "bf16": of the weights and of `peak_flops`
  std::string memory_class;  // "hbm" or "sram"
  Figure memory_bytes;
  Figure bandwidth_bytes_per_s;   // peak, of that memory
  Figure peak_flops;              // dense, per second
  Figure bandwidth_efficiency;    // η in (0, 1.5]: achieved over peak
  Figure compute_efficiency;      // µ in (0, 1.5]
  Figure layer_overhead_seconds;  // t0: fixed time of one layer of one call
  Figure roofline_exponent;       // p: 1, 2 or 4; 0 stands for infinity, the max form
  Figure link_bytes_per_s;        // to other workers, one direction
  Figure link_latency_seconds;    // one way
};

// `where` names the file in messages. kInvalidArgument names line and key.
absl::StatusOr<Chip> ReadChip(absl::string_view yaml, absl::string_view where);

}  // namespace tandem::model
