#include "workers/backend/ggml/gguf_model.h"

#include <absl/strings/escaping.h>
#include <absl/strings/str_cat.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>
#include <utility>

#include "scheduler/base/check.h"
#include "scheduler/base/status.h"
#include "workers/backend/ggml/end_tokens.h"
#include "workers/backend/ggml/gguf_metadata.h"

namespace tandem::ggml_cpu {
namespace {

constexpr size_t kDigestChunkBytes = 1 << 20;

std::string Dimensions(int64_t columns, int64_t rows) {
  return absl::StrCat("[", columns, ", ", rows, "]");
}

}  // namespace

absl::StatusOr<std::unique_ptr<GgufModel>> GgufModel::Open(const std::string& path) {
  std::unique_ptr<GgufModel> model(new GgufModel(path));
  RETURN_IF_ERROR(model->OpenFile());
  RETURN_IF_ERROR(model->ReadHeader());
  RETURN_IF_ERROR(model->Digest());
  return model;
}

GgufModel::~GgufModel() {
  if (file_ >= 0) close(file_);
}

absl::Status GgufModel::OpenFile() {
  file_ = open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat stat {};
  if (file_ < 0 || fstat(file_, &stat) != 0) {
    return absl::NotFoundError(absl::StrCat(path_, ": cannot open: ", std::strerror(errno)));
  }
  if (!S_ISREG(stat.st_mode))
    return absl::InvalidArgumentError(absl::StrCat(path_, ": not a file"));
  file_bytes_ = static_cast<uint64_t>(stat.st_size);
  return absl::OkStatus();
}

absl::Status GgufModel::ReadHeader() {
  char magic[4] = {};
  if (file_bytes_ < sizeof(magic) || pread(file_, magic, sizeof(magic), 0) != sizeof(magic) ||
      std::memcmp(magic, GGUF_MAGIC, sizeof(magic)) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(path_, ": not a GGUF file (", file_bytes_, " bytes)"));
  }
  ggml_context* headers = nullptr;
  gguf_.reset(gguf_init_from_file(path_.c_str(), {/*no_alloc=*/true, &headers}));
  headers_.reset(headers);
  if (gguf_ == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(path_, ": its GGUF header cannot be read from ",
                                                   file_bytes_, " bytes: truncated or damaged"));
  }
  const GgufMetadata metadata(gguf_.get(), path_);
  ASSIGN_OR_RETURN(shape_, ReadLlamaShape(metadata, path_));
  ASSIGN_OR_RETURN(name_, metadata.String("general.name", ""));
  const ggml_tensor* embedding = ggml_get_tensor(headers_.get(), "token_embd.weight");
  if (embedding == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(path_, ": tensor 'token_embd.weight' is missing"));
  }
  ASSIGN_OR_RETURN(vocabulary_,
                   metadata.Unsigned("llama.vocab_size", static_cast<uint32_t>(embedding->ne[1])));
  if (vocabulary_ == 0)
    return absl::InvalidArgumentError(absl::StrCat(path_, ": a vocabulary of 0 tokens"));
  const bool output_matrix = ggml_get_tensor(headers_.get(), "output.weight") != nullptr;
  tensors_ = LlamaTensors(shape_, vocabulary_, output_matrix);
  RETURN_IF_ERROR(CheckTensors());
  RETURN_IF_ERROR(CheckNotTruncated());
  return ReadEndTokens(metadata);
}

absl::Status GgufModel::CheckTensors() const {
  std::set<std::string> known;
  for (const TensorSpec& spec : tensors_) {
    known.insert(spec.name);
    const ggml_tensor* tensor = ggml_get_tensor(headers_.get(), spec.name.c_str());
    if (tensor == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat(path_, ": tensor '", spec.name, "' is missing"));
    }
    if (tensor->ne[0] != spec.columns || tensor->ne[1] != spec.rows || tensor->ne[2] != 1 ||
        tensor->ne[3] != 1) {
      return absl::InvalidArgumentError(absl::StrCat(
          path_, ": tensor '", spec.name, "' is ", Dimensions(tensor->ne[0], tensor->ne[1]),
          ", expected ", Dimensions(spec.columns, spec.rows)));
    }
    if (spec.norm && tensor->type != GGML_TYPE_F32) {
      return absl::UnimplementedError(absl::StrCat(path_, ": tensor '", spec.name, "' is of type ",
                                                   ggml_type_name(tensor->type), ", expected f32"));
    }
  }
  for (int64_t i = 0; i < gguf_get_n_tensors(gguf_.get()); ++i) {
    const char* name = gguf_get_tensor_name(gguf_.get(), i);
    if (!known.contains(name)) {
      return absl::UnimplementedError(absl::StrCat(path_, ": tensor '", name,
                                                   "' is none that a dense llama of ",
                                                   shape_.layers, " layers has"));
    }
  }
  return absl::OkStatus();
}

absl::Status GgufModel::CheckNotTruncated() const {
  const uint64_t data = gguf_get_data_offset(gguf_.get());
  for (int64_t i = 0; i < gguf_get_n_tensors(gguf_.get()); ++i) {
    const uint64_t begin = data + gguf_get_tensor_offset(gguf_.get(), i);
    const uint64_t end = begin + gguf_get_tensor_size(gguf_.get(), i);
    if (end > file_bytes_ || end < begin) {
      return absl::InvalidArgumentError(
          absl::StrCat(path_, ": truncated: tensor '", gguf_get_tensor_name(gguf_.get(), i),
                       "' ends at byte ", end, ", the file has ", file_bytes_, " bytes"));
    }
  }
  return absl::OkStatus();
}

absl::Status GgufModel::ReadEndTokens(const GgufMetadata& metadata) {
  SpecialTokens tokens;
  ASSIGN_OR_RETURN(tokens.texts, metadata.Strings("tokenizer.ggml.tokens"));
  if (tokens.texts.size() > vocabulary_) {
    return absl::InvalidArgumentError(absl::StrCat(path_, ": tokenizer.ggml.tokens has ",
                                                   tokens.texts.size(),
                                                   " entries, the vocabulary is ", vocabulary_));
  }
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                          "tokenizer.ggml.eom_token_id", "tokenizer.ggml.fim_pad_token_id",
                          "tokenizer.ggml.fim_rep_token_id", "tokenizer.ggml.fim_sep_token_id"}) {
    if (!metadata.Has(key)) continue;
    ASSIGN_OR_RETURN(const uint32_t id, metadata.Unsigned(key));
    if (id >= vocabulary_) {
      return absl::InvalidArgumentError(
          absl::StrCat(path_, ": ", key, " ", id, " is not below the vocabulary of ", vocabulary_));
    }
    tokens.named.insert(id);
  }
  end_tokens_ = EndTokens(tokens);
  return absl::OkStatus();
}

absl::Status GgufModel::Digest() {
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(),
                                                                  &EVP_MD_CTX_free);
  TANDEM_CHECK(context != nullptr && EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) == 1);
  std::vector<uint8_t> chunk(kDigestChunkBytes);
  for (uint64_t offset = 0; offset < file_bytes_; offset += chunk.size()) {
    const size_t bytes =
        static_cast<size_t>(std::min<uint64_t>(chunk.size(), file_bytes_ - offset));
    RETURN_IF_ERROR(ReadAt(offset, absl::MakeSpan(chunk.data(), bytes)));
    TANDEM_CHECK(EVP_DigestUpdate(context.get(), chunk.data(), bytes) == 1);
  }
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int digest_bytes = 0;
  TANDEM_CHECK(EVP_DigestFinal_ex(context.get(), digest, &digest_bytes) == 1);
  sha256_ = absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(digest), digest_bytes));
  return absl::OkStatus();
}

absl::Status GgufModel::ReadAt(uint64_t offset, absl::Span<uint8_t> out) const {
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t got =
        pread(file_, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(path_, ": reading at byte ", offset + done, " of ", file_bytes_, ": ",
                       got < 0 ? std::strerror(errno) : "the file got shorter"));
    }
    done += static_cast<size_t>(got);
  }
  return absl::OkStatus();
}

const ggml_tensor* GgufModel::Header(const std::string& tensor) const {
  const ggml_tensor* header = ggml_get_tensor(headers_.get(), tensor.c_str());
  TANDEM_CHECK(header != nullptr);
  return header;
}

absl::Status GgufModel::Read(const std::string& tensor, absl::Span<uint8_t> out) const {
  const int64_t index = gguf_find_tensor(gguf_.get(), tensor.c_str());
  TANDEM_CHECK(index >= 0 && out.size() == gguf_get_tensor_size(gguf_.get(), index));
  return ReadAt(gguf_get_data_offset(gguf_.get()) + gguf_get_tensor_offset(gguf_.get(), index),
                out);
}

}  // namespace tandem::ggml_cpu
