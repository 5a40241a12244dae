#include "workers/backend/sampler.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "scheduler/base/check.h"
#include "scheduler/base/random.h"

namespace tandem {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

// Candidates that a cut by top_p looks at first; it grows by kTopPGrowth until they hold enough
// probability.
constexpr size_t kTopPFirst = 256;
constexpr size_t kTopPGrowth = 8;

// One token that may be drawn. `logit` is after bias and penalties.
struct Candidate {
  float logit = 0;
  TokenId id = 0;
};

bool Likelier(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

bool ChangesLogits(const Sampling& sampling) {
  return !sampling.logit_bias.empty() || sampling.repetition_penalty != 1.0f ||
         sampling.presence_penalty != 0.0f || sampling.frequency_penalty != 0.0f;
}

std::vector<float> Penalized(absl::Span<const float> logits, const step::SampleRow& row) {
  const Sampling& sampling = *row.sampling;
  std::vector<float> out(logits.begin(), logits.end());
  for (const auto& [id, bias] : sampling.logit_bias) {
    if (id < out.size()) out[id] += bias;
  }
  std::map<TokenId, uint32_t> emitted;
  if (row.emitted_ids != nullptr) {
    for (TokenId id : *row.emitted_ids) ++emitted[id];
  }
  if (sampling.repetition_penalty != 1.0f) {
    std::set<TokenId> seen;
    if (row.prompt_ids != nullptr) seen.insert(row.prompt_ids->begin(), row.prompt_ids->end());
    for (const auto& [id, count] : emitted) seen.insert(id);
    for (TokenId id : seen) {
      if (id >= out.size()) continue;
      out[id] = out[id] > 0 ? out[id] / sampling.repetition_penalty
                            : out[id] * sampling.repetition_penalty;
    }
  }
  for (const auto& [id, count] : emitted) {
    if (id >= out.size()) continue;
    out[id] -= sampling.frequency_penalty * static_cast<float>(count) + sampling.presence_penalty;
  }
  return out;
}

// Probability of a logit relative to the likeliest token's, at a temperature > 0.
double Weight(float logit, float best, float temperature) {
  return std::exp((static_cast<double>(logit) - best) / temperature);
}

// Puts the `count` likeliest candidates first, in order.
void SortFirst(std::vector<Candidate>& candidates, size_t count) {
  const auto middle = candidates.begin() + static_cast<ptrdiff_t>(count);
  if (count < candidates.size()) {
    std::nth_element(candidates.begin(), middle, candidates.end(), Likelier);
  }
  std::sort(candidates.begin(), middle, Likelier);
}

double TotalWeight(const std::vector<Candidate>& candidates, float best, float temperature) {
  double total = 0;
  for (const Candidate& candidate : candidates) total += Weight(candidate.logit, best, temperature);
  return total;
}

// Cuts to the fewest likeliest candidates that hold `top_p` of the weight. `sorted`: they are in
// order already.
void CutTopP(std::vector<Candidate>& candidates, bool sorted, float top_p, float best,
             float temperature) {
  const double wanted = top_p * TotalWeight(candidates, best, temperature);
  for (size_t count = std::min(kTopPFirst, candidates.size());;
       count = std::min(count * kTopPGrowth, candidates.size())) {
    if (!sorted) SortFirst(candidates, count);
    double held = 0;
    for (size_t i = 0; i < count; ++i) {
      held += Weight(candidates[i].logit, best, temperature);
      if (held >= wanted) {
        candidates.resize(i + 1);
        return;
      }
    }
    if (count == candidates.size()) return;
  }
}

bool PassesMinP(float logit, const Sampling& sampling, float best) {
  return sampling.min_p <= 0 || Weight(logit, best, sampling.temperature) >= sampling.min_p;
}

// What min_p leaves, in id order.
std::vector<Candidate> Candidates(absl::Span<const float> logits, const Sampling& sampling,
                                  float best) {
  std::vector<Candidate> candidates;
  candidates.reserve(logits.size());
  for (size_t id = 0; id < logits.size(); ++id) {
    const float logit = logits[id];
    if (!(logit > kLowest)) continue;  // NaN, or banned by a bias of minus infinity
    if (PassesMinP(logit, sampling, best)) candidates.push_back({logit, static_cast<TokenId>(id)});
  }
  return candidates;
}

// What top_k and top_p leave of candidates in id order. Sorted when one of them cut, else as they
// were.
void Cut(std::vector<Candidate>& candidates, const Sampling& sampling, float best) {
  bool sorted = false;
  if (sampling.top_k > 0 && sampling.top_k < candidates.size()) {
    SortFirst(candidates, sampling.top_k);
    candidates.resize(sampling.top_k);
    sorted = true;
  }
  if (sampling.top_p < 1.0f)
    CutTopP(candidates, sorted, sampling.top_p, best, sampling.temperature);
}

TokenId Pick(const std::vector<Candidate>& candidates, const step::SampleRow& row, float best) {
  const float temperature = row.sampling->temperature;
  double left =
      CounterUniform(row.seed, row.output_position) * TotalWeight(candidates, best, temperature);
  for (const Candidate& candidate : candidates) {
    left -= Weight(candidate.logit, best, temperature);
    if (left < 0) return candidate.id;
  }
  return candidates.back().id;  // Rounding left a sliver past the last one.
}

TokenId Draw(absl::Span<const float> logits, const step::SampleRow& row) {
  const Sampling& sampling = *row.sampling;
  const TokenId likeliest = ArgMax(logits);
  if (sampling.temperature == 0.0f) return likeliest;
  const float best = logits[likeliest];
  if (!std::isfinite(best)) return likeliest;
  std::vector<Candidate> candidates = Candidates(logits, sampling, best);
  Cut(candidates, sampling, best);
  return Pick(candidates, row, best);
}

void AddLogprobs(absl::Span<const float> logits, uint32_t count, step::SampledToken& token) {
  const float best = logits[ArgMax(logits)];
  std::vector<Candidate> candidates;
  candidates.reserve(logits.size());
  for (size_t id = 0; id < logits.size(); ++id) {
    if (!std::isnan(logits[id])) candidates.push_back({logits[id], static_cast<TokenId>(id)});
  }
  const double log_total = best + std::log(TotalWeight(candidates, best, 1.0f));
  token.logprob = static_cast<float>(logits[token.id] - log_total);
  const size_t wanted = std::min<size_t>(count, candidates.size());
  SortFirst(candidates, wanted);
  for (size_t i = 0; i < wanted; ++i) {
    token.top.emplace_back(candidates[i].id, static_cast<float>(candidates[i].logit - log_total));
  }
}

}  // namespace

uint32_t ArgMax(absl::Span<const float> values) {
  // A greedy row looks at every logit, so this runs in blocks of four-float lanes: 49152 values in
  // some 10 us.
  using Lanes = float __attribute__((vector_size(16)));
  constexpr size_t kBlock = 512;
  float best = kLowest;
  size_t best_begin = 0;
  size_t begin = 0;
  for (; begin + kBlock <= values.size(); begin += kBlock) {
    Lanes highest[4];
    for (Lanes& lanes : highest) lanes = Lanes{kLowest, kLowest, kLowest, kLowest};
    for (size_t i = 0; i < kBlock; i += 16) {
      Lanes next[4];
      std::memcpy(next, values.data() + begin + i, sizeof(next));
      for (int j = 0; j < 4; ++j) highest[j] = next[j] > highest[j] ? next[j] : highest[j];
    }
    float block_best = kLowest;
    for (const Lanes& lanes : highest) {
      for (int j = 0; j < 4; ++j) block_best = std::max(block_best, lanes[j]);
    }
    if (block_best > best) {
      best = block_best;
      best_begin = begin;
    }
  }
  for (size_t i = begin; i < values.size(); ++i) {
    if (values[i] > best) {
      best = values[i];
      best_begin = i;
    }
  }
  for (size_t i = best_begin; i < values.size(); ++i) {
    if (values[i] == best) return static_cast<uint32_t>(i);
  }
  return 0;
}

std::optional<step::SampledToken> SampleTop(absl::Span<const TopLogit> top, uint32_t vocabulary,
                                            const step::SampleRow& row) {
  const Sampling& sampling = *row.sampling;
  if (top.empty() || ChangesLogits(sampling) || sampling.top_logprobs.has_value())
    return std::nullopt;
  std::vector<Candidate> likeliest;
  for (const auto& [id, logit] : top) {
    if (!std::isfinite(logit)) return std::nullopt;
    likeliest.push_back({logit, id});
  }
  std::sort(likeliest.begin(), likeliest.end(), Likelier);
  // So many decide; the next must be known to be lower.
  const bool greedy = sampling.temperature == 0.0f;
  const uint32_t wanted = greedy ? 1 : sampling.top_k;
  const bool all = top.size() == vocabulary;
  if (!all && (wanted == 0 || wanted >= top.size() ||
               likeliest[wanted - 1].logit == likeliest.back().logit)) {
    return std::nullopt;
  }
  step::SampledToken token;
  token.id = likeliest.front().id;
  if (greedy) return token;
  const float best = likeliest.front().logit;
  std::vector<Candidate> candidates;
  for (const Candidate& candidate : likeliest) {
    if (PassesMinP(candidate.logit, sampling, best)) candidates.push_back(candidate);
  }
  std::sort(candidates.begin(), candidates.end(),
            [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
  Cut(candidates, sampling, best);
  token.id = Pick(candidates, row, best);
  return token;
}

step::SampledToken SampleToken(absl::Span<const float> logits, const step::SampleRow& row) {
  TANDEM_CHECK(!logits.empty() && row.sampling != nullptr);
  const Sampling& sampling = *row.sampling;
  std::vector<float> changed;
  if (ChangesLogits(sampling)) {
    changed = Penalized(logits, row);
    logits = changed;
  }
  step::SampledToken token;
  token.id = Draw(logits, row);
  if (sampling.top_logprobs.has_value()) AddLogprobs(logits, *sampling.top_logprobs, token);
  return token;
}

}  // namespace tandem
