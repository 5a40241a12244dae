#pragma once

// A long-lived stream between two simulated processes: ordered both ways, delayed, and lost as a
// whole when it breaks, as a gRPC stream is.

#include <functional>
#include <memory>

#include "scheduler/base/random.h"
#include "scheduler/sim/virtual_time.h"

namespace tandem::sim {

struct LinkSpec {
  Duration latency;  // one way
  Duration jitter;   // uniform in [0, jitter) on top; order is kept
  double bytes_per_s = 1e9;
};

class Stream : public std::enable_shared_from_this<Stream> {
 public:
  // Each end's `broken` is called once, with the stream, one latency after the break, unless that
  // end hung up itself.
  static std::shared_ptr<Stream> Open(VirtualTime& time, const LinkSpec& spec, Random random,
                                      std::function<void(const Stream*)> dialler_broken,
                                      std::function<void(const Stream*)> answerer_broken);

  // What is on its way when the stream breaks never arrives.
  void ToAnswerer(uint64_t bytes, absl::AnyInvocable<void()> deliver) {
    Send(up_, bytes, std::move(deliver));
  }
  void ToDialler(uint64_t bytes, absl::AnyInvocable<void()> deliver) {
    Send(down_, bytes, std::move(deliver));
  }
  void Break();
  // The ends after which nobody calls them back: their process is gone.
  void DiallerGone();
  void AnswererGone();
  bool open() const { return open_; }

 private:
  struct Direction {
    Instant line_free, last_arrival;
  };
  Stream(VirtualTime& time, const LinkSpec& spec, Random random,
         std::function<void(const Stream*)> dialler_broken,
         std::function<void(const Stream*)> answerer_broken);
  void Send(Direction& direction, uint64_t bytes, absl::AnyInvocable<void()> deliver);

  VirtualTime& time_;
  const LinkSpec spec_;
  Random random_;
  std::function<void(const Stream*)> dialler_broken_, answerer_broken_;
  Direction up_, down_;
  bool open_ = true;
};

}  // namespace tandem::sim
