#include "scheduler/cost/footprint.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <cmath>

namespace tandem::cost {
namespace {

using model::Device;
using model::ModelShape;
using model::Precision;

// Embedding and head.
uint64_t EndParameters(const ModelShape& shape) {
  return shape.head_parameters() * (shape.tied_embeddings ? 1 : 2);
}

uint64_t AttentionParameters(const ModelShape& shape) {
  uint64_t parameters = 0;
  for (uint64_t layer = 0; layer < shape.layers; layer++)
    parameters += shape.attention_parameters() + shape.router_parameters(layer);
  return parameters;
}

uint64_t FfnParameters(const ModelShape& shape, const FfnShard& shard) {
  uint64_t parameters = 0;
  const uint64_t end = std::min<uint64_t>(shard.last_layer, shape.layers);
  for (uint64_t layer = shard.first_layer; layer < end; layer++) {
    const bool experts = shape.HasExperts(layer);
    const uint64_t width = experts || shape.experts == 0 ? shape.ffn : shape.dense_ffn;
    const uint64_t count = experts ? shape.experts + shape.shared_experts : 1;
    parameters += count * 3 * shape.hidden * ShardWidth(shard, width);
  }
  return parameters;
}

// "141.11 GB", decimal.
std::string Gigabytes(double bytes) { return absl::StrCat(std::round(bytes / 1e7) / 100, " GB"); }

}  // namespace

uint64_t WeightBytes(const ModelShape& shape, const Precision& precision, const Holding& holding) {
  uint64_t parameters = 0, attention_parameters = 0;  // in the weights' format, and in attention's
  if (holding.prefill || holding.attention) {
    parameters += EndParameters(shape);
    attention_parameters = AttentionParameters(shape);
  }
  if (holding.prefill) {
    parameters += FfnParameters(shape, FfnShard());
  } else if (holding.ffn.has_value()) {
    parameters += FfnParameters(shape, *holding.ffn);
  }
  const double bits = static_cast<double>(parameters) * model::BitsPerWeight(precision.weights) +
                      static_cast<double>(attention_parameters) *
                          model::BitsPerWeight(shape.AttentionDtype(precision.weights));
  return static_cast<uint64_t>(std::ceil(bits / 8));
}

uint64_t KvRowBytes(const ModelShape& shape, const Precision& precision) {
  return shape.kv_elements() * precision.kv_element_bytes;
}

uint64_t KvBytesPerToken(const ModelShape& shape, const Precision& precision) {
  return shape.layers * KvRowBytes(shape, precision);
}

uint64_t KvBytes(const ModelShape& shape, const Precision& precision, uint64_t tokens) {
  const uint64_t windowed = shape.windowed_layers();
  const uint64_t rows =
      (shape.layers - windowed) * tokens + windowed * std::min(tokens, shape.window);
  return rows * KvRowBytes(shape, precision);
}

uint32_t KvCopies(const ModelShape& shape, const Device& device) {
  const uint64_t parts = std::min<uint64_t>(device.tp, shape.kv_heads);
  return static_cast<uint32_t>((device.tp + parts - 1) / parts);
}

Footprint FootprintOf(const Device& device, const ModelShape& shape, const Precision& precision,
                      const Holding& holding, uint64_t kv_tokens) {
  Footprint footprint;
  footprint.weights = WeightBytes(shape, precision, holding);
  footprint.kv = kv_tokens * KvBytesPerToken(shape, precision) * KvCopies(shape, device);
  footprint.workspace = static_cast<uint64_t>(std::ceil(device.workspace_bytes()));
  return footprint;
}

absl::Status CheckFits(const Device& device, const ModelShape& shape, const Footprint& footprint) {
  const double usable = device.memory_bytes();
  if (static_cast<double>(footprint.total()) <= usable) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "device '", device.name, "': ", Gigabytes(static_cast<double>(footprint.total())), " of '",
      shape.name, "' (weights ", Gigabytes(static_cast<double>(footprint.weights)), ", KV ",
      Gigabytes(static_cast<double>(footprint.kv)), ", workspace ",
      Gigabytes(static_cast<double>(footprint.workspace)), ") exceed ", Gigabytes(usable),
      " of usable memory"));
}

uint64_t KvTokensThatFit(const Device& device, const ModelShape& shape, const Precision& precision,
                         const Holding& holding) {
  const Footprint without = FootprintOf(device, shape, precision, holding, 0);
  const double free = device.memory_bytes() - static_cast<double>(without.total());
  const uint64_t per_token = KvBytesPerToken(shape, precision) * KvCopies(shape, device);
  return free <= 0 ? 0 : static_cast<uint64_t>(free) / per_token;
}

}  // namespace tandem::cost
