// Words that both kinds of peer use.

#include "services/router/dispatch/convert.h"

namespace tandem::router {

void ToProto(const SequenceKey& key, v1::SequenceKey* out) {
  out->set_request_id(key.request.value());
  out->set_choice(key.choice);
  out->set_attempt(key.attempt);
}

SequenceKey ToKey(const v1::SequenceKey& proto) {
  return {RequestId(proto.request_id()), proto.choice(), proto.attempt()};
}

}  // namespace tandem::router
