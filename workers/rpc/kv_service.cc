#include "workers/rpc/kv_service.h"

#include <utility>

#include "services/runtime/log.h"
#include "services/runtime/server_stream.h"
#include "workers/rpc/convert.h"

namespace tandem {

class KvService::Stream final : public ServerStream<v1::KvFrame, v1::KvAck> {
 public:
  Stream(ServerStreamOptions options, KvService& service)
      : ServerStream(std::move(options)), service_(service) {}

 private:
  bool OnMessage(v1::KvFrame& frame) override {
    absl::StatusOr<KvRows> rows = ToKvRows(frame);
    if (!rows.ok()) {
      service_.malformed_.fetch_add(1);
      LogWarn("kv_frame_malformed", {{"reservation", frame.reservation().substr(0, 64)},
                                     {"reason", std::string(rows.status().message())}});
      KvAckInfo refusal;
      refusal.reservation = ReservationId(frame.reservation());
      refusal.attempt = frame.attempt();
      refusal.layer = frame.layer();
      refusal.status = rows.status();
      Acknowledge(refusal);
      return true;
    }
    auto self = std::static_pointer_cast<Stream>(shared_from_this());
    service_.door_.OnKvFrame(*std::move(rows), [self](const KvAckInfo& ack) {
      if (absl::IsNotFound(ack.status)) self->service_.dropped_.fetch_add(1);
      self->Acknowledge(ack);
    });
    return true;
  }

  void Acknowledge(const KvAckInfo& ack) {
    v1::KvAck message;
    ToProto(ack, &message);
    Write(std::move(message));
  }

  KvService& service_;
};

grpc::ServerBidiReactor<v1::KvFrame, v1::KvAck>* KvService::Push(grpc::CallbackServerContext*) {
  return StartStream<Stream, v1::KvFrame, v1::KvAck>(streams_, *this);
}

}  // namespace tandem
