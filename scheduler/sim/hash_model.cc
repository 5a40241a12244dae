#include "scheduler/sim/hash_model.h"

namespace tandem::sim {

ReferenceSequence::ReferenceSequence(const std::vector<TokenId>& prompt, uint64_t seed,
                                     uint32_t layers, uint32_t vocabulary)
    : seed_(seed), vocabulary_(vocabulary), kv_(layers, kNoKv) {
  for (const TokenId token : prompt) Feed(token);
}

void ReferenceSequence::Feed(TokenId token) {
  row_ = EmbedOf(token, position_++);
  for (uint32_t layer = 0; layer < kv_.size(); layer++) {
    kv_[layer] = KvOf(kv_[layer], row_, layer);
    row_ = FfnOf(AttentionOf(row_, kv_[layer]), layer);
  }
}

TokenId ReferenceSequence::Next() {
  const TokenId token = TokenOf(row_, seed_, output_position_++, vocabulary_);
  Feed(token);
  return token;
}

}  // namespace tandem::sim
