// KV frames, their acknowledgements, and the hello of a token stream, as a worker reads them:
// refused with a reason, or values inside the bounds of workers/rpc/limits.h.
//
// Input: 'f' and a KvFrame, 'k' and a KvAck, any other byte and a TokenHello.

#include <cmath>

#include "tests/fuzz/worker_values.h"

namespace tandem {
namespace {

using fuzz::CheckKey;
using fuzz::CheckName;
using fuzz::Taken;

void CheckKvFrame(v1::KvFrame frame) {
  const size_t row_bytes = frame.rows().size();
  const auto rows = ToKvRows(frame);
  if (!Taken(rows)) return;
  CheckName(rows->reservation.value());
  TANDEM_CHECK(rows->layer < kMaxLayers && rows->count <= kMaxKvCount);
  TANDEM_CHECK(rows->count > 0 || rows->cancel);
  TANDEM_CHECK(rows->rows.size() == row_bytes && rows->rows.empty() == (rows->count == 0));
  TANDEM_CHECK(uint64_t{rows->first_position} + rows->count <= kMaxIds);
  TANDEM_CHECK(rows->prefill_seconds >= 0 && std::isfinite(rows->prefill_seconds));
  v1::KvFrame first, second;
  ToProto(*rows, &first);
  v1::KvFrame sent = first;
  const auto again = ToKvRows(sent);
  TANDEM_CHECK(again.ok());
  ToProto(*again, &second);
  TANDEM_CHECK(first.SerializeAsString() == second.SerializeAsString());
}

void CheckKvAck(const v1::KvAck& ack) {
  const auto told = ToKvAck(ack);
  if (!Taken(told)) return;
  CheckName(told->reservation.value());
  TANDEM_CHECK(told->status.ok() == !ack.has_error());
}

void CheckHello(const v1::TokenHello& hello) {
  const auto gateway = ToGatewayHello(hello);
  if (!Taken(gateway)) return;
  CheckName(gateway->gateway.value());
  TANDEM_CHECK(gateway->resume.size() == static_cast<size_t>(hello.resume_size()));
  for (const step::ResumePoint& point : gateway->resume) CheckKey(point.sequence);
}

}  // namespace
}  // namespace tandem

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tandem;
  fuzz::FuzzInput input(data, size);
  const uint8_t kind = input.Byte();
  v1::KvFrame frame;
  v1::KvAck ack;
  v1::TokenHello hello;
  if (kind == 'f') {
    if (fuzz::Parse(input.Rest(), frame)) CheckKvFrame(std::move(frame));
  } else if (kind == 'k') {
    if (fuzz::Parse(input.Rest(), ack)) CheckKvAck(ack);
  } else if (fuzz::Parse(input.Rest(), hello)) {
    CheckHello(hello);
  }
  return 0;
}
