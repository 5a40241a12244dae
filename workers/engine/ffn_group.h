#pragma once

// The streams of one attention worker to the FFN holders of its group: opened as SetGroup names
// them, opened again some time after a loss, kept until their calls in flight are answered when a
// holder leaves the group.

#include <absl/status/status.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "workers/connector/ports.h"
#include "workers/engine/context.h"

namespace tandem {

// Lives on the device's thread; so do its callbacks.
class FfnGroup {
 public:
  struct Callbacks {
    std::function<void(const std::string& holder, const HandoffGrantInfo&)> on_up;
    std::function<void(const std::string& holder, F2a& reply)> on_reply;  // may take its data
    // Its calls in flight are lost.
    std::function<void(const std::string& holder, const absl::Status&)> on_down;
  };
  // `max_rows`: of this worker's largest call.
  FfnGroup(EngineContext& context, ActivationConnector& connector, uint32_t max_rows,
           Callbacks callbacks);

  // `switched` is called once no call is in flight at a holder that left.
  void SetGroup(std::vector<FfnEndpoint> holders, Answer switched);
  // `call.shard_epoch` is filled here. Only to holders that are up.
  void Send(const std::string& holder, A2f call);
  // Whether a sequence lives on this worker: every holder that is up, or comes up, is told.
  void SetLive(bool live);
  // The holder answered that it is not what the group says, or broke a promise: as if its stream
  // had broken.
  void GiveUp(const std::string& holder, const absl::Status& status);

  bool AnyUp() const;
  Instant NextDeadline() const;  // of a try to open a lost holder's stream again
  void OnTime(Instant now);
  void CloseAll(const absl::Status& status);

 private:
  struct Holder {
    FfnEndpoint endpoint;
    uint64_t id = 0;  // of the link: tells late words of an older one
    std::unique_ptr<FfnLink> link;
    bool in_group = true;
    bool up = false;
    bool loss_reported = false;  // since it was last up
    uint32_t in_flight = 0;
    cost::LinkSpeed link_speed;  // the holder's, when emulated
    Instant reopen_at = Instant::Never();
  };
  class Listener;

  void Open(Holder& holder);
  void TellLive(Holder& holder);
  void OnGrant(const WorkerId& worker, uint64_t id, const HandoffGrantInfo& grant);
  void OnReply(const WorkerId& worker, uint64_t id, F2a& reply);
  void OnBroken(const WorkerId& worker, uint64_t id, const absl::Status& status);
  Holder* Find(const WorkerId& worker, uint64_t id);
  void Lose(Holder& holder, const absl::Status& status);
  void Drop(const WorkerId& worker, const absl::Status& status);
  void DropLeft();  // those that left the group and owe no reply; then answers SetGroup

  EngineContext& context_;
  ActivationConnector& connector_;
  const uint32_t max_rows_;
  Callbacks callbacks_;
  std::map<WorkerId, Holder> holders_;
  std::vector<Answer> switching_;
  uint64_t next_id_ = 1;
  bool live_ = false;
};

}  // namespace tandem
