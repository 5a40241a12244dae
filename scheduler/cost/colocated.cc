#include "scheduler/cost/colocated.h"

#include <algorithm>

namespace tandem::cost {

uint64_t BatchThatFits(const CostTable& table, const RequestShape& request) {
  const uint64_t held = request.prompt_tokens + request.output_tokens * 6 / 10;
  return KvTokensThatFit(table.device(), table.shape(), table.precision(), Holding::Everything()) /
         std::max<uint64_t>(held, 1);
}

Duration TimePerOutputToken(const CostTable& table, uint64_t batch, const RequestShape& request) {
  const uint64_t context = std::max<uint64_t>(request.prompt_tokens + request.output_tokens / 2, 1);
  const Duration step =
      table.DecodeStep(AttentionRows::Even(table.shape(), batch, batch * context));
  const double arrivals = static_cast<double>(batch) /
                          static_cast<double>(std::max<uint64_t>(request.output_tokens, 1));
  const double prefill = table.Prefill(0, request.prompt_tokens).seconds();
  return step + Duration::FromSeconds(table.engine().prefill_share * arrivals * prefill);
}

}  // namespace tandem::cost
