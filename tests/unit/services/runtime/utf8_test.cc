#include "services/runtime/utf8.h"

#include <gtest/gtest.h>

#include <string>

namespace tandem {
namespace {

using namespace std::string_literals;

TEST(Utf8, WellFormedCharactersOfEveryLengthAreKept) {
  const std::string text =
      "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\xF4\x8F\xBF\xBF";  // a, é, €, an emoji, U+10FFFF
  EXPECT_TRUE(IsValidUtf8(text));
  EXPECT_EQ(ToValidUtf8(text), text);
  EXPECT_EQ(Utf8CharacterBytes(text.substr(1)), 2u);
  EXPECT_EQ(Utf8CharacterBytes(text.substr(3)), 3u);
  EXPECT_EQ(Utf8CharacterBytes(text.substr(6)), 4u);
}

TEST(Utf8, OverlongFormsSurrogatesAndTooHighPointsAreNotWellFormed) {
  for (const std::string& bad :
       {"\xC0\xAF"s, "\xC1\xBF"s, "\xE0\x80\xAF"s, "\xF0\x80\x80\xAF"s, "\xED\xA0\x80"s,
        "\xF4\x90\x80\x80"s, "\xF5\x80\x80\x80"s, "\x80"s, "\xFF"s, "\xE2\x82"s, "\xC3"s}) {
    EXPECT_FALSE(IsValidUtf8(bad)) << JsonQuoted(bad);
    EXPECT_EQ(Utf8CharacterBytes(bad), 0u);
    EXPECT_TRUE(IsValidUtf8(ToValidUtf8(bad)));
  }
}

TEST(Utf8, ReplacementKeepsWhatFollows) {
  EXPECT_EQ(ToValidUtf8("a\xFF"
                        "b\xE2\x82"),
            "a\xEF\xBF\xBD"
            "b\xEF\xBF\xBD\xEF\xBF\xBD");
}

TEST(JsonQuoted, EscapesWhatWouldEndTheStringOrTheLine) {
  EXPECT_EQ(JsonQuoted("a\"b\\c\n\r\t\x01\x7F"), R"("a\"b\\c\u000a\u000d\u0009\u0001\u007f")");
  EXPECT_EQ(JsonQuoted("nul\0end"s), R"("nul\u0000end")");
  EXPECT_EQ(JsonQuoted(""), "\"\"");
}

}  // namespace
}  // namespace tandem
