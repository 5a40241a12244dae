#include "services/ctl/ports.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include "services/ctl/process.h"

namespace tandem::ctl {
namespace {

using ::testing::HasSubstr;

TEST(PortAllotter, SkipsPortsOfOthersAndItsOwn) {
  PortAllotter ports([](int port) { return port != 9200 && port != 9202; });
  EXPECT_EQ(*ports.TakeFrom(9200, "a"), 9201);
  EXPECT_EQ(*ports.TakeFrom(9200, "b"), 9203);
}

TEST(PortAllotter, APortThatWasAskedForIsNotReplaced) {
  PortAllotter ports([](int port) { return port != 8080; });
  const absl::Status taken = ports.Take(8080, "gateway").status();
  EXPECT_EQ(taken.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(taken.message()), HasSubstr("gateway: port 8080"));
  EXPECT_EQ(*ports.Take(8081, "gateway"), 8081);
  EXPECT_FALSE(ports.Take(8081, "router").ok());
}

TEST(PortAllotter, GivesUpAfterABoundedSearch) {
  int asked = 0;
  PortAllotter ports([&](int) {
    ++asked;
    return false;
  });
  EXPECT_EQ(ports.TakeFrom(9000, "router").status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(asked, PortAllotter::kSearch + 1);
}

TEST(PortClaims, APortIsOneClusters) {
  const std::string folder = ::testing::TempDir() + "/claims";
  {
    PortClaims one(folder), other(folder);
    EXPECT_TRUE(one.Claim(9200));
    EXPECT_FALSE(other.Claim(9200));
    EXPECT_TRUE(other.Claim(9201));
  }
  EXPECT_TRUE(PortClaims(folder).Claim(9200)) << "who claimed it has let go";
}

TEST(PortClaims, AreTheChildsToo) {
  const std::string folder = ::testing::TempDir() + "/claims-of-a-child";
  absl::StatusOr<ProcessRef> child;
  {
    PortClaims claims(folder);
    ASSERT_TRUE(claims.Claim(9200));
    child = Spawn({.argv = {"/bin/sleep", "600"}, .inherit_fds = claims.locks()});
    ASSERT_TRUE(child.ok()) << child.status();
  }
  EXPECT_FALSE(PortClaims(folder).Claim(9200)) << "the child lives";
  ASSERT_TRUE(SignalProcess(*child, SIGKILL));
  ASSERT_EQ(waitpid(child->pid, nullptr, 0), child->pid);
  EXPECT_TRUE(PortClaims(folder).Claim(9200));
}

TEST(PortClaims, WithoutAFolderNothingIsKept) {
  PortClaims claims("/proc/none");
  EXPECT_TRUE(claims.Claim(9200));
}

TEST(LoopbackPort, IsNotFreeWhileSomebodyListens) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(listen(fd, 1), 0);
  ASSERT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
  const int port = ntohs(address.sin_port);
  EXPECT_FALSE(LoopbackPortIsFree(port));
  close(fd);
  EXPECT_TRUE(LoopbackPortIsFree(port));
}

}  // namespace
}  // namespace tandem::ctl
