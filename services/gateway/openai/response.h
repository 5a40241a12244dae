#pragma once

// Answers of both endpoints as JSON text: the whole object, or the events of a stream.

#include <absl/strings/string_view.h>

#include <cstdint>
#include <string>
#include <vector>

#include "services/gateway/text/choice_text.h"
#include "services/gateway/text/text_model.h"

namespace tandem::gateway {

// What every object of one answer repeats.
struct AnswerHead {
  bool chat = false;
  std::string id;       // "chatcmpl-..." or "cmpl-..."
  int64_t created = 0;  // Unix seconds
  std::string model;
  std::string fingerprint;
  bool logprobs = false;      // the request asked for them
  bool top_logprobs = false;  // with alternatives
  bool token_ids = false;     // return_token_ids
  bool usage = false;         // a stream's last chunk says it: the others have "usage":null
};

struct Usage {
  uint32_t prompt_tokens = 0;
  uint32_t completion_tokens = 0;
};

struct AnswerChoice {
  uint32_t index = 0;
  std::string text;
  std::vector<ReleasedToken> tokens;     // with logprobs
  std::string finish_reason;             // "stop" or "length"
  std::vector<uint32_t> token_ids = {};  // with return_token_ids
};

// Where and for how long a request ran, for {"tandem": {"timings": true}}.
struct Timings {
  struct Stage {
    std::string stage, worker;  // "prefill", "attention", "ffn"
    double seconds = 0;
    uint64_t calls = 0;
  };
  std::string topology, prefill_worker, attention_worker;
  std::vector<Stage> stages;
  double kv_transfer_seconds = 0;
  double ttft_seconds = 0;
  // [choices, tokens] the decode step of the attention worker that drew each token: its trace's
  // number. 0: not known.
  std::vector<std::vector<uint64_t>> decode_steps = {};
};

// `timings` may be null. `model` names the tokens of logprobs.
std::string WholeAnswer(const AnswerHead& head, const std::vector<AnswerChoice>& choices,
                        const Usage& usage, const Timings* timings, const TextModel& model);

// Appends server-sent events ("data: {...}\n\n") of one answer to a string.
class EventWriter {
 public:
  EventWriter(AnswerHead head, const TextModel& model);

  // Text of a choice; the first one of a chat's choice also says the role.
  // `ids` are said with return_token_ids only.
  void Delta(uint32_t choice, const TextDelta& delta, const std::vector<uint32_t>& ids, bool first,
             std::string& out) const;
  // The choice's only finish_reason.
  void Finish(uint32_t choice, absl::string_view reason, const Timings* timings,
              std::string& out) const;
  // The chunk without choices that stream_options.include_usage asks for.
  void UsageChunk(const Usage& usage, const Timings* timings, std::string& out) const;
  static void Error(absl::string_view error_body, std::string& out);
  static void Done(std::string& out);  // "[DONE]"

 private:
  void Open(uint32_t choice, std::string& out) const;
  void Close(const Timings* timings, std::string& out) const;

  AnswerHead head_;
  const TextModel& model_;
  std::string prefix_;  // of every chunk, up to the choices
};

// {"object":"list",...} and one model's object.
std::string ModelObject(absl::string_view id, int64_t created);
std::string ModelList(absl::string_view id, int64_t created);

}  // namespace tandem::gateway
