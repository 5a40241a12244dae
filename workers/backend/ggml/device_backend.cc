#include "workers/backend/ggml/device_backend.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "scheduler/base/check.h"
#include "scheduler/base/status.h"
#include "workers/backend/ggml/device_list.h"
#include "workers/backend/ggml/ggml_backend.h"
#include "workers/backend/sampler.h"

namespace tandem {

using ggml_cpu::DeviceRows;
using ggml_cpu::GgmlDevice;
using ggml_cpu::GraphKind;
using ggml_cpu::GraphSet;
using ggml_cpu::LoadedShard;
using ggml_cpu::SlotInputs;
using ggml_cpu::SlotLayout;

namespace {

// A layer's graphs name their buffers, so each micro-batch has sets of its own: four kinds of call
// and a first layer, for three micro-batches and some batch sizes. A set of a large batch takes
// megabytes of the host.
constexpr size_t kMaxSets = 48;

class DeviceTicket final : public Ticket {
 public:
  DeviceTicket(std::shared_ptr<GgmlDevice> device, absl::Status status,
               std::vector<std::vector<uint8_t>> staged)
      : device_(std::move(device)),
        status_(std::move(status)),
        staged_(std::move(staged)),
        mark_(device_->Mark()) {}
  ~DeviceTicket() override {
    device_->WaitFor(mark_);  // the device may still read what is staged
    device_->Release(mark_);
  }
  DeviceTicket(const DeviceTicket&) = delete;
  DeviceTicket& operator=(const DeviceTicket&) = delete;
  absl::Status Wait() override {
    device_->WaitFor(mark_);
    return status_;
  }

 private:
  const std::shared_ptr<GgmlDevice> device_;
  const absl::Status status_;
  const std::vector<std::vector<uint8_t>> staged_;
  const ggml_backend_event_t mark_;
};

const DeviceRows& RowsOf(const Buffer& buffer, size_t floats) {
  const auto* rows = dynamic_cast<const DeviceRows*>(&buffer);
  TANDEM_CHECK(rows != nullptr && rows->bytes() >= floats * sizeof(float));
  return *rows;
}

const DeviceRows* RowsOf(const Buffer* buffer, size_t floats) {
  return buffer == nullptr ? nullptr : &RowsOf(*buffer, floats);
}

uint64_t IdOf(const DeviceRows* rows) { return rows == nullptr ? 0 : rows->id(); }

// The inputs of a call, to compare with those that a set holds.
std::vector<uint64_t> Written(const SlotInputs& inputs) {
  std::vector<uint64_t> written(inputs.positions.begin(), inputs.positions.end());
  written.insert(written.end(), inputs.kv_rows.begin(), inputs.kv_rows.end());
  written.insert(written.end(), inputs.cells.begin(), inputs.cells.end());
  return written;
}

}  // namespace

absl::StatusOr<std::unique_ptr<GgmlDeviceBackend>> GgmlDeviceBackend::Create(
    const ShardSpec& spec) {
  ASSIGN_OR_RETURN(const ggml_cpu::FoundDevice found, ggml_cpu::FindDevice(spec.device));
  ASSIGN_OR_RETURN(const ggml_cpu::OpenedModel opened, ggml_cpu::OpenModel(spec));
  ASSIGN_OR_RETURN(std::shared_ptr<GgmlDevice> device, GgmlDevice::Open(found.device));
  ASSIGN_OR_RETURN(LoadedShard loaded,
                   LoadedShard::Load(spec, *opened.model, opened.shard, *device));
  device->transfers() = {};  // loading is none
  return std::unique_ptr<GgmlDeviceBackend>(
      new GgmlDeviceBackend(std::move(device), std::move(loaded)));
}

GgmlDeviceBackend::GgmlDeviceBackend(std::shared_ptr<GgmlDevice> device, LoadedShard loaded)
    : device_(std::move(device)), loaded_(std::move(loaded)), graphs_(*device_, kMaxSets) {}

TicketPtr GgmlDeviceBackend::Started(absl::Status status, Staged staged) {
  return std::make_unique<DeviceTicket>(device_, std::move(status), std::move(staged));
}

template <typename T>
void GgmlDeviceBackend::Upload(ggml_tensor* tensor, const std::vector<T>& values, Staged& staged) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(values.data());
  staged.emplace_back(bytes, bytes + values.size() * sizeof(T));
  device_->Upload(tensor, staged.back().data(), 0, staged.back().size());
}

absl::StatusOr<BufferRef> GgmlDeviceBackend::AllocateRows(uint32_t rows) {
  return DeviceRows::Create(device_, rows, loaded_.shape.hidden);
}

TicketPtr GgmlDeviceBackend::Embed(absl::Span<const TokenId> ids, Buffer& residual) {
  Staged staged;
  absl::Status status = StartEmbed(ids, residual, staged);
  return Started(std::move(status), std::move(staged));
}

absl::Status GgmlDeviceBackend::StartEmbed(absl::Span<const TokenId> ids, Buffer& residual,
                                           Staged& staged) {
  RETURN_IF_ERROR(loaded_.CheckEmbed(ids));
  if (ids.empty()) return absl::OkStatus();
  const auto rows = static_cast<uint32_t>(ids.size());
  const DeviceRows& to = RowsOf(residual, loaded_.RowFloats(rows));
  ASSIGN_OR_RETURN(GraphSet * set, graphs_.Get({GraphKind::kEmbed, rows, {to.id()}}, [&] {
    return BuildDeviceEmbed(parts(), to, rows);
  }));
  Upload(set->tokens, std::vector<int32_t>(ids.begin(), ids.end()), staged);
  return device_->Launch(set->graphs[0]);
}

TicketPtr GgmlDeviceBackend::AttentionLayer(uint32_t layer, absl::Span<const step::KvRow> rows,
                                            Buffer& residual, const Buffer* ffn_out) {
  Staged staged;
  absl::Status status = StartAttention(layer, rows, residual, ffn_out, staged);
  return Started(std::move(status), std::move(staged));
}

// Layers after the first share a set and its inputs; a call without the FFN's output, of a step's
// first layer, has a set of that layer alone.
absl::Status GgmlDeviceBackend::StartAttention(uint32_t layer, absl::Span<const step::KvRow> rows,
                                               Buffer& residual, const Buffer* ffn_out,
                                               Staged& staged) {
  RETURN_IF_ERROR(loaded_.CheckAttention(layer, rows.size()));
  if (rows.empty()) return absl::OkStatus();
  const auto n = static_cast<uint32_t>(rows.size());
  const DeviceRows& to = RowsOf(residual, loaded_.RowFloats(n));
  const DeviceRows* add = RowsOf(ffn_out, loaded_.RowFloats(n));
  ASSIGN_OR_RETURN(const SlotLayout layout, LayOut(*loaded_.kv, rows));
  const uint32_t first = add == nullptr ? layer : 0;
  const uint32_t last = add == nullptr ? layer + 1 : loaded_.shape.layers;
  std::vector<uint64_t> place = layout.Shape();
  place.insert(place.end(), {to.id(), IdOf(add), first});
  ASSIGN_OR_RETURN(GraphSet * set, graphs_.Get({GraphKind::kAttention, n, std::move(place)}, [&] {
    return BuildSlotAttention(parts(), layout, to, add, n, first, last);
  }));
  UploadInputs(*set, InputsOf(*loaded_.kv, layout, rows), staged);
  return device_->Launch(set->graphs[layer - first]);
}

void GgmlDeviceBackend::UploadInputs(GraphSet& set, const SlotInputs& inputs, Staged& staged) {
  std::vector<uint64_t> written = Written(inputs);
  if (set.holds == written) return;
  if (set.order != nullptr && set.holds.empty()) Upload(set.order, inputs.order, staged);
  Upload(set.positions, inputs.positions, staged);
  Upload(set.kv_rows, inputs.kv_rows, staged);
  Upload(set.mask, inputs.mask, staged);
  if (set.cells != nullptr) Upload(set.cells, inputs.cells, staged);
  set.holds = std::move(written);
}

TicketPtr GgmlDeviceBackend::FfnLayer(uint32_t layer, uint32_t rows, const Buffer& in,
                                      Buffer& out) {
  return Started(StartFfn(layer, rows, in, out), {});
}

absl::Status GgmlDeviceBackend::StartFfn(uint32_t layer, uint32_t rows, const Buffer& in,
                                         Buffer& out) {
  RETURN_IF_ERROR(loaded_.CheckFfn(layer, rows));
  if (rows == 0) return absl::OkStatus();
  TANDEM_CHECK(&in != &out);
  const DeviceRows& from = RowsOf(in, loaded_.RowFloats(rows));
  const DeviceRows& to = RowsOf(out, loaded_.RowFloats(rows));
  ASSIGN_OR_RETURN(GraphSet * set, graphs_.Get({GraphKind::kFfn, rows, {from.id(), to.id()}}, [&] {
    return BuildDeviceFfn(parts(), from, to, rows);
  }));
  return device_->Launch(set->graphs[layer - loaded_.info.shard.first_layer]);
}

TicketPtr GgmlDeviceBackend::HeadAndSample(absl::Span<const step::SampleRow> rows, Buffer& residual,
                                           const Buffer* ffn_out,
                                           std::vector<step::SampledToken>& tokens) {
  return std::make_unique<DoneTicket>(RunHead(rows, residual, ffn_out, tokens));
}

absl::Status GgmlDeviceBackend::RunHead(absl::Span<const step::SampleRow> rows, Buffer& residual,
                                        const Buffer* ffn_out,
                                        std::vector<step::SampledToken>& tokens) {
  tokens.clear();
  logits_ = nullptr;
  RETURN_IF_ERROR(loaded_.CheckHead(rows.size()));
  if (rows.empty()) return absl::OkStatus();
  const auto n = static_cast<uint32_t>(rows.size());
  const DeviceRows& to = RowsOf(residual, loaded_.RowFloats(n));
  const DeviceRows* add = RowsOf(ffn_out, loaded_.RowFloats(n));
  const uint32_t top = std::min(kTopCandidates, loaded_.info.dimensions.vocabulary);
  ASSIGN_OR_RETURN(GraphSet * set, graphs_.Get({GraphKind::kHead, n, {to.id(), IdOf(add)}}, [&] {
    return BuildDeviceHead(parts(), to, add, n, top);
  }));
  RETURN_IF_ERROR(device_->Launch(set->graphs[0]));
  logits_ = set->outputs[0];
  std::vector<int32_t> ids(size_t{n} * top);
  std::vector<float> values(ids.size());
  device_->Download(set->outputs[1], ids.data(), 0, ids.size() * sizeof(int32_t));
  device_->Download(set->outputs[2], values.data(), 0, values.size() * sizeof(float));
  std::vector<TopLogit> likeliest(top);
  for (uint32_t i = 0; i < n; ++i) {
    for (uint32_t k = 0; k < top; ++k)
      likeliest[k] = {static_cast<TokenId>(ids[i * top + k]), values[i * top + k]};
    std::optional<step::SampledToken> token =
        SampleTop(likeliest, loaded_.info.dimensions.vocabulary, rows[i]);
    if (!token.has_value()) {
      device_->transfers().full_logit_rows++;
      token = SampleToken(LogitsRow(i), rows[i]);
    }
    tokens.push_back(*std::move(token));
  }
  return absl::OkStatus();
}

std::vector<float> GgmlDeviceBackend::LogitsRow(uint32_t row) {
  std::vector<float> logits(loaded_.info.dimensions.vocabulary);
  const size_t bytes = logits.size() * sizeof(float);
  device_->Download(logits_, logits.data(), row * bytes, bytes);
  return logits;
}

std::vector<float> GgmlDeviceBackend::CopyLogits() {
  TANDEM_CHECK(logits_ != nullptr);
  std::vector<float> logits(static_cast<size_t>(ggml_nelements(logits_)));
  device_->Download(logits_, logits.data(), 0, logits.size() * sizeof(float));
  return logits;
}

absl::Status GgmlDeviceBackend::ReadKv(uint32_t layer, const step::BlockTable& blocks,
                                       uint32_t first, uint32_t count, absl::Span<uint8_t> out) {
  RETURN_IF_ERROR(loaded_.CheckKv());
  return loaded_.kv->Read(layer, blocks, first, count, out);
}

absl::Status GgmlDeviceBackend::WriteKv(uint32_t layer, const step::BlockTable& blocks,
                                        uint32_t first, uint32_t count,
                                        absl::Span<const uint8_t> in) {
  RETURN_IF_ERROR(loaded_.CheckKv());
  return loaded_.kv->Write(layer, blocks, first, count, in);
}

absl::Status GgmlDeviceBackend::CopyBlocks(absl::Span<const step::KvBook::BlockCopy> copies) {
  RETURN_IF_ERROR(loaded_.CheckKv());
  return loaded_.kv->Copy(copies);
}

absl::StatusOr<std::unique_ptr<StageBackend>> MakeGgmlBackend(const ShardSpec& spec) {
  if (spec.device.empty() || spec.device == "cpu") {
    ASSIGN_OR_RETURN(std::unique_ptr<StageBackend> cpu, GgmlBackend::Create(spec));
    return cpu;
  }
  ASSIGN_OR_RETURN(std::unique_ptr<StageBackend> backend, GgmlDeviceBackend::Create(spec));
  return backend;
}

}  // namespace tandem
