#include "services/gateway/http/answering.h"

#include <absl/strings/str_cat.h>

#include <utility>

namespace tandem::gateway {

namespace asio = boost::asio;

namespace {

const char* FinishReason(EndReason reason) {
  return reason == EndReason::kLength ? "length" : "stop";
}

AnswerHead MakeHead(const ApiRequest& request, const HttpQuery& query, int64_t created,
                    const std::string& model) {
  AnswerHead head;
  head.chat = request.chat;
  head.id = absl::StrCat(request.chat ? "chatcmpl-" : "cmpl-", query.request_id);
  head.created = created;
  head.model = model;
  head.logprobs = request.sampling.top_logprobs.has_value();
  head.top_logprobs = request.sampling.top_logprobs.value_or(0) > 0;
  head.token_ids = request.return_token_ids;
  head.usage = request.stream && request.include_usage;
  return head;
}

}  // namespace

Api::Answering::Answering(Api& api, Prepared prepared, const HttpQuery& query, HttpAnswer& answer,
                          RequestRecord& record)
    : api_(api),
      prepared_(std::move(prepared)),
      answer_(answer),
      record_(record),
      head_(MakeHead(prepared_.request, query, api.unix_seconds_(), api.config_.model_name)),
      writer_(head_, api.text_),
      inbox_(std::make_shared<Inbox>(answer.executor(), api.config_.max_undelivered_events)),
      start_(api.time_.Now()) {
  const ApiRequest& request = prepared_.request;
  for (uint32_t i = 0; i < request.n; ++i) {
    choices_.push_back(
        {ChoiceText(api.text_, request.stop, request.stop_token_ids, head_.logprobs), {}, {}});
    choices_.back().answer.index = i;
  }
}

asio::awaitable<void> Api::Answering::Run() {
  const RequestId id = prepared_.spec.request;
  const bool nothing_to_generate = prepared_.spec.stop.max_tokens == 0;
  if (!nothing_to_generate) {
    const absl::Status started = api_.relay_.Start(prepared_.spec, inbox_);
    if (!started.ok()) co_return co_await api_.ReplyError(started, answer_, record_);
    answer_.WatchClient([left = client_left_, inbox = inbox_] {
      *left = true;
      inbox->Wake();
    });
  }
  std::string events;
  for (uint32_t i = 0; i < choices_.size(); ++i) {
    if (prepared_.request.echo) Show(i, {.text = prepared_.prompt_text, .tokens = {}}, events);
    if (nothing_to_generate) FinishChoice(i, "length", events);
  }
  if (prepared_.request.stream) {
    if (!events.empty()) {
      const absl::Status written = co_await answer_.WriteEvents(std::move(events));
      if (!written.ok()) *client_left_ = true;
    }
    co_await Stream();
  } else {
    co_await Whole();
  }
  (void)UsageNow();  // for the record
  NoteTpot();
  if (*client_left_) {
    record_.client_left = true;
    record_.status = 499;
  }
  if (!AllFinished() || *client_left_) api_.relay_.Cancel(id);
}

asio::awaitable<void> Api::Answering::Stream() {
  bool quiet = true;  // nothing was written yet
  while (!*client_left_ && !AllFinished() && failure_.ok()) {
    std::string events;
    TakeAll(events);
    if (events.empty() && failure_.ok() && !AllFinished()) {
      const bool woken =
          co_await inbox_->Wait(quiet ? api_.config_.first_comment : api_.config_.next_comment);
      if (woken) continue;
      events = ": waiting\n\n";
    }
    if (!failure_.ok()) co_return co_await Fail(failure_, std::move(events));
    if (AllFinished()) {
      if (head_.usage) writer_.UsageChunk(UsageNow(), TimingsOrNull(), events);
      EventWriter::Done(events);
    }
    quiet = false;
    const absl::Status written = co_await answer_.WriteEvents(std::move(events));
    if (!written.ok()) *client_left_ = true;
  }
  if (*client_left_) co_return;
  const absl::Status finished = co_await answer_.FinishEvents();
  if (!finished.ok()) *client_left_ = true;
}

asio::awaitable<void> Api::Answering::Whole() {
  while (!*client_left_ && !AllFinished() && failure_.ok()) {
    std::string ignored;
    TakeAll(ignored);
    if (!AllFinished() && failure_.ok()) co_await inbox_->Wait(api_.config_.next_comment);
  }
  if (*client_left_) co_return;
  if (!failure_.ok()) co_return co_await Fail(failure_, "");
  std::vector<AnswerChoice> answers;
  for (Choice& choice : choices_) answers.push_back(std::move(choice.answer));
  std::string body = WholeAnswer(head_, answers, UsageNow(), TimingsOrNull(), api_.text_);
  const absl::Status replied = co_await answer_.Reply(200, "application/json", std::move(body), {});
  if (!replied.ok()) *client_left_ = true;
}

// An error before anything was written is a status of its own; after that it is the stream's last
// event.
asio::awaitable<void> Api::Answering::Fail(const absl::Status& status, std::string events) {
  if (!answer_.started()) co_return co_await api_.ReplyError(status, answer_, record_);
  const ApiError error = ToApiError(status);
  record_.status = error.http_status;
  EventWriter::Error(ErrorBody(error), events);
  const absl::Status written = co_await answer_.WriteEvents(std::move(events));
  if (written.ok()) (void)co_await answer_.FinishEvents();
}

void Api::Answering::TakeAll(std::string& events) {
  for (ChoiceEvent& event : inbox_->Take()) Take(std::move(event), events);
  if (!inbox_->overflowed() || AllFinished() || !failure_.ok()) return;
  failure_ = absl::ResourceExhaustedError(absl::StrCat("the client is more than ",
                                                       api_.config_.max_undelivered_events,
                                                       " events behind its answer"));
}

void Api::Answering::Take(ChoiceEvent event, std::string& events) {
  Choice& choice = choices_[event.choice];
  if (event.placement.has_value()) {
    timings_.topology = event.placement->topology;
    timings_.prefill_worker = event.placement->prefill_worker;
    timings_.attention_worker = event.placement->attention_worker;
  }
  if (choice.finished) return;
  TextDelta delta;
  for (NewToken& token : event.tokens) {
    NoteToken(choice);
    if (head_.token_ids) choice.unsaid_ids.push_back(token.id);
    choice.text.Push(token.id, std::move(token.logprob), delta);
    if (choice.text.stopped()) break;
  }
  if (choice.text.stopped()) {
    api_.relay_.Stop(prepared_.spec.request, event.choice, choice.text.tokens(),
                     EndReason::kStopped);
    Show(event.choice, delta, events);
    return FinishChoice(event.choice, "stop", events);
  }
  // A placement alone shows nothing: the client's first event is its first token.
  if (!event.tokens.empty()) Show(event.choice, delta, events);
  if (event.result.has_value()) TakeResult(event.choice, *event.result, events);
}

void Api::Answering::TakeResult(uint32_t index, const ChoiceResult& result, std::string& events) {
  for (const StageSeconds& stage : result.result.times) {
    timings_.stages.push_back({stage.stage, stage.worker, stage.seconds, stage.calls});
  }
  timings_.kv_transfer_seconds += result.result.kv_transfer_seconds;
  const SequenceEnd& end = result.result.end;
  if (end.reason == EndReason::kFailed) {
    failure_ =
        end.status.ok() ? absl::InternalError("the sequence failed without a reason") : end.status;
    if (IsGatewayOverloaded(failure_)) {
      failure_ = WithErrorCode(
          absl::UnavailableError("the gateway fell behind the model's tokens; try again later"),
          "gateway_overloaded");
    }
    if (result.retry_after_seconds > 0)
      failure_ = WithRetryAfter(failure_, result.retry_after_seconds);
    return;
  }
  if (end.reason == EndReason::kCancelled) {
    failure_ = absl::UnavailableError("the sequence was cancelled by the cluster; try again");
    return;
  }
  TextDelta rest;
  choices_[index].text.Finish(rest);
  Show(index, rest, events);
  FinishChoice(index, FinishReason(end.reason), events);
}

void Api::Answering::Show(uint32_t index, const TextDelta& delta, std::string& events) {
  Choice& choice = choices_[index];
  if (prepared_.request.stream) {
    const bool first = !choice.begun;
    const bool says_role = first && head_.chat;
    if (delta.text.empty() && delta.tokens.empty() && choice.unsaid_ids.empty() && !says_role)
      return;
    writer_.Delta(index, delta, choice.unsaid_ids, first, events);
    choice.unsaid_ids.clear();
    choice.begun = true;
    return;
  }
  choice.answer.text += delta.text;
  choice.answer.token_ids.insert(choice.answer.token_ids.end(), choice.unsaid_ids.begin(),
                                 choice.unsaid_ids.end());
  choice.unsaid_ids.clear();
  choice.answer.tokens.insert(choice.answer.tokens.end(), delta.tokens.begin(), delta.tokens.end());
}

void Api::Answering::FinishChoice(uint32_t index, absl::string_view reason, std::string& events) {
  Choice& choice = choices_[index];
  choice.finished = true;
  choice.answer.finish_reason = std::string(reason);
  if (!prepared_.request.stream) return;
  // The last choice's last chunk carries the timings, unless a usage chunk follows.
  writer_.Finish(index, reason, AllFinished() && !head_.usage ? TimingsOrNull() : nullptr, events);
}

void Api::Answering::NoteToken(Choice& choice) {
  const Instant now = api_.time_.Now();
  if (record_.ttft_seconds == 0)
    record_.ttft_seconds = timings_.ttft_seconds = (now - start_).seconds();
  if (choice.received++ == 0) {
    choice.first_token = now;
  } else {
    record_.itl_seconds.push_back((now - choice.last_token).seconds());
  }
  choice.last_token = now;
}

void Api::Answering::NoteTpot() {
  for (const Choice& choice : choices_) {
    if (choice.received < 2) continue;
    record_.tpot_seconds.push_back((choice.last_token - choice.first_token).seconds() /
                                   (choice.received - 1));
  }
}

bool Api::Answering::AllFinished() const {
  for (const Choice& choice : choices_) {
    if (!choice.finished) return false;
  }
  return true;
}

Usage Api::Answering::UsageNow() const {
  Usage usage;
  usage.prompt_tokens = static_cast<uint32_t>(prepared_.spec.prompt_ids.size());
  for (const Choice& choice : choices_) usage.completion_tokens += choice.text.tokens();
  record_.prompt_tokens = usage.prompt_tokens;
  record_.completion_tokens = usage.completion_tokens;
  return usage;
}

}  // namespace tandem::gateway
