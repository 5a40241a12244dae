// The main of a conformance program that has none of its own. Takes GoogleTest's flags.

#include <gtest/gtest.h>

#include "tests/exact/conformance_table.h"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  return tandem::exact::RunConformance();
}
