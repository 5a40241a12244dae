#include "tests/exact/conformance_table.h"

#include <absl/strings/str_format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

namespace tandem::exact {
namespace {

class TablePrinter final : public testing::EmptyTestEventListener {
 public:
  void OnTestStart(const testing::TestInfo&) override { first_failure_.clear(); }
  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (result.failed() && first_failure_.empty()) first_failure_ = Told(result.message());
  }
  void OnTestEnd(const testing::TestInfo& test) override {
    const std::string of = test.value_param() == nullptr ? "" : test.value_param();
    const bool skipped = test.result()->Skipped();
    rows_.push_back({std::string(test.test_suite_name()) + "." + CaseName(test.name()), of,
                     skipped                   ? "skipped"
                     : test.result()->Passed() ? "pass"
                                               : "FAIL",
                     first_failure_});
  }
  void OnTestProgramEnd(const testing::UnitTest& unit) override {
    if (rows_.empty()) return;
    size_t widest = 4, of = 7;
    for (const Row& row : rows_) {
      widest = std::max(widest, row.name.size());
      of = std::max(of, row.of.size());
    }
    const auto print = [&](const Row& row) {
      absl::PrintF("%-*s  %-*s  %-7s  %s\n", static_cast<int>(widest), row.name,
                   static_cast<int>(of), row.of, row.verdict, row.seen);
    };
    print({"case", "backend", "verdict", "first differing element"});
    for (const Row& row : rows_) print(row);
    absl::PrintF("%d cases, %d failed\n", static_cast<int>(rows_.size()), unit.failed_test_count());
  }

 private:
  struct Row {
    std::string name, of, verdict, seen;
  };
  static std::string CaseName(const std::string& name) { return name.substr(0, name.find('/')); }
  // The line with the element, where there is one; else all of it in one line.
  static std::string Told(std::string message) {
    const size_t at = message.find("first differing element");
    if (at != std::string::npos) {
      message = message.substr(at);
      message = message.substr(0, message.find_first_of(")\n"));
    }
    std::replace(message.begin(), message.end(), '\n', ' ');
    return message;
  }

  std::string first_failure_;
  std::vector<Row> rows_;
};

}  // namespace

int RunConformance() {
  testing::TestEventListeners& listeners = testing::UnitTest::GetInstance()->listeners();
  delete listeners.Release(listeners.default_result_printer());
  listeners.Append(new TablePrinter);
  return RUN_ALL_TESTS();
}

}  // namespace tandem::exact
