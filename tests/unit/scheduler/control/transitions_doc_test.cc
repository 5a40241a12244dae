#include <gtest/gtest.h>

#include "scheduler/control/group_machine.h"
#include "scheduler/control/request_machine.h"
#include "scheduler/control/sequence_machine.h"
#include "scheduler/control/worker_machine.h"
#include "tests/unit/scheduler/base/transition_table_doc.h"

namespace tandem::control {
namespace {

TEST(ControlTransitions, ArchitectureHasTheTablesOfTheCode) {
  test::ExpectDocumented("Request", kRequestTransitions);
  test::ExpectDocumented("RouterSequence", kSequenceTransitions);
  test::ExpectDocumented("Worker", kWorkerTransitions);
  test::ExpectDocumented("Group", kGroupTransitions);
}

}  // namespace
}  // namespace tandem::control
