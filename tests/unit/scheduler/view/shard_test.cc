#include "scheduler/view/shard.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>

namespace tandem {
namespace {

std::string ErrorOf(const absl::Status& status) { return std::string(status.message()); }

TEST(FfnShard, ADefaultOneIsTheWholeModel) {
  EXPECT_TRUE(FfnShard().IsWhole(30));
  EXPECT_TRUE(FfnShard().HoldsLayer(29));
  EXPECT_EQ(ResolveShard({}, 30), (FfnShard{0, 30, 0, 1}));
  EXPECT_EQ(ToString(FfnShard(), 30), "whole");
}

TEST(FfnShard, HostileClaimsAreRefusedWithTheirNumbers) {
  EXPECT_TRUE(CheckShard({0, 30, 255, 256}, 30).ok());
  EXPECT_EQ(ErrorOf(CheckShard({5, 5}, 30)), "layers [5, 5) are none");
  EXPECT_EQ(ErrorOf(CheckShard({7, 3}, 30)), "layers [7, 3) are none");
  EXPECT_EQ(ErrorOf(CheckShard({0, 31}, 30)), "layers [0, 31) exceed the model's 30");
  EXPECT_EQ(ErrorOf(CheckShard({30, FfnShard::kAllLayers}, 30)), "layers [30, 30) are none");
  for (const auto& [column, columns] :
       {std::pair(0u, 0u), std::pair(2u, 2u), std::pair(0u, 257u), std::pair(~0u, ~0u)}) {
    EXPECT_EQ(ErrorOf(CheckShard({0, 30, column, columns}, 30)),
              absl::StrCat("column ", column, "/", columns,
                           " is none: it must be below the second number, which is 1 to 256"));
  }
}

TEST(FfnShard, TextNamesWhatIsCut) {
  EXPECT_EQ(ToString({0, 15}, 30), "layers [0, 15)");
  EXPECT_EQ(ToString({0, 30, 1, 2}, 30), "column 1/2");
  EXPECT_EQ(ToString({15, 30, 0, 2}, 30), "layers [15, 30) column 0/2");
}

TEST(FfnShard, GeometryIsTheClassesLastWord) {
  EXPECT_EQ(GeometryOf(1), "whole");
  EXPECT_EQ(GeometryOf(4), "column/4");
  EXPECT_EQ(WithoutGeometry("gguf:1/ggml/whole"), "gguf:1/ggml/");
  EXPECT_EQ(WithoutGeometry("gguf:1/ggml/column/16"), "gguf:1/ggml/");
  EXPECT_EQ(WithoutGeometry("hash"), "hash");
  EXPECT_EQ(WithoutGeometry("wholesome"), "wholesome");
  EXPECT_EQ(WithoutGeometry("column/x"), "column/x");
}

TEST(ShardRequest, ReadsRangesAndParts) {
  EXPECT_TRUE(ParseShardRequest("all", "0/1")->IsWhole());
  EXPECT_EQ(*ResolveRequest(*ParseShardRequest("all", "0/1"), 30), (FfnShard{0, 30}));
  EXPECT_EQ(*ResolveRequest(*ParseShardRequest("10:20", "1/2"), 30), (FfnShard{10, 20, 1, 2}));
  EXPECT_EQ(*ResolveRequest(*ParseShardRequest("0/4", "0/1"), 30), (FfnShard{0, 7}));
  EXPECT_EQ(*ResolveRequest(*ParseShardRequest("3/4", "0/1"), 30), (FfnShard{22, 30}));
  EXPECT_EQ(ErrorOf(ResolveRequest(*ParseShardRequest("10:40", "0/1"), 30).status()),
            "layers [10, 40) exceed the model's 30");
  EXPECT_EQ(ErrorOf(ResolveRequest(*ParseShardRequest("0/31", "0/1"), 30).status()),
            "layers 0/31: the model has 30 layers, fewer than parts");
}

TEST(ShardRequest, BadTextNamesKeyAndText) {
  for (const char* layers :
       {"", "some", "1", "5:5", "9:3", "0:5000", "-1:3", "1:2:3", "2/2", "0/0"})
    EXPECT_TRUE(absl::StartsWith(ErrorOf(ParseShardRequest(layers, "0/1").status()), "layers: "))
        << layers;
  for (const char* column : {"", "0", "2/2", "0/0", "a/b", "0/1000", "-1/2"})
    EXPECT_TRUE(absl::StartsWith(ErrorOf(ParseShardRequest("all", column).status()), "column: "))
        << column;
}

// Every cut is whole blocks, without gap or overlap, even to within one block.
TEST(CutColumns, PiecesAreWholeBlocksAndEven) {
  for (uint32_t blocks = 1; blocks <= 50; blocks++) {
    for (uint32_t columns = 1; columns <= blocks; columns++) {
      uint32_t at = 0;
      for (uint32_t piece = 0; piece < columns; piece++) {
        const ColumnRange range = *CutColumns({0, 1, piece, columns}, blocks * 32, 32);
        ASSERT_EQ(range.first, at);
        ASSERT_EQ(range.size() % 32, 0u);
        ASSERT_GE(range.size() / 32, blocks / columns);
        ASSERT_LE(range.size() / 32, blocks / columns + 1);
        at = range.last;
      }
      ASSERT_EQ(at, blocks * 32);
    }
  }
}

TEST(CutColumns, WhatCannotBeCutIsRefusedWithTheNumbers) {
  EXPECT_EQ(ErrorOf(CutColumns({0, 1, 0, 100}, 1536, 32).status()),
            "column 0/100: 1536 columns are 48 quantisation blocks of 32, which cannot be cut into "
            "100");
  EXPECT_EQ(ErrorOf(CutColumns({0, 1, 0, 2}, 1500, 32).status()),
            "column 0/2: 1500 columns are no multiple of a quantisation block of 32");
}

}  // namespace
}  // namespace tandem
