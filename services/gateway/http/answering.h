#pragma once

// One request being answered: its choices' text, its usage, and what goes to the client.

#include <memory>
#include <string>
#include <vector>

#include "services/gateway/http/api.h"
#include "services/gateway/http/inbox.h"
#include "services/gateway/openai/error.h"
#include "services/gateway/text/choice_text.h"

namespace tandem::gateway {

struct Api::Prepared {
  ApiRequest request;
  tandem::GenerateSpec spec;
  std::string prompt_text;  // with echo
};

// Lives on the connection's strand.
class Api::Answering {
 public:
  Answering(Api& api, Prepared prepared, const HttpQuery& query, HttpAnswer& answer,
            RequestRecord& record);

  // Answers the client; the record says how it went.
  boost::asio::awaitable<void> Run();

 private:
  struct Choice {
    ChoiceText text;
    AnswerChoice answer;               // whole answers gather here
    std::vector<uint32_t> unsaid_ids;  // with return_token_ids: not yet in an event
    bool begun = false;                // a delta went out
    bool finished = false;
    uint32_t received = 0;  // tokens, also those after a stop string
    Instant first_token{}, last_token{};
  };

  void TakeAll(std::string& events);
  void Take(ChoiceEvent event, std::string& events);
  void TakeResult(uint32_t index, const ChoiceResult& result, std::string& events);
  void Show(uint32_t index, const TextDelta& delta, std::string& events);
  void FinishChoice(uint32_t index, absl::string_view reason, std::string& events);
  void NoteToken(Choice& choice);
  void NoteTpot();  // for the record
  bool AllFinished() const;
  const Timings* TimingsOrNull() const { return prepared_.request.timings ? &timings_ : nullptr; }
  Usage UsageNow() const;
  boost::asio::awaitable<void> Stream();
  boost::asio::awaitable<void> Whole();
  boost::asio::awaitable<void> Fail(const absl::Status& status, std::string events);

  Api& api_;
  Prepared prepared_;
  HttpAnswer& answer_;
  RequestRecord& record_;
  AnswerHead head_;
  EventWriter writer_;
  std::vector<Choice> choices_;
  std::shared_ptr<Inbox> inbox_;
  Timings timings_;
  absl::Status failure_;
  std::shared_ptr<bool> client_left_ = std::make_shared<bool>(false);
  Instant start_;
};

}  // namespace tandem::gateway
