#include "services/runtime/tco_words.h"

#include <absl/strings/match.h>
#include <gtest/gtest.h>

#include <limits>

#include "services/runtime/proto_words.h"

namespace tandem {
namespace {

TEST(ParseWindow, TakesTimesWithAndWithoutUnits) {
  EXPECT_EQ(*ParseWindow("60s"), Duration::Seconds(60));
  EXPECT_EQ(*ParseWindow("60"), Duration::Seconds(60));
  EXPECT_EQ(*ParseWindow("1.5m"), Duration::Seconds(90));
  EXPECT_EQ(*ParseWindow("1h"), Duration::Seconds(3600));
  EXPECT_EQ(*ParseWindow("500ms"), Duration::Milliseconds(500));
  for (const char* bad :
       {"", "s", "-1s", "0s", "61m", "nan", "inf", "1e9", "5 s", "s5", "1d", "1ss"}) {
    const auto window = ParseWindow(bad);
    EXPECT_TRUE(absl::IsInvalidArgument(window.status())) << bad;
    EXPECT_TRUE(absl::StrContains(window.status().message(), "3600")) << bad;
  }
}

TEST(ToFigure, RefusesWhatIsNoFigure) {
  v1::Figure figure;
  figure.set_source("a test");
  EXPECT_FALSE(ToFigure("price", figure)->known());
  figure.set_value(2.5);
  EXPECT_TRUE(absl::IsInvalidArgument(ToFigure("price", figure).status()));  // no mark
  figure.set_mark("fitted");
  EXPECT_EQ(ToFigure("price", figure)->mark, model::Mark::kFitted);
  for (const double bad : {-1.0, std::numeric_limits<double>::quiet_NaN(), 1e300}) {
    figure.set_value(bad);
    const auto refused = ToFigure("price", figure);
    EXPECT_TRUE(absl::StrContains(refused.status().message(), "price.value")) << refused.status();
  }
  figure.set_value(1);
  figure.set_source(std::string(5000, 'x'));
  EXPECT_TRUE(absl::IsInvalidArgument(ToFigure("price", figure).status()));
  // What we write, we take: a long source is cut.
  v1::Figure written;
  ToProto(model::Figure{1, model::Mark::kStated, std::string(1500, 'x') + "\xc3\xa9"}, &written);
  EXPECT_TRUE(ToFigure("price", written).ok());
}

TEST(DeviceAccount, SurvivesTheWire) {
  ledger::DeviceAccount account;
  account.worker = "f-0";
  account.pool = "ffn";
  account.device = "emulated/rack";
  account.memory_class = MemoryClass::kSram;
  account.cells = {{ledger::LedgerStage::kFfn, ledger::LedgerState::kBusy, ledger::Cause::kNone,
                    Duration::Seconds(3)},
                   {ledger::LedgerStage::kFfn, ledger::LedgerState::kIdle, ledger::Cause::kDown,
                    Duration::Seconds(1)}};
  account.elapsed = Duration::Seconds(4);
  account.wall = Duration::Seconds(8);
  account.time_scale = 2;
  account.lost = true;
  account.tokens = {1, 20, 300};
  account.price = ledger::RentedPrice("rack", {5, model::Mark::kAssumed, "a test"}, {});
  account.model_shape = "llama-3-70b";
  account.weights = "fp8";
  v1::DeviceAccount proto;
  ToProto(account, &proto);
  const auto read = ToAccount(proto);
  ASSERT_TRUE(read.ok()) << read.status();
  v1::DeviceAccount again;
  ToProto(*read, &again);
  EXPECT_EQ(again.SerializeAsString(), proto.SerializeAsString());
  EXPECT_EQ(read->tokens, account.tokens);
  EXPECT_EQ(read->cells.size(), 2u);
  EXPECT_FALSE(read->price.watts.known());
  proto.mutable_ledger(0)->set_seconds(-1);
  EXPECT_TRUE(absl::IsInvalidArgument(ToAccount(proto).status()));
}

}  // namespace
}  // namespace tandem
