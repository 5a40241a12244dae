#pragma once

#include <absl/status/statusor.h>

#include <memory>
#include <string>

#include "services/gateway/text/text_model.h"

namespace tandem::gateway {

// Reads vocabulary and chat template of a GGUF, no weights (about 19 MiB and 0.7 s for SmolLM2).
// kNotFound: no such file; kInvalidArgument: llama.cpp cannot read it, or it has no vocabulary;
// names the file.
//
// Templates run in llama.cpp's jinja (common_chat_templates_*); its pattern-matched built-ins would
// drop the default system prompt of models that have one.
absl::StatusOr<std::unique_ptr<TextModel>> LoadLlamaTextModel(const std::string& gguf_path);

}  // namespace tandem::gateway
