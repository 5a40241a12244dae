#include "services/ctl/log_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/unit/services/ctl/temp_dir.h"

namespace tandem::ctl {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(LogFile, IsBoundedAndCutsNoLine) {
  const test::TempDir temp;
  const std::string path = temp.path() + "/x.log";
  constexpr int64_t kBytes = 1000;
  {
    absl::StatusOr<LogFile> log = LogFile::Open(path, kBytes);
    ASSERT_TRUE(log.ok());
    for (int i = 0; i < 1000; ++i) {
      const std::string line = "line " + std::to_string(i) + "\n";
      log->Write(line.substr(0, 3));  // pieces that end within a line
      log->Write(line.substr(3));
    }
  }
  for (const std::string& file : {path, path + ".1"}) {
    const std::string text = test::ReadFile(file);
    EXPECT_LE(text.size(), kBytes + 20u) << file;
    if (!text.empty()) {
      EXPECT_EQ(text.substr(0, 5), "line ") << file;
      EXPECT_EQ(text.back(), '\n') << file;
    }
  }
  EXPECT_THAT(LastLines(path, 1), ElementsAre("line 999"));
}

TEST(LogFile, OneLargeWriteIsRotatedAtALine) {
  const test::TempDir temp;
  const std::string path = temp.path() + "/x.log";
  absl::StatusOr<LogFile> log = LogFile::Open(path, 10);
  ASSERT_TRUE(log.ok());
  log->Write("aaaa\nbbbb\ncccc\ndddd");
  EXPECT_EQ(test::ReadFile(path + ".1"), "aaaa\nbbbb\ncccc\n");
  EXPECT_EQ(test::ReadFile(path), "dddd");
}

TEST(LogFile, GoesOnWhereItsPredecessorEnded) {
  const test::TempDir temp;
  const std::string path = temp.path() + "/x.log";
  LogFile::Open(path)->Write("one\n");
  LogFile::Open(path)->Write("two\n");
  EXPECT_THAT(LastLines(path, 5), ElementsAre("one", "two"));
}

TEST(LastLines, OfAMissingFileAreNone) { EXPECT_THAT(LastLines("/nonexistent", 5), IsEmpty()); }

}  // namespace
}  // namespace tandem::ctl
