#pragma once

// A hash chain that has the shape of a transformer's data flow (DESIGN section 7):
//
//   embedding   row(token)
//   attention   h = hash(residual + ffn_out)
//               kv[layer][position] = hash(kv[layer][position - 1], h, layer, position)
//               row(hash(last kv of every full block before, kv[position], h, layer, position))
//   FFN         row(hash(layer, its input)); a piece of its columns: rows that add up to that
//   token       hash(residual + ffn_out [, seed, output position]) mod vocabulary
//
// Each position's kv hangs on the one before, and attention reads one kv of every block, so a block
// that is stale or missing shows at once. A row holds whole numbers below 2^22 in F32: sums of a
// few rows are exact.

#include <cstdint>
#include <vector>

#include "scheduler/base/random.h"
#include "scheduler/view/request.h"
#include "scheduler/view/worker.h"

namespace tandem::synthetic {

constexpr uint64_t Fold(uint64_t hash, uint64_t value) { return Mix64(hash ^ Mix64(value)); }

inline constexpr uint64_t kNoKv = 0;  // a position that was never written

constexpr uint64_t EmbedOf(TokenId token) { return Fold(1, token); }
constexpr uint64_t KvOf(uint64_t before, uint64_t h, uint32_t layer, uint32_t position) {
  return Fold(Fold(Fold(Fold(2, before), h), layer), position);
}
constexpr uint64_t AttentionOf(uint64_t blocks, uint64_t kv, uint64_t h, uint32_t layer,
                               uint32_t position) {
  return Fold(Fold(Fold(Fold(Fold(3, blocks), kv), h), layer), position);
}
constexpr uint64_t FfnOf(uint64_t h, uint32_t layer) { return Fold(Fold(4, h), layer); }
constexpr uint64_t DrawOf(uint64_t h, bool greedy, uint64_t seed, uint32_t output_position) {
  const uint64_t hash = Fold(5, h);
  return greedy ? hash : Fold(Fold(hash, seed), output_position);
}

// A row from a hash, and a hash of a row. `width` floats, at least 1.
void Expand(uint64_t hash, float* row, uint32_t width);
uint64_t HashRow(const float* row, uint32_t width);

// What a sequence must emit: `count` tokens after `prompt`, computed without blocks, buffers or
// batches.
std::vector<TokenId> ReferenceTokens(const ModelDimensions& dimensions, uint32_t block_tokens,
                                     const std::vector<TokenId>& prompt, size_t count,
                                     const Sampling& sampling = {}, uint64_t seed = 0);

}  // namespace tandem::synthetic
