#include "services/router/tco/tco_book.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>
#include <prometheus/text_serializer.h>

#include <boost/json.hpp>
#include <cmath>
#include <limits>
#include <utility>

#include "services/router/tco/tco_page.h"

namespace tandem::router {
namespace {

Instant At(double seconds) { return Instant() + Duration::FromSeconds(1000 + seconds); }

v1::Registration Ffn(const std::string& id, uint64_t incarnation, double price = 36) {
  v1::Registration out;
  out.set_worker_id(id);
  out.set_incarnation(incarnation);
  out.set_pool("ffn");
  out.add_stages(v1::STAGE_FFN);
  out.set_memory_class(v1::MEMORY_CLASS_SRAM);
  out.set_device("emulated/rack");
  out.set_time_scale(2);
  if (price >= 0) {
    out.mutable_dollars_per_hour()->set_value(price);
    out.mutable_dollars_per_hour()->set_mark("stated");
  }
  out.mutable_dollars_per_hour()->set_source("a test");
  return out;
}

// Of a device that was started `elapsed` of its seconds ago and busy for half of them.
v1::Heartbeat Beat(double elapsed, uint64_t tokens = 0) {
  v1::Heartbeat out;
  out.set_elapsed_seconds(elapsed);
  out.set_tokens_total(tokens);
  const std::pair<const char*, const char*> states[] = {{"busy", ""}, {"idle", "starved"}};
  for (const auto& [state, cause] : states) {
    v1::LedgerEntry& entry = *out.add_ledger();
    entry.set_stage("ffn");
    entry.set_state(state);
    entry.set_cause(cause);
    entry.set_seconds(elapsed / 2);
  }
  return out;
}

class TcoBookTest : public testing::Test {
 protected:
  // The worker beats each second of the machine's, from `from` to `to`; it started at 0.
  void BeatFor(const std::string& id, uint64_t stream, int from, int to) {
    for (int second = from; second <= to; second++)
      book_.Update(WorkerId(id), stream, Beat(second / 2.0, static_cast<uint64_t>(second)),
                   At(second));
  }
  std::string Scrape() { return prometheus::TextSerializer().Serialize(registry_.Collect()); }
  double Dollars(const std::string& state) {
    const std::string line = absl::StrCat(
        "tandem_cost_dollars_total{pool=\"ffn\",stage=\"ffn\",state=\"", state, "\"} ");
    const std::string text = Scrape();
    const size_t at = text.find(line);
    return at == std::string::npos ? 0 : std::stod(text.substr(at + line.size()));
  }
  prometheus::Registry registry_;
  TcoBook book_{ledger::PriceList(), /*max_workers=*/4, registry_};
};

TEST_F(TcoBookTest, AnswersForAWindow) {
  book_.Add(1, Ffn("f", 10), At(0));
  BeatFor("f", 1, 1, 100);
  const auto devices = book_.Over(Duration::Seconds(40), At(100));
  ASSERT_TRUE(devices.ok()) << devices.status();
  ASSERT_EQ(devices->size(), 1u);
  EXPECT_EQ((*devices)[0].pool, "ffn");
  EXPECT_EQ((*devices)[0].memory_class, MemoryClass::kSram);
  EXPECT_DOUBLE_EQ((*devices)[0].wall.seconds(), 40);
  EXPECT_DOUBLE_EQ((*devices)[0].elapsed.seconds(), 20);
  EXPECT_EQ((*devices)[0].tokens.tokens_out, 40u);
  EXPECT_DOUBLE_EQ((*devices)[0].price.dollars_per_hour.value, 36);
  EXPECT_EQ((*devices)[0].price.dollars_per_hour.mark, model::Mark::kStated);
}

TEST_F(TcoBookTest, AWindowWithoutDataIsAnErrorWithTheNumbers) {
  EXPECT_TRUE(absl::IsUnavailable(book_.Over(Duration::Seconds(60), At(0)).status()));
  book_.Add(1, Ffn("f", 10), At(0));
  const absl::Status status = book_.Over(Duration::Seconds(60), At(1)).status();
  EXPECT_TRUE(absl::StrContains(status.message(), "last 60 s: 1 workers sent 0 heartbeats"))
      << status;
  EXPECT_TRUE(absl::IsInvalidArgument(book_.Over(Duration(), At(1)).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(book_.Over(Duration::Seconds(3601), At(1)).status()));
}

TEST_F(TcoBookTest, ALostWorkerIsDownAndADrainedOneIsGone) {
  book_.Add(1, Ffn("lost", 10), At(0));
  book_.Add(2, Ffn("drained", 10), At(0));
  BeatFor("lost", 1, 1, 10);
  BeatFor("drained", 2, 1, 10);
  v1::Heartbeat last = Beat(5.5);
  last.set_tokens_total(11);
  last.set_draining(true);
  book_.Update(WorkerId("drained"), 2, last, At(11));
  book_.Remove(WorkerId("lost"), 1);
  book_.Remove(WorkerId("drained"), 2);
  const auto devices = book_.Over(Duration::Seconds(3600), At(110));
  ASSERT_EQ(devices->size(), 2u);
  EXPECT_EQ((*devices)[0].worker, "drained");
  EXPECT_FALSE((*devices)[0].lost);
  EXPECT_DOUBLE_EQ((*devices)[0].elapsed.seconds(), 5.5);
  EXPECT_TRUE((*devices)[1].lost);
  EXPECT_DOUBLE_EQ((*devices)[1].elapsed.seconds(), 5 + 50);
  // An hour after its last word no window reaches it.
  EXPECT_FALSE(book_.Over(Duration::Seconds(3600), At(3700)).ok());
}

TEST_F(TcoBookTest, AnOlderStreamsWordsDoNotCount) {
  book_.Add(2, Ffn("f", 11), At(0));
  book_.Add(1, Ffn("f", 10), At(0));
  book_.Update(WorkerId("f"), 1, Beat(100), At(1));
  book_.Remove(WorkerId("f"), 1);
  BeatFor("f", 2, 1, 5);
  const auto devices = book_.Over(Duration::Seconds(60), At(5));
  ASSERT_TRUE(devices.ok());
  EXPECT_FALSE((*devices)[0].lost);
  EXPECT_DOUBLE_EQ((*devices)[0].elapsed.seconds(), 2.5);
}

// Goal: no heartbeat, whatever it says, breaks the account or the router.
TEST_F(TcoBookTest, RefusesHostileHeartbeatsAndTellsOfThem) {
  book_.Add(1, Ffn("f", 10), At(0));
  BeatFor("f", 1, 1, 10);
  const double numbers[] = {std::numeric_limits<double>::quiet_NaN(),
                            std::numeric_limits<double>::infinity(), -1, 1e300};
  uint64_t refused = 0;
  for (const double number : numbers) {
    v1::Heartbeat bad = Beat(5.5, 11);
    bad.mutable_ledger(0)->set_seconds(number);
    book_.Update(WorkerId("f"), 1, bad, At(11));
    bad = Beat(5.5, 11);
    bad.set_elapsed_seconds(number);
    book_.Update(WorkerId("f"), 1, bad, At(11));
    refused += 2;
  }
  v1::Heartbeat bad = Beat(5.5, 11);
  bad.mutable_ledger(0)->set_stage("attention\xff");
  book_.Update(WorkerId("f"), 1, bad, At(11));
  bad = Beat(4, 11);  // back in time
  book_.Update(WorkerId("f"), 1, bad, At(11));
  bad = Beat(5.5, 3);  // fewer tokens
  book_.Update(WorkerId("f"), 1, bad, At(11));
  bad = Beat(5.5, 11);
  for (int i = 0; i < 100; i++) *bad.add_ledger() = bad.ledger(0);
  book_.Update(WorkerId("f"), 1, bad, At(11));
  refused += 4;
  EXPECT_EQ(book_.refusals().count, refused);
  EXPECT_TRUE(absl::StrContains(book_.refusals().last, "worker f: ledger: 102 entries"))
      << book_.refusals().last;
  EXPECT_TRUE(
      absl::StrContains(Scrape(), absl::StrCat("tandem_cost_ledgers_refused_total ", refused)));
  BeatFor("f", 1, 11, 12);
  EXPECT_DOUBLE_EQ(book_.Over(Duration::Seconds(60), At(12))->at(0).elapsed.seconds(), 6);
}

TEST_F(TcoBookTest, ARestartStartsANewSeries) {
  book_.Add(1, Ffn("f", 10), At(0));
  BeatFor("f", 1, 1, 10);
  book_.Add(2, Ffn("f", 11), At(20));
  book_.Update(WorkerId("f"), 2, Beat(1, 2), At(20));  // counters restarted
  book_.Update(WorkerId("f"), 2, Beat(3, 7), At(24));
  const auto devices = book_.Over(Duration::Seconds(60), At(24));
  ASSERT_TRUE(devices.ok());
  EXPECT_EQ(book_.refusals().count, 0u) << book_.refusals().last;
  // 10 s, 8 s down until 2 s before it spoke, and 6 s.
  EXPECT_DOUBLE_EQ((*devices)[0].elapsed.seconds(), 12);
  EXPECT_EQ((*devices)[0].tokens.tokens_out, 17u);
}

TEST_F(TcoBookTest, HoldsAsManyWorkersAsItMay) {
  for (uint64_t i = 1; i <= 20; i++) {
    const std::string id = absl::StrCat("f", 100 + i);
    book_.Add(i, Ffn(id, 10), At(0));
    book_.Update(WorkerId(id), i, Beat(1), At(static_cast<double>(i)));
    book_.Update(WorkerId(id), i, Beat(2), At(static_cast<double>(i) + 2));
    book_.Remove(WorkerId(id), i);
  }
  const auto devices = book_.Over(Duration::Seconds(3600), At(30));
  ASSERT_EQ(devices->size(), 4u);  // those that went last
  EXPECT_EQ((*devices)[0].worker, "f117");
}

TEST_F(TcoBookTest, CountsDollarsAlsoOfLostDevices) {
  book_.Add(1, Ffn("f", 10), At(0));
  BeatFor("f", 1, 1, 101);
  // From the first heartbeat on: 50 device seconds of $36/h, half of them busy.
  EXPECT_NEAR(Dollars("busy"), 0.25, 1e-9);
  EXPECT_NEAR(Dollars("idle"), 0.25, 1e-9);
  book_.Remove(WorkerId("f"), 1);
  book_.BookDown(At(121));
  EXPECT_NEAR(Dollars("idle"), 0.35, 1e-9);
  book_.BookDown(At(131));
  EXPECT_NEAR(Dollars("idle"), 0.40, 1e-9);
  // The same process comes back: what it says of the gap is not counted twice.
  book_.Add(2, Ffn("f", 10), At(141));
  BeatFor("f", 2, 141, 151);
  EXPECT_NEAR(Dollars("busy") + Dollars("idle"), 0.75, 1e-9);
  const std::string text = Scrape();
  EXPECT_TRUE(absl::StrContains(text, "tandem_cost_price_known{pool=\"ffn\"} 1"));
  EXPECT_TRUE(absl::StrContains(text, "tandem_cost_time_scale{pool=\"ffn\"} 2"));
}

TEST_F(TcoBookTest, AnUnknownPriceIsToldInSecondsAndAPricesFileGoesFirst) {
  book_.Add(1, Ffn("f", 10, -1), At(0));
  BeatFor("f", 1, 1, 11);
  EXPECT_TRUE(absl::StrContains(Scrape(), "tandem_cost_unpriced_seconds_total{pool=\"ffn\"} 5"));
  EXPECT_TRUE(absl::StrContains(Scrape(), "tandem_cost_price_known{pool=\"ffn\"} 0"));
  EXPECT_FALSE(book_.Over(Duration::Seconds(60), At(11))->at(0).price.known());
  auto prices = ledger::PriceList::Read("prices: [{device: rack, dollars_per_hour: 5}]", "p.yaml");
  ASSERT_TRUE(prices.ok()) << prices.status();
  prometheus::Registry registry;
  TcoBook priced(*prices, 4, registry);
  priced.Add(1, Ffn("f", 10, -1), At(0));
  priced.Update(WorkerId("f"), 1, Beat(1), At(2));
  EXPECT_DOUBLE_EQ(priced.Over(Duration::Seconds(60), At(2))->at(0).price.dollars_per_hour.value,
                   5);
}

TEST_F(TcoBookTest, SeriesOfPoolsAreBounded) {
  TcoBook book(ledger::PriceList(), 1000, registry_);
  for (uint64_t i = 1; i <= kMaxPoolSeries + 5; i++) {
    v1::Registration worker = Ffn(absl::StrCat("w", i), 10);
    worker.set_pool(absl::StrCat("pool-", 1000 + i));
    book.Add(i, worker, At(0));
  }
  const std::string text = Scrape();
  EXPECT_TRUE(absl::StrContains(text, "tandem_cost_price_known{pool=\"pool-1001\"}"));
  EXPECT_FALSE(absl::StrContains(text, absl::StrCat("pool-", 1000 + kMaxPoolSeries + 1)));
  EXPECT_TRUE(absl::StrContains(text, "tandem_cost_price_known{pool=\"other\"}"));
}

TEST_F(TcoBookTest, ThePageIsJsonWhoseDollarsAreThoseOfItsCells) {
  book_.Add(1, Ffn("f", 10), At(0));
  BeatFor("f", 1, 1, 100);
  const auto page = TcoPage(book_, "window=40s", At(100));
  ASSERT_TRUE(page.ok()) << page.status();
  const auto json = boost::json::parse(*page).as_object();
  EXPECT_DOUBLE_EQ(json.at("window_seconds").to_number<double>(), 40);
  const auto& worker = json.at("workers").at(0);
  double seconds = 0;
  for (const auto& cell : worker.at("ledger").as_array())
    seconds += cell.at("seconds").to_number<double>();
  EXPECT_DOUBLE_EQ(seconds, worker.at("elapsed_seconds").to_number<double>());
  EXPECT_NEAR(json.at("totals").at("total").at("dollars").to_number<double>(), seconds * 36 / 3600,
              1e-12);
  EXPECT_EQ(json.at("emulated").at("wall_seconds").to_number<double>(), 40);
  EXPECT_EQ(json.at("rows").at(0).at("stage").as_string(), "ffn");

  EXPECT_TRUE(TcoPage(book_, "", At(100)).ok());
  for (const char* query : {"window=", "window=-5s", "window=nan", "window=2h", "window=5x",
                            "widow=5s", "window=60s&x=1", "window"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(TcoPage(book_, query, At(100)).status())) << query;
  }
}

}  // namespace
}  // namespace tandem::router
