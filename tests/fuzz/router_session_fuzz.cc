// Workers and a gateway that send the router what they like (router_session.h says what must hold).
//
// Input: frames of a kind, a length (two bytes, the low one first) and that many bytes:
// 'r' Registration, 'w' WorkerMessage, 'g' GatewayMessage; any other kind lets its length pass, in
// tenths of a second.

#include "tests/fuzz/router_session.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tandem;
  fuzz::FuzzInput input(data, size);
  fuzz::RouterSession session;
  while (!input.empty()) {
    const uint8_t kind = input.Byte();
    const size_t low = input.Byte();
    const size_t length = low + 256 * input.Byte();
    v1::Registration registration;
    v1::WorkerMessage worker;
    v1::GatewayMessage gateway;
    if (kind == 'r') {
      if (fuzz::Parse(input.Take(length), registration)) session.OnRegistration(registration);
    } else if (kind == 'w') {
      if (fuzz::Parse(input.Take(length), worker)) session.OnWorker(worker);
    } else if (kind == 'g') {
      if (fuzz::Parse(input.Take(length), gateway)) session.OnGateway(gateway);
    } else {
      session.Pass(static_cast<int64_t>(length));
    }
  }
  return 0;
}
