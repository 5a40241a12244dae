#include "tests/fakes/planted_holder.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <deque>
#include <limits>
#include <optional>
#include <thread>
#include <utility>

namespace tandem::test {
namespace {

void SetError(const absl::Status& status, v1::ErrorStatus* error) {
  error->set_code(static_cast<int>(status.code()));
  error->set_message(std::string(status.message()));
}

// Five seconds, or until the peer has gone.
void WaitLong(const grpc::ServerContext& context) {
  Mutex mu;
  CondVar never;
  MutexLock lock(mu);
  for (int i = 0; i < 100 && !context.IsCancelled(); ++i)
    never.WaitFor(lock, std::chrono::milliseconds(50));
}

absl::Status Stale(uint64_t asked) {
  return absl::FailedPreconditionError(
      absl::StrCat("STALE_SHARD: at epoch ", PlantedHolder::kEpoch, ", not ", asked));
}

}  // namespace

// One stream's outgoing side: a thread that writes, so that reading never waits for a peer.
class PlantedHolder::Peer {
 public:
  explicit Peer(grpc::ServerReaderWriter<v1::F2aMessage, v1::A2fMessage>* stream)
      : stream_(stream), writer_([this] { WriteAll(); }) {}
  ~Peer() { Finish(); }

  void Send(v1::F2aMessage message) {
    MutexLock lock(mu_);
    queue_.push_back(std::move(message));
    changed_.NotifyAll();
  }
  void WaitUntilWritten() {
    MutexLock lock(mu_);
    while (!queue_.empty() && !broken_) changed_.Wait(lock);
  }
  void Finish() {
    {
      MutexLock lock(mu_);
      ended_ = true;
      changed_.NotifyAll();
    }
    if (writer_.joinable()) writer_.join();
  }

 private:
  void WriteAll() {
    MutexLock lock(mu_);
    for (;;) {
      while (queue_.empty() && !ended_) changed_.Wait(lock);
      if (queue_.empty()) return;
      const v1::F2aMessage message = queue_.front();
      lock.Unlock();
      const bool written = stream_->Write(message);
      lock.Lock();
      queue_.pop_front();
      if (!written) {
        broken_ = true;
        queue_.clear();
      }
      changed_.NotifyAll();
    }
  }

  grpc::ServerReaderWriter<v1::F2aMessage, v1::A2fMessage>* const stream_;
  Mutex mu_;
  CondVar changed_;
  std::deque<v1::F2aMessage> queue_ TANDEM_GUARDED_BY(mu_);
  bool ended_ TANDEM_GUARDED_BY(mu_) = false;
  bool broken_ TANDEM_GUARDED_BY(mu_) = false;
  std::thread writer_;
};

uint64_t PlantedHolder::calls() {
  MutexLock lock(mu_);
  return calls_;
}

absl::Status PlantedHolder::CheckOpen(const v1::HandoffOpen& open) const {
  const ModelDimensions& model = backend_.info().dimensions;
  if (open.protocol_version() != 1 && !Is(Fault::kIgnoresVersion))
    return absl::InvalidArgumentError("protocol version, not 1");
  if (open.max_rows() < 1) return absl::InvalidArgumentError("max_rows is 0");
  if (open.model() != model_ && !Is(Fault::kIgnoresModel))
    return absl::FailedPreconditionError("another model");
  if ((open.hidden() != model.hidden || open.layers() != model.layers) && !Is(Fault::kIgnoresShape))
    return absl::FailedPreconditionError("another shape");
  if (!open.ffn_class().empty() && open.ffn_class() != backend_.info().numerics.ffn &&
      !Is(Fault::kIgnoresClass))
    return absl::FailedPreconditionError("another class");
  if (open.shard_epoch() != kEpoch && !Is(Fault::kIgnoresEpoch)) return Stale(open.shard_epoch());
  return absl::OkStatus();
}

v1::F2aMessage PlantedHolder::Grant(const v1::HandoffOpen& open) {
  v1::F2aMessage message;
  v1::HandoffGrant& grant = *message.mutable_grant();
  grant.set_protocol_version(1);
  if (!Is(Fault::kStaleWithoutEpoch)) grant.set_shard_epoch(kEpoch);
  absl::Status status = CheckOpen(open);
  if (status.ok()) {
    MutexLock lock(mu_);
    if (granted_streams_ >= kMaxCreditStreams) {
      status = absl::ResourceExhaustedError("no room for another stream's credit");
    } else {
      granted_streams_++;
    }
  }
  if (!status.ok()) {
    SetError(status, grant.mutable_error());
    return message;
  }
  grant.set_shard_epoch(kEpoch);
  grant.set_max_rows(std::min(open.max_rows(), kMaxRows));
  const uint64_t largest = uint64_t{grant.max_rows()} * open.hidden() * sizeof(float);
  grant.set_credit_bytes(Is(Fault::kSmallCredit) ? largest : 2 * largest);
  return message;
}

absl::Status PlantedHolder::CheckCall(const v1::A2fCall& call, uint32_t max_rows) const {
  const ModelDimensions& model = backend_.info().dimensions;
  const auto bad = [](const char* what) { return absl::InvalidArgumentError(what); };
  if (Is(Fault::kTakesAnything)) return absl::OkStatus();
  if (call.has_routing() && !Is(Fault::kIgnoresRouting))
    return absl::UnimplementedError("routing to dense layers");
  if (call.layer() >= model.layers && !Is(Fault::kIgnoresLayer)) return bad("no such layer");
  if (call.dtype() != v1::DATA_TYPE_F32 && !Is(Fault::kIgnoresDataType)) return bad("data type");
  if (call.rows() > max_rows) return bad("more rows than granted");
  if (call.data().size() != size_t{call.rows()} * model.hidden * sizeof(float)) return bad("bytes");
  if (!call.scales().empty()) return bad("scales with F32");
  uint64_t segments = 0;
  for (const uint32_t rows : call.segments()) segments += rows;
  if (!call.segments().empty() && segments != call.rows() && !Is(Fault::kIgnoresSegments))
    return bad("segments");
  if (call.shard_epoch() != kEpoch && !Is(Fault::kIgnoresEpochOfCalls))
    return Stale(call.shard_epoch());
  return absl::OkStatus();
}

std::string PlantedHolder::Compute(const v1::A2fCall& call) {
  const ModelDimensions& model = backend_.info().dimensions;
  const size_t hidden = model.hidden;
  // kTakesAnything: of whatever came, the whole rows.
  const auto rows = static_cast<uint32_t>(call.data().size() / (hidden * sizeof(float)));
  if (rows == 0) return "";
  const BufferRef in = *backend_.AllocateRows(rows), out = *backend_.AllocateRows(rows);
  std::memcpy(in->host(), call.data().data(), rows * hidden * sizeof(float));
  const uint32_t layer = (call.layer() + (Is(Fault::kNextLayer) ? 1 : 0)) % model.layers;
  if (!backend_.FfnLayer(layer, rows, *in, *out)->Wait().ok()) return "";
  float* const data = out->host();
  const size_t last = (rows - 1) * hidden;
  if (Is(Fault::kSwappedRows)) std::swap_ranges(data, data + hidden, data + last);
  if (Is(Fault::kResidualAdded))
    for (size_t i = 0; i < rows * hidden; ++i) data[i] += in->host()[i];
  if (Is(Fault::kBatchDependent)) data[0] += static_cast<float>(rows);
  if (Is(Fault::kPositionDependent))
    for (size_t row = 0; row < rows; ++row) data[row * hidden] += static_cast<float>(row);
  if (Is(Fault::kNotIdempotent)) data[last] += static_cast<float>(calls_ % 64);
  if (Is(Fault::kImprecise))
    for (size_t i = 0; i < rows * hidden; ++i) data[i] *= 1.1f;
  if (Is(Fault::kNan)) data[last + 1] = std::numeric_limits<float>::quiet_NaN();
  std::string bytes(reinterpret_cast<const char*>(data), rows * hidden * sizeof(float));
  if (Is(Fault::kShort)) bytes.resize(last * sizeof(float));
  if (Is(Fault::kLong)) bytes.append(4, '\0');
  return bytes;
}

std::vector<v1::F2aMessage> PlantedHolder::Answer(const v1::A2fCall& call,
                                                  const absl::Status& checked) {
  MutexLock lock(mu_);
  calls_++;
  if (Is(Fault::kSilent) || (Is(Fault::kNever) && calls_ % 3 == 0)) return {};
  if (Is(Fault::kSilentZeroRows) && call.rows() == 0) return {};
  v1::F2aMessage message;
  v1::F2aReply& reply = *message.mutable_reply();
  if (checked.ok() || !Is(Fault::kErrorWithoutName)) {
    reply.set_step(call.step() + (Is(Fault::kWrongName) ? 1 : 0));
    reply.set_layer(call.layer());
    reply.set_micro_batch(call.micro_batch());
    reply.set_attempt(Is(Fault::kForgetsAttempt) ? 0 : call.attempt());
  }
  if (checked.ok()) {
    reply.set_data(Compute(call));
    reply.set_merged_rows(call.rows());
  } else {
    SetError(checked, reply.mutable_error());
    reply.set_shard_epoch(kEpoch);
  }
  return std::vector<v1::F2aMessage>(Is(Fault::kTwice) ? 2 : 1, message);
}

grpc::Status PlantedHolder::Exchange(
    grpc::ServerContext* context,
    grpc::ServerReaderWriter<v1::F2aMessage, v1::A2fMessage>* stream) {
  const auto invalid = [](const char* why) {
    return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, why);
  };
  v1::A2fMessage message;
  if (!stream->Read(&message)) return grpc::Status::OK;
  if (!message.has_open() && !Is(Fault::kTakesAnything)) return invalid("the first is no open");
  const v1::F2aMessage grant = Grant(message.open());
  Peer peer(stream);
  peer.Send(grant);
  if (grant.grant().has_error()) return grpc::Status::OK;
  uint32_t newest_attempt = 0;
  grpc::Status end;
  while (end.ok() && stream->Read(&message)) {
    if (message.has_live()) continue;
    if (!message.has_call()) {
      if (!Is(Fault::kTakesAnything)) end = invalid("neither call nor live");
      continue;
    }
    const v1::A2fCall& call = message.call();
    absl::Status checked = CheckCall(call, grant.grant().max_rows());
    if (Is(Fault::kRefusesOlderAttempts) && call.attempt() < newest_attempt)
      checked = absl::InvalidArgumentError("an older attempt");
    newest_attempt = std::max(newest_attempt, call.attempt());
    const auto unknown = call.GetReflection()->GetUnknownFields(call).field_count();
    if (Is(Fault::kStopsAtUnknownFields) && unknown > 0) end = invalid("an unknown field");
    if (Is(Fault::kErrorEndsStream) && !checked.ok()) end = invalid("a bad call");
    if (!end.ok()) break;
    if (Is(Fault::kLate)) WaitLong(*context);
    std::optional<MutexLock> alone;
    if (Is(Fault::kOneAtATime)) alone.emplace(serving_);
    for (v1::F2aMessage& answer : Answer(call, checked)) peer.Send(std::move(answer));
    if (alone.has_value()) peer.WaitUntilWritten();
  }
  peer.Finish();
  MutexLock lock(mu_);
  if (!Is(Fault::kLeaksCredit) || !context->IsCancelled()) granted_streams_--;
  return end;
}

}  // namespace tandem::test
