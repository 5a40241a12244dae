#include "services/ctl/ports.h"

#include <absl/strings/str_cat.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

namespace tandem::ctl {

PortClaims::PortClaims(std::string folder) : folder_(std::move(folder)) {
  std::error_code ignored;  // Claim sees that there is none
  std::filesystem::create_directories(folder_, ignored);
}

PortClaims::~PortClaims() {
  for (const int lock : locks_) close(lock);
}

bool PortClaims::Claim(int port) {
  const std::string path = absl::StrCat(folder_, "/", port);
  const int lock = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (lock < 0) return true;
  if (flock(lock, LOCK_EX | LOCK_NB) != 0) {
    close(lock);
    return false;
  }
  locks_.push_back(lock);
  return true;
}

absl::StatusOr<int> PortAllotter::Take(int port, absl::string_view what) {
  if (taken_.contains(port) || !is_free_(port)) {
    return absl::FailedPreconditionError(
        absl::StrCat(what, ": port ", port, " of 127.0.0.1 is taken by another program"));
  }
  taken_.insert(port);
  return port;
}

absl::StatusOr<int> PortAllotter::TakeFrom(int first, absl::string_view what) {
  const int last = std::min(first + kSearch, 65535);
  for (int port = first; port <= last; ++port) {
    if (!taken_.contains(port) && is_free_(port)) {
      taken_.insert(port);
      return port;
    }
  }
  return absl::ResourceExhaustedError(
      absl::StrCat(what, ": no free port of 127.0.0.1 in [", first, ", ", last, "]"));
}

bool LoopbackPortIsFree(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  const int on = 1;  // as the daemons do: a port in TIME_WAIT is free
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const bool free =
      bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 && listen(fd, 1) == 0;
  close(fd);
  return free;
}

}  // namespace tandem::ctl
