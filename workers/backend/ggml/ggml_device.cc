#include "workers/backend/ggml/ggml_device.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>
#include <cpuid.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <vector>

#include "scheduler/base/check.h"

namespace tandem::ggml_cpu {
namespace {

// How long idle pool threads spin for the next graph, in ggml's units (0 to 100). Between graphs
// they sleep: a worker waits for its peers most of the time, and would keep the cores from them.
constexpr uint32_t kIdlePoll = 0;

constexpr uint32_t kMaxThreads = GGML_MAX_N_THREADS;

// ggml prints what it allocates; only what is wrong belongs into a worker's log. Process-wide, as
// ggml's logger is.
void QuietLog() {
  static const bool once = [] {
    ggml_log_set(
        [](ggml_log_level level, const char* text, void*) {
          if (level == GGML_LOG_LEVEL_WARN || level == GGML_LOG_LEVEL_ERROR)
            std::fputs(text, stderr);
        },
        nullptr);
    return true;
  }();
  static_cast<void>(once);
}

}  // namespace

CpuFeatures DetectCpu() {
  __builtin_cpu_init();  // its answers, unlike cpuid's, say whether the kernel saves AVX registers
  // Not every compiler has a name for F16C.
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  const bool f16c = __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
  return {__builtin_cpu_supports("avx2") != 0, __builtin_cpu_supports("fma") != 0, f16c,
          __builtin_cpu_supports("bmi2") != 0};
}

absl::Status CheckCpu(const CpuFeatures& features) {
  std::vector<const char*> missing;
  if (!features.avx2) missing.push_back("AVX2");
  if (!features.fma) missing.push_back("FMA");
  if (!features.f16c) missing.push_back("F16C");
  if (!features.bmi2) missing.push_back("BMI2");
  if (missing.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "this build is for x86-64-v3 and this CPU lacks ", absl::StrJoin(missing, ", "),
      ": run on a newer CPU, or build with TANDEM_NATIVE=ON (another numerics class)"));
}

void AdviseHugePages(ggml_backend_buffer_t buffer) {
  const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t begin = reinterpret_cast<uintptr_t>(ggml_backend_buffer_get_base(buffer));
  const uintptr_t aligned = (begin + page - 1) / page * page;
  const uintptr_t end = begin + ggml_backend_buffer_get_size(buffer);
  if (aligned < end) madvise(reinterpret_cast<void*>(aligned), end - aligned, MADV_HUGEPAGE);
}

absl::StatusOr<std::unique_ptr<GgmlDevice>> GgmlDevice::Create(uint32_t threads) {
  if (absl::Status status = CheckCpu(DetectCpu()); !status.ok()) return status;
  if (threads == 0 || threads > kMaxThreads) {
    return absl::InvalidArgumentError(
        absl::StrCat(threads, " compute threads; 1 to ", kMaxThreads, " are possible"));
  }
  QuietLog();
  std::unique_ptr<GgmlDevice> device(new GgmlDevice());
  ggml_threadpool_params params = ggml_threadpool_params_default(static_cast<int>(threads));
  params.poll = kIdlePoll;
  device->pool_.reset(ggml_threadpool_new(&params));
  device->backend_.reset(ggml_backend_cpu_init());
  if (device->pool_ == nullptr || device->backend_ == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("ggml cannot start its CPU backend with ", threads, " threads"));
  }
  ggml_backend_cpu_set_n_threads(device->backend(), static_cast<int>(threads));
  ggml_backend_cpu_set_threadpool(device->backend(), device->pool_.get());
  return device;
}

absl::Status GgmlDevice::Compute(ggml_cgraph* graph) {
  const ggml_status status = ggml_backend_graph_compute(backend_.get(), graph);
  if (status == GGML_STATUS_SUCCESS) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("ggml graph ended with ", ggml_status_to_string(status)));
}

}  // namespace tandem::ggml_cpu
