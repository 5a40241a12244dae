#pragma once

namespace tandem::exact {

// Runs the suites that a program has instantiated, after InitGoogleTest, and prints a table of the
// cases: what was tried, on which backend, the verdict, and of a failure the first differing
// element or what else was seen first. The exit code: 0 when none failed.
int RunConformance();

}  // namespace tandem::exact
