#include "tests/exact/prompt_set.h"

#include <absl/strings/str_cat.h>

#include <boost/json.hpp>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <memory>

#include "scheduler/base/status.h"

namespace tandem::exact {
namespace json = boost::json;
namespace {

constexpr char kMagic[8] = {'T', 'A', 'N', 'D', 'U', 'M', 'P', '1'};

json::array Ids(const std::vector<uint32_t>& ids) { return json::array(ids.begin(), ids.end()); }

absl::StatusOr<Prompt> ParsePrompt(const json::value& value) {
  Prompt prompt;
  prompt.name = json::value_to<std::string>(value.at("name"));
  prompt.max_tokens = json::value_to<uint32_t>(value.at("max_tokens"));
  const json::object& object = value.as_object();
  if (object.contains("ids")) {
    prompt.ids = json::value_to<std::vector<uint32_t>>(value.at("ids"));
  } else {
    prompt.text = json::value_to<std::string>(value.at("text"));
  }
  if (prompt.max_tokens == 0 || (prompt.ids.empty() && prompt.text.empty())) {
    return absl::InvalidArgumentError(
        absl::StrCat("prompt '", prompt.name, "' is empty or asks for 0 tokens"));
  }
  return prompt;
}

// A file of length-prefixed arrays. The first failure sticks.
class DumpFile {
 public:
  DumpFile(const std::string& path, const char* mode)
      : file_(std::fopen(path.c_str(), mode), &std::fclose) {}
  bool ok() const { return file_ != nullptr && !failed_; }

  template <typename T>
  void Write(const T* data, size_t count) {
    const uint64_t size = count;
    if (!ok()) return;
    failed_ = std::fwrite(&size, sizeof(size), 1, file_.get()) != 1 ||
              std::fwrite(data, sizeof(T), count, file_.get()) != count;
  }
  template <typename Container>
  void Read(Container& out) {
    uint64_t size = 0;
    if (!ok()) return;
    failed_ = std::fread(&size, sizeof(size), 1, file_.get()) != 1;
    if (failed_) return;
    out.resize(size);
    failed_ = std::fread(out.data(), sizeof(out[0]), size, file_.get()) != size;
  }
  bool Close() {
    const bool was_ok = ok();
    return file_ != nullptr && std::fclose(file_.release()) == 0 && was_ok;
  }

 private:
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file_;
  bool failed_ = false;
};

}  // namespace

absl::StatusOr<std::vector<Prompt>> ReadPrompts(const std::string& path) {
  std::ifstream file(path);
  if (!file) return absl::NotFoundError(absl::StrCat("cannot open ", path));
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  std::vector<Prompt> prompts;
  try {
    const json::value parsed = json::parse(text);
    for (const json::value& value : parsed.at("prompts").as_array()) {
      ASSIGN_OR_RETURN(Prompt prompt, ParsePrompt(value));
      prompts.push_back(std::move(prompt));
    }
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", error.what()));
  }
  return prompts;
}

absl::Status WriteIds(const Reference& reference, const std::string& path) {
  json::array prompts;
  for (const ReferenceSequence& sequence : reference.sequences) {
    prompts.push_back({{"name", sequence.name},
                       {"max_tokens", sequence.max_tokens},
                       {"prompt_ids", Ids(sequence.prompt_ids)},
                       {"ids", Ids(sequence.ids)}});
  }
  std::ofstream file(path);
  file << json::serialize(json::object{{"end_tokens", Ids(reference.end_tokens)},
                                       {"prompts", std::move(prompts)}})
       << '\n';
  file.close();
  return file ? absl::OkStatus() : absl::InternalError(absl::StrCat("cannot write ", path));
}

absl::Status WriteDump(const Reference& reference, const std::string& path) {
  DumpFile file(path, "wb");
  const uint32_t counts[2] = {reference.vocabulary,
                              static_cast<uint32_t>(reference.sequences.size())};
  file.Write(kMagic, sizeof(kMagic));
  file.Write(counts, 2);
  file.Write(reference.end_tokens.data(), reference.end_tokens.size());
  for (const ReferenceSequence& sequence : reference.sequences) {
    file.Write(sequence.name.data(), sequence.name.size());
    file.Write(&sequence.max_tokens, 1);
    file.Write(sequence.prompt_ids.data(), sequence.prompt_ids.size());
    file.Write(sequence.ids.data(), sequence.ids.size());
    file.Write(sequence.logits.data(), sequence.logits.size());
  }
  return file.Close() ? absl::OkStatus() : absl::InternalError(absl::StrCat("cannot write ", path));
}

absl::StatusOr<Reference> ReadDump(const std::string& path) {
  DumpFile file(path, "rb");
  std::string magic;
  std::vector<uint32_t> counts;
  Reference reference;
  file.Read(magic);
  file.Read(counts);
  file.Read(reference.end_tokens);
  if (!file.ok() || magic != std::string(kMagic, sizeof(kMagic)) || counts.size() != 2) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a reference dump"));
  }
  reference.vocabulary = counts[0];
  for (uint32_t i = 0; i < counts[1]; ++i) {
    ReferenceSequence sequence;
    std::vector<uint32_t> max_tokens;
    file.Read(sequence.name);
    file.Read(max_tokens);
    file.Read(sequence.prompt_ids);
    file.Read(sequence.ids);
    file.Read(sequence.logits);
    if (!file.ok() || max_tokens.size() != 1) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": ends in sequence ", i));
    }
    sequence.max_tokens = max_tokens[0];
    reference.sequences.push_back(std::move(sequence));
  }
  return reference;
}

}  // namespace tandem::exact
