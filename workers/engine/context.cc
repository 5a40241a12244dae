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

absl::StatusOr<float*> HostRows(Buffer& buffer) {
  float* rows = buffer.host();
  if (rows == nullptr) return absl::UnimplementedError("the backend's rows are not in host memory");
  return rows;
}

}  // namespace tandem
