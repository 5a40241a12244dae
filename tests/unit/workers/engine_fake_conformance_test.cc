// The fake backend keeps the promises that real ones do.

#include "scheduler/base/status.h"
#include "tests/exact/ffn_conformance.h"
#include "tests/fakes/fake_backend.h"

namespace tandem::exact {

const BackendCase kFake{
    "fake",
    [](std::set<Stage> stages, uint32_t kv_blocks,
       uint32_t block_tokens) -> std::unique_ptr<StageBackend> {
      test::FakeOptions options;
      options.stages = std::move(stages);
      options.kv_blocks = kv_blocks;
      options.block_tokens = block_tokens;
      return std::make_unique<test::FakeBackend>(options);
    },
    [](const ShardRequest& request) -> absl::StatusOr<std::unique_ptr<StageBackend>> {
      test::FakeOptions options;
      options.stages = {Stage::kFfn};
      ASSIGN_OR_RETURN(options.shard, ResolveRequest(request, options.dimensions.layers));
      return std::make_unique<test::FakeBackend>(options);
    }};

INSTANTIATE_TEST_SUITE_P(Fake, BackendConformance, testing::Values(kFake));
INSTANTIATE_TEST_SUITE_P(Fake, FfnConformance, testing::Values(kFake));
INSTANTIATE_TEST_SUITE_P(Fake, ShardConformance, testing::Values(kFake));

}  // namespace tandem::exact
