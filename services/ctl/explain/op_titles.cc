#include "services/ctl/explain/op_titles.h"

#include <array>
#include <utility>

namespace tandem::ctl {
namespace {

using Title = std::pair<absl::string_view, absl::string_view>;

constexpr std::array<Title, 24> kTitles = {{
    {"embedding",
     "Looks up the vector of the last token: one row of a table with a row for each token."},
    {"attention_norm",
     "Scales the vector to a common size, so that the layer sees like with like."},
    {"q_proj", "Makes the query: what this token asks of the tokens before it."},
    {"k_proj", "Makes the key: what this token can be found by."},
    {"v_proj", "Makes the value: what this token gives to those that attend to it."},
    {"q_a_proj", "Squeezes the vector into a small one, from which all heads' queries are made."},
    {"q_b_proj", "Makes every head's query out of the small vector."},
    {"kv_a_proj",
     "Squeezes the vector into the latent that is cached in place of keys and values."},
    {"kv_b_proj", "Turns between the latent and the heads' keys and values."},
    {"kv_write",
     "Appends the new key and value to the cache, so that no later step computes them again."},
    {"attention",
     "Compares the query with every cached key, and averages the cached values by how well they "
     "match: it reads the whole cache of the sequence."},
    {"o_proj",
     "Mixes what the heads found back into one vector, which is added to the token's own."},
    {"ffn_norm", "Scales the vector again, before the feed-forward network."},
    {"router", "Scores the experts and picks the few that this token goes to."},
    {"a2f", "Sends the vectors from the attention worker to the FFN worker."},
    {"queue", "Waits at the FFN worker until its device takes the call."},
    {"ffn", "Two wide matrices, a gate between them, and one back: where most of the weights are."},
    {"experts",
     "The same as a feed-forward network, by the chosen experts only: what is read are the "
     "experts that the rows are expected to touch."},
    {"shared_experts", "Experts that every token goes to."},
    {"f2a", "Sends the result back to the attention worker, which adds it to the token's vector."},
    {"final_norm", "Scales the last layer's vector."},
    {"head", "Scores every token of the vocabulary as the next one."},
    {"sampling", "Turns scores into chances, and draws the next token."},
    {"fixed", "What a call takes whatever its size: launching, synchronising (the model's t0)."},
}};

}  // namespace

absl::string_view OpTitle(absl::string_view op) {
  if (op == "all_reduce") return "Adds up the partial results of the chips that share the layer.";
  for (const auto& [name, title] : kTitles) {
    if (name == op) return title;
  }
  return "";
}

}  // namespace tandem::ctl
