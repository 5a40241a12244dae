#pragma once

// What the relay delivers to one request, on its way to the connection's coroutine.

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include "scheduler/base/time.h"
#include "services/gateway/relay/types.h"
#include "services/runtime/mutex.h"

namespace tandem::gateway {

// Deliver comes from any thread; everything else happens on the connection's strand.
class Inbox final : public ChoiceSink, public std::enable_shared_from_this<Inbox> {
 public:
  // `max_events` that the connection has not taken: a slow client is cut there.
  Inbox(const boost::asio::any_io_executor& strand, size_t max_events)
      : strand_(strand), timer_(strand), max_events_(max_events) {}

  bool Deliver(ChoiceEvent event) override TANDEM_EXCLUDES(mu_) {
    bool first = false, room = true;
    {
      MutexLock lock(mu_);
      room = events_.size() < max_events_;
      first = events_.empty();
      if (room) events_.push_back(std::move(event));
      overflowed_ |= !room;
    }
    if (first || !room) Wake();
    return room;
  }

  // An event found no room, and none of its choice follows: the answer cannot be completed.
  bool overflowed() const TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    return overflowed_;
  }

  // Ends a Wait: new events, or the client left.
  void Wake() {
    boost::asio::post(strand_, [self = shared_from_this()] { self->timer_.cancel(); });
  }

  std::vector<ChoiceEvent> Take() TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    std::vector<ChoiceEvent> taken(std::make_move_iterator(events_.begin()),
                                   std::make_move_iterator(events_.end()));
    events_.clear();
    return taken;
  }

  // Until the next Wake, at most `most`. A Wake that was posted before the wait runs only once the
  // strand is free, and so ends it. False: the time is up.
  boost::asio::awaitable<bool> Wait(Duration most) {
    timer_.expires_after(std::chrono::nanoseconds(most.nanoseconds()));
    boost::system::error_code error;
    co_await timer_.async_wait(boost::asio::redirect_error(boost::asio::use_awaitable, error));
    co_return error == boost::asio::error::operation_aborted;
  }

 private:
  boost::asio::any_io_executor strand_;
  boost::asio::steady_timer timer_;
  const size_t max_events_;
  mutable Mutex mu_;
  std::deque<ChoiceEvent> events_ TANDEM_GUARDED_BY(mu_);
  bool overflowed_ TANDEM_GUARDED_BY(mu_) = false;
};

}  // namespace tandem::gateway
