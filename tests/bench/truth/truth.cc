// The cost model against measured serving.
//
//   truth_bench --catalog DIR --rows FILE.csv[.gz]            error tables of the catalog's figures
//   truth_bench --catalog DIR --rows FILE.csv[.gz] --serve    predictions for fit.py, by lines
//   truth_bench --catalog DIR --published --afd                facts/published.md and facts/afd.md

#include <CLI/CLI.hpp>

#include <cstdio>
#include <iostream>
#include <string>

#include "scheduler/base/status.h"
#include "services/runtime/catalog_files.h"
#include "tests/bench/truth/afd.h"
#include "tests/bench/truth/predict.h"
#include "tests/bench/truth/published.h"
#include "tests/bench/truth/report.h"
#include "tests/bench/truth/rows.h"
#include "tests/bench/truth/serve.h"

namespace tandem::truth {
namespace {

struct Options {
  std::string catalog, rows;
  bool serve = false, published = false, afd = false;
};

absl::Status Run(const Options& options) {
  ASSIGN_OR_RETURN(const model::Catalog catalog, LoadCatalog({options.catalog}));
  if (!options.rows.empty()) {
    ASSIGN_OR_RETURN(const std::vector<Row> rows, ReadRows(options.rows));
    Predictor predictor(catalog);
    if (options.serve) return Serve(options.rows, rows, predictor, std::cin);
    ASSIGN_OR_RETURN(const std::string tables, ErrorTables(rows, predictor));
    std::printf("%s\n", tables.c_str());
  }
  if (options.published) {
    ASSIGN_OR_RETURN(const std::string table, PublishedTable(catalog));
    std::printf("%s\n", table.c_str());
  }
  if (options.afd) {
    ASSIGN_OR_RETURN(const std::string table, AfdTable(catalog));
    std::printf("%s\n", table.c_str());
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace tandem::truth

int main(int argc, char** argv) {
  tandem::truth::Options options;
  CLI::App app("The cost model against measured serving");
  app.add_option("--catalog", options.catalog, "Directory of the catalog")->required();
  app.add_option("--rows", options.rows, "Measured rows, plain or gzip");
  app.add_flag("--serve", options.serve, "Answer requests on stdin; see serve.h");
  app.add_flag("--published", options.published, "Predict the figures of facts/published.md");
  app.add_flag("--afd", options.afd, "Predict the AFD rows of facts/afd.md");
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = tandem::truth::Run(options);
  if (status.ok()) return 0;
  std::fprintf(stderr, "truth_bench: %s\n", std::string(status.message()).c_str());
  return 1;
}
