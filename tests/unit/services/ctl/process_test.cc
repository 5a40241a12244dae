#include "services/ctl/process.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/services/ctl/temp_dir.h"

namespace tandem::ctl {
namespace {

using ::testing::HasSubstr;

constexpr Duration kLong = Duration::Seconds(30);

TEST(Process, IsKnownUntilItEnds) {
  const absl::StatusOr<ProcessRef> process = Spawn({.argv = {"/bin/sleep", "1000"}});
  ASSERT_TRUE(process.ok()) << process.status();
  EXPECT_TRUE(IsAlive(*process));
  EXPECT_FALSE(WaitUntilGone(*process, Duration::Milliseconds(1)));
  EXPECT_TRUE(SignalProcess(*process, SIGKILL));
  EXPECT_TRUE(WaitUntilGone(*process, kLong));
  EXPECT_FALSE(IsAlive(*process));  // a zombie is gone
  int wait_status = 0;
  ASSERT_EQ(waitpid(process->pid, &wait_status, 0), process->pid);
  EXPECT_THAT(DescribeExit(wait_status), HasSubstr("signal 9"));
}

// Goal: a pid that belongs to another process by now is never signalled.
TEST(Process, AnotherStartTimeIsAnotherProcess) {
  const absl::StatusOr<ProcessRef> process = Spawn({.argv = {"/bin/sleep", "1000"}});
  ASSERT_TRUE(process.ok()) << process.status();
  const ProcessRef recycled{.pid = process->pid, .start_ticks = process->start_ticks - 1};
  EXPECT_FALSE(IsAlive(recycled));
  EXPECT_FALSE(SignalProcess(recycled, SIGKILL));
  EXPECT_TRUE(WaitUntilGone(recycled, kLong));
  EXPECT_TRUE(IsAlive(*process));
  EXPECT_TRUE(SignalProcess(*process, SIGKILL));
  waitpid(process->pid, nullptr, 0);
}

TEST(Process, OneThatCannotBeExecutedIsNamed) {
  const absl::Status status = Spawn({.argv = {"/nonexistent/program"}}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/nonexistent/program"));
}

TEST(Process, WritesBothStreamsToTheGivenDescriptor) {
  const test::TempDir temp;
  const std::string path = temp.path() + "/out";
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  const absl::StatusOr<ProcessRef> process =
      Spawn({.argv = {"/bin/sh", "-c", "echo out; echo err >&2; exit 7"}, .output_fd = fd});
  close(fd);
  ASSERT_TRUE(process.ok()) << process.status();
  int wait_status = 0;
  ASSERT_EQ(waitpid(process->pid, &wait_status, 0), process->pid);
  EXPECT_EQ(DescribeExit(wait_status), "exit code 7");
  EXPECT_EQ(test::ReadFile(path), "out\nerr\n");
}

TEST(Process, NoPidIsNoProcess) {
  EXPECT_FALSE(IsAlive({}));
  EXPECT_FALSE(SignalProcess({}, SIGKILL));
  EXPECT_TRUE(WaitUntilGone({}, kLong));
}

}  // namespace
}  // namespace tandem::ctl
