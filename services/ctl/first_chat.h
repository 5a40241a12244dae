#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <string>

#include "services/ctl/state.h"

namespace tandem::ctl {

// Sends one streaming chat completion to the cluster's gateway and prints the answer as it arrives,
// then which worker ran which stage, and for how long.
absl::Status RunFirstChat(const ClusterState& state);

// What a chat stream says, collected from the data lines of its events.
class ChatStream {
 public:
  // Text to print now. The error that the stream carries: kUnknown with its message.
  absl::StatusOr<std::string> Add(absl::string_view data);
  bool done() const { return done_; }
  // The table of stages and times; empty when the server sent none.
  std::string DescribeTimings() const;

 private:
  bool done_ = false;
  std::string tandem_json_;  // the "tandem" object of the final chunk
};

}  // namespace tandem::ctl
