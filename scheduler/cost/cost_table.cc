#include "scheduler/cost/cost_table.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <cmath>

#include "scheduler/base/check.h"
#include "scheduler/base/random.h"

namespace tandem::cost {
namespace {

constexpr double kMaxPerturbation = 0.9;

// (a^p + b^p)^(1/p) for p in {1, 2, 4}, and the larger one for 0. By square roots, which are exact
// to the last bit everywhere, and scaled, so that nothing underflows.
double Combine(double a, double b, double p) {
  const double larger = std::max(a, b);
  if (p == 0 || larger == 0) return larger;
  if (p == 1) return a + b;
  const double ratio = std::min(a, b) / larger;
  const double square = ratio * ratio;
  if (p == 2) return larger * std::sqrt(1 + square);
  return larger * std::sqrt(std::sqrt(1 + square * square));
}

Duration OneCall(double seconds) {
  return Duration::FromSeconds(std::min(seconds, kMaxCallSeconds));
}

// How often 2 chips double to make at least `tp`.
uint32_t Doublings(uint32_t tp) {
  uint32_t doublings = 0;
  for (uint32_t chips = 2; chips < tp; chips *= 2) doublings++;
  return doublings;
}

absl::Status Known(const model::Figure& figure, const std::string& device, const char* what) {
  if (figure.known()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("device '", device, "': ", what, " is unknown: ", figure.source));
}

std::string DtypesOf(const model::Chip& chip) {
  std::string names;
  for (const auto& entry : chip.dtypes)
    absl::StrAppend(&names, names.empty() ? "" : ", ", model::DtypeName(entry.first));
  return names;
}

}  // namespace

absl::StatusOr<CostTable> CostTable::Create(const model::Device& device,
                                            const model::ModelShape& shape,
                                            const CostOptions& options) {
  const model::Dtype weights = options.precision.weights;
  const auto figures = device.chip.dtypes.find(weights);
  if (figures == device.chip.dtypes.end()) {
    return absl::InvalidArgumentError(absl::StrCat("device '", device.name, "': no figures for ",
                                                   model::DtypeName(weights), " weights; it has ",
                                                   DtypesOf(device.chip)));
  }
  const std::string what = absl::StrCat("peak_flops of ", model::DtypeName(weights));
  if (const absl::Status known = Known(figures->second.peak_flops, device.name, what.c_str());
      !known.ok()) {
    return known;
  }
  if (!(options.perturbation >= 0 && options.perturbation <= kMaxPerturbation)) {
    return absl::InvalidArgumentError(absl::StrCat("perturbation ", options.perturbation,
                                                   " is not in [0, ", kMaxPerturbation, "]"));
  }
  return CostTable(device, shape, options);
}

CostTable::CostTable(const model::Device& device, const model::ModelShape& shape,
                     const CostOptions& options)
    : device_(device), shape_(shape), options_(options) {
  const model::DtypeFigures& figures = device.chip.dtypes.at(options.precision.weights);
  const double tp = device.tp;
  const double bandwidth =
      device.chip.bandwidth_bytes_per_s.value * figures.bandwidth_efficiency.value;
  // K and V are divided among the chips of a set by KV head, and copied to those past it.
  const double kv_parts = tp / KvCopies(shape, device);
  weight_bytes_per_s_ = bandwidth * tp;
  kv_bytes_per_s_ = bandwidth * kKvEfficiency * kv_parts;
  decode_flops_per_s_ = figures.peak_flops.value * figures.compute_efficiency.value * tp;
  prefill_flops_per_s_ = figures.peak_flops.value * figures.prefill_compute_efficiency.value * tp;
  exponent_ = figures.exponent.value;
  const double layer = device.LayerSeconds(options.precision.weights).value;
  attention_overhead_ = layer * kAttentionOverheadShare;
  ffn_overhead_ = layer - attention_overhead_;
  expert_overhead_ = layer * figures.expert_factor.value - attention_overhead_;
  prefill_overhead_ = figures.prefill_layer_seconds.value;
  if (device.tp > 1) {
    all_reduce_base_ = device.all_reduce.base_seconds.value;
    all_reduce_doubling_ = device.all_reduce.doubling_seconds.value;
    all_reduce_bytes_per_s_ = device.all_reduce.bytes_per_s.value;
  }
  link_ = {device.link.bytes_per_s.value, device.link.latency_seconds.value};
  ApplyFactors(options.engine.factors);
  Perturb();
  FindKinds();
}

void CostTable::ApplyFactors(const CallFactors& factors) {
  weight_bytes_per_s_ /= factors.memory;
  kv_bytes_per_s_ /= factors.memory * factors.kv;
  decode_flops_per_s_ /= factors.compute;
  prefill_flops_per_s_ /= factors.prefill_compute;
  for (double* const overhead : {&attention_overhead_, &ffn_overhead_, &expert_overhead_})
    *overhead *= factors.fixed;
  prefill_overhead_ *= factors.prefill_fixed;
  all_reduce_base_ *= factors.all_reduce;
  all_reduce_doubling_ *= factors.all_reduce;
  all_reduce_bytes_per_s_ /= factors.all_reduce;
}

void CostTable::FindKinds() {
  const auto alike = [&](uint64_t a, uint64_t b) {
    return shape_.HasExperts(a) == shape_.HasExperts(b) &&
           shape_.IsWindowed(a) == shape_.IsWindowed(b);
  };
  for (uint64_t layer = 0; layer < shape_.layers; layer++) {
    const auto kind = std::find_if(kinds_.begin(), kinds_.end(),
                                   [&](const LayerKind& k) { return alike(k.layer, layer); });
    if (kind == kinds_.end()) {
      kinds_.push_back({layer, 1});
    } else {
      kind->count++;
    }
  }
}

void CostTable::Perturb() {
  if (options_.perturbation == 0) return;
  const Random random(options_.seed);
  const auto perturb = [&](double& coefficient, absl::string_view name) {
    const double draw = random.Child(name).Uniform();  // by name: a new one changes no other
    coefficient *= 1 + options_.perturbation * (2 * draw - 1);
  };
  perturb(weight_bytes_per_s_, "weight_bytes_per_s");
  perturb(kv_bytes_per_s_, "kv_bytes_per_s");
  perturb(decode_flops_per_s_, "decode_flops_per_s");
  perturb(prefill_flops_per_s_, "prefill_flops_per_s");
  perturb(attention_overhead_, "attention_overhead");
  perturb(ffn_overhead_, "ffn_overhead");
  perturb(expert_overhead_, "expert_overhead");
  perturb(prefill_overhead_, "prefill_overhead");
  perturb(all_reduce_base_, "all_reduce_base");
  perturb(all_reduce_doubling_, "all_reduce_doubling");
  perturb(all_reduce_bytes_per_s_, "all_reduce_bytes_per_s");
  perturb(link_.bytes_per_s, "link_bytes_per_s");
  perturb(link_.latency_seconds, "link_latency");
}

CallParts CostTable::Roofline(const Work& work, double flops_per_s) const {
  CallParts parts;
  parts.memory = work.weight_bytes / weight_bytes_per_s_ + work.kv_bytes / kv_bytes_per_s_;
  parts.compute = work.flops / flops_per_s;
  return parts;
}

Duration CostTable::TimeOf(const CallParts& parts) const {
  return OneCall(Combine(parts.memory, parts.compute, exponent_) + parts.fixed +
                 parts.all_reduce_latency + parts.all_reduce_bytes);
}

double CostTable::AllReduceLatency() const {
  return all_reduce_base_ + all_reduce_doubling_ * Doublings(device_.tp);
}

double CostTable::AllReduceBytes(uint64_t rows) const {
  if (device_.tp == 1) return 0;
  const uint64_t bytes = rows * shape_.hidden * kAllReduceElementBytes;
  return kAllReduceBytesFactor * static_cast<double>(bytes) / all_reduce_bytes_per_s_;
}

CallParts CostTable::AttentionParts(uint64_t layer, const AttentionRows& rows) const {
  TANDEM_CHECK(layer < shape_.layers);
  if (rows.rows == 0) return {};
  CallParts parts =
      Roofline(AttentionWork(shape_, options_.precision, layer, rows), decode_flops_per_s_);
  parts.fixed = attention_overhead_;
  parts.all_reduce_latency = AllReduceLatency();
  parts.all_reduce_bytes = AllReduceBytes(rows.rows);
  return parts;
}

CallParts CostTable::FfnParts(const FfnShard& shard, uint64_t layer, uint64_t rows) const {
  TANDEM_CHECK(layer < shape_.layers);
  if (rows == 0) return {};
  CallParts parts =
      Roofline(FfnWork(shape_, options_.precision, shard, layer, rows), decode_flops_per_s_);
  parts.fixed = shape_.HasExperts(layer) ? expert_overhead_ : ffn_overhead_;
  parts.all_reduce_latency = AllReduceLatency();
  parts.all_reduce_bytes = AllReduceBytes(rows);
  return parts;
}

CallParts CostTable::PrefillParts(uint64_t layer, const PrefillRows& rows) const {
  TANDEM_CHECK(layer < shape_.layers);
  if (rows.rows == 0) return {};
  CallParts parts =
      Roofline(PrefillWork(shape_, options_.precision, layer, rows), prefill_flops_per_s_);
  parts.fixed = prefill_overhead_;
  // Two all-reduces, whose latency is within the prefill's own t0: the fit has no term for it.
  parts.all_reduce_bytes = 2 * AllReduceBytes(rows.rows);
  return parts;
}

CallParts CostTable::EmbedParts(uint64_t rows) const {
  return Roofline(EmbedWork(shape_, options_.precision, rows), decode_flops_per_s_);
}

CallParts CostTable::HeadParts(uint64_t rows) const {
  // No t0: engines' fits have it in their constants per step.
  return Roofline(HeadWork(shape_, options_.precision, rows), decode_flops_per_s_);
}

Duration CostTable::AttentionLayer(uint64_t layer, const AttentionRows& rows) const {
  return TimeOf(AttentionParts(layer, rows));
}

Duration CostTable::FfnLayer(const FfnShard& shard, uint64_t layer, uint64_t rows) const {
  return TimeOf(FfnParts(shard, layer, rows));
}

Duration CostTable::PrefillLayer(uint64_t layer, const PrefillRows& rows) const {
  return TimeOf(PrefillParts(layer, rows));
}

Duration CostTable::Embed(uint64_t rows) const { return TimeOf(EmbedParts(rows)); }

Duration CostTable::Head(uint64_t rows) const { return TimeOf(HeadParts(rows)); }

Duration CostTable::StepOverhead(uint64_t rows) const {
  return options_.engine.per_step + options_.engine.per_sequence * static_cast<int64_t>(rows);
}

Duration CostTable::DecodeStep(const AttentionRows& rows) const {
  Duration time = Embed(rows.rows) + Head(rows.rows) + StepOverhead(rows.rows);
  for (const LayerKind& kind : kinds_) {
    time += (AttentionLayer(kind.layer, rows) + FfnLayer(FfnShard(), kind.layer, rows.rows)) *
            kind.count;
  }
  return time;
}

Duration CostTable::Prefill(const PrefillRows& rows) const {
  Duration time = Embed(rows.rows);
  for (const LayerKind& kind : kinds_) time += PrefillLayer(kind.layer, rows) * kind.count;
  return time;
}

}  // namespace tandem::cost
