#include "workers/engine/context.h"

#include "scheduler/base/status.h"

namespace tandem {

absl::Status RowBuffers::Reserve(StageBackend& backend, uint32_t rows) {
  if (rows <= capacity_rows) return absl::OkStatus();
  capacity_rows = 0;
  ASSIGN_OR_RETURN(residual, backend.AllocateRows(rows));
  ASSIGN_OR_RETURN(ffn_out, backend.AllocateRows(rows));
  capacity_rows = rows;
  return absl::OkStatus();
}

std::vector<float> CopyOut(const Buffer& buffer, size_t floats) {
  if (const float* rows = buffer.host()) return {rows, rows + floats};
  std::vector<float> copy(floats);
  buffer.Read(0, absl::MakeSpan(copy));
  return copy;
}

}  // namespace tandem
