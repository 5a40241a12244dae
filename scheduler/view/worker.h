#pragma once

// What a worker says of itself, as values. The proto twins are Registration and Heartbeat in
// registry.proto.

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "scheduler/base/ids.h"
#include "scheduler/model/figure.h"
#include "scheduler/view/shard.h"

namespace tandem {

enum class Stage { kPrefill, kAttention, kFfn };
const char* ToString(Stage stage);  // "prefill", "attention", "ffn"
enum class MemoryClass { kHbm, kSram };

// What decides the bits of a result, per stage; a part that a worker does not run is empty and
// never compared.
struct NumericsClass {
  std::string prefill, attention, ffn;
  bool operator==(const NumericsClass&) const = default;
};

struct ModelDimensions {
  uint32_t layers = 0, hidden = 0, kv_heads = 0, head_dim = 0, vocabulary = 0, context_tokens = 0;
  bool operator==(const ModelDimensions&) const = default;
};

struct WorkerCapacity {
  uint32_t kv_blocks = 0;  // attention
  uint32_t block_tokens = 0;
  uint32_t max_sequences = 0;     // attention
  uint32_t prefill_slots = 0;     // prefill
  uint32_t max_handoff_rows = 0;  // ffn
};

// What a worker loaded of a real model, beside its dimensions; LoadedModel of registry.proto.
struct LoadedModel {
  uint32_t heads = 0, ffn = 0;  // 0: no real model
  bool tied_embeddings = false;
  uint64_t attention_bytes = 0, ffn_bytes = 0, head_bytes = 0;  // as they lie in memory
  uint64_t kv_row_bytes = 0;  // K and V of one position of one layer
};

inline constexpr double kMaxTimeScale = 1e6;

// Fixed for one incarnation.
struct WorkerDescription {
  WorkerId id;
  uint64_t incarnation = 0;
  std::string pool;
  std::string model;
  std::set<Stage> stages;
  MemoryClass memory_class = MemoryClass::kHbm;
  NumericsClass numerics;
  std::string address;
  std::string metrics_url;
  WorkerCapacity capacity;
  uint64_t shard_epoch = 0;
  FfnShard shard;  // ffn: what it holds
  ModelDimensions dimensions;
  uint64_t weights_bytes = 0;
  std::string device;     // what it computes on
  double time_scale = 0;  // machine seconds for one of an emulated device's; 0: real time
  std::string model_shape, weights;  // emulated: the model and number format of the catalog
  LoadedModel loaded;
  model::Figure dollars_per_hour, watts;  // of the device, where it knows
  int64_t pid = 0;
  std::vector<SequenceKey> live;

  bool Runs(Stage stage) const { return stages.contains(stage); }
};

// Changes with each heartbeat.
struct WorkerLoad {
  uint32_t kv_blocks_free = 0;
  uint32_t sequences = 0;
  uint32_t prefills = 0;
  uint64_t tokens_total = 0;
  bool draining = false;
  uint64_t prompts_total = 0;        // attention: that got their first output token
  uint64_t prompt_tokens_total = 0;  // of those, each once
};

}  // namespace tandem
