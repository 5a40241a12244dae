// The fake backend is judged first: every fault that engine tests rely on it to show is planted
// here.

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/fakes/fake_backend.h"
#include "tests/fakes/manual_time.h"

namespace tandem::test {
namespace {

const std::vector<TokenId> kPrompt{11, 12, 13, 14, 15, 16, 17};

// Decodes one prompt alone on one backend, with a fault planted between its calls.
class Decoding {
 public:
  using Fault = std::function<void(FakeBackend&, uint32_t layer, Buffer& residual,
                                   std::vector<step::KvRow>& rows)>;

  explicit Decoding(Fault fault = {}) : fault_(std::move(fault)) {
    residual_ = *backend_.AllocateRows(16);
    ffn_out_ = *backend_.AllocateRows(16);
  }

  std::vector<TokenId> Tokens(size_t count) {
    std::vector<TokenId> tokens;
    std::vector<TokenId> ids = kPrompt;
    for (uint32_t first = 0; tokens.size() < count;) {
      std::vector<step::KvRow> rows;
      for (uint32_t i = first; i < ids.size(); i++) rows.push_back({ids[i], i, &blocks_});
      Forward(rows);
      first = static_cast<uint32_t>(ids.size());
      tokens.push_back(Draw(rows.size(), tokens));
      ids.push_back(tokens.back());
    }
    return tokens;
  }
  uint32_t skip_layer = UINT32_MAX;

 private:
  void Forward(std::vector<step::KvRow> rows) {
    std::vector<TokenId> ids;
    for (const step::KvRow& row : rows) ids.push_back(row.token);
    ASSERT_TRUE(backend_.Embed(ids, *residual_)->Wait().ok());
    for (uint32_t layer = 0; layer < backend_.info().dimensions.layers; layer++) {
      if (layer == skip_layer) continue;
      if (fault_) fault_(backend_, layer, *residual_, rows);
      ASSERT_TRUE(
          backend_.AttentionLayer(layer, rows, *residual_, layer > 0 ? ffn_out_.get() : nullptr)
              ->Wait()
              .ok());
      ASSERT_TRUE(
          backend_.FfnLayer(layer, static_cast<uint32_t>(rows.size()), *residual_, *ffn_out_)
              ->Wait()
              .ok());
    }
  }
  TokenId Draw(size_t rows, const std::vector<TokenId>& emitted) {
    Sampling greedy;
    greedy.temperature = 0;
    std::vector<step::SampledToken> tokens;
    // Only the last row's token counts; the head takes all.
    const std::vector<step::SampleRow> samples(
        rows, {&greedy, 0, static_cast<uint32_t>(emitted.size()), &kPrompt, &emitted});
    EXPECT_TRUE(backend_.HeadAndSample(samples, *residual_, ffn_out_.get(), tokens)->Wait().ok());
    return tokens.empty() ? 0 : tokens.back().id;
  }

  FakeBackend backend_{FakeOptions{}};
  Fault fault_;
  BufferRef residual_, ffn_out_;
  const step::BlockTable blocks_{9, 2, 5, 7, 1};
};

std::vector<TokenId> Wanted(size_t count) {
  Sampling greedy;
  greedy.temperature = 0;
  return ExpectedTokens(FakeOptions().dimensions, kPrompt, count, greedy);
}

TEST(FakeBackend, DecodesWhatExpectedTokensSays) { EXPECT_EQ(Decoding().Tokens(8), Wanted(8)); }

TEST(FakeBackend, SwappedRowsChangeTheFirstToken) {
  Decoding faulty(
      [](FakeBackend& backend, uint32_t layer, Buffer& residual, std::vector<step::KvRow>& rows) {
        const uint32_t hidden = backend.info().dimensions.hidden;
        if (layer == 1 && rows.size() > 2)
          std::swap_ranges(residual.host(), residual.host() + hidden, residual.host() + hidden);
      });
  EXPECT_NE(faulty.Tokens(1)[0], Wanted(1)[0]);
}

TEST(FakeBackend, AWrongPositionChangesEveryLaterToken) {
  int steps = 0;
  Decoding faulty([&](FakeBackend&, uint32_t layer, Buffer&, std::vector<step::KvRow>& rows) {
    if (layer == 0 && ++steps == 3) rows[0].position++;
  });
  const std::vector<TokenId> tokens = faulty.Tokens(6), wanted = Wanted(6);
  EXPECT_EQ(std::vector(tokens.begin(), tokens.begin() + 2),
            std::vector(wanted.begin(), wanted.begin() + 2));
  for (size_t i = 2; i < 6; i++) EXPECT_NE(tokens[i], wanted[i]) << i;
}

TEST(FakeBackend, AStaleBlockChangesEveryLaterToken) {
  int steps = 0;
  Decoding faulty([&](FakeBackend& backend, uint32_t layer, Buffer&, std::vector<step::KvRow>&) {
    if (layer != 0 || ++steps != 2) return;
    EXPECT_TRUE(backend.CopyBlocks({{30, 2}}).ok());  // a block of zeros
  });
  const std::vector<TokenId> tokens = faulty.Tokens(5), wanted = Wanted(5);
  EXPECT_EQ(tokens[0], wanted[0]);
  for (size_t i = 1; i < 5; i++) EXPECT_NE(tokens[i], wanted[i]) << i;
}

TEST(FakeBackend, ASkippedLayerChangesTheFirstToken) {
  Decoding faulty;
  faulty.skip_layer = 1;
  EXPECT_NE(faulty.Tokens(1)[0], Wanted(1)[0]);
}

TEST(FakeBackend, TheSeedCountsOnlyWhenSampling) {
  const ModelDimensions model = FakeOptions().dimensions;
  Sampling greedy, warm;
  greedy.temperature = 0;
  EXPECT_EQ(ExpectedTokens(model, kPrompt, 4, greedy, 1),
            ExpectedTokens(model, kPrompt, 4, greedy, 2));
  EXPECT_NE(ExpectedTokens(model, kPrompt, 4, warm, 1), ExpectedTokens(model, kPrompt, 4, warm, 2));
}

TEST(FakeBackend, TheHookEndsACall) {
  FakeBackend backend{FakeOptions{}};
  backend.SetHook([](const FakeCall& call) {
    return call.kind == FakeCallKind::kEmbed && call.number == 1 ? absl::InternalError("planted")
                                                                 : absl::OkStatus();
  });
  const BufferRef rows = *backend.AllocateRows(1);
  EXPECT_TRUE(backend.Embed({1}, *rows)->Wait().ok());
  EXPECT_EQ(backend.Embed({1}, *rows)->Wait().message(), "planted");
  EXPECT_TRUE(backend.Embed({1}, *rows)->Wait().ok());
}

TEST(ManualTime, FiresWhatIsDueInOrderAndNothingElse) {
  ManualTime time;
  std::vector<int> fired;
  const auto at = [&](int64_t seconds) { return time.Now() + Duration::Seconds(seconds); };
  time.CallAt(at(2), [&] { fired.push_back(2); });
  time.CallAt(at(1), [&] { fired.push_back(1); });
  time.CallAt(at(1), [&] { fired.push_back(10); });
  const AlarmId cancelled = time.CallAt(at(1), [&] { fired.push_back(99); });
  EXPECT_TRUE(time.Cancel(cancelled));
  time.Advance(Duration::Seconds(1));
  EXPECT_EQ(fired, (std::vector<int>{1, 10}));
  time.Advance(Duration::Seconds(5));
  EXPECT_EQ(fired, (std::vector<int>{1, 10, 2}));
  EXPECT_FALSE(time.Cancel(cancelled));
}

}  // namespace
}  // namespace tandem::test
