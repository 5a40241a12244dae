#include "services/runtime/catalog_files.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_replace.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "services/runtime/yaml_file.h"
#include "tests/unit/scheduler/model/catalog_texts.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class CatalogFilesTest : public testing::Test {
 protected:
  void TearDown() override { fs::remove_all(root_); }

  void Write(const std::string& file, absl::string_view text) {
    fs::create_directories((root_ / file).parent_path());
    std::ofstream(root_ / file) << text;
  }
  std::string Path(const std::string& file) const { return (root_ / file).string(); }

 private:
  const fs::path root_ = fs::path(testing::TempDir()) / absl::StrCat("catalog_files.", getpid());
};

TEST_F(CatalogFilesTest, UsersDeviceMayNameAnInstalledChip) {
  Write("mine/devices/tiny-x4.yaml", model::kDeviceText);
  Write("mine/devices/notes.txt", "no YAML: [");
  Write("ours/chips/tiny.yaml", model::kChipText);
  Write("ours/models/small.yaml", model::kModelText);
  const auto catalog = LoadCatalog({Path("mine"), Path("ours")});
  ASSERT_TRUE(catalog.ok()) << catalog.status();
  EXPECT_EQ(catalog->FindDevice("tiny-x4")->chip.name, "tiny");
  EXPECT_TRUE(catalog->FindModel("small").ok());
}

TEST_F(CatalogFilesTest, NameInTwoDirectoriesIsRefusedWithBothFiles) {
  Write("mine/chips/a.yaml", model::kChipText);
  Write("ours/chips/b.yaml", model::kChipText);
  EXPECT_EQ(LoadCatalog({Path("mine"), Path("ours")}).status(),
            absl::AlreadyExistsError(absl::StrCat(Path("ours/chips/b.yaml"),
                                                  ": name: chip 'tiny' is already in ",
                                                  Path("mine/chips/a.yaml"))));
}

TEST_F(CatalogFilesTest, ErrorsNameTheFile) {
  Write("mine/chips/a.yaml", "name: a\ncolour: blue\n");
  EXPECT_EQ(LoadCatalog({Path("mine")}).status().message(),
            absl::StrCat(Path("mine/chips/a.yaml"), ":1: memory_class: is missing"));
  Write("mine/chips/a.yaml", "name: [");
  EXPECT_THAT(LoadCatalog({Path("mine")}).status().message(),
              HasSubstr(Path("mine/chips/a.yaml:1")));
  Write("mine/chips/a.yaml", std::string(kMaxYamlFileBytes + 1, '#'));
  EXPECT_THAT(LoadCatalog({Path("mine")}).status().message(),
              HasSubstr(Path("mine/chips/a.yaml: longer than ")));
}

TEST_F(CatalogFilesTest, DirectoryThatIsNoCatalogIsRefused) {
  EXPECT_EQ(LoadCatalog({Path("none")}).status(),
            absl::NotFoundError(absl::StrCat(Path("none"), ": no such catalog directory")));
  Write("mine/chip/a.yaml", model::kChipText);
  EXPECT_EQ(LoadCatalog({Path("mine")}).status().message(),
            absl::StrCat(Path("mine"), ": holds none of chips/, devices/, models/ and engines/"));
}

// The file's name is what is in it, so that a user finds it.
TEST(ShippedCatalog, FilesAreNamedAfterWhatTheyHold) {
  const std::string root =
      absl::StrCat(std::getenv("TANDEM_SOURCE_DIR"), "/scheduler/model/catalog");
  const auto catalog = LoadCatalog({root});
  ASSERT_TRUE(catalog.ok()) << catalog.status();
  const auto stems = [&](const char* kind) {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(fs::path(root) / kind))
      names.push_back(entry.path().stem());
    std::sort(names.begin(), names.end());
    return names;
  };
  EXPECT_EQ(stems("chips"), catalog->ChipNames());
  EXPECT_EQ(stems("devices"), catalog->DeviceNames());
  EXPECT_EQ(stems("models"), catalog->ModelNames());
}

TEST(InstalledCatalog, IsTheEnvironmentsOrBesideTheExecutable) {
  setenv("TANDEM_CATALOG", "/some/where", 1);
  EXPECT_EQ(InstalledCatalog(), "/some/where");
  unsetenv("TANDEM_CATALOG");
  EXPECT_EQ(InstalledCatalog(),
            absl::StrCat(std::getenv("TANDEM_BINARY_DIR"), "/share/tandem/catalog"));
  EXPECT_TRUE(LoadCatalog({InstalledCatalog()}).ok());
}

}  // namespace
}  // namespace tandem
