#include "tests/fakes/fake_gpu.h"

#include <absl/strings/str_cat.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>

#include "ggml-backend.h"
#include "ggml-rpc.h"
#include "tests/fakes/latch.h"

// What ggml-rpc keeps until the process ends, so that the leak checker looks at our own memory: the
// servers that it knows, and of each freed event 16 bytes (ggml 0.25.3 deletes the context alone).
// NOLINTNEXTLINE(bugprone-reserved-identifier): LeakSanitizer's name
extern "C" const char* __lsan_default_suppressions() {
  return "leak:ggml_backend_rpc_add_server\nleak:^ggml_backend_rpc_buffer_type$\nleak:rpc_"
         "dispatcher::event_new\n";
}

namespace tandem::test {
namespace {

sockaddr_in Loopback(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

// A port that was free just now; 0 when there is none.
uint16_t FreePort() {
  const int probe = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = Loopback(0);
  socklen_t size = sizeof(address);
  auto* const any = reinterpret_cast<sockaddr*>(&address);
  const bool bound =
      probe >= 0 && bind(probe, any, size) == 0 && getsockname(probe, any, &size) == 0;
  if (probe >= 0) close(probe);
  return bound ? ntohs(address.sin_port) : 0;
}

bool Answers(uint16_t port) {
  const int dialled = socket(AF_INET, SOCK_STREAM, 0);
  const sockaddr_in address = Loopback(port);
  const bool answers =
      connect(dialled, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
  close(dialled);
  return answers;
}

// The child: serves until its parent is gone.
[[noreturn]] void Serve(const std::string& endpoint) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  const int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
  dup2(nowhere, STDOUT_FILENO);  // it reports each connection
  ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
  ggml_backend_rpc_start_server(endpoint.c_str(), /*cache_dir=*/nullptr, /*n_threads=*/1, 1, &cpu);
  _exit(1);  // it returns only when it cannot serve
}

std::string Start() {
  const uint16_t port = FreePort();
  const std::string endpoint = absl::StrCat("127.0.0.1:", port);
  const pid_t child = fork();
  if (child == 0) Serve(endpoint);
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (!Answers(port)) {
    if (child < 0 || waitpid(child, nullptr, WNOHANG) != 0 ||
        std::chrono::steady_clock::now() > deadline) {
      ADD_FAILURE() << "no ggml-rpc server on " << endpoint;
      return "";
    }
    poll(nullptr, 0, 1);  // a turn for the child
  }
  ggml_backend_reg_t served = ggml_backend_rpc_add_server(endpoint.c_str());
  if (served == nullptr) {
    ADD_FAILURE() << "the ggml-rpc server on " << endpoint << " has no device";
    return "";
  }
  ggml_backend_register(served);
  return "rpc:0";
}

}  // namespace

std::string FakeGpu() {
  static const std::string name = Start();
  return name;
}

bool DeviceIsFake() { return std::getenv("TANDEM_DEVICE") == nullptr; }

std::string DeviceUnderTest() { return DeviceIsFake() ? FakeGpu() : std::getenv("TANDEM_DEVICE"); }

}  // namespace tandem::test
