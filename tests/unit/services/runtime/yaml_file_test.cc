#include "services/runtime/yaml_file.h"

#include <gtest/gtest.h>
#include <unistd.h>
#include <yaml-cpp/yaml.h>

#include <cstdio>
#include <fstream>

namespace tandem {
namespace {

TEST(LoadYamlFile, MissingFileIsNotFoundAndBadYamlNamesTheLine) {
  EXPECT_EQ(LoadYamlFile("/no/such/file.yaml").status(),
            absl::NotFoundError("/no/such/file.yaml: cannot be opened"));
  const std::string path =
      testing::TempDir() + "/yaml_file_test." + std::to_string(getpid()) + ".yaml";
  std::ofstream(path) << "a: 1\nb: [1, 2\nc: 3\n";
  const absl::Status status = LoadYamlFile(path).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(std::string(status.message()).rfind(path + ":3: ", 0), 0u) << status;
  std::ofstream(path) << "a: 1\n";
  EXPECT_TRUE(LoadYamlFile(path).ok());
  std::remove(path.c_str());
}

}  // namespace
}  // namespace tandem
