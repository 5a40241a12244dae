#include "services/runtime/file_watch.h"

#include <chrono>
#include <utility>

#include "scheduler/base/status.h"
#include "services/runtime/yaml_file.h"

namespace tandem {

FileTexts ReadTextFiles(const std::vector<std::string>& paths) {
  std::vector<std::string> texts;
  for (const std::string& path : paths) {
    ASSIGN_OR_RETURN(std::string text, ReadTextFile(path));
    texts.push_back(std::move(text));
  }
  return texts;
}

FileWatch::FileWatch(std::vector<std::string> paths, FileTexts known, Duration interval,
                     std::function<void(const FileTexts&)> changed)
    : paths_(std::move(paths)),
      changed_(std::move(changed)),
      told_(known),
      seen_(std::move(known)),
      thread_([this, interval] { Run(interval); }) {}

FileWatch::~FileWatch() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
    wake_.NotifyAll();
  }
  thread_.join();
}

void FileWatch::Run(Duration interval) {
  MutexLock lock(mu_);
  while (!stopping_) {
    wake_.WaitFor(lock, std::chrono::nanoseconds(interval.nanoseconds()));
    if (stopping_) return;
    lock.Unlock();
    Look();
    lock.Lock();
  }
}

void FileWatch::Look() {
  FileTexts now = ReadTextFiles(paths_);
  const bool settled = now == seen_;
  seen_ = std::move(now);
  if (!settled || seen_ == told_) return;
  told_ = seen_;
  changed_(told_);
}

}  // namespace tandem
