#include "services/ctl/process.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_split.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

extern "C" {  // glibc 2.36 forgets it
#include <sys/pidfd.h>
}

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <fstream>
#include <sstream>

namespace tandem::ctl {
namespace {

class UniqueFd {
 public:
  explicit UniqueFd(int fd) : fd_(fd) {}
  ~UniqueFd() {
    if (fd_ >= 0) close(fd_);
  }
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

// A handle on that very process: opened first, checked after, so that a pid that changed hands in
// between is seen.
int OpenPidfd(const ProcessRef& process) {
  if (process.pid <= 0) return -1;
  const int fd = pidfd_open(process.pid, 0);
  if (fd < 0) return -1;
  const std::optional<ProcessRef> found = FindProcess(process.pid);
  if (found != process) {
    close(fd);
    return -1;
  }
  return fd;
}

// Between fork and exec only async-signal-safe calls are allowed: no allocation, no locks.
[[noreturn]] void BecomeProgram(const SpawnOptions& options, char* const* argv, pid_t parent,
                                int error_fd) {
  auto fail = [&] {
    const int error = errno;
    [[maybe_unused]] const ssize_t told = write(error_fd, &error, sizeof error);
    _exit(127);
  };
  if (options.new_session ? setsid() < 0 : setpgid(0, 0) < 0) fail();
  if (options.signal_on_parent_death != 0) {
    if (prctl(PR_SET_PDEATHSIG, options.signal_on_parent_death) != 0) fail();
    if (getppid() != parent) _exit(127);  // it ended before the line above
  }
  for (int signal = 1; signal < NSIG; ++signal) ::signal(signal, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  if (options.null_input) {
    const int null_fd = open("/dev/null", O_RDONLY);
    if (null_fd < 0 || dup2(null_fd, STDIN_FILENO) < 0) fail();
    if (null_fd != STDIN_FILENO) close(null_fd);
  }
  if (options.output_fd >= 0) {
    if (dup2(options.output_fd, STDOUT_FILENO) < 0 || dup2(options.output_fd, STDERR_FILENO) < 0)
      fail();
  }
  for (const int fd : options.inherit_fds) fcntl(fd, F_SETFD, 0);
  execv(argv[0], argv);
  fail();
  _exit(127);
}

}  // namespace

std::optional<ProcessRef> FindProcess(pid_t pid) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/stat"));
  std::stringstream text;
  text << file.rdbuf();
  // The second field, the command in parentheses, may itself hold spaces and parentheses.
  const std::string line = text.str();
  const size_t end = line.rfind(')');
  if (end == std::string::npos) return std::nullopt;
  const std::vector<std::string> fields =
      absl::StrSplit(line.substr(end + 2), ' ');  // from field 3, the state
  ProcessRef found{.pid = pid, .start_ticks = 0};
  if (fields.size() < 20 || fields[0] == "Z" || fields[0] == "X" ||
      !absl::SimpleAtoi(fields[19], &found.start_ticks)) {
    return std::nullopt;
  }
  return found;
}

bool IsAlive(const ProcessRef& process) {
  return process.pid > 0 && FindProcess(process.pid) == process;
}

bool SignalProcess(const ProcessRef& process, int signal) {
  const UniqueFd fd(OpenPidfd(process));
  return fd.get() >= 0 && pidfd_send_signal(fd.get(), signal, nullptr, 0) == 0;
}

bool WaitUntilGone(const ProcessRef& process, Duration timeout) {
  const UniqueFd fd(OpenPidfd(process));
  if (fd.get() < 0) return true;
  pollfd event{.fd = fd.get(), .events = POLLIN, .revents = 0};
  const int64_t ms = std::clamp<int64_t>(timeout.nanoseconds() / 1'000'000, 0, INT_MAX);
  int ready = 0;
  do {
    ready = poll(&event, 1, static_cast<int>(ms));
  } while (ready < 0 && errno == EINTR);
  return ready > 0;
}

absl::StatusOr<ProcessRef> Spawn(const SpawnOptions& options) {
  std::vector<char*> argv;
  for (const std::string& arg : options.argv) argv.push_back(const_cast<char*>(arg.c_str()));
  argv.push_back(nullptr);
  int error_pipe[2];
  if (pipe2(error_pipe, O_CLOEXEC) != 0) return absl::ErrnoToStatus(errno, "pipe2");
  const UniqueFd error_read(error_pipe[0]);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) BecomeProgram(options, argv.data(), parent, error_pipe[1]);
  const int fork_error = errno;
  close(error_pipe[1]);
  if (pid < 0) return absl::ErrnoToStatus(fork_error, "fork");
  int exec_error = 0;
  ssize_t got = 0;
  do {
    got = read(error_read.get(), &exec_error,
               sizeof exec_error);  // ends when exec closes the other end
  } while (got < 0 && errno == EINTR);
  if (got == sizeof exec_error) {
    waitpid(pid, nullptr, 0);
    return absl::ErrnoToStatus(exec_error, absl::StrCat("cannot execute ", options.argv[0]));
  }
  // Not reaped yet, so the entry is there even if the program has ended already; then its start
  // time is unknown.
  return FindProcess(pid).value_or(ProcessRef{.pid = pid, .start_ticks = 0});
}

std::string DescribeExit(int wait_status) {
  if (WIFSIGNALED(wait_status)) {
    return absl::StrCat("signal ", WTERMSIG(wait_status), " (", strsignal(WTERMSIG(wait_status)),
                        ")");
  }
  return absl::StrCat("exit code ", WEXITSTATUS(wait_status));
}

std::string OwnExecutable() {
  char path[PATH_MAX];
  const ssize_t size = readlink("/proc/self/exe", path, sizeof path);
  return size > 0 ? std::string(path, static_cast<size_t>(size)) : std::string();
}

}  // namespace tandem::ctl
