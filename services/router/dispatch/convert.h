#pragma once

// Protos to the controller's values and back: the router's only edge. What comes from a peer is
// checked here; errors name the field, the number and the limit.

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <string>

#include "scheduler/control/events.h"
#include "services/router/links.h"
#include "services/runtime/proto_words.h"
#include "tandem/v1/registry.pb.h"
#include "tandem/v1/router.pb.h"

namespace tandem::router {

inline constexpr uint32_t kProtocolVersion = 1;
inline constexpr size_t kMaxIdBytes = 128;     // request, worker, gateway ids
inline constexpr size_t kMaxNameBytes = 256;   // model and address: what other workers take
inline constexpr size_t kMaxTextBytes = 1024;  // URLs, class parts
inline constexpr int kMaxChoices = 128;        // of a request; each is below it
inline constexpr int kMaxStopTokenIds = 64;
inline constexpr int kMaxLogitBias = 1024;
inline constexpr uint32_t kMaxTopLogprobs = 20;
inline constexpr int kMaxLiveSequences = 65536;  // of one registration

struct GenerateLimits {
  uint32_t max_prompt_tokens = 1 << 20;  // prompt and emitted ids of a request; named so in errors
};

// ---- From peers. kInvalidArgument: malformed, the stream cannot go on or the request cannot be
// taken.
absl::StatusOr<WorkerDescription> ToWorker(const v1::Registration& proto);
WorkerLoad ToLoad(const v1::Heartbeat& proto);
absl::StatusOr<control::Event> ToEvent(const WorkerId& worker, const v1::SequenceEvent& proto);
absl::StatusOr<GatewayId> ToGateway(const v1::GatewayHello& proto);  // its version, too
// The model's name is the caller's to compare.
absl::Status CheckGenerate(const v1::GenerateRequest& proto, const GenerateLimits& limits);
GenerateSpec ToSpec(const v1::GenerateRequest& proto);  // after CheckGenerate
absl::Status CheckAbort(const v1::AbortRequest& proto);

// ---- To workers.
struct RouterIdentity {
  std::string router_id;
  uint64_t epoch = 0;  // start time, ns since 1970
  std::string model;
  Duration heartbeat_interval;
  Duration worker_lease;
  Duration gateway_lease;
};
v1::RouterCommand ToProto(const RouterIdentity& self, const control::AnswerRegistration& answer);
v1::RouterCommand ToProto(const control::SendDecode& command);
v1::RouterCommand ToProto(const control::SendPrefill& command);
v1::RouterCommand ToProto(const control::SendRelease& command);
v1::RouterCommand ToProto(const RouterIdentity& self, const control::SendSetGroup& command);
v1::RouterCommand ToProto(const RouterIdentity& self, const control::SendDrain& command);

// ---- To gateways.
v1::RouterMessage ToWelcome(const RouterIdentity& self);
v1::RouterMessage ToProto(const control::TellPlaced& placed);
v1::RouterMessage ToProto(const control::TellEnd& end);
v1::RouterMessage ToProto(const control::TellClusterState& state);
v1::RouterMessage ToProto(const ClusterLoad& load);

// ---- Words.
void ToProto(const SequenceKey& key, v1::SequenceKey* out);
SequenceKey ToKey(const v1::SequenceKey& proto);

}  // namespace tandem::router
