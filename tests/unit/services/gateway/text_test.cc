#include <gtest/gtest.h>

#include "services/gateway/text/choice_text.h"
#include "services/runtime/utf8.h"
#include "tests/fakes/byte_text_model.h"

namespace tandem::gateway {
namespace {

using test::ByteTextModel;

TEST(Utf8Joiner, GivesOutACharacterOnlyWithItsLastByte) {
  Utf8Joiner joiner;
  EXPECT_EQ(joiner.Push("a\xF0"), "a");
  EXPECT_EQ(joiner.Push("\x9F\x8E"), "");
  EXPECT_EQ(joiner.Push("\x89z"), "\xF0\x9F\x8E\x89z");
  EXPECT_EQ(joiner.Finish(), "");
}

TEST(Utf8Joiner, EverySplitOfATextGivesTheSameText) {
  const std::string text = "aé漢🎉\n";
  for (size_t i = 0; i <= text.size(); ++i) {
    for (size_t j = i; j <= text.size(); ++j) {
      Utf8Joiner joiner;
      std::string out;
      for (const std::string& piece : {text.substr(0, i), text.substr(i, j - i), text.substr(j)}) {
        const std::string given = joiner.Push(piece);
        EXPECT_TRUE(IsValidUtf8(given)) << i << " " << j;
        out += given;
      }
      EXPECT_EQ(out + joiner.Finish(), text);
    }
  }
}

TEST(Utf8Joiner, ReplacesBytesThatCanBecomeNoCharacter) {
  const std::string bad = "\xEF\xBF\xBD";
  struct Case {
    const char* bytes;
    std::string text;
  } cases[] = {
      {"\x80", bad},                                // a lone continuation
      {"\xC0\xAF", bad + bad},                      // overlong
      {"\xED\xA0\x80", bad + bad + bad},            // a surrogate
      {"\xF4\x90\x80\x80", bad + bad + bad + bad},  // above U+10FFFF
      {"\xE2\x82z", bad + "z"},  // cut short by another character: one replacement
      {"\xF0\x9F\x8E", bad},     // cut short by the end
      {"\xFF\xFE"
       "ok",
       bad + bad + "ok"},
  };
  for (const Case& one : cases) {
    Utf8Joiner joiner;
    std::string out = joiner.Push(one.bytes);
    out += joiner.Finish();
    EXPECT_EQ(out, one.text);
  }
}

TEST(StopMatcher, FindsAStopStringAcrossAllBorders) {
  const std::string text = "one two END three";
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    StopMatcher matcher({"END"});
    std::string out = matcher.Push(text.substr(0, cut));
    out += matcher.Push(text.substr(cut));
    EXPECT_TRUE(matcher.stopped()) << cut;
    EXPECT_EQ(out, "one two ");
    EXPECT_EQ(matcher.Push("more"), "");
    EXPECT_EQ(matcher.Finish(), "");
  }
}

TEST(StopMatcher, HoldsBackOnlyWhatCouldBecomeAStopString) {
  StopMatcher matcher({"abcd", "xy"});
  EXPECT_EQ(matcher.Push("hello"), "hello");
  EXPECT_EQ(matcher.Push(" abc"), " ");
  EXPECT_EQ(matcher.Push("e"), "abce");
  EXPECT_EQ(matcher.Push("1x"), "1");
  EXPECT_EQ(matcher.Push("ab"), "x");
  EXPECT_EQ(matcher.Finish(), "ab");
  EXPECT_FALSE(matcher.stopped());
}

TEST(StopMatcher, TheMatchThatStartsFirstCounts) {
  StopMatcher matcher({"cd", "bcde"});
  EXPECT_EQ(matcher.Push("abcde"), "a");
  EXPECT_TRUE(matcher.stopped());
}

TEST(StopMatcher, KeepsAPossibleStartInsideAFailedOne) {
  StopMatcher matcher({"aab"});
  EXPECT_EQ(matcher.Push("aa"), "");
  EXPECT_EQ(matcher.Push("a"), "a");
  EXPECT_EQ(matcher.Push("b!"), "");
  EXPECT_TRUE(matcher.stopped());
}

TextDelta PushAll(ChoiceText& choice, const std::vector<uint32_t>& ids) {
  TextDelta delta;
  for (const uint32_t id : ids) choice.Push(id, {}, delta);
  return delta;
}

TEST(ChoiceText, CountsTheTokenThatCompletesAStopStringAndNoneAfter) {
  const ByteTextModel model;
  ChoiceText choice(model, {"bc"}, {}, false);
  EXPECT_EQ(PushAll(choice, {'a', 'b', 'c', 'd', 'e'}).text, "a");
  EXPECT_TRUE(choice.stopped());
  EXPECT_EQ(choice.tokens(), 3u);
}

TEST(ChoiceText, ControlTokensAndSilentIdsCountButHaveNoText) {
  const ByteTextModel model;
  ChoiceText choice(model, {}, {'!'}, true);
  TextDelta delta = PushAll(choice, {'a', '!', ByteTextModel::kEnd});
  choice.Finish(delta);
  EXPECT_EQ(delta.text, "a");
  EXPECT_EQ(delta.tokens.size(), 1u);
  EXPECT_EQ(choice.tokens(), 3u);
}

TEST(ChoiceText, ATokensLogprobGoesOutWithItsText) {
  const ByteTextModel model;
  ChoiceText choice(model, {"XY"}, {}, true);
  TextDelta first = PushAll(choice, {0xC3});
  EXPECT_TRUE(first.tokens.empty());
  TextDelta second = PushAll(choice, {0xA9, 'X'});  // é, then what may be a stop string
  EXPECT_EQ(second.text, "é");
  ASSERT_EQ(second.tokens.size(), 2u);
  EXPECT_EQ(second.tokens[0].id, 0xC3u);
  TextDelta third = PushAll(choice, {'b'});
  EXPECT_EQ(third.text, "Xb");
  ASSERT_EQ(third.tokens.size(), 2u);
  EXPECT_EQ(third.tokens[0].character_offset, 1u);
  EXPECT_EQ(third.tokens[0].text_offset, 2u);
  TextDelta fourth = PushAll(choice, {'X', 'Y'});
  EXPECT_TRUE(fourth.text.empty());
  EXPECT_TRUE(fourth.tokens.empty()) << "a stop string's own tokens have no logprobs";
}

TEST(ChoiceText, ATokenOfWhichSomeTextIsVisibleKeepsItsLogprob) {
  const ByteTextModel model;
  ChoiceText choice(model, {"world"}, {}, true);
  const TextDelta delta = PushAll(choice, {ByteTextModel::kPhrase});
  EXPECT_EQ(delta.text, "hello ");
  EXPECT_EQ(delta.tokens.size(), 1u);
}

TEST(ChoiceText, FinishReleasesWhatWasHeldBack) {
  const ByteTextModel model;
  ChoiceText choice(model, {"stop"}, {}, true);
  TextDelta delta = PushAll(choice, {'s', 't', 0xE2, 0x82});
  EXPECT_EQ(delta.text, "");
  choice.Finish(delta);
  EXPECT_EQ(delta.text, "st\xEF\xBF\xBD");
  EXPECT_EQ(delta.tokens.size(), 4u);
}

}  // namespace
}  // namespace tandem::gateway
