#include <absl/strings/ascii.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_replace.h>
#include <unistd.h>
#include <CLI/CLI.hpp>

#include <cstdio>
#include <string>
#include <vector>

#include "scheduler/base/status.h"
#include "services/ctl/commands.h"
#include "services/ctl/state.h"
#include "services/runtime/catalog_files.h"
#include "services/runtime/link_security.h"

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
  AddTlsOptions(command, options.tls);
}

void AddTlsOptions(CLI::App& command, TlsFiles& tls) {
  BindTlsFiles(tls, [&command](const char* flag, std::string& value, const char* help) {
    const std::string variable = absl::AsciiStrToUpper(absl::StrReplaceAll(flag, {{"-", "_"}}));
    command.add_option(absl::StrCat("--", flag), value, help)
        ->envname(absl::StrCat("TANDEM_", variable))
        ->capture_default_str();
  });
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

absl::StatusOr<LinkSecurity> RouterSecurity(const RouterOptions& options) {
  RETURN_IF_ERROR(CheckTlsFiles(options.tls));
  if (options.tls.given() || !options.router.empty()) return LinkSecurity::Make(options.tls);
  const absl::StatusOr<ClusterState> local = StateDir::At(options.state_dir).Load();
  return LinkSecurity::Make(local.ok() ? local->config.tls : TlsFiles());
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
