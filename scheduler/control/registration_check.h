#pragma once

// Whether a worker fits the others of its model.

#include <absl/status/status.h>
#include <absl/strings/string_view.h>
#include <absl/types/span.h>

#include "scheduler/view/worker.h"

namespace tandem::control {

// kNotFound: another model; kInvalidArgument: the description is incomplete, or its shard is none
// of the model's; kFailedPrecondition: dimensions, time_scale or a numerics class part (of ffn: all
// but the reduction geometry) differ from those of `members`, the other workers of the model
// (context_tokens may differ). The message names both values, and the member.
absl::Status CheckRegistration(const WorkerDescription& worker, absl::string_view model,
                               absl::Span<const WorkerDescription* const> members);

}  // namespace tandem::control
