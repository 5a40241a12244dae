#pragma once

// A client's end of one HTTP connection: bytes out, bytes in.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <utility>

namespace tandem::test {

inline constexpr int kDeadlineSeconds = 30;

// A blocking client; each read ends after kDeadlineSeconds at most.
class HttpConnection {
 public:
  explicit HttpConnection(int port) : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    timeval deadline{kDeadlineSeconds, 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &deadline, sizeof deadline);
    connected_ = connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  }
  ~HttpConnection() { Close(); }
  void Close() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }
  bool Send(const std::string& bytes) {
    return send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
           static_cast<ssize_t>(bytes.size());
  }
  // Reads until `end` stands in what was read, or the server closes.
  std::string ReadUntil(const std::string& end) {
    char buffer[4096];
    while (read_.find(end) == std::string::npos) {
      const ssize_t count = recv(fd_, buffer, sizeof buffer, 0);
      if (count <= 0) break;
      read_.append(buffer, static_cast<size_t>(count));
    }
    return std::exchange(read_, "");
  }
  std::string ReadAll() { return ReadUntil("\1never\1"); }
  bool connected() const { return connected_; }

 private:
  int fd_;
  bool connected_ = false;
  std::string read_;
};

}  // namespace tandem::test
