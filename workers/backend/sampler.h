#pragma once

// The host sampler: one row of logits to one token. Pure and deterministic; safe from any thread.

#include <absl/types/span.h>

#include <cstdint>
#include <optional>
#include <utility>

#include "scheduler/step/types.h"

namespace tandem {

// Draws the token of `row` from its logits [vocabulary].
//
// In this order, which is vLLM's (vllm/v1/sample/sampler.py):
//   1. logit_bias is added
//   2. repetition: tokens of prompt and output, positive logits divided, others multiplied (CTRL,
//   arXiv 1909.05858)
//   3. frequency * count and presence, over the output (OpenAI API reference), are subtracted
//   4. temperature: 0 takes the highest logit, the lowest id among equals, and ends here
//   5. min_p: tokens below min_p times the likeliest's probability drop out
//   6. top_k: the k likeliest stay, lower ids first among equals
//   7. top_p: the fewest likeliest that hold at least top_p of what is left stay
// Then CounterUniform(seed, output_position) picks one: the same numbers give the same token on any
// worker.
//
// With Sampling::top_logprobs, logprobs are the log-softmax after step 3. NaN logits are never
// drawn. `logits` holds at least one value; ids in logit_bias, prompt or output that are not below
// its size are ignored.
step::SampledToken SampleToken(absl::Span<const float> logits, const step::SampleRow& row);

// The same token from a few of a row's logits, where they say enough: a device that keeps the rest
// sends only them. `top` are the likeliest of `vocabulary`, each once, in any order: no other has a
// higher logit than any of them. Nothing when all are needed: with logit_bias, penalties or
// logprobs; to draw without top_k, or with one that is not below the number of `top`; where an
// equal logit may lie beyond them; or with NaN or infinities among them.
using TopLogit = std::pair<TokenId, float>;
std::optional<step::SampledToken> SampleTop(absl::Span<const TopLogit> top, uint32_t vocabulary,
                                            const step::SampleRow& row);

// The index of the highest value, the lowest among equals; 0 when all are NaN.
uint32_t ArgMax(absl::Span<const float> values);

}  // namespace tandem
