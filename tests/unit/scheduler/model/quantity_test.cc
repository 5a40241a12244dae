#include "scheduler/model/quantity.h"

#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>

namespace tandem::model {
namespace {

TEST(FormatQuantity, ChoosesTheUnitThatLeavesAtLeastOne) {
  EXPECT_EQ(FormatQuantity(3.35e12, Unit::kBytesPerSecond), "3.35 TB/s");
  EXPECT_EQ(FormatQuantity(21e15, Unit::kBytesPerSecond), "21 PB/s");
  EXPECT_EQ(FormatQuantity(44e9, Unit::kBytes), "44 GB");
  EXPECT_EQ(FormatQuantity(327'680, Unit::kBytes), "327.7 kB");
  EXPECT_EQ(FormatQuantity(0, Unit::kBytes), "0 B");
  EXPECT_EQ(FormatQuantity(989e12, Unit::kFlops), "989 TFLOPS");
  EXPECT_EQ(FormatQuantity(17.3e-6, Unit::kSeconds), "17.3 us");
  EXPECT_EQ(FormatQuantity(0, Unit::kSeconds), "0 s");
  EXPECT_EQ(FormatQuantity(700, Unit::kWatts), "700 W");
  EXPECT_EQ(FormatQuantity(1.69, Unit::kDollarsPerHour), "$1.69/h");
  EXPECT_EQ(FormatQuantity(0.92, Unit::kNone), "0.92");
}

TEST(FormatQuantity, LargeNumbersHaveNoExponent) {
  EXPECT_EQ(FormatQuantity(123'456, Unit::kNone), "123456");
  EXPECT_EQ(FormatQuantity(2.5e6, Unit::kDollars), "$2500000");
}

TEST(ParseQuantity, ReadsWhatPeopleWrite) {
  EXPECT_EQ(*ParseQuantity("22TB/s", Unit::kBytesPerSecond), 22e12);
  EXPECT_EQ(*ParseQuantity("3350 GB/s", Unit::kBytesPerSecond), 3.35e12);
  EXPECT_EQ(*ParseQuantity("88GB", Unit::kBytes), 88e9);
  EXPECT_EQ(*ParseQuantity("80GiB", Unit::kBytes), 80.0 * (1 << 30));
  EXPECT_EQ(*ParseQuantity("1e3TFLOPS", Unit::kFlops), 1e15);
  EXPECT_DOUBLE_EQ(*ParseQuantity("10us", Unit::kSeconds), 10e-6);
  EXPECT_EQ(*ParseQuantity("700W", Unit::kWatts), 700);
  EXPECT_EQ(*ParseQuantity("5", Unit::kDollarsPerHour), 5);
  EXPECT_EQ(*ParseQuantity("5$/h", Unit::kDollarsPerHour), 5);
  EXPECT_EQ(*ParseQuantity("0.5", Unit::kNone), 0.5);
}

TEST(ParseQuantity, IsTheInverseOfFormat) {
  for (const double value : {1.0, 44e9, 3.35e12, 21e15})
    EXPECT_EQ(*ParseQuantity(FormatQuantity(value, Unit::kBytes), Unit::kBytes), value);
}

TEST(ParseQuantity, UnitsAreStrict) {
  const auto error = [](absl::string_view text, Unit unit) {
    return std::string(ParseQuantity(text, unit).status().message());
  };
  const std::string rates = "B/s, kB/s, MB/s, GB/s, TB/s, PB/s";
  EXPECT_EQ(error("22", Unit::kBytesPerSecond), "'22' has none of the units " + rates);
  EXPECT_EQ(error("22TB", Unit::kBytesPerSecond), "'22TB' has none of the units " + rates);
  EXPECT_EQ(error("22tb/s", Unit::kBytesPerSecond), "'22tb/s' has none of the units " + rates);
  EXPECT_EQ(error("5 apples", Unit::kDollarsPerHour), "'5 apples' has none of the units $/h");
  EXPECT_EQ(error("10us", Unit::kWatts), "'10us' has none of the units W, kW, MW");
  for (const char* text : {"", "GB", "nan", "inf", "-inf", "1e999GB", "x22GB", " 22GB"})
    EXPECT_EQ(error(text, Unit::kBytes), absl::StrCat("'", text, "' is no finite number"));
}

}  // namespace
}  // namespace tandem::model
