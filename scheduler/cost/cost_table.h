#pragma once

// Time and money of one model's stages on one device: what the emulated worker is paced by, the
// simulator plays and the planner forecasts with.
//
// A layer's call takes ((bytes/(BW·η))^p + (flops/(F·µ))^p)^(1/p) + t0 and, on a tensor-parallel
// device, one all-reduce. Source of the form and of its constants: DESIGN section 6 and
// facts/cost-fit.md; each coefficient's own source is in the catalog. README.md says how well they
// predict.

#include <absl/status/statusor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "scheduler/base/time.h"
#include "scheduler/cost/engine.h"
#include "scheduler/cost/footprint.h"
#include "scheduler/cost/link.h"
#include "scheduler/cost/work.h"
#include "scheduler/model/device.h"

namespace tandem::cost {

// Bandwidth that KV reads reach, over that of weights. Source: facts/cost-fit.md.
inline constexpr double kKvEfficiency = 0.784;
// Link time of an all-reduce over that of its rows' bytes; a ring alone needs up to 2. Source:
// facts/cost-fit.md, whose bytes are those of bf16 rows, two all-reduces a layer.
inline constexpr double kAllReduceBytesFactor = 3.05;
inline constexpr uint64_t kAllReduceElementBytes = 2;
// Share of a dense layer's t0 that the attention call takes; the rest is the FFN's. Assumed: the
// fit sees whole layers only.
inline constexpr double kAttentionOverheadShare = 0.5;

// No call takes longer, whatever a chip's file says: sums of them stay in range.
inline constexpr double kMaxCallSeconds = 1e6;

struct CostOptions {
  model::Precision precision;
  EngineConstants engine;
  // Every coefficient is multiplied by a factor of its own, drawn once, uniform in
  // [1 - perturbation, 1 + perturbation]; in [0, 0.9]. Forecasts use 0.
  double perturbation = 0;
  uint64_t seed = 0;
};

// What a call's seconds are made of: memory and compute combined by the exponent, and the rest on
// top (CostTable::TimeOf).
struct CallParts {
  double memory = 0;   // bytes over the bandwidth reached
  double compute = 0;  // flops over the rate reached
  double fixed = 0;    // t0
  double all_reduce_latency = 0, all_reduce_bytes = 0;
};

// Immutable; equal arguments give equal nanoseconds on every machine. Safe from any thread.
class CostTable {
 public:
  // kInvalidArgument names what the device has no figure for: a dtype, or an unknown peak.
  static absl::StatusOr<CostTable> Create(const model::Device& device,
                                          const model::ModelShape& shape,
                                          const CostOptions& options);

  // One layer's call. `layer` < layers of the model.
  Duration AttentionLayer(uint64_t layer, const AttentionRows& rows) const;
  Duration FfnLayer(const FfnShard& shard, uint64_t layer, uint64_t rows) const;
  Duration PrefillLayer(uint64_t layer, const PrefillRows& rows) const;
  Duration PrefillLayer(uint64_t layer, uint64_t first_position, uint64_t rows) const {
    return PrefillLayer(layer, PrefillRows::Of(shape_, first_position, rows));
  }
  // What those calls are made of: TimeOf(AttentionParts(...)) is AttentionLayer(...).
  CallParts AttentionParts(uint64_t layer, const AttentionRows& rows) const;
  CallParts FfnParts(const FfnShard& shard, uint64_t layer, uint64_t rows) const;
  CallParts PrefillParts(uint64_t layer, const PrefillRows& rows) const;
  CallParts EmbedParts(uint64_t rows) const;
  CallParts HeadParts(uint64_t rows) const;
  Duration TimeOf(const CallParts& parts) const;
  // Embedding, final norm with output matrix and sampling, and the engine's own: once a step.
  Duration Embed(uint64_t rows) const;
  Duration Head(uint64_t rows) const;
  Duration StepOverhead(uint64_t rows) const;

  // All of a step or chunk on this device alone, one call after the other.
  Duration DecodeStep(const AttentionRows& rows) const;
  Duration Prefill(const PrefillRows& rows) const;
  Duration Prefill(uint64_t first_position, uint64_t rows) const {
    return Prefill(PrefillRows::Of(shape_, first_position, rows));
  }

  // This end's link to other workers, for A2F/F2A (A2fBytes, F2aBytes) and KV (KvBytes).
  const LinkSpeed& link() const { return link_; }

  std::optional<double> dollars_per_second() const { return device_.dollars_per_second(); }

  const model::Device& device() const { return device_; }
  const model::ModelShape& shape() const { return shape_; }
  const model::Precision& precision() const { return options_.precision; }
  const EngineConstants& engine() const { return options_.engine; }

 private:
  // Layers that are alike in everything that takes time, by one of them.
  struct LayerKind {
    uint64_t layer = 0;
    int64_t count = 0;
  };

  CostTable(const model::Device& device, const model::ModelShape& shape,
            const CostOptions& options);
  void ApplyFactors(const CallFactors& factors);
  void FindKinds();
  void Perturb();
  CallParts Roofline(const Work& work, double flops_per_s) const;
  double AllReduceLatency() const;
  double AllReduceBytes(uint64_t rows) const;

  model::Device device_;
  model::ModelShape shape_;
  CostOptions options_;
  // Coefficients, perturbed. Rates are of the tp chips that share a layer.
  double weight_bytes_per_s_ = 0, kv_bytes_per_s_ = 0;
  double decode_flops_per_s_ = 0, prefill_flops_per_s_ = 0;
  double exponent_ = 0;
  double attention_overhead_ = 0, ffn_overhead_ = 0, expert_overhead_ = 0, prefill_overhead_ = 0;
  double all_reduce_base_ = 0, all_reduce_doubling_ = 0, all_reduce_bytes_per_s_ = 0;
  LinkSpeed link_;
  std::vector<LayerKind> kinds_;
};

}  // namespace tandem::cost
