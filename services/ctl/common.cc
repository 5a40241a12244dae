#include <unistd.h>
#include <CLI/CLI.hpp>

#include <cstdio>
#include <string>
#include <vector>

#include "services/ctl/commands.h"
#include "services/ctl/state.h"
#include "services/runtime/catalog_files.h"

#ifndef TANDEM_VERSION
#error "TANDEM_VERSION is CMake's project version"
#endif

namespace tandem::ctl {

int Report(const absl::Status& status) {
  if (status.ok()) return 0;
  std::fflush(stdout);
  const std::string message(status.message());
  std::fprintf(stderr, "tandemctl: %s\n", message.c_str());
  return 1;
}

std::string Version() { return TANDEM_VERSION; }

void AddStateDirOption(CLI::App& command, std::string& state_dir) {
  command.add_option("--state-dir", state_dir,
                     "Folder of the cluster's state and logs [" + StateDir::At("").path() + "]");
}

void AddRouterOptions(CLI::App& command, RouterOptions& options) {
  command.add_option("--router", options.router,
                     "Router's admin address [the local cluster's, or 127.0.0.1:9300]");
  AddStateDirOption(command, options.state_dir);
}

void AddCatalogOption(CLI::App& command, std::string& directory) {
  command.add_option("--catalog", directory,
                     "Folder of own chips/, devices/ and models/, beside the product's");
}

absl::StatusOr<model::Catalog> LoadCatalogWith(const std::string& directory) {
  std::vector<std::string> directories;
  if (!directory.empty()) directories.push_back(directory);
  directories.push_back(InstalledCatalog());
  return LoadCatalog(directories);
}

std::string RouterAddress(const RouterOptions& options) {
  if (!options.router.empty()) return options.router;
  const absl::StatusOr<ClusterState> local = StateDir::At(options.state_dir).Load();
  return local.ok() ? local->router_admin : "127.0.0.1:9300";
}

std::string GatewayAddress(const std::string& given, const RouterOptions& options) {
  if (!given.empty()) return given;
  const absl::StatusOr<ClusterState> local = StateDir::At(options.state_dir).Load();
  return local.ok() ? local->gateway : "127.0.0.1:8080";
}

void AddVersion(CLI::App& parent, int& exit_code) {
  CLI::App* command = parent.add_subcommand("version", "Prints the version");
  command->callback([&exit_code] {
    std::printf("tandemctl %s\n", Version().c_str());
    exit_code = 0;
  });
}

void AddLocal(CLI::App& parent, int& exit_code) {
  CLI::App* local =
      parent.add_subcommand("local", "A whole cluster on 127.0.0.1, one process a daemon");
  local->require_subcommand(1);
  AddLocalUp(*local, exit_code);
  AddLocalDown(*local, exit_code);
  AddLocalStatus(*local, exit_code);
  AddLocalSupervise(*local, exit_code);
}

}  // namespace tandem::ctl
