// What a worker registered, as the cost model takes it.

#include "services/ctl/explain/worker_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/services/ctl/explain_world.h"

namespace tandem::ctl {
namespace {

using ::testing::HasSubstr;

std::string ErrorOf(const v1::Registration& worker, const std::string& chip = "") {
  return std::string(ModelOf(worker, model::Shipped(), chip).status().message());
}

TEST(ModelOf, AShardsBytesAreHeldAgainstItsPartOfTheModel) {
  v1::Registration worker = RealWorker("ffn-0", {v1::STAGE_FFN});
  const double whole = ModelOf(worker, model::Shipped(), "")->ffn_scale;
  EXPECT_NEAR(whole, 5.0 / 16, 1e-6);
  worker.mutable_shard()->set_first_layer(0);
  worker.mutable_shard()->set_last_layer(15);
  worker.mutable_shard()->set_columns(1);
  worker.mutable_loaded()->set_ffn_bytes(worker.loaded().ffn_bytes() / 2);
  EXPECT_NEAR(ModelOf(worker, model::Shipped(), "")->ffn_scale, whole, 1e-6);
  worker.mutable_shard()->set_columns(2);
  worker.mutable_loaded()->set_ffn_bytes(worker.loaded().ffn_bytes() / 2);
  EXPECT_NEAR(ModelOf(worker, model::Shipped(), "")->ffn_scale, whole, 1e-6);
}

TEST(ModelOf, RefusesWhatIsNoModel) {
  v1::Registration worker = RealWorker("w", {v1::STAGE_ATTENTION});
  worker.mutable_dimensions()->set_layers(0);
  EXPECT_THAT(ErrorOf(worker), HasSubstr("worker w registered layers of 0"));
  worker = RealWorker("w", {v1::STAGE_ATTENTION});
  worker.mutable_loaded()->set_ffn(4'000'000'000);
  EXPECT_THAT(ErrorOf(worker), HasSubstr("ffn of 4000000000"));
  worker = RealWorker("w", {v1::STAGE_ATTENTION});
  worker.mutable_loaded()->set_kv_row_bytes(7);
  EXPECT_THAT(ErrorOf(worker), HasSubstr("KV rows of 7 bytes"));
  worker = RealWorker("w", {v1::STAGE_ATTENTION});
  worker.clear_loaded();
  EXPECT_THAT(ErrorOf(worker), HasSubstr("says no shape of its model"));
  worker = EmulatedWorker("w", {v1::STAGE_FFN}, "h100-sxm", "llama-3-8b", "fp8");
  worker.mutable_dimensions()->set_layers(31);
  EXPECT_THAT(ErrorOf(worker), HasSubstr("31 layers, of which the catalog here has 32"));
  worker = EmulatedWorker("w", {v1::STAGE_FFN}, "h100-sxm", "llama-3-8b", "fp9");
  EXPECT_THAT(ErrorOf(worker), HasSubstr("fp9"));
  worker = EmulatedWorker("w", {v1::STAGE_FFN}, "abacus", "llama-3-8b", "fp8");
  EXPECT_THAT(ErrorOf(worker), HasSubstr("abacus"));
}

}  // namespace
}  // namespace tandem::ctl
