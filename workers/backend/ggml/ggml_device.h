#pragma once

// One compute stream of this machine's CPU: ggml's CPU backend with a threadpool of its own.

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <memory>

#include "ggml-cpp.h"
#include "ggml-cpu.h"

namespace tandem::ggml_cpu {

// What an x86-64-v3 build needs of the machine.
struct CpuFeatures {
  bool avx2 = false, fma = false, f16c = false, bmi2 = false;
};
CpuFeatures DetectCpu();
// kInvalidArgument names every feature that is missing.
absl::Status CheckCpu(const CpuFeatures& features);

// Asks the kernel for huge pages under a buffer that is read whole in every step, before it is
// filled: page walks are a few percent of a decode step else. No more than advice.
void AdviseHugePages(ggml_backend_buffer_t buffer);

// Not thread-safe; one thread at a time calls it.
class GgmlDevice {
 public:
  // `threads` >= 1. With more than one, ggml's barriers spin: more threads than cores is 10 to 100
  // times slower.
  static absl::StatusOr<std::unique_ptr<GgmlDevice>> Create(uint32_t threads);

  ggml_backend_t backend() const { return backend_.get(); }
  // Runs the graph to its end on the calling thread and the pool's. kInternal when ggml refuses.
  absl::Status Compute(ggml_cgraph* graph);

 private:
  struct FreePool {
    void operator()(ggml_threadpool* pool) const { ggml_threadpool_free(pool); }
  };
  GgmlDevice() = default;
  std::unique_ptr<ggml_threadpool, FreePool> pool_;
  ggml_backend_ptr backend_;  // freed first: it uses the pool
};

}  // namespace tandem::ggml_cpu
