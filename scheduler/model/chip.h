#pragma once

// A chip of the catalog, as the cost model sees it.

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <map>
#include <string>

#include "scheduler/model/dtype.h"
#include "scheduler/model/figure.h"

namespace tandem::model {

// How fast a chip works on weights of one dtype. A layer's work takes
// ((bytes/(BW·η))^p + (flops/(F·µ))^p)^(1/p) + t0 (scheduler/cost). GPUs' values:
// tests/bench/truth/fit.py.
struct DtypeFigures {
  Figure peak_flops;  // F, dense, per second, of the arithmetic that runs: bf16's for int4
  Figure bandwidth_efficiency;  // η in (0, 1.5]: achieved over peak
  Figure compute_efficiency;    // µ in (0, 1.5], in decode steps
  Figure exponent;              // p: 1, 2 or 4; 0 stands for infinity, the max form
  Figure layer_seconds;         // t0 of one whole dense layer, attention and FFN, in a decode step
  Figure expert_factor;         // t0 of a layer with experts over that of a dense one, >= 0.5
  Figure prefill_compute_efficiency;  // µ over the many rows of a prompt
  Figure prefill_layer_seconds;       // t0 of one whole layer of one prefill chunk
};

// What figures may be, in files and in what replaces them.
inline constexpr Range kMemoryBytesRange = {1, 1e16};
inline constexpr Range kBytesPerSecondRange = {1, 1e18};
inline constexpr Range kPowerWattsRange = {1, 1e7};
inline constexpr Range kDollarsPerHourRange = {0, 1e6};
inline constexpr Range kPeakFlopsRange = {1, 1e20};
inline constexpr Range kLayerSecondsRange = {0, 1};

struct LinkFigures {
  Figure bytes_per_s;      // one direction
  Figure latency_seconds;  // one way
};

struct Chip {
  std::string name;          // "h100-sxm"
  std::string memory_class;  // "hbm" or "sram"
  Figure memory_bytes;
  Figure usable_memory;    // share of memory_bytes that weights, KV and workspace may fill, (0, 1]
  Figure workspace_bytes;  // activations and buffers, beside weights and KV
  Figure bandwidth_bytes_per_s;          // peak, of that memory
  LinkFigures scale_up;                  // to the chips of its group; may be unknown
  LinkFigures scale_out;                 // to everybody else
  Figure power_watts;                    // of the chip under load; may be unknown
  Figure dollars_per_hour;               // may be unknown
  std::map<Dtype, DtypeFigures> dtypes;  // at least one; a peak may be unknown
};

// `where` names the file in messages. kInvalidArgument names file, line and key.
absl::StatusOr<Chip> ReadChip(absl::string_view yaml, absl::string_view where);

// {bytes_per_s, latency_seconds} below `key`, which must be there.
void RequireLink(YamlReader& reader, const std::string& key, LinkFigures& link, IfUnknown unknown);

}  // namespace tandem::model
