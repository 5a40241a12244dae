#include <boost/json.hpp>

#include "services/ctl/explain/render.h"
#include "services/runtime/utf8.h"

namespace tandem::ctl {
namespace {

namespace json = boost::json;

json::value Optional(const std::optional<double>& value) {
  if (!value.has_value()) return nullptr;
  return *value;
}

// JSON holds UTF-8 only; a token may be a piece of a character.
json::string Text(const std::string& text) { return json::string(ToValidUtf8(text)); }

json::array Names(const std::vector<std::string>& names) {
  json::array out;
  for (const std::string& name : names) out.emplace_back(Text(name));
  return out;
}

json::value TotalJson(const ExplainTotal& total) {
  return {{"memory_bytes", total.memory_bytes},
          {"link_bytes", total.link_bytes},
          {"flops", total.flops},
          {"measured_seconds", total.measured_seconds},
          {"model_seconds", Optional(total.model_seconds)}};
}

json::value OpJson(const ExplainedOp& op, const ExplainTotal& total) {
  return {{"name", op.name},
          {"title", op.title},
          {"shape", op.shape},
          {"weight_bytes", op.weight_bytes},
          {"kv_bytes", op.kv_bytes},
          {"read_bytes", op.read_bytes},
          {"write_bytes", op.write_bytes},
          {"link_bytes", op.link_bytes},
          {"flops", op.flops},
          {"flops_per_byte", op.intensity()},
          {"model_seconds", Optional(op.model_seconds)},
          {"total", TotalJson(total)}};
}

json::value PartJson(const ExplainedPart& part) {
  json::array ops;
  for (size_t i = 0; i < part.ops.size(); i++) ops.push_back(OpJson(part.ops[i], part.totals[i]));
  return {{"kind", ToString(part.kind)},
          {"layer", part.layer.has_value() ? json::value(*part.layer) : json::value(nullptr)},
          {"workers", Names(part.workers)},
          {"begin_seconds", part.begin_seconds},
          {"measured_seconds", part.measured_seconds},
          {"model_seconds", Optional(part.model_seconds)},
          {"note", Text(part.note)},
          {"ops", std::move(ops)}};
}

json::value GroupJson(const LayerGroup& group) {
  json::object spreads;
  for (const Spread& spread : group.spreads) {
    spreads[ToString(spread.kind)] = {{"min_seconds", spread.min_seconds},
                                      {"median_seconds", spread.median_seconds},
                                      {"max_seconds", spread.max_seconds},
                                      {"sum_seconds", spread.sum_seconds}};
  }
  return {{"layers", json::value_from(group.layers)}, {"measured", std::move(spreads)}};
}

json::value TokenJson(const ExplainedToken& token) {
  return {{"id", token.id}, {"text", Text(token.text)}, {"logprob", Optional(token.logprob)}};
}

json::value StepJson(const ExplainReport& report) {
  json::array micro_batches;
  for (const MicroBatch& batch : report.micro_batches)
    micro_batches.push_back({{"rows", batch.rows}, {"context_tokens", batch.context_tokens}});
  return {{"worker", Text(report.attention_worker)},
          {"number", report.step},
          {"position", report.position},
          {"rows", report.rows()},
          {"micro_batches", std::move(micro_batches)},
          {"seconds", report.step_seconds},
          {"attention_busy_seconds", report.attention_busy_seconds},
          {"ffn_busy_seconds", report.ffn_busy_seconds},
          {"time_scale", report.time_scale},
          {"clock_error_seconds", report.clock_error_seconds},
          {"spans_lost", report.spans_lost}};
}

}  // namespace

json::object ExplainJson(const ExplainReport& report) {
  json::array tokens, candidates, workers, parts, groups;
  for (const ExplainedToken& token : report.tokens) tokens.push_back(TokenJson(token));
  for (const Candidate& candidate : report.candidates) {
    candidates.push_back({{"text", Text(candidate.text)},
                          {"logprob", candidate.logprob},
                          {"probability", candidate.probability()},
                          {"chosen", candidate.chosen}});
  }
  for (const ExplainedWorker& worker : report.workers) {
    workers.push_back({{"id", Text(worker.id)},
                       {"pool", Text(worker.pool)},
                       {"stages", worker.stages},
                       {"memory_class", worker.memory_class},
                       {"device", Text(worker.device)},
                       {"chip", worker.chip},
                       {"forecast", worker.forecast},
                       {"weights", Text(worker.weights)},
                       {"no_model", Text(worker.no_model)}});
  }
  for (const ExplainedPart& part : report.parts) parts.push_back(PartJson(part));
  for (const LayerGroup& group : report.groups) groups.push_back(GroupJson(group));
  return {{"prompt", Text(report.prompt)},     {"prompt_tokens", report.prompt_tokens},
          {"model", Text(report.model)},       {"shape_source", Text(report.shape_source)},
          {"topology", Text(report.topology)}, {"sampling", report.sampling},
          {"tokens", std::move(tokens)},       {"candidates", std::move(candidates)},
          {"step", StepJson(report)},          {"layers", report.layers},
          {"workers", std::move(workers)},     {"parts", std::move(parts)},
          {"groups", std::move(groups)},       {"notes", Names(report.notes)}};
}

}  // namespace tandem::ctl
