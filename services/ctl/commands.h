#pragma once

// tandemctl's commands, one file each. Every Add function hangs a subcommand into `parent`; when it
// is chosen, its result goes to `exit_code`: 0 done, 1 it failed and said why on stderr. Wrong
// usage is CLI11's, exit code 2.

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <string>

#include "scheduler/model/catalog.h"
#include "services/runtime/tls_files.h"

namespace CLI {
class App;
}

namespace tandem {
class LinkSecurity;
}

namespace tandem::ctl {

void AddVersion(CLI::App& parent, int& exit_code);
void AddStatus(CLI::App& parent, int& exit_code);
void AddTco(CLI::App& parent, int& exit_code);
void AddTop(CLI::App& parent, int& exit_code);
void AddTrace(CLI::App& parent, int& exit_code);
void AddExplain(CLI::App& parent, int& exit_code);
void AddCatalog(CLI::App& parent, int& exit_code);
void AddCalibrate(CLI::App& parent, int& exit_code);
void AddFit(CLI::App& parent, int& exit_code);
void AddLocal(CLI::App& parent, int& exit_code);  // up, down, status, supervise

void AddLocalUp(CLI::App& local, int& exit_code);
void AddLocalDown(CLI::App& local, int& exit_code);
void AddLocalStatus(CLI::App& local, int& exit_code);
void AddLocalSupervise(CLI::App& local, int& exit_code);

// Prints "tandemctl: <message>" on stderr unless OK; returns the exit code.
int Report(const absl::Status& status);

// Adds --router and --state-dir, which say whom RouterAddress asks, and --tls-cert and its kin.
struct RouterOptions {
  std::string router;
  std::string state_dir;
  TlsFiles tls;
};
void AddRouterOptions(CLI::App& command, RouterOptions& options);
// The router's admin address: --router, else the local cluster's, else 127.0.0.1:9300.
std::string RouterAddress(const RouterOptions& options);
// How its links are secured: by the files that were given, else by those that the local cluster was
// started with, if it is the one that is asked. Errors name the file and what is wrong with it.
absl::StatusOr<LinkSecurity> RouterSecurity(const RouterOptions& options);
// A gateway's: `given`, else the local cluster's, else 127.0.0.1:8080.
std::string GatewayAddress(const std::string& given, const RouterOptions& options);

// Adds --catalog, and reads the product's catalog together with the user's of that directory;
// empty: the product's alone. Errors are LoadCatalog's.
void AddCatalogOption(CLI::App& command, std::string& directory);
absl::StatusOr<model::Catalog> LoadCatalogWith(const std::string& directory);

// Adds --tls-cert and its kin; the environment's TANDEM_TLS_CERT and so on stand for those not
// given.
void AddTlsOptions(CLI::App& command, TlsFiles& tls);

// Adds --state-dir.
void AddStateDirOption(CLI::App& command, std::string& state_dir);

// Version of the build, "0.1.0".
std::string Version();

}  // namespace tandem::ctl
