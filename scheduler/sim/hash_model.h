#pragma once

// The numerics of simulated workers: a hash chain in place of arithmetic. A swapped row, a stale KV
// block, a skipped layer or a wrong position changes every later token.

#include <cstdint>
#include <vector>

#include "scheduler/base/random.h"
#include "scheduler/view/request.h"

namespace tandem::sim {

inline constexpr uint64_t kNoKv =
    0x7461'6e64'656d'6b76ULL;  // what the first position finds before it

// What a row of a layer stores in KV; `before` is what the position before it stored there.
constexpr uint64_t KvOf(uint64_t before, uint64_t row, uint32_t layer) {
  return Mix64(before ^ Mix64(row + 0x51ED2701ULL * (layer + 1)));
}
constexpr uint64_t EmbedOf(TokenId token, uint32_t position) {
  return Mix64((uint64_t{position} << 32) | token);
}
// The residual stream after attention, and the FFN's output.
constexpr uint64_t AttentionOf(uint64_t row, uint64_t kv) { return Mix64(row ^ (kv * 3)); }
constexpr uint64_t FfnOf(uint64_t row, uint32_t layer) { return Mix64(row * 5 + layer + 1); }
// What piece `column` of `columns` answers, and how pieces add up, in shard order: folding them in
// any other order, or without one, gives another number.
constexpr uint64_t FoldPiece(uint64_t sum, uint64_t piece) {
  return ((sum << 7) | (sum >> 57)) ^ piece;
}
constexpr uint64_t PieceOf(uint64_t row, uint32_t layer, uint32_t column, uint32_t columns) {
  uint64_t sum = 0;
  for (uint32_t before = 0; before < column; before++)
    sum = FoldPiece(sum, Mix64(FfnOf(row, layer) ^ (before + 1)));
  if (column + 1 < columns) return Mix64(FfnOf(row, layer) ^ (column + 1));
  return FoldPiece(sum, FfnOf(row, layer));  // the last one makes it the whole
}
constexpr TokenId TokenOf(uint64_t row, uint64_t seed, uint32_t output_position,
                          uint32_t vocabulary) {
  return static_cast<TokenId>(Mix64(row ^ Mix64(seed + output_position)) % vocabulary);
}

// The tokens that a sequence must get, one after the other, whoever computes them.
class ReferenceSequence {
 public:
  ReferenceSequence(const std::vector<TokenId>& prompt, uint64_t seed, uint32_t layers,
                    uint32_t vocabulary);
  TokenId Next();

 private:
  void Feed(TokenId token);

  const uint64_t seed_;
  const uint32_t vocabulary_;
  std::vector<uint64_t> kv_;  // [layers] of the last position
  uint64_t row_ = 0;          // the last position's, after the last layer
  uint32_t position_ = 0, output_position_ = 0;
};

}  // namespace tandem::sim
