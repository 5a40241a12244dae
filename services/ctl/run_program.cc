#include "services/ctl/run_program.h"

#include <absl/strings/str_cat.h>
#include <signal.h>
#include <sys/wait.h>

#include <cerrno>
#include <filesystem>

#include "scheduler/base/status.h"
#include "services/ctl/process.h"

namespace tandem::ctl {

absl::StatusOr<int> RunProgram(const std::string& bin_dir, const std::string& program,
                               const std::vector<std::string>& arguments) {
  const std::string folder =
      bin_dir.empty() ? std::filesystem::path(OwnExecutable()).parent_path().string() : bin_dir;
  SpawnOptions spawn;
  spawn.argv = {absl::StrCat(folder, "/", program)};
  spawn.argv.insert(spawn.argv.end(), arguments.begin(), arguments.end());
  spawn.signal_on_parent_death = SIGKILL;
  ASSIGN_OR_RETURN(const ProcessRef worker, Spawn(spawn));
  int status = 0;
  pid_t ended = 0;
  do {
    ended = waitpid(worker.pid, &status, 0);
  } while (ended < 0 && errno == EINTR);
  if (ended == worker.pid && WIFEXITED(status)) return WEXITSTATUS(status);
  return absl::UnavailableError(absl::StrCat(program, " ended with ", DescribeExit(status)));
}

}  // namespace tandem::ctl
