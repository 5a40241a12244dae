#pragma once

// Time as an argument. Integers of nanoseconds, so that one seed gives one event digest on every
// machine.

#include <absl/functional/any_invocable.h>

#include <compare>
#include <cstdint>

namespace tandem {

// A signed span of time.
class Duration {
 public:
  constexpr Duration() = default;
  static constexpr Duration Nanoseconds(int64_t n) { return Duration(n); }
  static constexpr Duration Microseconds(int64_t n) { return Duration(n * 1'000); }
  static constexpr Duration Milliseconds(int64_t n) { return Duration(n * 1'000'000); }
  static constexpr Duration Seconds(int64_t n) { return Duration(n * 1'000'000'000); }
  // Rounds towards zero to a nanosecond.
  static constexpr Duration FromSeconds(double s) {
    return Duration(static_cast<int64_t>(s * 1e9));
  }
  static constexpr Duration Infinite() { return Duration(INT64_MAX); }

  constexpr int64_t nanoseconds() const { return ns_; }
  constexpr double seconds() const { return static_cast<double>(ns_) * 1e-9; }

  constexpr auto operator<=>(const Duration&) const = default;
  constexpr Duration operator+(Duration o) const { return Duration(ns_ + o.ns_); }
  constexpr Duration operator-(Duration o) const { return Duration(ns_ - o.ns_); }
  constexpr Duration operator-() const { return Duration(-ns_); }
  constexpr Duration operator*(int64_t n) const { return Duration(ns_ * n); }
  constexpr Duration operator/(int64_t n) const { return Duration(ns_ / n); }
  constexpr Duration& operator+=(Duration o) { return *this = *this + o; }
  constexpr Duration& operator-=(Duration o) { return *this = *this - o; }

 private:
  constexpr explicit Duration(int64_t ns) : ns_(ns) {}
  int64_t ns_ = 0;
};

// A point on a TimeSource's own clock; only differences mean something.
class Instant {
 public:
  constexpr Instant() = default;
  static constexpr Instant FromNanoseconds(int64_t ns) { return Instant(ns); }
  static constexpr Instant Never() { return Instant(INT64_MAX); }  // later than every other

  constexpr int64_t nanoseconds() const { return ns_; }

  constexpr auto operator<=>(const Instant&) const = default;
  // Saturates at Never().
  constexpr Instant operator+(Duration d) const {
    if (ns_ == INT64_MAX || d == Duration::Infinite()) return Never();
    return Instant(ns_ + d.nanoseconds());
  }
  constexpr Instant operator-(Duration d) const { return Instant(ns_ - d.nanoseconds()); }
  constexpr Duration operator-(Instant o) const { return Duration::Nanoseconds(ns_ - o.ns_); }

 private:
  constexpr explicit Instant(int64_t ns) : ns_(ns) {}
  int64_t ns_ = 0;
};

enum class AlarmId : uint64_t {};

// Where time comes from. Real ones are made in services/runtime and workers/daemon only, virtual
// ones in sim.
class TimeSource {
 public:
  virtual ~TimeSource() = default;
  virtual Instant Now() const = 0;  // never goes back
  virtual AlarmId CallAt(Instant when,
                         absl::AnyInvocable<void()> fn) = 0;  // equal times fire in call order
  virtual bool Cancel(AlarmId alarm) = 0;                     // false: already fired
};

}  // namespace tandem
