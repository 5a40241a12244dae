#include "services/ctl/explain/report.h"

namespace tandem::ctl {

const char* ToString(PartKind kind) {
  switch (kind) {
    case PartKind::kEmbed:
      return "embed";
    case PartKind::kAttention:
      return "attention";
    case PartKind::kA2f:
      return "a2f";
    case PartKind::kQueue:
      return "queue";
    case PartKind::kFfn:
      return "ffn";
    case PartKind::kF2a:
      return "f2a";
    case PartKind::kHead:
      return "head";
  }
  return "";
}

uint32_t ExplainReport::rows() const {
  uint32_t rows = 0;
  for (const MicroBatch& batch : micro_batches) rows += batch.rows;
  return rows;
}

std::vector<const ExplainedPart*> ExplainReport::PartsOfLayer(uint32_t layer) const {
  std::vector<const ExplainedPart*> found;
  for (const ExplainedPart& part : parts) {
    if (part.layer == layer) found.push_back(&part);
  }
  return found;
}

}  // namespace tandem::ctl
