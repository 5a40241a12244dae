// tandemctl catalog: which chips, devices and models are known, and what is known of one.

#include <CLI/CLI.hpp>

#include <cstdio>
#include <memory>
#include <string>

#include "scheduler/base/status.h"
#include "services/ctl/catalog_view.h"
#include "services/ctl/commands.h"

namespace tandem::ctl {
namespace {

struct Options {
  std::string kind, name;
  std::string directory;
  bool json = false;
};

absl::StatusOr<std::string> Answer(const Options& options) {
  ASSIGN_OR_RETURN(const model::Catalog catalog, LoadCatalogWith(options.directory));
  if (options.name.empty()) {
    return options.json ? CatalogJson(catalog, options.kind) : CatalogText(catalog, options.kind);
  }
  ASSIGN_OR_RETURN(const CatalogEntry entry, FindEntry(catalog, options.kind, options.name));
  return options.json ? EntryJson(entry) : EntryText(entry);
}

absl::Status Print(const Options& options) {
  ASSIGN_OR_RETURN(const std::string text, Answer(options));
  std::printf("%s\n", text.c_str());
  return absl::OkStatus();
}

}  // namespace

void AddCatalog(CLI::App& parent, int& exit_code) {
  auto options = std::make_shared<Options>();
  CLI::App* command = parent.add_subcommand(
      "catalog",
      "Lists the chips, devices, models and engines that are known; with a name, every figure of "
      "one with "
      "its mark (measured, fitted, stated by a data sheet, assumed, unknown) and source, and what "
      "follows from them: ridge batches, bandwidth per dollar, bytes of weights and KV");
  command->add_option("kind", options->kind,
                      "chip, device (one chip or a group), model or engine [all]");
  command->add_option("name", options->name,
                      "A name, or the beginning of only one: h100 is h100-sxm [all of the kind]");
  AddCatalogOption(*command, options->directory);
  command->add_flag("--json", options->json, "As JSON");
  command->callback([options, &exit_code] { exit_code = Report(Print(*options)); });
}

}  // namespace tandem::ctl
