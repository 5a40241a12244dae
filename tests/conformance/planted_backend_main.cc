// The suite over a backend with the fault that TANDEM_PLANTED names; prints the table. Run by
// backend_suite_test.

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "tests/exact/ffn_conformance.h"
#include "tests/fakes/planted_backend.h"

namespace tandem::exact {
namespace {

test::BackendFault Planted() {
  const char* const name = std::getenv("TANDEM_PLANTED");
  for (const test::NamedBackendFault& fault : test::BackendFaults())
    if (name != nullptr && name == std::string(fault.name)) return fault.fault;
  ADD_FAILURE() << "TANDEM_PLANTED names no fault";
  return test::BackendFault::kNone;
}

const BackendCase kPlanted{
    "planted",
    [](std::set<Stage> stages, uint32_t kv_blocks, uint32_t block_tokens) {
      return test::PlantedBackend::Make(Planted(), std::move(stages), kv_blocks, block_tokens);
    },
    [](const ShardRequest& request) { return test::PlantedBackend::MakeShard(Planted(), request); },
    [](uint32_t kv_blocks, uint32_t block_tokens) {
      return test::PlantedBackend::Make(test::BackendFault::kNone,
                                        {Stage::kPrefill, Stage::kAttention, Stage::kFfn},
                                        kv_blocks, block_tokens);
    }};

INSTANTIATE_TEST_SUITE_P(Planted, BackendConformance, testing::Values(kPlanted));
INSTANTIATE_TEST_SUITE_P(Planted, FfnConformance, testing::Values(kPlanted));
INSTANTIATE_TEST_SUITE_P(Planted, ShardConformance, testing::Values(kPlanted));

}  // namespace
}  // namespace tandem::exact
