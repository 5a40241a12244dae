#pragma once

// One line an event, text or JSON, with the request id on every line that concerns a request. Never
// prompt text at info.

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>
#include <spdlog/common.h>

#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>

namespace tandem {

enum class LogFormat { kText, kJson };

struct LogConfig {
  std::string daemon;  // "tandem-router"; on every line
  LogFormat format = LogFormat::kText;
  spdlog::level::level_enum level = spdlog::level::info;
};

// A key and its value as text.
struct LogField {
  LogField(absl::string_view key, absl::string_view value) : key(key), value(value), quoted(true) {}
  LogField(absl::string_view key, const char* value) : LogField(key, absl::string_view(value)) {}
  LogField(absl::string_view key, const std::string& value)
      : LogField(key, absl::string_view(value)) {}
  LogField(absl::string_view key, int64_t value);
  LogField(absl::string_view key, uint64_t value);
  LogField(absl::string_view key, int value) : LogField(key, static_cast<int64_t>(value)) {}
  LogField(absl::string_view key, uint32_t value) : LogField(key, static_cast<uint64_t>(value)) {}
  LogField(absl::string_view key, double value);
  LogField(absl::string_view key, bool value);

  std::string key, value;
  bool quoted;  // a JSON string; else a JSON number or boolean
};

// Sets the process's logger (stderr). Call at start, before other threads log.
void InitLog(const LogConfig& config);

// The line of one event, without its newline. Whatever the values hold, it is one line, and valid
// JSON if asked for.
//   unix_ms  milliseconds since 1970, UTC
std::string FormatLogLine(const LogConfig& config, int64_t unix_ms, spdlog::level::level_enum level,
                          absl::string_view event, std::initializer_list<LogField> fields);

// "text" or "json"; anything else is kInvalidArgument.
absl::StatusOr<LogFormat> ParseLogFormat(absl::string_view name);

// LogEvent(spdlog::level::info, "sequence_placed", {{"request_id", id}, {"worker", worker}});
// text:  2026-11-24T08:00:00.123Z info tandem-router sequence_placed request_id=... worker=...
// json:
// {"time":"...","level":"info","daemon":"tandem-router","event":"sequence_placed","request_id":"...",...}
// Safe from any thread.
void LogEvent(spdlog::level::level_enum level, absl::string_view event,
              std::initializer_list<LogField> fields = {});

inline void LogInfo(absl::string_view event, std::initializer_list<LogField> fields = {}) {
  LogEvent(spdlog::level::info, event, fields);
}
inline void LogWarn(absl::string_view event, std::initializer_list<LogField> fields = {}) {
  LogEvent(spdlog::level::warn, event, fields);
}
inline void LogError(absl::string_view event, std::initializer_list<LogField> fields = {}) {
  LogEvent(spdlog::level::err, event, fields);
}

}  // namespace tandem
