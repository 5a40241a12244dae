// TTFT and TPOT out of gateways' pages.

#include <gtest/gtest.h>

#include <cmath>

#include "services/ctl/top/latency.h"

namespace tandem::ctl {
namespace {

// A page with so many first tokens below 10 ms, 100 ms and above.
std::string Page(int below_10ms, int below_100ms, int all, double sum,
                 const std::string& more = "") {
  const auto line = [](const std::string& name, const std::string& value) {
    return "tandem_gateway_ttft_seconds" + name + " " + value + "\n";
  };
  return "# HELP tandem_gateway_ttft_seconds From the request's arrival.\n" +
         line("_bucket{model_name=\"m\",le=\"0.01\"}", std::to_string(below_10ms)) +
         line("_bucket{model_name=\"m\",le=\"0.1\"}", std::to_string(below_100ms)) +
         line("_bucket{model_name=\"m\",le=\"+Inf\"}", std::to_string(all)) +
         line("_sum{model_name=\"m\"}", std::to_string(sum)) +
         line("_count{model_name=\"m\"}", std::to_string(all)) + more;
}

TEST(ReadGatewayPage, FindsTheHistogramsAndPassesOverAllElse) {
  const GatewayScrape scrape =
      ReadGatewayPage(Page(1, 3, 4, 0.5,
                           "tandem_gateway_itl_seconds_sum{model_name=\"m\"} 2.5\n"
                           "tandem_gateway_itl_seconds_count{model_name=\"m\"} 10\n"
                           "tandem_gateway_itl_seconds_bucket{le=\"nan\"} 1\n"
                           "tandem_gateway_itl_seconds_bucket{le=\n"
                           "tandem_gateway_itl_seconds_bucket{le=\"1\"} -3\n"
                           "other_seconds_sum 7\n\x01\x02\n"));
  EXPECT_EQ(scrape.ttft.count, 4);
  EXPECT_EQ(scrape.ttft.Mean(), 0.125);
  EXPECT_EQ(scrape.ttft.Below(0.5), 0.1);
  EXPECT_EQ(scrape.ttft.Below(0.25), 0.01);
  EXPECT_TRUE(std::isinf(*scrape.ttft.Below(0.99)));
  EXPECT_EQ(scrape.itl.Mean(), 0.25);
  EXPECT_TRUE(scrape.itl.below.empty());
  EXPECT_FALSE(scrape.device_time);
  EXPECT_TRUE(ReadGatewayPage("tandem_gateway_time_scale{model_name=\"m\"} 4\n").device_time);
  EXPECT_EQ(ReadGatewayPage("").ttft.Mean(), std::nullopt);
}

TEST(LatencyWindow, ShowsWhatCameWithinTheWindow) {
  LatencyWindow window(Duration::Seconds(10));
  const auto at = [](int64_t second) { return Instant::FromNanoseconds(second * 1'000'000'000); };
  window.Add("g", ReadGatewayPage(Page(10, 10, 10, 0.05)), at(0));
  LatencyView view = window.View(0);
  EXPECT_EQ(view.window_seconds, 0) << "one page: since the gateway started";
  EXPECT_EQ(view.requests, 10);
  window.Add("g", ReadGatewayPage(Page(10, 12, 12, 0.15)), at(5));
  view = window.View(0);
  EXPECT_EQ(view.window_seconds, 5);
  EXPECT_EQ(view.requests, 2);
  EXPECT_NEAR(*view.ttft_mean, 0.05, 1e-9);
  EXPECT_EQ(view.ttft_p50, 0.1);
  // The first page leaves when the second is as old as the window.
  window.Add("g", ReadGatewayPage(Page(10, 12, 12, 0.15)), at(15));
  view = window.View(0);
  EXPECT_EQ(view.window_seconds, 10);
  EXPECT_EQ(view.requests, 0);
  EXPECT_EQ(view.ttft_mean, std::nullopt);
}

TEST(LatencyWindow, AddsGatewaysUpAndForgetsThoseThatLeft) {
  LatencyWindow window(Duration::Seconds(10));
  const Instant now = Instant::FromNanoseconds(1);
  window.Add("g1", ReadGatewayPage(Page(1, 1, 1, 0.004)), now);
  window.Add("g2", ReadGatewayPage(Page(0, 3, 3, 0.15)), now);
  EXPECT_EQ(window.View(0).requests, 4);
  window.Keep({"g2"});
  EXPECT_EQ(window.View(0).requests, 3);
}

TEST(LatencyWindow, AGatewayThatStartedAnewCountsFromThere) {
  LatencyWindow window(Duration::Seconds(10));
  window.Add("g", ReadGatewayPage(Page(100, 100, 100, 0.5)), Instant::FromNanoseconds(1));
  window.Add("g", ReadGatewayPage(Page(0, 2, 2, 0.1)), Instant::FromNanoseconds(2));
  EXPECT_EQ(window.View(0).requests, 2);
}

TEST(ViewLatency, WallSecondsBecomeTheDevicesOnce) {
  GatewayScrape scrape = ReadGatewayPage(Page(0, 1, 1, 0.08));
  EXPECT_NEAR(*ViewLatency(scrape, 1, /*time_scale=*/4).ttft_mean, 0.02, 1e-9);
  EXPECT_NEAR(*ViewLatency(scrape, 1, 0).ttft_mean, 0.08, 1e-9);
  scrape.device_time = true;
  EXPECT_NEAR(*ViewLatency(scrape, 1, 4).ttft_mean, 0.08, 1e-9) << "the gateway has divided";
}

}  // namespace
}  // namespace tandem::ctl
