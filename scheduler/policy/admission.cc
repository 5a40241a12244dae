#include "scheduler/policy/admission.h"

#include <absl/strings/str_cat.h>

#include <algorithm>

namespace tandem::policy {
namespace {

absl::Status CheckForm(const GenerateSpec& spec) {
  if (spec.prompt_ids.empty())
    return absl::InvalidArgumentError("the prompt has 0 tokens; at least 1 is needed");
  if (spec.stop.max_tokens == 0)
    return absl::InvalidArgumentError("max_tokens is 0; at least 1 is needed");
  if (spec.choices.empty() || spec.choices.size() > kMaxChoices) {
    return absl::InvalidArgumentError(absl::StrCat("the request has ", spec.choices.size(),
                                                   " choices; 1 to ", kMaxChoices, " are taken"));
  }
  for (const ChoiceStart& choice : spec.choices) {
    if (!choice.emitted_ids.empty() && spec.choices.size() > 1) {
      return absl::InvalidArgumentError(absl::StrCat(
          "choice ", choice.choice, " has emitted ", choice.emitted_ids.size(),
          " tokens: it must come alone, not with ", spec.choices.size() - 1, " others"));
    }
    if (choice.emitted_ids.size() >= spec.stop.max_tokens) {
      return absl::InvalidArgumentError(
          absl::StrCat("choice ", choice.choice, " has emitted ", choice.emitted_ids.size(),
                       " tokens of max_tokens ", spec.stop.max_tokens, ": none is left"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Admit(const GenerateSpec& spec, const QueueView& queue, const QueueLimits& limits) {
  if (absl::Status form = CheckForm(spec); !form.ok()) return form;
  const uint64_t tokens = uint64_t{spec.prompt_ids.size()} + spec.stop.max_tokens;
  if (queue.longest_sequence > 0 && tokens > queue.longest_sequence) {
    return absl::InvalidArgumentError(
        absl::StrCat(spec.prompt_ids.size(), " prompt tokens + ", spec.stop.max_tokens,
                     " max_tokens exceed the context of ", queue.longest_sequence, " tokens"));
  }
  if (spec.resume ? queue.resumes >= limits.max_queued_resumes
                  : queue.requests >= limits.max_queued_requests) {
    return absl::ResourceExhaustedError(
        spec.resume
            ? absl::StrCat(queue.resumes, " resumed requests are queued; max_queued_resumes is ",
                           limits.max_queued_resumes)
            : absl::StrCat(queue.requests, " requests are queued; max_queued_requests is ",
                           limits.max_queued_requests));
  }
  return absl::OkStatus();
}

Duration RetryAfter(const QueueView& queue) {
  const Duration wait = queue.placement_interval * (int64_t{queue.requests} + queue.resumes);
  return std::clamp(wait, Duration::Seconds(1), Duration::Seconds(60));
}

}  // namespace tandem::policy
