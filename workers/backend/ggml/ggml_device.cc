#include "workers/backend/ggml/ggml_device.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>
#include <cpuid.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "workers/backend/ggml/device_list.h"

namespace tandem::ggml_cpu {
namespace {

// How long idle pool threads spin for the next graph, in ggml's units (0 to 100). Between graphs
// they sleep: a worker waits for its peers most of the time, and would keep the cores from them.
constexpr uint32_t kIdlePoll = 0;

constexpr uint32_t kMaxThreads = GGML_MAX_N_THREADS;

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
  if (!ggml_backend_buffer_is_host(buffer)) return;
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
  device->kind_ = "cpu";
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

absl::StatusOr<std::unique_ptr<GgmlDevice>> GgmlDevice::Open(ggml_backend_dev_t opened) {
  QuietLog();
  std::unique_ptr<GgmlDevice> device(new GgmlDevice());
  device->kind_ = DeviceKind(opened);
  // A remote device's description is its address, which decides no bits.
  device->model_ = device->kind_ == "rpc" ? "remote" : ggml_backend_dev_description(opened);
  std::replace(device->model_.begin(), device->model_.end(), ' ', '_');
  device->backend_.reset(ggml_backend_dev_init(opened, nullptr));
  if (device->backend_ == nullptr) {
    return absl::UnavailableError(
        absl::StrCat("device ", ggml_backend_dev_name(opened), ": ggml cannot open it"));
  }
  ggml_backend_dev_props properties{};
  ggml_backend_dev_get_props(opened, &properties);
  device->events_ = properties.caps.events;
  return device;
}

GgmlDevice::~GgmlDevice() {
  if (backend_ != nullptr && !cpu()) Synchronize();
}

absl::Status GgmlDevice::CheckFree(uint64_t bytes, absl::string_view what) const {
  if (cpu()) return absl::OkStatus();
  const ggml_backend_dev_t device = ggml_backend_get_device(backend_.get());
  size_t free = 0, total = 0;
  ggml_backend_dev_memory(device, &free, &total);
  if (bytes <= free) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("device ", ggml_backend_dev_name(device), ": ",
                                                   what, " of ", bytes, " bytes exceed ", free,
                                                   " bytes free of ", total));
}

absl::Status GgmlDevice::CheckSupported(ggml_cgraph* graph) const {
  for (int i = 0; i < ggml_graph_n_nodes(graph); ++i) {
    const ggml_tensor* node = ggml_graph_node(graph, i);
    if (ggml_backend_supports_op(backend_.get(), node)) continue;
    return absl::UnimplementedError(absl::StrCat("device ", ggml_backend_name(backend_.get()),
                                                 " does not compute ", ggml_op_desc(node)));
  }
  return absl::OkStatus();
}

absl::Status GgmlDevice::Compute(ggml_cgraph* graph) {
  const ggml_status status = ggml_backend_graph_compute(backend_.get(), graph);
  if (status == GGML_STATUS_SUCCESS) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("ggml graph ended with ", ggml_status_to_string(status)));
}

absl::Status GgmlDevice::Launch(ggml_cgraph* graph) {
  const ggml_status status = ggml_backend_graph_compute_async(backend_.get(), graph);
  if (status == GGML_STATUS_SUCCESS) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("ggml graph not started: ", ggml_status_to_string(status)));
}

void GgmlDevice::Synchronize() { ggml_backend_synchronize(backend_.get()); }

void GgmlDevice::Upload(ggml_tensor* tensor, const void* data, size_t offset, size_t bytes) {
  transfers_.uploads++;
  transfers_.upload_bytes += bytes;
  ggml_backend_tensor_set_async(backend_.get(), tensor, data, offset, bytes);
}

void GgmlDevice::Download(const ggml_tensor* tensor, void* data, size_t offset, size_t bytes) {
  transfers_.downloads++;
  transfers_.download_bytes += bytes;
  ggml_backend_tensor_get_async(backend_.get(), tensor, data, offset, bytes);
  Synchronize();
}

ggml_backend_event_t GgmlDevice::Mark() {
  if (!events_) return nullptr;
  ggml_backend_event_t mark = nullptr;
  if (marks_.empty()) {
    mark = ggml_backend_event_new(ggml_backend_get_device(backend_.get()));
  } else {
    mark = marks_.back().release();
    marks_.pop_back();
  }
  if (mark != nullptr) ggml_backend_event_record(mark, backend_.get());
  return mark;
}

void GgmlDevice::WaitFor(ggml_backend_event_t mark) {
  if (mark == nullptr) {
    Synchronize();
  } else {
    ggml_backend_event_synchronize(mark);
  }
}

void GgmlDevice::Release(ggml_backend_event_t mark) {
  if (mark != nullptr) marks_.emplace_back(mark);
}

}  // namespace tandem::ggml_cpu
