#pragma once

// Reads fields of a JSON object with errors that name the field and the value. Internal to this
// folder: it brings in Boost.JSON.

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <cstdint>
#include <optional>
#include <string>

namespace tandem::gateway {

// Parses a whole body: an object, UTF-8, nested at most `max_depth` deep. kInvalidArgument says
// where it broke.
absl::StatusOr<boost::json::object> ParseJsonObject(absl::string_view body, uint32_t max_depth);

// "a string", "an array", ...: for "temperature is a string, expected a number".
std::string Describe(const boost::json::value& value);

// Fields that are absent or null leave their target alone.
class FieldReader {
 public:
  // `path` is what stands before a field's name in errors: "" or "stream_options.". Both outlive
  // the reader.
  FieldReader(const boost::json::object& object, std::string path)
      : object_(object), path_(std::move(path)) {}

  const boost::json::value* Find(absl::string_view key) const;  // nullptr: absent or null
  std::string Param(absl::string_view key) const;

  absl::Status Bool(absl::string_view key, bool& value) const;
  absl::Status String(absl::string_view key, std::string& value) const;
  // Ends inclusive; `above_min` leaves out the lower one.
  absl::Status Number(absl::string_view key, double min, double max, float& value,
                      bool above_min = false) const;
  absl::Status Integer(absl::string_view key, int64_t min, int64_t max,
                       std::optional<uint32_t>& value) const;
  // Any 64-bit integer; a negative one keeps its bits.
  absl::Status Seed(absl::string_view key, std::optional<uint64_t>& value) const;

 private:
  const boost::json::object& object_;
  std::string path_;
};

// An integer of [min, max], or an error about `param`.
absl::StatusOr<int64_t> ReadInteger(const boost::json::value& value, const std::string& param,
                                    int64_t min, int64_t max);

}  // namespace tandem::gateway
