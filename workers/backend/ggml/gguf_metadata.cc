#include "workers/backend/ggml/gguf_metadata.h"

#include <absl/strings/str_cat.h>

#include <limits>

namespace tandem::ggml_cpu {

absl::Status GgufMetadata::WrongType(const char* key, int64_t index,
                                     absl::string_view wanted) const {
  const char* type = gguf_type_name(gguf_get_kv_type(gguf_, index));
  return absl::InvalidArgumentError(absl::StrCat(path_, ": key '", key, "' is of type ",
                                                 type == nullptr ? "unknown" : type, ", not ",
                                                 wanted));
}

absl::Status GgufMetadata::Missing(const char* key) const {
  return absl::InvalidArgumentError(absl::StrCat(path_, ": key '", key, "' is missing"));
}

absl::StatusOr<uint32_t> GgufMetadata::Unsigned(const char* key,
                                                std::optional<uint32_t> otherwise) const {
  const int64_t index = gguf_find_key(gguf_, key);
  if (index < 0) {
    if (otherwise.has_value()) return *otherwise;
    return Missing(key);
  }
  int64_t value = 0;
  switch (gguf_get_kv_type(gguf_, index)) {
    case GGUF_TYPE_UINT8:
      value = gguf_get_val_u8(gguf_, index);
      break;
    case GGUF_TYPE_INT8:
      value = gguf_get_val_i8(gguf_, index);  // NOLINT(bugprone-signed-char-misuse): a number
      break;
    case GGUF_TYPE_UINT16:
      value = gguf_get_val_u16(gguf_, index);
      break;
    case GGUF_TYPE_INT16:
      value = gguf_get_val_i16(gguf_, index);
      break;
    case GGUF_TYPE_UINT32:
      value = gguf_get_val_u32(gguf_, index);
      break;
    case GGUF_TYPE_INT32:
      value = gguf_get_val_i32(gguf_, index);
      break;
    case GGUF_TYPE_UINT64:
      value = static_cast<int64_t>(gguf_get_val_u64(gguf_, index));
      break;
    case GGUF_TYPE_INT64:
      value = gguf_get_val_i64(gguf_, index);
      break;
    default:
      return WrongType(key, index, "an integer");
  }
  if (value < 0 || value > std::numeric_limits<uint32_t>::max()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path_, ": key '", key, "' is ", value, ", out of range"));
  }
  return static_cast<uint32_t>(value);
}

absl::StatusOr<float> GgufMetadata::Float(const char* key, std::optional<float> otherwise) const {
  const int64_t index = gguf_find_key(gguf_, key);
  if (index < 0) {
    if (otherwise.has_value()) return *otherwise;
    return Missing(key);
  }
  switch (gguf_get_kv_type(gguf_, index)) {
    case GGUF_TYPE_FLOAT32:
      return gguf_get_val_f32(gguf_, index);
    case GGUF_TYPE_FLOAT64:
      return static_cast<float>(gguf_get_val_f64(gguf_, index));
    default:
      return WrongType(key, index, "a float");
  }
}

absl::StatusOr<std::string> GgufMetadata::String(const char* key,
                                                 std::optional<std::string> otherwise) const {
  const int64_t index = gguf_find_key(gguf_, key);
  if (index < 0) {
    if (otherwise.has_value()) return *otherwise;
    return Missing(key);
  }
  if (gguf_get_kv_type(gguf_, index) != GGUF_TYPE_STRING) return WrongType(key, index, "a string");
  return std::string(gguf_get_val_str(gguf_, index));
}

absl::StatusOr<std::vector<std::string>> GgufMetadata::Strings(const char* key) const {
  const int64_t index = gguf_find_key(gguf_, key);
  std::vector<std::string> out;
  if (index < 0) return out;
  if (gguf_get_kv_type(gguf_, index) != GGUF_TYPE_ARRAY ||
      gguf_get_arr_type(gguf_, index) != GGUF_TYPE_STRING) {
    return WrongType(key, index, "an array of strings");
  }
  const size_t count = gguf_get_arr_n(gguf_, index);
  out.reserve(count);
  for (size_t i = 0; i < count; ++i) out.emplace_back(gguf_get_arr_str(gguf_, index, i));
  return out;
}

}  // namespace tandem::ggml_cpu
