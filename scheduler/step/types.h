#pragma once

// Words that the worker's state machines share.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "scheduler/base/ids.h"
#include "scheduler/base/time.h"
#include "scheduler/view/request.h"
#include "scheduler/view/shard.h"

namespace tandem::step {

// KV block numbers of one sequence, in ascending position; block i holds positions [i *
// block_tokens, (i+1) * block_tokens).
using BlockTable = std::vector<uint32_t>;

// One row of a call that touches the KV cache: one token of one sequence.
struct KvRow {
  TokenId token = 0;                   // read by the embedding, at layer 0 only
  uint32_t position = 0;               // in its sequence, from 0
  const BlockTable* blocks = nullptr;  // covers `position`; valid until the task is reported done
};

// A token drawn for a sequence.
struct SampledToken {
  TokenId id = 0;
  float logprob = 0;                           // with Sampling::top_logprobs
  std::vector<std::pair<TokenId, float>> top;  // descending; with Sampling::top_logprobs
  uint64_t decode_step = 0;                    // of the worker, that drew it; 0: not known
};

// What the head needs to know of one row to draw its token.
struct SampleRow {
  const Sampling* sampling = nullptr;
  uint64_t seed = 0;
  uint32_t output_position = 0;  // index of the token to draw in the sequence's output
  const std::vector<TokenId>* prompt_ids = nullptr;
  const std::vector<TokenId>* emitted_ids = nullptr;  // all attempts'
};

// Names one layer call of one attention worker's step.
struct CallId {
  uint64_t step = 0;
  uint32_t layer = 0;
  uint32_t micro_batch = 0;
  uint32_t attempt = 0;
  auto operator<=>(const CallId&) const = default;
};

// An FFN worker that may compute layers for an attention worker.
struct GroupHolder {
  std::string name;  // worker id
  FfnShard shard;    // what it holds
};
// Holders of every layer, whole.
inline std::vector<GroupHolder> WholeHolders(const std::vector<std::string>& names) {
  std::vector<GroupHolder> holders;
  holders.reserve(names.size());
  for (const std::string& name : names) holders.push_back({name, {}});
  return holders;
}

}  // namespace tandem::step
