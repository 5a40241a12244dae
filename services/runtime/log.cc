#include "services/runtime/log.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <spdlog/logger.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <ctime>
#include <memory>
#include <vector>

#include "services/runtime/mutex.h"
#include "services/runtime/utf8.h"

namespace tandem {
namespace {

struct Logger {
  LogConfig config;
  std::shared_ptr<spdlog::logger> out;
};

std::unique_ptr<Logger> MakeLogger(const LogConfig& config) {
  auto out = std::make_shared<spdlog::logger>(config.daemon,
                                              std::make_shared<spdlog::sinks::stderr_sink_mt>());
  out->set_pattern("%v");
  out->set_level(config.level);
  out->flush_on(spdlog::level::trace);
  return std::make_unique<Logger>(Logger{config, std::move(out)});
}

// Loggers live as long as the process: another thread may be writing with an older one.
std::atomic<const Logger*> current{nullptr};

const Logger* Install(const LogConfig& config) {
  static Mutex* mu = new Mutex;
  static auto* all = new std::vector<std::unique_ptr<Logger>>;
  MutexLock lock(*mu);
  all->push_back(MakeLogger(config));
  current.store(all->back().get(), std::memory_order_release);
  return all->back().get();
}

const Logger& Current() {
  const Logger* logger = current.load(std::memory_order_acquire);
  return logger != nullptr ? *logger : *Install(LogConfig{.daemon = "tandem"});
}

std::string Rfc3339(int64_t unix_ms) {
  const std::time_t seconds = unix_ms / 1000;
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  return absl::StrFormat("%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", utc.tm_year + 1900, utc.tm_mon + 1,
                         utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec, unix_ms % 1000);
}

absl::string_view LevelName(spdlog::level::level_enum level) {
  switch (level) {
    case spdlog::level::trace:
      return "trace";
    case spdlog::level::debug:
      return "debug";
    case spdlog::level::info:
      return "info";
    case spdlog::level::warn:
      return "warning";
    case spdlog::level::err:
      return "error";
    default:
      return "critical";
  }
}

// Text values that could be taken for two fields, or for two lines, are quoted.
bool NeedsQuotes(absl::string_view value) {
  return value.empty() || std::any_of(value.begin(), value.end(), [](char c) {
           return c <= ' ' || c == '"' || c == '\\' || c == '=' || c == 0x7F || (c & 0x80) != 0;
         });
}

}  // namespace

LogField::LogField(absl::string_view key, int64_t value)
    : key(key), value(absl::StrCat(value)), quoted(false) {}
LogField::LogField(absl::string_view key, uint64_t value)
    : key(key), value(absl::StrCat(value)), quoted(false) {}
LogField::LogField(absl::string_view key, double value)
    : key(key),
      value(std::isfinite(value) ? absl::StrFormat("%.9g", value) : "null"),
      quoted(false) {}
LogField::LogField(absl::string_view key, bool value)
    : key(key), value(value ? "true" : "false"), quoted(false) {}

void InitLog(const LogConfig& config) { Install(config); }

absl::StatusOr<LogFormat> ParseLogFormat(absl::string_view name) {
  if (name == "text") return LogFormat::kText;
  if (name == "json") return LogFormat::kJson;
  return absl::InvalidArgumentError(
      absl::StrCat("log_format: '", name, "' is neither text nor json"));
}

std::string FormatLogLine(const LogConfig& config, int64_t unix_ms, spdlog::level::level_enum level,
                          absl::string_view event, std::initializer_list<LogField> fields) {
  std::string line;
  if (config.format == LogFormat::kJson) {
    absl::StrAppend(&line, "{\"time\":\"", Rfc3339(unix_ms), "\",\"level\":\"", LevelName(level),
                    "\",\"daemon\":", JsonQuoted(config.daemon), ",\"event\":", JsonQuoted(event));
    for (const LogField& field : fields) {
      absl::StrAppend(&line, ",", JsonQuoted(field.key), ":",
                      field.quoted ? JsonQuoted(field.value) : field.value);
    }
    line += '}';
    return line;
  }
  absl::StrAppend(&line, Rfc3339(unix_ms), " ", LevelName(level), " ", config.daemon, " ", event);
  for (const LogField& field : fields) {
    absl::StrAppend(
        &line, " ", field.key, "=",
        field.quoted && NeedsQuotes(field.value) ? JsonQuoted(field.value) : field.value);
  }
  return line;
}

void LogEvent(spdlog::level::level_enum level, absl::string_view event,
              std::initializer_list<LogField> fields) {
  const Logger& logger = Current();
  if (!logger.out->should_log(level)) return;
  const auto since_epoch = std::chrono::system_clock::now().time_since_epoch();
  const int64_t unix_ms =
      std::chrono::duration_cast<std::chrono::milliseconds>(since_epoch).count();
  const std::string line = FormatLogLine(logger.config, unix_ms, level, event, fields);
  logger.out->log(level, spdlog::string_view_t(line.data(), line.size()));
}

}  // namespace tandem
