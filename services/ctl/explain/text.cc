#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <absl/strings/str_join.h>
#include <absl/types/span.h>

#include <algorithm>

#include "services/ctl/explain/render.h"
#include "services/ctl/table.h"
#include "services/ctl/terminal_text.h"

namespace tandem::ctl {
namespace {

constexpr size_t kLabelColumns = 11;
constexpr size_t kMaxQuotedBytes = 80;  // of a prompt or an answer
constexpr size_t kMaxTokenBytes = 24;

// Three digits and a unit: rows have ten columns to fit beside each other.
std::string Short(double value, absl::Span<const char* const> units) {
  size_t unit = 0;
  // What three digits would round up to the next unit is of it.
  while (unit + 1 < units.size() && value >= 999.5) {
    value /= 1000;
    unit++;
  }
  return absl::StrFormat("%.3g %s", value, units[unit]);
}
std::string Time(double seconds) {
  return seconds == 0 ? "0" : Short(seconds * 1e9, {"ns", "us", "ms", "s"});
}
std::string Time(const std::optional<double>& seconds) {
  return seconds.has_value() ? Time(*seconds) : "-";
}
std::string Bytes(double bytes) {
  return bytes == 0 ? "-" : Short(bytes, {"B", "kB", "MB", "GB", "TB"});
}
std::string Flops(double flops) {
  return flops == 0 ? "-" : Short(flops, {"FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP"});
}
std::string Ratio(double value) { return absl::StrFormat("%.3g", value); }

// In quotes, with "..." where it was cut: between characters.
std::string Quoted(absl::string_view text, size_t max_bytes) {
  std::string shown = EscapeForTerminal(text);
  if (shown.size() > max_bytes) {
    while (max_bytes > 0 && (static_cast<uint8_t>(shown[max_bytes]) & 0xc0) == 0x80) max_bytes--;
    shown = absl::StrCat(shown.substr(0, max_bytes), "...");
  }
  return absl::StrCat("\"", shown, "\"");
}

// "label      text", wrapped below itself.
void AddLine(absl::string_view label, absl::string_view text, std::string& out) {
  for (const std::string& line : WrapText(text, kTerminalColumns - kLabelColumns)) {
    absl::StrAppendFormat(&out, "%-*s%s\n", static_cast<int>(kLabelColumns), std::string(label),
                          line);
    label = "";
  }
}

std::string Range(const std::vector<uint32_t>& layers) {
  std::vector<std::string> ranges;
  for (size_t i = 0; i < layers.size();) {
    size_t end = i + 1;
    while (end < layers.size() && layers[end] == layers[end - 1] + 1) end++;
    ranges.push_back(end == i + 1 ? absl::StrCat(layers[i])
                                  : absl::StrCat(layers[i], "-", layers[end - 1]));
    i = end;
  }
  constexpr size_t kMaxRanges = 6;
  if (ranges.size() > kMaxRanges) {
    ranges.resize(kMaxRanges);
    ranges.emplace_back("...");
  }
  return absl::StrJoin(ranges, ",");
}

std::string Where(const ExplainedPart& part) {
  const bool transfer = part.kind == PartKind::kA2f || part.kind == PartKind::kF2a;
  return EscapeForTerminal(absl::StrJoin(part.workers, transfer ? " -> " : ", "));
}

const char* Title(PartKind kind) {
  switch (kind) {
    case PartKind::kEmbed:
      return "embedding";
    case PartKind::kAttention:
      return "attention";
    case PartKind::kA2f:
      return "A2F, to the FFN worker";
    case PartKind::kQueue:
      return "queue at the FFN worker";
    case PartKind::kFfn:
      return "FFN";
    case PartKind::kF2a:
      return "F2A, back";
    case PartKind::kHead:
      return "head and sampling";
  }
  return "";
}

void AddHeader(const ExplainReport& report, std::string& out) {
  std::string text;
  for (const ExplainedToken& token : report.tokens) text += token.text;
  const ExplainedToken& last = report.tokens.back();
  AddLine(
      "prompt",
      absl::StrCat(Quoted(report.prompt, kMaxQuotedBytes), ", ", report.prompt_tokens, " tokens"),
      out);
  AddLine("answer",
          absl::StrCat(Quoted(text, kMaxQuotedBytes), " (", report.sampling, "): ids ",
                       absl::StrJoin(report.tokens, " ",
                                     [](std::string* to, const ExplainedToken& token) {
                                       absl::StrAppend(to, token.id);
                                     })),
          out);
  AddLine("explained",
          absl::StrCat("how token ", report.tokens.size(), ", ", Quoted(last.text, kMaxTokenBytes),
                       " (id ", last.id, "), was made: decode step ", report.step, " of ",
                       EscapeForTerminal(report.attention_worker), ", at position ",
                       report.position, " of its sequence"),
          out);
  std::vector<std::string> batches;
  for (const MicroBatch& batch : report.micro_batches) {
    batches.push_back(absl::StrCat(batch.rows, batch.rows == 1 ? " row" : " rows", " attending to ",
                                   batch.context_tokens, " positions"));
  }
  AddLine("batch",
          absl::StrCat(report.rows(), report.rows() == 1 ? " sequence in " : " sequences in ",
                       batches.size(), batches.size() == 1 ? " micro-batch: " : " micro-batches: ",
                       absl::StrJoin(batches, "; ")),
          out);
  AddLine("model",
          absl::StrCat(EscapeForTerminal(report.model), ", ", report.layers, " layers; ",
                       EscapeForTerminal(report.shape_source), "; topology ",
                       EscapeForTerminal(report.topology)),
          out);
}

void AddWorkers(const ExplainReport& report, std::string& out) {
  absl::string_view label = "workers";
  for (const ExplainedWorker& worker : report.workers) {
    std::string text = absl::StrCat(EscapeForTerminal(worker.id), " (", worker.stages,
                                    "): ", EscapeForTerminal(worker.device));
    if (!worker.chip.empty()) absl::StrAppend(&text, ", ", worker.chip);
    absl::StrAppend(&text, ", ", worker.memory_class, "; ", EscapeForTerminal(worker.weights));
    if (worker.forecast != worker.chip)
      absl::StrAppend(&text, "; times by the cost model are those of ", worker.forecast);
    if (!worker.no_model.empty())
      absl::StrAppend(&text, "; no time by the cost model: ", EscapeForTerminal(worker.no_model));
    AddLine(label, text, out);
    label = "";
  }
}

void AddTime(const ExplainReport& report, std::string& out) {
  std::string text = absl::StrCat(
      Time(report.step_seconds),
      " from the step's first task to its last one's end; the attention "
      "device computed ",
      Time(report.attention_busy_seconds), ", FFN devices ", Time(report.ffn_busy_seconds));
  if (report.time_scale > 0) {
    absl::StrAppendFormat(&text,
                          ". Emulated: in the devices' seconds, each of which takes %g of this "
                          "machine's",
                          report.time_scale);
  }
  if (report.clock_error_seconds > 0) {
    absl::StrAppend(&text, ". Where A2F ends and F2A begins is known to ",
                    Time(report.clock_error_seconds));
  }
  AddLine("measured", text, out);
}

// Operations of one part below its heading.
void AddOps(const ExplainedPart& part, TextTable& table) {
  for (size_t i = 0; i < part.ops.size(); i++) {
    const ExplainedOp& op = part.ops[i];
    const ExplainTotal& total = part.totals[i];
    const bool moves = op.link_bytes > 0;
    table.AddRow({absl::StrCat("  ", op.name),
                  Bytes(moves ? op.link_bytes : op.memory_bytes() - op.write_bytes),
                  Flops(op.flops), op.flops > 0 ? Ratio(op.intensity()) : "-",
                  Time(op.model_seconds), Bytes(total.memory_bytes), Flops(total.flops), op.shape});
  }
}

std::vector<TextTable::Column> Columns() {
  return {{"operation"},
          {"reads", Align::kRight},
          {"computes", Align::kRight},
          {"FLOP/B", Align::kRight},
          {"model", Align::kRight},
          {"so far", Align::kRight},
          {"", Align::kRight},
          {"shape"}};
}

std::string Heading(const ExplainedPart& part, const std::string& times) {
  return absl::StrCat(Title(part.kind), ", on ", Where(part), ": ", times);
}

std::string MeasuredText(const ExplainedPart& part) {
  std::string text = absl::StrCat("measured ", Time(part.measured_seconds));
  if (part.model_seconds.has_value())
    absl::StrAppend(&text, ", cost model ", Time(part.model_seconds));
  if (!part.note.empty()) absl::StrAppend(&text, "; ", EscapeForTerminal(part.note));
  return text;
}

// Wrapped below itself.
void AddHeading(absl::string_view indent, const std::string& text, TextTable& table) {
  const size_t width = kTerminalColumns - indent.size() - 2;
  std::string before(indent);
  for (const std::string& line : WrapText(text, width)) {
    table.AddHeading(absl::StrCat(before, line));
    before = absl::StrCat(indent, "  ");
  }
}

void AddPart(const ExplainedPart& part, const std::string& times, TextTable& table) {
  AddHeading("", Heading(part, times), table);
  AddOps(part, table);
}

std::string SpreadText(const ExplainedPart& part, const Spread& spread, size_t layers) {
  if (layers == 1) return MeasuredText(part);
  std::string text = absl::StrCat(
      "measured ", Time(spread.min_seconds), " to ", Time(spread.max_seconds), ", median ",
      Time(spread.median_seconds), "; ", Time(spread.sum_seconds), " in all ", layers, " layers");
  if (part.model_seconds.has_value())
    absl::StrAppend(&text, "; cost model ", Time(part.model_seconds), " each");
  if (!part.note.empty()) absl::StrAppend(&text, "; ", EscapeForTerminal(part.note));
  return text;
}

void AddGroup(const ExplainReport& report, const LayerGroup& group, TextTable& table) {
  const uint32_t first = group.layers.front();
  AddHeading("",
             group.layers.size() == 1
                 ? absl::StrCat("--- layer ", first)
                 : absl::StrCat("--- layers ", Range(group.layers), ": ", group.layers.size(),
                                " alike; each does what the first does here"),
             table);
  for (const ExplainedPart* part : report.PartsOfLayer(first)) {
    const auto spread = std::find_if(group.spreads.begin(), group.spreads.end(),
                                     [&](const Spread& each) { return each.kind == part->kind; });
    AddPart(*part, SpreadText(*part, *spread, group.layers.size()), table);
  }
}

void AddTotal(const ExplainReport& report, std::string& out) {
  const ExplainTotal& total = report.total();
  AddLine("total",
          absl::StrCat(
              Bytes(total.memory_bytes), " of memory read and written, ", Flops(total.flops), ", ",
              Ratio(total.flops / total.memory_bytes), " FLOP a byte; ", Bytes(total.link_bytes),
              " over links; spans of ", Time(total.measured_seconds),
              total.model_seconds.has_value()
                  ? absl::StrCat(" measured, ", Time(total.model_seconds), " by the cost model")
                  : " measured"),
          out);
}

void AddCandidates(const ExplainReport& report, std::string& out) {
  if (report.candidates.empty()) return;
  TextTable table({{"candidate"}, {"chance", Align::kRight}, {"logprob", Align::kRight}, {""}});
  for (const Candidate& candidate : report.candidates) {
    table.AddRow({Quoted(candidate.text, kMaxTokenBytes),
                  absl::StrFormat("%.2f %%", 100 * candidate.probability()),
                  absl::StrFormat("%.3f", candidate.logprob), candidate.chosen ? "drawn" : ""});
  }
  absl::StrAppend(&out, "\n", table.ToString());
}

}  // namespace

std::string ExplainText(const ExplainReport& report, std::optional<uint32_t> open_layer) {
  std::string out;
  AddHeader(report, out);
  AddWorkers(report, out);
  AddTime(report, out);
  TextTable table(Columns());
  for (const ExplainedPart& part : report.parts) {
    if (part.kind == PartKind::kEmbed) AddPart(part, MeasuredText(part), table);
  }
  for (const LayerGroup& group : report.groups) AddGroup(report, group, table);
  if (open_layer.has_value()) {
    AddHeading("", absl::StrCat("--- layer ", *open_layer, ", opened"), table);
    for (const ExplainedPart* part : report.PartsOfLayer(*open_layer))
      AddPart(*part, MeasuredText(*part), table);
  }
  for (const ExplainedPart& part : report.parts) {
    if (part.kind == PartKind::kHead) AddPart(part, MeasuredText(part), table);
  }
  absl::StrAppend(&out, "\n", table.ToString(), "\n");
  AddTotal(report, out);
  AddCandidates(report, out);
  out += "\n";
  absl::string_view label = "notes";
  for (const std::string& note : report.notes) {
    AddLine(label, EscapeForTerminal(note), out);
    label = "";
  }
  return out;
}

}  // namespace tandem::ctl
