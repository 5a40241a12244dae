#include "services/gateway/openai/json_reader.h"

#include <absl/strings/str_cat.h>

#include <boost/json/monotonic_resource.hpp>
#include <boost/json/parser.hpp>
#include <boost/json/serialize.hpp>

#include "services/gateway/openai/error.h"

namespace tandem::gateway {

namespace json = boost::json;

absl::StatusOr<json::object> ParseJsonObject(absl::string_view body, uint32_t max_depth) {
  json::parse_options options;
  options.max_depth = max_depth;
  try {
    json::parser parser({}, options);
    json::error_code error;
    const size_t read = parser.write(json::string_view(body.data(), body.size()), error);
    if (error) {
      return absl::InvalidArgumentError(
          absl::StrCat("the body is not valid JSON: ", error.message(), " near byte ", read));
    }
    json::value value = parser.release();
    if (!value.is_object()) {
      return absl::InvalidArgumentError(
          absl::StrCat("the body is ", Describe(value), ", expected a JSON object"));
    }
    return std::move(value.as_object());
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat("the body is not valid JSON: ", error.what()));
  }
}

std::string Describe(const json::value& value) {
  switch (value.kind()) {
    case json::kind::null:
      return "null";
    case json::kind::bool_:
      return value.get_bool() ? "true" : "false";
    case json::kind::int64:
      return absl::StrCat(value.get_int64());
    case json::kind::uint64:
      return absl::StrCat(value.get_uint64());
    case json::kind::double_:
      return absl::StrCat(value.get_double());
    case json::kind::string:
      return "a string";
    case json::kind::array:
      return "an array";
    case json::kind::object:
      return "an object";
  }
  return "unknown";
}

absl::StatusOr<int64_t> ReadInteger(const json::value& value, const std::string& param, int64_t min,
                                    int64_t max) {
  const bool fits = value.is_int64() && value.get_int64() >= min && value.get_int64() <= max;
  if (!fits) {
    return InvalidParam(param, absl::StrCat(param, " is ", Describe(value),
                                            ", expected an integer from ", min, " to ", max));
  }
  return value.get_int64();
}

const json::value* FieldReader::Find(absl::string_view key) const {
  const json::value* found = object_.if_contains(json::string_view(key.data(), key.size()));
  return found == nullptr || found->is_null() ? nullptr : found;
}

std::string FieldReader::Param(absl::string_view key) const { return absl::StrCat(path_, key); }

absl::Status FieldReader::Bool(absl::string_view key, bool& value) const {
  const json::value* found = Find(key);
  if (found == nullptr) return absl::OkStatus();
  if (!found->is_bool()) {
    return InvalidParam(
        Param(key), absl::StrCat(Param(key), " is ", Describe(*found), ", expected true or false"));
  }
  value = found->get_bool();
  return absl::OkStatus();
}

absl::Status FieldReader::String(absl::string_view key, std::string& value) const {
  const json::value* found = Find(key);
  if (found == nullptr) return absl::OkStatus();
  if (!found->is_string()) {
    return InvalidParam(Param(key),
                        absl::StrCat(Param(key), " is ", Describe(*found), ", expected a string"));
  }
  value.assign(found->get_string().data(), found->get_string().size());
  return absl::OkStatus();
}

absl::Status FieldReader::Number(absl::string_view key, double min, double max, float& value,
                                 bool above_min) const {
  const json::value* found = Find(key);
  if (found == nullptr) return absl::OkStatus();
  double number = 0;
  const bool is_number = found->is_number();
  if (found->is_double()) number = found->get_double();
  if (found->is_int64()) number = static_cast<double>(found->get_int64());
  if (found->is_uint64()) number = static_cast<double>(found->get_uint64());
  const bool in_range =
      number <= max && (above_min ? number > min : number >= min);  // false for NaN
  // A number above `min` may be none as a float: 1e-60 is 0.
  const float narrow = in_range ? static_cast<float>(number) : 0;
  if (!is_number || !in_range || (above_min && !(narrow > min))) {
    return InvalidParam(Param(key),
                        absl::StrCat(Param(key), " is ", Describe(*found), ", expected a number ",
                                     above_min ? "above " : "from ", min, " to ", max));
  }
  value = narrow;
  return absl::OkStatus();
}

absl::Status FieldReader::Integer(absl::string_view key, int64_t min, int64_t max,
                                  std::optional<uint32_t>& value) const {
  const json::value* found = Find(key);
  if (found == nullptr) return absl::OkStatus();
  const absl::StatusOr<int64_t> number = ReadInteger(*found, Param(key), min, max);
  if (!number.ok()) return number.status();
  value = static_cast<uint32_t>(*number);
  return absl::OkStatus();
}

absl::Status FieldReader::Seed(absl::string_view key, std::optional<uint64_t>& value) const {
  const json::value* found = Find(key);
  if (found == nullptr) return absl::OkStatus();
  if (found->is_int64()) {
    value = static_cast<uint64_t>(found->get_int64());
  } else if (found->is_uint64()) {
    value = found->get_uint64();
  } else {
    return InvalidParam(Param(key), absl::StrCat(Param(key), " is ", Describe(*found),
                                                 ", expected a 64-bit integer"));
  }
  return absl::OkStatus();
}

}  // namespace tandem::gateway
