#include "services/router/api/gateway_book.h"

#include <gtest/gtest.h>

#include "services/router/dispatch/convert.h"

namespace tandem::router {
namespace {

TEST(ReachableAddress, TakesThePeersHostForAnyHost) {
  EXPECT_EQ(ReachableAddress("0.0.0.0:9464", "ipv4:10.0.0.3:4242"), "10.0.0.3:9464");
  EXPECT_EQ(ReachableAddress("[::]:9464", "ipv4:10.0.0.3:4242"), "10.0.0.3:9464");
  EXPECT_EQ(ReachableAddress("[::]:9464", "ipv6:%5B::1%5D:4242"), "[::1]:9464");
  EXPECT_EQ(ReachableAddress("[::]:9464", "ipv6:[::1]:4242"), "[::1]:9464");
  EXPECT_EQ(ReachableAddress("127.0.0.1:9464", "ipv4:10.0.0.3:4242"), "127.0.0.1:9464");
  EXPECT_EQ(ReachableAddress("0.0.0.0:9464", "unix:/run/s"), "0.0.0.0:9464");
  EXPECT_EQ(ReachableAddress("nonsense", "ipv4:10.0.0.3:4242"), "nonsense");
  EXPECT_EQ(ReachableAddress("", "ipv4:10.0.0.3:4242"), "");
}

TEST(GatewayBook, TheNewestStreamOfAGatewayCounts) {
  GatewayBook book;
  const GatewayId g1("g-1"), g2("g-2");
  const int older = 0, newer = 0;
  book.Add(g1, &older, "h:1");
  book.Add(g2, &older, "");
  EXPECT_EQ(book.All(), (std::map<GatewayId, std::string>{{g1, "h:1"}, {g2, ""}}));
  book.Add(g1, &newer, "h:2");
  book.Remove(g1, &older);  // the replaced one ends
  EXPECT_EQ(book.All().at(g1), "h:2");
  book.Remove(g1, &newer);
  book.Remove(g1, &newer);
  EXPECT_EQ(book.All().count(g1), 0u);
}

TEST(ConvertGateway, AMetricsAddressHasABound) {
  v1::GatewayHello hello;
  hello.set_gateway_id("g-1");
  hello.set_protocol_version(kProtocolVersion);
  hello.set_metrics_address(std::string(kMaxNameBytes, 'h'));
  EXPECT_TRUE(ToGateway(hello).ok());
  hello.set_metrics_address(std::string(kMaxNameBytes + 1, 'h'));
  EXPECT_EQ(ToGateway(hello).status().message(),
            "hello.metrics_address has 257 bytes; at most 256 are taken");
}

}  // namespace
}  // namespace tandem::router
