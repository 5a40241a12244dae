#include "tests/exact/split_driver.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <cmath>

#include "ggml.h"
#include "scheduler/base/check.h"
#include "scheduler/base/random.h"
#include "scheduler/base/status.h"

namespace tandem::exact {
namespace {

constexpr uint32_t kFaultLayer = 3;
constexpr float kRopeBase = 100000.0f;      // SmolLM2's
constexpr uint32_t kKvFramePositions = 23;  // rows of one KV frame: no multiple of a block

std::vector<uint32_t> ShuffledBlocks(uint32_t blocks, uint64_t seed) {
  std::vector<uint32_t> out(blocks);
  for (uint32_t i = 0; i < blocks; ++i) out[i] = i;
  Random random(seed);
  for (uint32_t i = blocks; i > 1; --i) std::swap(out[i - 1], out[random.Below(i)]);
  return out;
}

uint64_t KvBytes(const StageBackend& backend, uint32_t count) {
  return backend.info().kv_row_bytes * count;
}

}  // namespace

void CopyRows(const StageBackend& backend, uint32_t rows, const Buffer& from, Buffer& to) {
  std::vector<float> values(size_t{rows} * backend.info().dimensions.hidden);
  from.Read(0, absl::MakeSpan(values));
  to.Write(0, values);
}

void RotateKeys(absl::Span<uint8_t> keys, uint32_t head_dim, float rope_base, int positions) {
  ggml_fp16_t* halves = reinterpret_cast<ggml_fp16_t*>(keys.data());
  const size_t count = keys.size() / sizeof(ggml_fp16_t);
  for (size_t i = 0; i < count; i += 2) {
    const uint32_t pair = static_cast<uint32_t>(i % head_dim);
    const double angle = positions * std::pow(rope_base, -static_cast<double>(pair) / head_dim);
    const double a = ggml_fp16_to_fp32(halves[i]), b = ggml_fp16_to_fp32(halves[i + 1]);
    halves[i] = ggml_fp32_to_fp16(static_cast<float>(a * std::cos(angle) - b * std::sin(angle)));
    halves[i + 1] =
        ggml_fp32_to_fp16(static_cast<float>(a * std::sin(angle) + b * std::cos(angle)));
  }
}

SplitDriver::SplitDriver(const Parts& parts, uint32_t kv_blocks, uint32_t block_tokens,
                         uint64_t seed, std::optional<KvSize> prefill_kv)
    : parts_(parts),
      block_tokens_(block_tokens),
      prefill_block_tokens_(prefill_kv ? prefill_kv->block_tokens : block_tokens),
      free_prefill_(ShuffledBlocks(prefill_kv ? prefill_kv->blocks : kv_blocks, Mix64(seed))),
      free_attention_(ShuffledBlocks(kv_blocks, Mix64(seed + 1))) {}

absl::Status SplitDriver::Take(std::vector<uint32_t>& free, uint32_t block_tokens, uint64_t tokens,
                               step::BlockTable& table) {
  while (table.size() * block_tokens < tokens) {
    if (free.empty())
      return absl::ResourceExhaustedError(absl::StrCat("no KV block for ", tokens, " tokens"));
    table.push_back(free.back());
    free.pop_back();
  }
  return absl::OkStatus();
}

void SplitDriver::Release(Sequence& sequence) {
  free_attention_.insert(free_attention_.begin(), sequence.blocks.begin(), sequence.blocks.end());
  sequence.blocks.clear();
}

absl::Status SplitDriver::Reserve(StageBackend& attention, StageBackend& ffn, uint32_t count,
                                  Rows& rows) {
  if (count <= rows.capacity) return absl::OkStatus();
  ASSIGN_OR_RETURN(rows.residual, attention.AllocateRows(count));
  ASSIGN_OR_RETURN(rows.ffn_out, attention.AllocateRows(count));
  ASSIGN_OR_RETURN(rows.ffn_in, ffn.AllocateRows(count));
  ASSIGN_OR_RETURN(rows.ffn_back, ffn.AllocateRows(count));
  rows.capacity = count;
  return absl::OkStatus();
}

absl::Status SplitDriver::CallFfn(StageBackend& attention, StageBackend& ffn, uint32_t layer,
                                  uint32_t rows, Rows& memory) {
  if (&attention == &ffn)
    return ffn.FfnLayer(layer, rows, *memory.residual, *memory.ffn_out)->Wait();
  CopyRows(ffn, rows, *memory.residual, *memory.ffn_in);  // as A2F does
  RETURN_IF_ERROR(ffn.FfnLayer(layer, rows, *memory.ffn_in, *memory.ffn_back)->Wait());
  CopyRows(ffn, rows, *memory.ffn_back, *memory.ffn_out);  // as F2A does
  return absl::OkStatus();
}

// The partials of a layer's holders, added in shard order, as an attention worker does.
absl::Status SplitDriver::CallShards(uint32_t layer, uint32_t rows, Rows& memory) {
  std::vector<StageBackend*> pieces;
  for (StageBackend* shard : parts_.shards) {
    if (shard->info().shard.HoldsLayer(layer)) pieces.push_back(shard);
  }
  if (fault_ == Fault::kLeaveOutPartial) pieces.pop_back();
  if (fault_ == Fault::kArrivalOrder) std::rotate(pieces.begin(), pieces.begin() + 1, pieces.end());
  const size_t floats = size_t{rows} * parts_.attention->info().dimensions.hidden;
  CopyRows(FfnSide(), rows, *memory.residual, *memory.ffn_in);
  std::vector<float> sum(floats), partial(floats);
  for (StageBackend* piece : pieces) {
    RETURN_IF_ERROR(piece->FfnLayer(layer, rows, *memory.ffn_in, *memory.ffn_back)->Wait());
    memory.ffn_back->Read(0, absl::MakeSpan(partial));
    for (size_t i = 0; i < floats; i++)
      sum[i] = piece == pieces[0] ? partial[i] : sum[i] + partial[i];
  }
  memory.ffn_out->Write(0, sum);
  return absl::OkStatus();
}

absl::Status SplitDriver::Layers(StageBackend& attention, StageBackend& ffn,
                                 absl::Span<const step::KvRow> rows, Rows& memory) {
  const uint32_t n = static_cast<uint32_t>(rows.size());
  std::vector<TokenId> tokens;
  for (const step::KvRow& row : rows) tokens.push_back(row.token);
  RETURN_IF_ERROR(attention.Embed(tokens, *memory.residual)->Wait());
  const uint32_t layers = attention.info().dimensions.layers;
  for (uint32_t layer = 0; layer < layers; ++layer) {
    const Buffer* ffn_out = layer == 0 ? nullptr : memory.ffn_out.get();
    RETURN_IF_ERROR(attention.AttentionLayer(layer, rows, *memory.residual, ffn_out)->Wait());
    RETURN_IF_ERROR(&attention != &ffn && !parts_.shards.empty()
                        ? CallShards(layer, n, memory)
                        : CallFfn(attention, ffn, layer, n, memory));
    if (fault_ == Fault::kSwapRows && layer == kFaultLayer && n >= 2) {
      const auto hidden = static_cast<ptrdiff_t>(attention.info().dimensions.hidden);
      std::vector<float> two(2 * static_cast<size_t>(hidden));
      memory.ffn_out->Read(0, absl::MakeSpan(two));
      std::rotate(two.begin(), two.begin() + hidden, two.end());
      memory.ffn_out->Write(0, two);
    }
  }
  return absl::OkStatus();
}

absl::Status SplitDriver::Prefill(Sequence& sequence, uint32_t chunk, bool first) {
  const uint32_t positions = static_cast<uint32_t>(sequence.prompt_ids.size()) - 1;
  const bool moves = parts_.prefill != parts_.attention;
  RETURN_IF_ERROR(
      Take(free_attention_, block_tokens_, sequence.prompt_ids.size(), sequence.blocks));
  step::BlockTable own;
  if (moves) RETURN_IF_ERROR(Take(free_prefill_, prefill_block_tokens_, positions, own));
  const step::BlockTable& blocks = moves ? own : sequence.blocks;
  for (uint32_t at = 0; at < positions; at += chunk) {
    const uint32_t n = std::min(chunk, positions - at);
    std::vector<step::KvRow> rows;
    for (uint32_t i = at; i < at + n; ++i) rows.push_back({sequence.prompt_ids[i], i, &blocks});
    Rows& memory = moves ? prefill_rows_ : rows_;
    RETURN_IF_ERROR(Reserve(*parts_.prefill, moves ? *parts_.prefill : FfnSide(), n, memory));
    RETURN_IF_ERROR(Layers(*parts_.prefill, *parts_.prefill, rows, memory));
  }
  if (moves) RETURN_IF_ERROR(MoveKv(own, sequence, positions));
  free_prefill_.insert(free_prefill_.begin(), own.begin(), own.end());
  return first ? DamageKv(sequence, positions) : absl::OkStatus();
}

absl::Status SplitDriver::MoveKv(const step::BlockTable& from, Sequence& sequence,
                                 uint32_t positions) {
  std::vector<uint8_t> frame;
  for (uint32_t layer = 0; layer < parts_.attention->info().dimensions.layers; ++layer) {
    for (uint32_t at = 0; at < positions; at += kKvFramePositions) {
      const uint32_t count = std::min(kKvFramePositions, positions - at);
      frame.resize(KvBytes(*parts_.prefill, count));
      RETURN_IF_ERROR(parts_.prefill->ReadKv(layer, from, at, count, absl::MakeSpan(frame)));
      RETURN_IF_ERROR(parts_.attention->WriteKv(layer, sequence.blocks, at, count, frame));
    }
  }
  return absl::OkStatus();
}

absl::Status SplitDriver::DamageKv(Sequence& sequence, uint32_t positions) {
  if (fault_ != Fault::kDropKvBlock && fault_ != Fault::kRopeOffByOne) return absl::OkStatus();
  StageBackend& backend = *parts_.attention;
  const uint32_t count =
      fault_ == Fault::kDropKvBlock ? std::min(block_tokens_, positions) : positions;
  std::vector<uint8_t> rows(KvBytes(backend, count));
  for (uint32_t layer = 0; layer < backend.info().dimensions.layers; ++layer) {
    RETURN_IF_ERROR(backend.ReadKv(layer, sequence.blocks, 0, count, absl::MakeSpan(rows)));
    if (fault_ == Fault::kDropKvBlock) {
      std::fill(rows.begin(), rows.end(), 0);
    } else {
      RotateKeys(absl::MakeSpan(rows.data(), rows.size() / 2), backend.info().dimensions.head_dim,
                 kRopeBase, 1);
    }
    RETURN_IF_ERROR(backend.WriteKv(layer, sequence.blocks, 0, count, rows));
  }
  return absl::OkStatus();
}

absl::Status SplitDriver::Step(absl::Span<Sequence* const> batch) {
  const uint32_t n = static_cast<uint32_t>(batch.size());
  RETURN_IF_ERROR(Reserve(*parts_.attention, FfnSide(), n, rows_));
  std::vector<step::KvRow> rows;
  std::vector<step::SampleRow> samples;
  for (Sequence* sequence : batch) {
    const size_t position = sequence->prompt_ids.size() + sequence->ids.size() - 1;
    RETURN_IF_ERROR(Take(free_attention_, block_tokens_, position + 1, sequence->blocks));
    const TokenId last = sequence->ids.empty() ? sequence->prompt_ids.back() : sequence->ids.back();
    rows.push_back({last, static_cast<uint32_t>(position), &sequence->blocks});
    samples.push_back({&sequence->sampling, sequence->seed,
                       static_cast<uint32_t>(sequence->ids.size()), &sequence->prompt_ids,
                       &sequence->ids});
  }
  RETURN_IF_ERROR(Layers(*parts_.attention, FfnSide(), rows, rows_));
  std::vector<step::SampledToken> tokens;
  RETURN_IF_ERROR(
      parts_.attention->HeadAndSample(samples, *rows_.residual, rows_.ffn_out.get(), tokens)
          ->Wait());
  const size_t vocabulary = parts_.attention->info().dimensions.vocabulary;
  for (uint32_t i = 0; i < n; ++i) {
    batch[i]->ids.push_back(tokens[i].id);
    if (!logits_) continue;
    const absl::Span<const float> row = logits_().subspan(i * vocabulary, vocabulary);
    batch[i]->logits.insert(batch[i]->logits.end(), row.begin(), row.end());
  }
  return absl::OkStatus();
}

absl::Status SplitDriver::Run(std::vector<Sequence>& sequences, uint32_t chunk, uint32_t max_batch,
                              uint32_t join_every) {
  const std::vector<TokenId>& ends = parts_.attention->info().end_tokens;
  std::vector<Sequence*> running;
  size_t next = 0;
  for (uint32_t step = 0; next < sequences.size() || !running.empty(); ++step) {
    while (next < sequences.size() && running.size() < max_batch &&
           (join_every == 0 || step % join_every == 0)) {
      RETURN_IF_ERROR(Prefill(sequences[next], chunk, next == 0));
      running.push_back(&sequences[next++]);
      if (join_every != 0) break;
    }
    if (running.empty()) continue;
    RETURN_IF_ERROR(Step(running));
    std::erase_if(running, [&](Sequence* sequence) {
      const bool done = sequence->ids.size() >= sequence->max_tokens ||
                        std::find(ends.begin(), ends.end(), sequence->ids.back()) != ends.end();
      if (done) Release(*sequence);
      return done;
    });
  }
  return absl::OkStatus();
}

}  // namespace tandem::exact
