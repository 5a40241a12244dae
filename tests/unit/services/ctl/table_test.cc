#include "services/ctl/table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tandem::ctl {
namespace {

using ::testing::ElementsAre;

TEST(TextTable, ColumnsAreAsWideAsTheirWidestCell) {
  TextTable table({{"worker"}, {"tokens", Align::kRight}, {"address"}});
  table.AddRow({"w0", "17", "127.0.0.1:9200"});
  table.AddRow({"attention-0", "123456789", ""});
  EXPECT_EQ(table.ToString(),
            "worker          tokens  address\n"
            "w0                  17  127.0.0.1:9200\n"
            "attention-0  123456789\n");
}

TEST(TextTable, NotesStandBelowTheirRow) {
  TextTable table({{"a"}, {"b", Align::kRight}});
  table.AddRow({"x", "1"});
  table.AddNote("device: one");
  table.AddNote("two");
  table.AddRow({"y", "2"});
  EXPECT_EQ(table.ToString(), "a  b\nx  1\n    device: one\n    two\ny  2\n");
}

TEST(TextTable, CharactersCountNotBytes) {
  TextTable table({{"µs", Align::kRight}, {"x"}});
  table.AddRow({"1", "y"});
  table.AddRow({"1µ", "y"});
  EXPECT_EQ(table.ToString(), "µs  x\n 1  y\n1µ  y\n");
}

TEST(TextTable, LongLastColumnGoesOnBelowItself) {
  TextTable table({{"key"}, {"source"}}, /*width=*/30);
  table.AddRow({"memory", "a data sheet of the vendor, quoted in three notes"});
  EXPECT_EQ(table.ToString(),
            "key     source\n"
            "memory  a data sheet of the\n"
            "        vendor, quoted in\n"
            "        three notes\n");
}

TEST(TextTable, HeaderStandsWithoutRows) {
  EXPECT_EQ(TextTable({{"chip"}, {"price", Align::kRight}}).ToString(), "chip  price\n");
}

TEST(WrapText, BreaksBetweenWordsOnly) {
  EXPECT_THAT(WrapText("one two three", 7), ElementsAre("one two", "three"));
  EXPECT_THAT(WrapText("supercalifragilistic word", 7),
              ElementsAre("supercalifragilistic", "word"));
  EXPECT_THAT(WrapText("", 7), ElementsAre(""));
}

}  // namespace
}  // namespace tandem::ctl
