#include "scheduler/cost/stage_time.h"

#include <algorithm>
#include <cmath>

namespace tandem::cost {
namespace {

double WeightBytes(const model::ModelShape& shape, double parameters) {
  return parameters * static_cast<double>(shape.weight_bits) / 8.0;
}

// x^n by squaring: the same bits everywhere, which pow() does not promise.
double IntegerPower(double x, uint64_t n) {
  double result = 1;
  for (; n > 0; n >>= 1, x *= x) {
    if (n & 1) result *= x;
  }
  return result;
}

// (a^p + b^p)^(1/p) for p in {1, 2, 4}, and the larger one for 0; scaled, so that nothing
// underflows.
double Combine(double a, double b, double p) {
  const double larger = std::max(a, b);
  const double smaller = std::min(a, b);
  if (p == 0 || larger == 0) return larger;
  if (p == 1) return a + b;
  const double ratio = smaller / larger;
  if (p == 2) return larger * std::sqrt(1 + ratio * ratio);
  return larger * std::sqrt(std::sqrt(1 + IntegerPower(ratio, 4)));
}

}  // namespace

Duration LayerTime(const model::Chip& chip, const Work& work) {
  const double memory =
      work.bytes / (chip.bandwidth_bytes_per_s.value * chip.bandwidth_efficiency.value);
  const double compute = work.flops / (chip.peak_flops.value * chip.compute_efficiency.value);
  return Duration::FromSeconds(Combine(memory, compute, chip.roofline_exponent.value) +
                               chip.layer_overhead_seconds.value);
}

Work AttentionWork(const model::ModelShape& shape, absl::Span<const uint32_t> context_tokens) {
  uint64_t context = 0;
  for (const uint32_t tokens : context_tokens) context += tokens;
  const double parameters = static_cast<double>(shape.attention_parameters());
  Work work;
  work.bytes = WeightBytes(shape, parameters) +
               static_cast<double>(context * 2 * shape.kv_heads * shape.head_dim * shape.kv_bytes);
  // Two flops per parameter and row; two for scores and two for values per head, dimension and
  // position.
  work.flops = 2 * parameters * static_cast<double>(context_tokens.size()) +
               4 * static_cast<double>(shape.heads * shape.head_dim * context);
  return work;
}

Work FfnWork(const model::ModelShape& shape, uint64_t rows) {
  const double parameters = static_cast<double>(shape.ffn_parameters());
  const double per_row = static_cast<double>(std::max<uint64_t>(shape.experts_per_token, 1));
  Work work;
  work.bytes = WeightBytes(
      shape, parameters * ExpectedExperts(shape.experts, shape.experts_per_token, rows));
  work.flops = 2 * parameters * per_row * static_cast<double>(rows);
  return work;
}

Work PrefillWork(const model::ModelShape& shape, uint64_t first_position, uint64_t rows) {
  // Causal: row i attends to first_position + i + 1 positions; the KV before and of the chunk is
  // read once.
  const uint64_t attended = rows * first_position + rows * (rows + 1) / 2;
  const double parameters = static_cast<double>(shape.attention_parameters());
  const Work ffn = FfnWork(shape, rows);
  Work work;
  work.bytes = WeightBytes(shape, parameters) + ffn.bytes +
               static_cast<double>((first_position + rows) * 2 * shape.kv_heads * shape.head_dim *
                                   shape.kv_bytes);
  work.flops = 2 * parameters * static_cast<double>(rows) +
               4 * static_cast<double>(shape.heads * shape.head_dim * attended) + ffn.flops;
  return work;
}

Work HeadWork(const model::ModelShape& shape, uint64_t rows) {
  const double parameters = static_cast<double>(shape.head_parameters());
  return {WeightBytes(shape, parameters), 2 * parameters * static_cast<double>(rows)};
}

double ExpectedExperts(uint64_t experts, uint64_t experts_per_token, uint64_t rows) {
  if (experts == 0) return 1;
  const double missed = 1 - static_cast<double>(experts_per_token) / static_cast<double>(experts);
  return static_cast<double>(experts) * (1 - IntegerPower(missed, rows));
}

uint64_t HandoffBytes(const model::ModelShape& shape, uint64_t rows) {
  return rows * shape.hidden * 4;
}

uint64_t KvBytes(const model::ModelShape& shape, uint64_t tokens) {
  return tokens * shape.kv_bytes_per_token();
}

Duration LinkOccupancy(const model::Chip& chip, uint64_t bytes) {
  return Duration::FromSeconds(static_cast<double>(bytes) / chip.link_bytes_per_s.value);
}

Duration TransferTime(const model::Chip& chip, uint64_t bytes) {
  return Duration::FromSeconds(chip.link_latency_seconds.value) + LinkOccupancy(chip, bytes);
}

}  // namespace tandem::cost
