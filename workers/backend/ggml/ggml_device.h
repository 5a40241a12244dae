#pragma once

// One compute stream of one device: of this machine's CPU with a threadpool of its own, or of any
// other device that ggml knows.

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

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
// filled: page walks are a few percent of a decode step else. No more than advice, and none where
// the host cannot address the buffer.
void AdviseHugePages(ggml_backend_buffer_t buffer);

// What crossed between the host and a device's memory.
struct TransferCounts {
  uint64_t uploads = 0, upload_bytes = 0;
  uint64_t downloads = 0, download_bytes = 0;
  uint64_t full_logit_rows = 0;  // rows of logits copied whole, for a sampler that needs them
};

// Not thread-safe; one thread at a time calls it. Work runs in the order it was given.
class GgmlDevice {
 public:
  // The CPU, `threads` >= 1. With more than one, ggml's barriers spin: more threads than cores is
  // 10 to 100 times slower.
  static absl::StatusOr<std::unique_ptr<GgmlDevice>> Create(uint32_t threads);
  // Another device, by a name of FindDevice (device_list.h). Its own threads.
  static absl::StatusOr<std::unique_ptr<GgmlDevice>> Open(ggml_backend_dev_t device);
  ~GgmlDevice();

  ggml_backend_t backend() const { return backend_.get(); }
  bool cpu() const { return pool_ != nullptr; }        // and so its memory is the host's
  const std::string& kind() const { return kind_; }    // "cpu", "cuda": ggml's registry, lower case
  const std::string& model() const { return model_; }  // "NVIDIA_H100_80GB_HBM3"

  // kResourceExhausted, with both numbers, when the device says that it has less than `bytes` free.
  // The CPU is not asked: its memory is the kernel's to give.
  absl::Status CheckFree(uint64_t bytes, absl::string_view what) const;
  // kUnimplemented names the first op of the graph that the device cannot compute.
  absl::Status CheckSupported(ggml_cgraph* graph) const;

  // Runs the graph to its end, on the CPU on the calling thread and the pool's. kInternal when ggml
  // refuses.
  absl::Status Compute(ggml_cgraph* graph);
  // Gives it to the device and returns.
  absl::Status Launch(ggml_cgraph* graph);
  // Waits for all that was given.
  void Synchronize();

  // `data` lives until the device is waited for.
  void Upload(ggml_tensor* tensor, const void* data, size_t offset, size_t bytes);
  // Waits for it.
  void Download(const ggml_tensor* tensor, void* data, size_t offset, size_t bytes);
  TransferCounts& transfers() { return transfers_; }

  // A mark after all that was given so far: an event of the device, or null where it has none.
  // Release gives it back.
  ggml_backend_event_t Mark();
  // Waits until the mark is passed; null: for everything.
  void WaitFor(ggml_backend_event_t mark);
  void Release(ggml_backend_event_t mark);

 private:
  struct FreePool {
    void operator()(ggml_threadpool* pool) const { ggml_threadpool_free(pool); }
  };
  GgmlDevice() = default;
  std::string kind_, model_;
  std::unique_ptr<ggml_threadpool, FreePool> pool_;  // of the CPU
  ggml_backend_ptr backend_;                         // freed before: it uses the pool
  bool events_ = false;
  std::vector<ggml_backend_event_ptr> marks_;  // free ones
  TransferCounts transfers_;
};

}  // namespace tandem::ggml_cpu
