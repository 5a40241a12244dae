#include "scheduler/step/kv_book.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tandem::step {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(KvBook, GrowCoversTheTokensAndTakesNothingTwice) {
  KvBook book(4, 4);
  BlockTable a, b;
  EXPECT_TRUE(book.Grow(a, 5).ok());
  EXPECT_THAT(a, ElementsAre(0, 1));
  EXPECT_TRUE(book.Grow(a, 8).ok());
  EXPECT_EQ(a.size(), 2u);
  EXPECT_TRUE(book.Grow(b, 1).ok());
  EXPECT_THAT(b, ElementsAre(2));
  EXPECT_EQ(book.free_blocks(), 1u);
}

TEST(KvBook, GrowIsAllOrNothingAndNamesBothNumbers) {
  KvBook book(2, 4);
  BlockTable table;
  const absl::Status refused = book.Grow(table, 12);
  EXPECT_TRUE(absl::IsResourceExhausted(refused));
  EXPECT_THAT(std::string(refused.message()), testing::AllOf(HasSubstr("3"), HasSubstr("2")));
  EXPECT_TRUE(table.empty());
  EXPECT_EQ(book.free_blocks(), 2u);
}

TEST(KvBook, AForkSharesFullBlocksAndCopiesThePartialOne) {
  KvBook book(8, 4);
  BlockTable source;
  ASSERT_TRUE(book.Grow(source, 12).ok());
  std::vector<KvBook::BlockCopy> copies;
  absl::StatusOr<BlockTable> fork = book.Fork(source, 9, copies);
  ASSERT_TRUE(fork.ok());
  EXPECT_THAT(*fork, ElementsAre(source[0], source[1], 3));
  ASSERT_EQ(copies.size(), 1u);
  EXPECT_EQ(copies[0].from, source[2]);
  EXPECT_EQ(copies[0].to, 3u);
  book.Release(source);
  EXPECT_EQ(book.free_blocks(), 8u - 3);  // the fork still holds the shared ones
  book.Release(*fork);
  EXPECT_EQ(book.free_blocks(), 8u);
}

TEST(KvBook, AForkAtABlocksEndCopiesNothing) {
  KvBook book(2, 4);
  BlockTable source;
  ASSERT_TRUE(book.Grow(source, 8).ok());
  std::vector<KvBook::BlockCopy> copies;
  EXPECT_EQ(*book.Fork(source, 8, copies), source);
  EXPECT_TRUE(copies.empty());
  EXPECT_TRUE(absl::IsResourceExhausted(book.Fork(source, 7, copies).status()));
}

}  // namespace
}  // namespace tandem::step
