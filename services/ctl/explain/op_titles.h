#pragma once

#include <absl/strings/string_view.h>

namespace tandem::ctl {

// What an operation of scheduler/cost/ops.h, or of explain's own, does: a sentence for somebody who
// sees a language model's insides for the first time. Empty: it is not known here.
absl::string_view OpTitle(absl::string_view op);

}  // namespace tandem::ctl
