#include "services/router/registry/worker_book.h"

#include <gtest/gtest.h>

namespace tandem::router {
namespace {

v1::Registration Registered(uint64_t incarnation) {
  v1::Registration out;
  out.set_worker_id("w");
  out.set_incarnation(incarnation);
  out.add_live()->set_request_id("r");
  return out;
}

v1::Heartbeat Tokens(uint64_t total) {
  v1::Heartbeat out;
  out.set_tokens_total(total);
  return out;
}

TEST(WorkerBook, KeepsTheNewestStreamsWordsAndLeavesLiveOut) {
  WorkerBook book;
  book.Add(1, Registered(10));
  book.Update(WorkerId("w"), 1, Tokens(5));
  ASSERT_TRUE(book.Find(WorkerId("w"), 10).has_value());
  EXPECT_EQ(book.Find(WorkerId("w"), 10)->heartbeat.tokens_total(), 5u);
  EXPECT_EQ(book.Find(WorkerId("w"), 10)->registration.live_size(), 0);
  EXPECT_FALSE(book.Find(WorkerId("w"), 11).has_value());
  book.Add(2, Registered(11));
  book.Update(WorkerId("w"), 1, Tokens(6));
  book.Remove(WorkerId("w"), 1);
  book.Add(1, Registered(10));
  ASSERT_TRUE(book.Find(WorkerId("w"), 11).has_value());
  EXPECT_EQ(book.Find(WorkerId("w"), 11)->heartbeat.tokens_total(), 0u);
  book.Remove(WorkerId("w"), 2);
  EXPECT_FALSE(book.Find(WorkerId("w"), 11).has_value());
}

}  // namespace
}  // namespace tandem::router
