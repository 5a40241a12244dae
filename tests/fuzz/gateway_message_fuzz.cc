// What a router and an attention worker tell a gateway, and the answer that a client gets for it:
// an end says why, numbers are numbers, and the answer is JSON.
//
// Input: 'r' and a RouterMessage, or any other byte and a TokenStep.

#include <boost/json/parse.hpp>
#include <cmath>

#include "services/gateway/openai/response.h"
#include "services/gateway/relay/grpc/convert.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/fuzz/piece_text_model.h"

namespace tandem::gateway {
namespace {

void CheckEnd(const SequenceEnd& end) {
  TANDEM_CHECK(end.status.ok() == (end.reason != EndReason::kFailed));
}

void CheckSpan(double seconds) { TANDEM_CHECK(seconds >= 0 && std::isfinite(seconds)); }

void CheckRouterMessage(const v1::RouterMessage& message) {
  const ClusterInfo cluster = FromProto(message.state());
  TANDEM_CHECK(cluster.attention_workers.size() ==
               static_cast<size_t>(message.state().attention_workers_size()));
  const ClusterLoad load = FromProto(message.load());
  TANDEM_CHECK(load.kv_blocks_free <= load.kv_blocks);
  FromProto(message.placed());
  const RefusedInfo refused = FromProto(message.end());
  CheckEnd(refused.end);
  CheckSpan(refused.retry_after_seconds);
}

// All sequences of the step as the choices of one answer.
void CheckAnswer(const TokenBatch& batch, bool chat) {
  fuzz::PieceTextModel model;
  model.pieces = {"7", "\"", "\xF0\x9F", "\x98\x80", "\n"};
  AnswerHead head;
  head.chat = chat;
  head.logprobs = head.top_logprobs = head.token_ids = true;
  Timings timings;
  std::vector<AnswerChoice> choices;
  std::string events;
  const EventWriter writer(head, model);
  for (const SequenceTokens& sequence : batch.sequences) {
    AnswerChoice choice;
    choice.index = sequence.sequence.choice;
    ChoiceText text(model, /*stops=*/{"77"}, /*silent_ids=*/{7}, /*keep_logprobs=*/true);
    TextDelta delta;
    for (const NewToken& token : sequence.tokens) {
      text.Push(token.id, token.logprob, delta);
      choice.token_ids.push_back(token.id);
    }
    choice.text = delta.text;
    choice.tokens = delta.tokens;
    choices.push_back(choice);
    writer.Delta(choice.index, delta, choice.token_ids, /*first=*/true, events);
    if (!sequence.result) continue;
    CheckEnd(sequence.result->end);
    CheckSpan(sequence.result->kv_transfer_seconds);
    for (const StageSeconds& stage : sequence.result->times) {
      CheckSpan(stage.seconds);
      timings.stages.push_back({stage.stage, stage.worker, stage.seconds, stage.calls});
    }
  }
  const std::string answer = WholeAnswer(head, choices, Usage(), &timings, model);
  TANDEM_CHECK(boost::json::parse(answer).at("choices").as_array().size() == choices.size());
  absl::string_view rest = events;
  while (!rest.empty()) {  // "data: {...}\n\n"
    const size_t end = rest.find("\n\n");
    TANDEM_CHECK(rest.substr(0, 6) == "data: " && end != absl::string_view::npos);
    boost::json::parse(boost::json::string_view(rest.data() + 6, end - 6));
    rest.remove_prefix(end + 2);
  }
}

}  // namespace
}  // namespace tandem::gateway

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tandem;
  fuzz::FuzzInput input(data, size);
  const uint8_t kind = input.Byte();
  const absl::string_view bytes = input.Rest();
  v1::RouterMessage message;
  v1::TokenStep step;
  if (kind == 'r') {
    if (fuzz::Parse(bytes, message)) gateway::CheckRouterMessage(message);
  } else if (fuzz::Parse(bytes, step)) {
    const gateway::TokenBatch batch = gateway::FromProto(step);
    TANDEM_CHECK(batch.sequences.size() == static_cast<size_t>(step.sequences_size()));
    gateway::CheckAnswer(batch, /*chat=*/kind == 'c');
  }
  return 0;
}
