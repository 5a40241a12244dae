#include "workers/backend/synthetic/hash_chain.h"

#include <algorithm>
#include <cstring>

namespace tandem::synthetic {
namespace {

constexpr uint32_t kPattern = 16;  // floats that differ; a wider row repeats them

}  // namespace

void Expand(uint64_t hash, float* row, uint32_t width) {
  for (uint32_t i = 0; i < std::min(width, kPattern); i++)
    row[i] = static_cast<float>(Mix64(hash + i) >> 42);
  for (uint32_t at = kPattern; at < width; at += kPattern)
    std::memcpy(row + at, row, std::min(kPattern, width - at) * sizeof(float));
}

uint64_t HashRow(const float* row, uint32_t width) {
  uint64_t hash = width;
  uint32_t at = 0;
  for (; at + 2 <= width; at += 2) {
    uint64_t word = 0;
    std::memcpy(&word, row + at, sizeof(word));
    // One multiplication a word: a row of a real width is thousands of them.
    hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
    hash ^= hash >> 32;
  }
  if (at < width) {
    uint32_t word = 0;
    std::memcpy(&word, row + at, sizeof(word));
    hash = Fold(hash, word);
  }
  return Mix64(hash);
}

std::vector<TokenId> ReferenceTokens(const ModelDimensions& d, uint32_t block_tokens,
                                     const std::vector<TokenId>& prompt, size_t count,
                                     const Sampling& sampling, uint64_t seed) {
  std::vector<TokenId> tokens;
  std::vector<TokenId> ids = prompt;
  std::vector<uint64_t> kv(d.layers, kNoKv), blocks(d.layers, 0);
  std::vector<float> residual(d.hidden), ffn(d.hidden);
  for (uint32_t position = 0; tokens.size() < count; position++) {
    Expand(EmbedOf(ids[position]), residual.data(), d.hidden);
    for (uint32_t layer = 0; layer < d.layers; layer++) {
      // The block before is full: its last kv is the last one written.
      if (position > 0 && position % block_tokens == 0)
        blocks[layer] = Fold(blocks[layer], kv[layer]);
      const uint64_t h = HashRow(residual.data(), d.hidden);
      kv[layer] = KvOf(kv[layer], h, layer, position);
      Expand(AttentionOf(blocks[layer], kv[layer], h, layer, position), residual.data(), d.hidden);
      Expand(FfnOf(HashRow(residual.data(), d.hidden), layer), ffn.data(), d.hidden);
      for (uint32_t i = 0; i < d.hidden; i++) residual[i] += ffn[i];
    }
    if (position + 1 < ids.size()) continue;
    const uint64_t draw = DrawOf(HashRow(residual.data(), d.hidden), sampling.temperature == 0,
                                 seed, static_cast<uint32_t>(tokens.size()));
    tokens.push_back(static_cast<TokenId>(draw % d.vocabulary));
    ids.push_back(tokens.back());
  }
  return tokens;
}

}  // namespace tandem::synthetic
