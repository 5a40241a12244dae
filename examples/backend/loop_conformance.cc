// The suite that says whether the device is right: ./loop_conformance prints a table.

#include "loop_backend.h"
#include "tests/exact/ffn_conformance.h"

namespace tandem::exact {
namespace {

const BackendCase kLoops{
    "loops",
    [](std::set<Stage>, uint32_t, uint32_t) -> std::unique_ptr<StageBackend> {
      return *LoopBackend::Create({});
    },
    [](const ShardRequest& request) -> absl::StatusOr<std::unique_ptr<StageBackend>> {
      auto made = LoopBackend::Create(request);
      if (!made.ok()) return made.status();
      return *std::move(made);
    }};

INSTANTIATE_TEST_SUITE_P(Loops, FfnConformance, testing::Values(kLoops), NameOf);
INSTANTIATE_TEST_SUITE_P(Loops, ShardConformance, testing::Values(kLoops), NameOf);

}  // namespace
}  // namespace tandem::exact
