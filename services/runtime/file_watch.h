#pragma once

// Files that are replaced while a daemon runs: certificates, keys.

#include <absl/status/statusor.h>

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "scheduler/base/time.h"
#include "services/runtime/mutex.h"

namespace tandem {

// What is in some files, in their order; or why one of them cannot be read.
using FileTexts = absl::StatusOr<std::vector<std::string>>;
// Errors are ReadTextFile's (yaml_file.h).
FileTexts ReadTextFiles(const std::vector<std::string>& paths);

// Reads some files again and again, on a thread of its own, and tells when what is in them has
// changed. It compares bytes, so it sees files that are written, renamed over or behind a symbolic
// link that turns (as the kubelet's do). A change is told once two looks in a row agree on it, so
// that files which are copied one after the other are not taken by halves; an error that stays is
// told once.
class FileWatch {
 public:
  // `known` is what the caller has already. `changed` is called on the thread, one call at a time,
  // until the destructor has returned.
  FileWatch(std::vector<std::string> paths, FileTexts known, Duration interval,
            std::function<void(const FileTexts&)> changed);
  ~FileWatch();
  FileWatch(const FileWatch&) = delete;
  FileWatch& operator=(const FileWatch&) = delete;

 private:
  void Run(Duration interval) TANDEM_EXCLUDES(mu_);
  void Look();

  const std::vector<std::string> paths_;
  const std::function<void(const FileTexts&)> changed_;
  FileTexts told_, seen_;  // of the thread
  Mutex mu_;
  CondVar wake_;
  bool stopping_ TANDEM_GUARDED_BY(mu_) = false;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace tandem
