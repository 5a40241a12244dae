#include "scheduler/cost/work.h"

#include <algorithm>

#include "scheduler/base/check.h"

namespace tandem::cost {
namespace {

using model::ModelShape;
using model::Precision;

// Attention's own number format, where the model keeps one.
Precision AttentionPrecision(const ModelShape& shape, Precision precision) {
  precision.weights = shape.AttentionDtype(precision.weights);
  return precision;
}

double Bytes(const Precision& precision, double parameters) {
  return parameters * model::BitsPerWeight(precision.weights) / 8.0;
}

// x^n by squaring: the same bits everywhere, which pow() does not promise.
double IntegerPower(double x, uint64_t n) {
  double result = 1;
  for (; n > 0; n >>= 1, x *= x) {
    if (n & 1) result *= x;
  }
  return result;
}

// Flops of one row and one position that it attends to: two for the score and two for the value,
// of each head and dimension.
uint64_t DecodeFlopsPerPosition(const ModelShape& shape) {
  if (!shape.latent.has_value()) return 4 * shape.heads * shape.head_dim;
  return 2 * shape.heads * (2 * shape.latent->kv_rank + shape.latent->rope_dim);
}

uint64_t PrefillFlopsPerPosition(const ModelShape& shape) {
  if (!shape.latent.has_value()) return 4 * shape.heads * shape.head_dim;
  return 2 * shape.heads *
         (shape.latent->nope_dim + shape.latent->rope_dim + shape.latent->value_dim);
}

double KvBytesOf(const ModelShape& shape, const Precision& precision, uint64_t positions) {
  return static_cast<double>(positions) *
         static_cast<double>(shape.kv_elements() * precision.kv_element_bytes);
}

double AttentionParameters(const ModelShape& shape, uint64_t layer) {
  return static_cast<double>(shape.attention_parameters() + shape.router_parameters(layer));
}

// Projections and gate.
Work AttentionMatrixWork(const ModelShape& shape, const Precision& precision, uint64_t layer,
                         uint64_t rows) {
  const double parameters = AttentionParameters(shape, layer);
  return MatrixWork(AttentionPrecision(shape, precision), parameters, parameters, rows);
}

// Of the layer's dense FFN, or of one of its experts: gate, up and down.
double FfnParameters(const ModelShape& shape, const FfnShard& shard, uint64_t layer) {
  const bool experts = shape.HasExperts(layer);
  const uint64_t width = experts || shape.experts == 0 ? shape.ffn : shape.dense_ffn;
  return static_cast<double>(3 * shape.hidden * ShardWidth(shard, width));
}

// Sum of 1..n.
uint64_t Triangle(uint64_t n) { return n * (n + 1) / 2; }

// Positions that rows [first, first + rows) of a prompt attend to, each to the last `window`.
uint64_t AttendedPositions(uint64_t first, uint64_t rows, uint64_t window) {
  const uint64_t all = Triangle(first + rows) - Triangle(first);
  if (window == 0 || first + rows <= window) return all;
  const uint64_t whole = first >= window ? rows : first + rows - window;  // rows past the window
  const uint64_t growing = rows - whole;
  return whole * window + Triangle(first + growing) - Triangle(first);
}

}  // namespace

AttentionRows AttentionRows::Of(const ModelShape& shape,
                                absl::Span<const uint32_t> context_tokens) {
  AttentionRows rows;
  rows.rows = context_tokens.size();
  for (const uint32_t tokens : context_tokens) {
    rows.context_tokens += tokens;
    rows.windowed_tokens += shape.window == 0 ? tokens : std::min<uint64_t>(tokens, shape.window);
  }
  return rows;
}

AttentionRows AttentionRows::Even(const ModelShape& shape, uint64_t rows, uint64_t context_tokens) {
  const uint64_t windowed =
      shape.window == 0 ? context_tokens : std::min(context_tokens, rows * shape.window);
  return {rows, context_tokens, windowed};
}

PrefillRows PrefillRows::Of(const ModelShape& shape, uint64_t first_position, uint64_t rows) {
  PrefillRows all;
  if (rows == 0) return all;
  all.rows = rows;
  all.attended_tokens = AttendedPositions(first_position, rows, 0);
  all.kv_tokens = first_position + rows;
  all.windowed_attended_tokens = all.attended_tokens;
  all.windowed_kv_tokens = all.kv_tokens;
  if (shape.window == 0) return all;
  all.windowed_attended_tokens = AttendedPositions(first_position, rows, shape.window);
  all.windowed_kv_tokens = std::min(first_position, shape.window) + rows;
  return all;
}

PrefillRows& PrefillRows::operator+=(const PrefillRows& other) {
  rows += other.rows;
  attended_tokens += other.attended_tokens;
  kv_tokens += other.kv_tokens;
  windowed_attended_tokens += other.windowed_attended_tokens;
  windowed_kv_tokens += other.windowed_kv_tokens;
  return *this;
}

uint64_t ShardWidth(const FfnShard& shard, uint64_t width) {
  TANDEM_CHECK(shard.column < shard.columns);
  return width * (shard.column + 1) / shard.columns - width * shard.column / shard.columns;
}

Work& Work::operator+=(const Work& other) {
  weight_bytes += other.weight_bytes;
  kv_bytes += other.kv_bytes;
  flops += other.flops;
  return *this;
}

Work MatrixWork(const Precision& precision, double read, double computed, uint64_t rows) {
  if (rows == 0) return {};
  return {Bytes(precision, read), 0, 2 * computed * static_cast<double>(rows)};
}

Work DecodeScoresWork(const ModelShape& shape, const Precision& precision, uint64_t layer,
                      const AttentionRows& rows) {
  const uint64_t positions = shape.IsWindowed(layer) ? rows.windowed_tokens : rows.context_tokens;
  return {0, KvBytesOf(shape, precision, positions),
          static_cast<double>(DecodeFlopsPerPosition(shape)) * static_cast<double>(positions)};
}

Work PrefillScoresWork(const ModelShape& shape, const Precision& precision, uint64_t layer,
                       const PrefillRows& rows) {
  const bool windowed = shape.IsWindowed(layer);
  const uint64_t attended = windowed ? rows.windowed_attended_tokens : rows.attended_tokens;
  return {0, KvBytesOf(shape, precision, windowed ? rows.windowed_kv_tokens : rows.kv_tokens),
          static_cast<double>(PrefillFlopsPerPosition(shape)) * static_cast<double>(attended)};
}

Work AttentionWork(const ModelShape& shape, const Precision& precision, uint64_t layer,
                   const AttentionRows& rows) {
  if (rows.rows == 0) return {};
  return AttentionMatrixWork(shape, precision, layer, rows.rows) +
         DecodeScoresWork(shape, precision, layer, rows);
}

Work RoutedExpertsWork(const ModelShape& shape, const Precision& precision, const FfnShard& shard,
                       uint64_t layer, uint64_t rows) {
  if (!shape.HasExperts(layer)) return {};
  const double one = FfnParameters(shape, shard, layer);
  const double touched = ExpectedExperts(shape.experts, shape.experts_per_token, rows);
  return MatrixWork(precision, one * touched, one * static_cast<double>(shape.experts_per_token),
                    rows);
}

Work SharedExpertsWork(const ModelShape& shape, const Precision& precision, const FfnShard& shard,
                       uint64_t layer, uint64_t rows) {
  if (!shape.HasExperts(layer)) return {};
  const double all = FfnParameters(shape, shard, layer) * static_cast<double>(shape.shared_experts);
  return MatrixWork(precision, all, all, rows);
}

Work DenseFfnWork(const ModelShape& shape, const Precision& precision, const FfnShard& shard,
                  uint64_t layer, uint64_t rows) {
  if (shape.HasExperts(layer)) return {};
  const double parameters = FfnParameters(shape, shard, layer);
  return MatrixWork(precision, parameters, parameters, rows);
}

Work FfnWork(const ModelShape& shape, const Precision& precision, const FfnShard& shard,
             uint64_t layer, uint64_t rows) {
  if (!shape.HasExperts(layer)) return DenseFfnWork(shape, precision, shard, layer, rows);
  return RoutedExpertsWork(shape, precision, shard, layer, rows) +
         SharedExpertsWork(shape, precision, shard, layer, rows);
}

Work PrefillWork(const ModelShape& shape, const Precision& precision, uint64_t layer,
                 const PrefillRows& rows) {
  if (rows.rows == 0) return {};
  return AttentionMatrixWork(shape, precision, layer, rows.rows) +
         FfnWork(shape, precision, FfnShard(), layer, rows.rows) +
         PrefillScoresWork(shape, precision, layer, rows);
}

Work HeadWork(const ModelShape& shape, const Precision& precision, uint64_t rows) {
  const double parameters = static_cast<double>(shape.head_parameters());
  return MatrixWork(precision, parameters, parameters, rows);
}

Work EmbedWork(const ModelShape& shape, const Precision& precision, uint64_t rows) {
  return {Bytes(precision, static_cast<double>(shape.hidden * rows)), 0, 0};
}

double ExpectedExperts(uint64_t experts, uint64_t experts_per_token, uint64_t rows) {
  const double missed = 1 - static_cast<double>(experts_per_token) / static_cast<double>(experts);
  return static_cast<double>(experts) * (1 - IntegerPower(missed, rows));
}

uint64_t A2fBytes(const ModelShape& shape, const Precision& precision, uint64_t layer,
                  uint64_t rows) {
  constexpr uint64_t kRouteBytes = 8;  // id and weight
  const uint64_t routes = shape.HasExperts(layer) ? shape.experts_per_token : 0;
  return rows * (shape.hidden * precision.handoff_element_bytes + routes * kRouteBytes);
}

uint64_t F2aBytes(const ModelShape& shape, const Precision& precision, uint64_t rows) {
  return rows * shape.hidden * precision.handoff_element_bytes;
}

}  // namespace tandem::cost
