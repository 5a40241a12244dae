#include "services/ctl/terminal_text.h"

#include <gtest/gtest.h>

namespace tandem::ctl {
namespace {

TEST(EscapeForTerminal, LeavesTextAndShowsWhatWouldControlATerminal) {
  EXPECT_EQ(EscapeForTerminal("Grüße, 世界"), "Grüße, 世界");
  EXPECT_EQ(EscapeForTerminal("a\nb\tc\rd"), "a\\nb\\tc\\rd");
  EXPECT_EQ(EscapeForTerminal("\x1b[2J\x07"), "\\x1b[2J\\x07");
  EXPECT_EQ(EscapeForTerminal("C:\\x"), "C:\\\\x");
  EXPECT_EQ(EscapeForTerminal("\u009b31m"), "\\u{9b}31m") << "C1's own CSI";
  EXPECT_EQ(EscapeForTerminal("abc\u202ecba"), "abc\\u{202e}cba") << "right to left";
  EXPECT_EQ(EscapeForTerminal("\x7f"), "\\x7f");
  EXPECT_EQ(EscapeForTerminal("\xff"), "\uFFFD") << "no UTF-8";
  EXPECT_EQ(EscapeForTerminal(std::string("\0", 1)), "\\x00");
}

TEST(NameForTerminal, IsOneColumnACharacterAndNeverWider) {
  EXPECT_EQ(NameForTerminal("attention-0", 20), "attention-0");
  EXPECT_EQ(NameForTerminal("attention-0", 6), "atten~");
  EXPECT_EQ(NameForTerminal("attention-0", 11), "attention-0");
  EXPECT_EQ(NameForTerminal("世\x1b[31m", 20), "??[31m");
  EXPECT_EQ(NameForTerminal("x", 0), "");
}

}  // namespace
}  // namespace tandem::ctl
