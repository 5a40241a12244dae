#include "workers/backend/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <vector>

#include "scheduler/base/random.h"

namespace tandem {
namespace {

using testing::ElementsAre;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// One row: its options and histories.
struct Row {
  Sampling sampling;
  std::vector<TokenId> prompt, emitted;
  uint64_t seed = 7;

  step::SampledToken Draw(const std::vector<float>& logits, uint32_t position = 0) const {
    return SampleToken(logits, {&sampling, seed, position, &prompt, &emitted});
  }
  // How often each id comes in `draws` positions.
  std::map<TokenId, uint32_t> Count(const std::vector<float>& logits, uint32_t draws) const {
    std::map<TokenId, uint32_t> counts;
    for (uint32_t position = 0; position < draws; ++position) ++counts[Draw(logits, position).id];
    return counts;
  }
};

Row Greedy() {
  Row row;
  row.sampling.temperature = 0;
  return row;
}

std::set<TokenId> Ids(const std::map<TokenId, uint32_t>& counts) {
  std::set<TokenId> ids;
  for (const auto& [id, count] : counts) ids.insert(id);
  return ids;
}

TEST(ArgMax, FindsTheHighestWhereverItStands) {
  for (const size_t size : {1u, 5u, 511u, 512u, 513u, 1024u, 5000u}) {
    std::vector<float> values(size, -3.0f);
    for (size_t at = 0; at < size; at += 1 + size / 50) {
      values[at] = 2.0f;
      ASSERT_EQ(ArgMax(values), at) << "of " << size;
      values[at] = -3.0f;
    }
  }
}

TEST(ArgMax, TakesTheLowestIdAmongEquals) {
  std::vector<float> values(2000, 0.5f);
  EXPECT_EQ(ArgMax(values), 0u);
  values[1999] = values[1300] = values[700] = 1.0f;
  EXPECT_EQ(ArgMax(values), 700u);
}

TEST(ArgMax, NeverTakesNan) {
  std::vector<float> values(1500, kNan);
  EXPECT_EQ(ArgMax(values), 0u);
  values[1400] = -1e30f;
  EXPECT_EQ(ArgMax(values), 1400u);
}

TEST(Sampler, TemperatureZeroIsGreedyWhateverTheSeed) {
  Row row = Greedy();
  for (row.seed = 0; row.seed < 20; ++row.seed)
    EXPECT_EQ(row.Draw({1.0f, 3.0f, 3.0f, 2.0f}).id, 1u);
}

// chi-square with 3 degrees of freedom: above 16.27 once in a thousand; the draws are fixed by the
// seed.
TEST(Sampler, DrawsFollowTheSoftmax) {
  const std::vector<double> wanted = {0.5, 0.25, 0.15, 0.1};
  std::vector<float> logits;
  for (double p : wanted) logits.push_back(static_cast<float>(std::log(p)));
  constexpr uint32_t kDraws = 20000;
  auto counts = Row().Count(logits, kDraws);
  double chi_square = 0;
  for (TokenId id = 0; id < wanted.size(); ++id) {
    const double expected = wanted[id] * kDraws;
    chi_square += (counts[id] - expected) * (counts[id] - expected) / expected;
  }
  EXPECT_LT(chi_square, 16.27);
}

TEST(Sampler, TemperatureSharpensAndFlattens) {
  const std::vector<float> logits = {1.0f, 0.0f};  // p0 = 1 / (1 + e^(-1/T))
  Row row;
  for (const float temperature : {0.5f, 1.0f, 2.0f}) {
    row.sampling.temperature = temperature;
    const double wanted = 1 / (1 + std::exp(-1.0 / temperature));
    EXPECT_NEAR(row.Count(logits, 10000)[0] / 10000.0, wanted, 0.015) << temperature;
  }
  row.sampling.temperature = 1e-30f;  // divides to infinity unless the likeliest is taken off first
  EXPECT_EQ(Ids(row.Count(logits, 100)), std::set<TokenId>{0});
}

TEST(Sampler, TheNumberDependsOnSeedAndPositionAlone) {
  const std::vector<float> logits(64, 0.0f);
  Row row;
  Row later = row;
  later.emitted = {1, 2, 3};  // without penalties, history is no input
  std::set<TokenId> by_position, by_seed;
  for (uint32_t position = 0; position < 50; ++position) {
    EXPECT_EQ(row.Draw(logits, position).id, later.Draw(logits, position).id);
    by_position.insert(row.Draw(logits, position).id);
    Row other = row;
    other.seed = 1000 + position;
    by_seed.insert(other.Draw(logits, 0).id);
  }
  EXPECT_GT(by_position.size(), 20u);
  EXPECT_GT(by_seed.size(), 20u);
}

TEST(Sampler, TopKKeepsTheLikeliestLowerIdsFirst) {
  Row row;
  row.sampling.top_k = 2;
  EXPECT_EQ(Ids(row.Count({1.0f, 2.0f, 2.5f, 0.0f}, 500)), (std::set<TokenId>{1, 2}));
  EXPECT_EQ(Ids(row.Count({1.0f, 1.0f, 1.0f, 1.0f}, 500)), (std::set<TokenId>{0, 1}));
  row.sampling.top_k = 9;  // more than there are
  EXPECT_EQ(Ids(row.Count({1.0f, 1.0f, 1.0f}, 500)), (std::set<TokenId>{0, 1, 2}));
}

TEST(Sampler, TopPKeepsTheFewestThatHoldIt) {
  const std::vector<float> logits = {std::log(0.1f), std::log(0.5f), std::log(0.15f),
                                     std::log(0.25f)};
  Row row;
  row.sampling.top_p = 0.7f;
  EXPECT_EQ(Ids(row.Count(logits, 2000)), (std::set<TokenId>{1, 3}));
  row.sampling.top_p = 0.76f;
  EXPECT_EQ(Ids(row.Count(logits, 2000)), (std::set<TokenId>{1, 2, 3}));
  row.sampling.top_p = 1e-6f;  // the likeliest always stays
  EXPECT_EQ(Ids(row.Count(logits, 200)), std::set<TokenId>{1});
}

TEST(Sampler, TopPLooksPastItsFirstCandidates) {
  std::vector<float> logits(4096, 0.0f);  // flat: top_p 0.5 holds 2048 tokens, the lower ids
  Row row;
  row.sampling.top_p = 0.5f;
  const auto counts = row.Count(logits, 3000);
  EXPECT_LT(counts.rbegin()->first, 2048u);
  EXPECT_GT(counts.rbegin()->first, 1900u);
}

TEST(Sampler, TopPIsOfWhatTopKLeft) {
  const std::vector<float> logits = {std::log(0.4f), std::log(0.3f), std::log(0.2f),
                                     std::log(0.1f)};
  Row row;
  row.sampling.top_k = 2;      // leaves 4/7 and 3/7
  row.sampling.top_p = 0.55f;  // less than 4/7
  EXPECT_EQ(Ids(row.Count(logits, 1000)), std::set<TokenId>{0});
}

TEST(Sampler, MinPIsRelativeToTheLikeliestAfterTemperature) {
  const std::vector<float> logits = {std::log(0.6f), std::log(0.25f), std::log(0.15f)};
  Row row;
  row.sampling.min_p = 0.3f;  // 0.25/0.6 = 0.42 stays, 0.15/0.6 = 0.25 goes
  EXPECT_EQ(Ids(row.Count(logits, 1000)), (std::set<TokenId>{0, 1}));
  row.sampling.temperature = 0.5f;  // squared: 0.17 goes too
  EXPECT_EQ(Ids(row.Count(logits, 1000)), std::set<TokenId>{0});
}

TEST(Sampler, LogitBiasForcesAndForbids) {
  Row row = Greedy();
  row.sampling.logit_bias = {{2, 100.0f}, {77, 100.0f}};  // 77 is past the vocabulary
  EXPECT_EQ(row.Draw({5.0f, 1.0f, 0.0f}).id, 2u);
  row.sampling.logit_bias = {{0, -100.0f}};
  EXPECT_EQ(row.Draw({5.0f, 1.0f, 0.0f}).id, 1u);
}

TEST(Sampler, RepetitionDividesPositiveAndMultipliesNegativeOfPromptAndOutput) {
  Row row = Greedy();
  row.sampling.repetition_penalty = 2.0f;
  row.prompt = {0, 0};  // once, however often it stands there
  row.emitted = {1};
  EXPECT_EQ(row.Draw({4.0f, 3.0f, 1.9f}).id, 0u);     // 2, 1.5, 1.9
  EXPECT_EQ(row.Draw({4.0f, 3.0f, 2.1f}).id, 2u);     // 2, 1.5, 2.1
  EXPECT_EQ(row.Draw({-1.0f, -1.0f, -1.5f}).id, 2u);  // -2, -2, -1.5
}

TEST(Sampler, PresenceAndFrequencyCountTheOutputOnly) {
  Row row = Greedy();
  row.prompt = {0, 0, 0};
  row.emitted = {1, 1, 2};
  row.sampling.presence_penalty = 1.0f;
  EXPECT_EQ(row.Draw({0.5f, 1.4f, 1.45f}).id, 0u);  // 0.5, 0.4, 0.45
  row.sampling.presence_penalty = 0;
  row.sampling.frequency_penalty = 0.5f;
  EXPECT_EQ(row.Draw({0.5f, 1.4f, 1.2f}).id, 2u);  // 0.5, 0.4, 0.7
  row.sampling.frequency_penalty = -0.5f;
  EXPECT_EQ(row.Draw({1.0f, 0.3f, 0.7f}).id, 1u);  // 1.0, 1.3, 1.2
}

TEST(Sampler, LogprobsAreOfPenalizedLogitsBeforeTemperature) {
  Row row;
  row.sampling.temperature = 0.25f;
  row.sampling.logit_bias = {{3, std::log(4.0f)}};
  row.sampling.top_logprobs = 2;
  const std::vector<float> logits = {std::log(3.0f), std::log(2.0f), std::log(1.0f),
                                     std::log(0.5f)};
  const step::SampledToken token = row.Draw(logits);  // weights 3, 2, 1, 2 of 8
  const std::vector<float> weights = {3, 2, 1, 2};
  EXPECT_NEAR(token.logprob, std::log(weights[token.id] / 8), 1e-5);
  ASSERT_EQ(token.top.size(), 2u);
  EXPECT_EQ(token.top[0].first, 0u);
  EXPECT_NEAR(token.top[0].second, std::log(3.0 / 8), 1e-5);
  EXPECT_EQ(token.top[1].first == 1u || token.top[1].first == 3u, true);
  EXPECT_NEAR(token.top[1].second, std::log(2.0 / 8), 1e-5);
}

TEST(Sampler, LogprobsAreThereOnlyWhenAsked) {
  Row row = Greedy();
  EXPECT_EQ(row.Draw({1.0f, 2.0f}).logprob, 0.0f);
  row.sampling.top_logprobs = 0;  // the token's own, no alternatives
  const step::SampledToken token = row.Draw({1.0f, 1.0f});
  EXPECT_NEAR(token.logprob, std::log(0.5), 1e-6);
  EXPECT_TRUE(token.top.empty());
  row.sampling.top_logprobs = 20;  // more than the vocabulary
  EXPECT_EQ(row.Draw({1.0f, 1.0f}).top.size(), 2u);
}

TEST(Sampler, EqualLogprobsComeInIdOrder) {
  Row row = Greedy();
  row.sampling.top_logprobs = 3;
  const step::SampledToken token = row.Draw({1.0f, 1.0f, 1.0f, 1.0f});
  std::vector<TokenId> ids;
  for (const auto& [id, logprob] : token.top) ids.push_back(id);
  EXPECT_THAT(ids, ElementsAre(0, 1, 2));
}

TEST(Sampler, NanIsNeverDrawn) {
  Row row;
  EXPECT_EQ(Ids(row.Count({kNan, 0.0f, kNan, 0.0f}, 300)), (std::set<TokenId>{1, 3}));
}

// ---- From a few of the logits.

// The `count` likeliest of a row, shuffled as a device may have them.
std::vector<TopLogit> Top(const std::vector<float>& logits, size_t count) {
  std::vector<TopLogit> top;
  for (size_t id = 0; id < logits.size(); ++id)
    top.emplace_back(static_cast<TokenId>(id), logits[id]);
  std::stable_sort(top.begin(), top.end(),
                   [](const TopLogit& a, const TopLogit& b) { return a.second > b.second; });
  top.resize(count);
  std::reverse(top.begin(), top.end());
  return top;
}

Sampling Way(float temperature, uint32_t top_k, float top_p = 1, float min_p = 0) {
  Sampling way;
  way.temperature = temperature;
  way.top_k = top_k;
  way.top_p = top_p;
  way.min_p = min_p;
  return way;
}

TEST(SampleTop, DrawsWhatAllLogitsWould) {
  Random random(5);
  std::vector<float> logits(400);
  for (float& logit : logits) logit = static_cast<float>(6 * random.Uniform() - 3);
  const Sampling ways[] = {Way(0, 0), Way(1, 7), Way(0.6f, 31, 0.7f), Way(1.5f, 25, 0.95f, 0.3f)};
  for (const Sampling& way : ways) {
    Row row;
    row.sampling = way;
    for (uint32_t position = 0; position < 200; ++position) {
      const auto token = SampleTop(Top(logits, 32), 400,
                                   {&row.sampling, row.seed, position, &row.prompt, &row.emitted});
      ASSERT_TRUE(token.has_value());
      ASSERT_EQ(token->id, row.Draw(logits, position).id) << position;
    }
  }
}

TEST(SampleTop, SaysWhenItNeedsAll) {
  const std::vector<float> logits = {1, 5, 5, 2, 5, 0};
  const auto draws = [&](const Sampling& sampling, size_t count) {
    const std::vector<TokenId> none;
    return SampleTop(Top(logits, count), 6, {&sampling, 1, 0, &none, &none}).has_value();
  };
  const Sampling greedy = Way(0, 0);
  EXPECT_FALSE(draws(greedy, 3)) << "a fourth 5 may be among the others, at a lower id";
  EXPECT_TRUE(draws(greedy, 4));
  EXPECT_FALSE(draws(Way(1, 0), 5)) << "no top_k";
  EXPECT_TRUE(draws(Way(1, 0), 6)) << "these are all";
  EXPECT_FALSE(draws(Way(1, 2), 3)) << "which two of three equal ones";
  EXPECT_FALSE(draws(Way(1, 5), 5));
  EXPECT_TRUE(draws(Way(1, 4), 5));
  Sampling other = greedy;
  other.top_logprobs = 0;
  EXPECT_FALSE(draws(other, 6));
  other = greedy;
  other.presence_penalty = 0.5f;
  EXPECT_FALSE(draws(other, 6));
  const std::vector<TokenId> none;
  EXPECT_FALSE(
      SampleTop(std::vector<TopLogit>{{0, kNan}, {1, 2.0f}}, 6, {&greedy, 1, 0, &none, &none}));
}

}  // namespace
}  // namespace tandem
