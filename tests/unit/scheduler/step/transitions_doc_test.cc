#include <gtest/gtest.h>

#include <sstream>

#include "scheduler/step/decode_machine.h"
#include "scheduler/step/prefill_machine.h"
#include "tests/unit/scheduler/base/transition_table_doc.h"

namespace tandem::step {
namespace {

TEST(StepTransitions, ArchitectureHasTheTablesOfTheCode) {
  test::ExpectDocumented("DecodeSequence", kSequenceTransitions);
  test::ExpectDocumented("MicroBatch", kMicroBatchTransitions);
  test::ExpectDocumented("PrefillJob", kPrefillTransitions);
}

TEST(TransitionTableDoc, ReadsTheRowsBelowItsHeadingOnly) {
  std::istringstream document(
      "### A\n| from | event | to |\n|---|:-:|---|\n| `k1` | kGo | k2 |\n\n### B\n| k3 | kGo | k4 "
      "|\n| broken |\n");
  EXPECT_EQ(test::DocumentedTransitions(document, "A"), (std::multiset<std::string>{"k1 kGo k2"}));
  document.clear();
  document.seekg(0);
  EXPECT_EQ(test::DocumentedTransitions(document, "B"),
            (std::multiset<std::string>{"k3 kGo k4", "not a transition: | broken |"}));
}

}  // namespace
}  // namespace tandem::step
