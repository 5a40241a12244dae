#include "services/runtime/file_watch.h"

#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace tandem {
namespace {

namespace fs = std::filesystem;

constexpr Duration kOften = Duration::Milliseconds(2);

// What a watch told, in order.
class Heard {
 public:
  std::function<void(const FileTexts&)> Listener() {
    return [this](const FileTexts& texts) {
      MutexLock lock(mu_);
      told_.push_back(texts);
      changed_.NotifyAll();
    };
  }
  FileTexts Await(size_t index) {
    MutexLock lock(mu_);
    while (told_.size() <= index) changed_.Wait(lock);
    return told_[index];
  }
  size_t count() {
    MutexLock lock(mu_);
    return told_.size();
  }

 private:
  Mutex mu_;
  CondVar changed_;
  std::vector<FileTexts> told_ TANDEM_GUARDED_BY(mu_);
};

class FileWatchTest : public testing::Test {
 protected:
  FileWatchTest()
      : folder_(absl::StrCat(testing::TempDir(), "file_watch_",
                             testing::UnitTest::GetInstance()->current_test_info()->name())) {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  std::string At(const std::string& name) const { return absl::StrCat(folder_, "/", name); }
  static void Write(const std::string& path, const std::string& text) {
    std::ofstream(path) << text;
  }

  const std::string folder_;
  Heard heard_;  // outlives every watch
};

TEST_F(FileWatchTest, TellsOfAFileThatWasRenamedOver) {
  Write(At("a"), "one");
  const FileWatch watch({At("a")}, ReadTextFiles({At("a")}), kOften, heard_.Listener());
  Write(At("a.new"), "two");
  fs::rename(At("a.new"), At("a"));
  EXPECT_EQ(heard_.Await(0), FileTexts(std::vector<std::string>{"two"}));
}

// The kubelet keeps a volume's files behind a link to a folder, and turns the link.
TEST_F(FileWatchTest, TellsOnceOfFilesBehindALinkThatTurns) {
  for (const char* version : {"v1", "v2"}) {
    fs::create_directories(At(version));
    Write(absl::StrCat(At(version), "/a"), absl::StrCat("a of ", version));
    Write(absl::StrCat(At(version), "/b"), absl::StrCat("b of ", version));
  }
  fs::create_directory_symlink("v1", At("data"));
  fs::create_symlink("data/a", At("a"));
  fs::create_symlink("data/b", At("b"));
  const std::vector<std::string> paths = {At("a"), At("b")};
  {
    const FileWatch watch(paths, ReadTextFiles(paths), kOften, heard_.Listener());
    fs::create_directory_symlink("v2", At("data.new"));
    fs::rename(At("data.new"), At("data"));
    EXPECT_EQ(heard_.Await(0), FileTexts(std::vector<std::string>{"a of v2", "b of v2"}));
  }
  EXPECT_EQ(heard_.count(), 1u);
}

TEST_F(FileWatchTest, TellsOnceOfAFileThatIsAwayAndAgainWhenItIsBack) {
  Write(At("a"), "one");
  const FileWatch watch({At("a")}, ReadTextFiles({At("a")}), kOften, heard_.Listener());
  fs::remove(At("a"));
  EXPECT_EQ(heard_.Await(0).status().code(), absl::StatusCode::kNotFound);
  Write(At("b"), "two");
  fs::rename(At("b"), At("a"));
  EXPECT_EQ(heard_.Await(1), FileTexts(std::vector<std::string>{"two"}));
  EXPECT_EQ(heard_.count(), 2u);  // the error that stayed was told once
}

TEST_F(FileWatchTest, AFileThatIsTooLargeIsAnErrorThatNamesIt) {
  Write(At("a"), std::string((1 << 20) + 1, 'x'));
  const absl::Status status = ReadTextFiles({At("a")}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(std::string(status.message()).find(At("a")), std::string::npos) << status;
}

}  // namespace
}  // namespace tandem
