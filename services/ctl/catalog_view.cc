#include "services/ctl/catalog_view.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <absl/strings/str_join.h>
#include <absl/strings/strip.h>
#include <boost/json.hpp>

#include <algorithm>
#include <array>

#include "scheduler/base/status.h"
#include "scheduler/cost/footprint.h"
#include "scheduler/cost/stage_fit.h"
#include "services/ctl/figure_view.h"
#include "services/ctl/table.h"

namespace tandem::ctl {
namespace {

namespace json = boost::json;
using model::Catalog;
using model::Chip;
using model::Device;
using model::Dtype;
using model::Engine;
using model::FormatQuantity;
using model::ModelShape;
using model::NamedFigure;
using model::Unit;

constexpr std::array<absl::string_view, 4> kKinds = {"chip", "device", "model", "engine"};

absl::Status CheckKind(absl::string_view kind) {
  if (std::find(kKinds.begin(), kKinds.end(), kind) != kKinds.end()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("'", kind, "' is none of chip, device, model and engine"));
}

double Count(uint64_t n) { return static_cast<double>(n); }

// The chip's own, and those of its dtypes as "fp8.peak_flops".
std::vector<NamedFigure> AllFiguresOf(const Chip& chip) {
  std::vector<NamedFigure> all = FiguresOf(chip);
  for (const auto& [dtype, figures] : chip.dtypes) {
    for (NamedFigure& figure : FiguresOf(figures)) {
      figure.name = absl::StrCat(model::DtypeName(dtype), ".", figure.name);
      all.push_back(std::move(figure));
    }
  }
  return all;
}

void AddPerDollar(const model::Figure& price, const char* name, double amount, Unit unit,
                  const char* how, std::vector<DerivedFigure>& derived) {
  if (price.known() && price.value > 0) derived.push_back({name, amount / price.value, unit, how});
}

// "116 rows (295 at peak)" is two figures: this one, and its name with _peak.
void AddRidges(const Chip& chip, std::vector<DerivedFigure>& derived) {
  for (const auto& entry : chip.dtypes) {
    const auto ridge = cost::RidgeOf(chip, entry.first);
    if (!ridge.has_value()) continue;
    const std::string name = absl::StrCat(model::DtypeName(entry.first), ".ridge_rows");
    derived.push_back({name, ridge->reached, Unit::kNone,
                       "rows that share a weight when computing takes as long as reading: "
                       "F·µ / (2·BW·η / bytes a weight)"});
    derived.push_back({absl::StrCat(name, "_at_peak"), ridge->peak, Unit::kNone, "with µ = η = 1"});
  }
}

// "2.25 PFLOPS bf16": of the dtype with the highest known peak.
std::string BestPeak(const Chip& chip) {
  const model::DtypeFigures* best = nullptr;
  Dtype which = Dtype::kBf16;
  for (const auto& [dtype, figures] : chip.dtypes) {
    if (!figures.peak_flops.known()) continue;
    if (best != nullptr && figures.peak_flops.value <= best->peak_flops.value) continue;
    best = &figures;
    which = dtype;
  }
  if (best == nullptr) return "unknown";
  return absl::StrCat(FormatQuantity(best->peak_flops.value, Unit::kFlops), " ",
                      model::DtypeName(which));
}

std::string ChipsText(const Device& device) {
  return absl::StrCat(device.count, " x ", device.chip.name, ", tp ", device.tp);
}

std::string PriceText(const model::Figure& price, double chips) {
  return price.known() ? FormatQuantity(price.value * chips, Unit::kDollarsPerHour) : "unknown";
}

std::string ChipsTable(const Catalog& catalog) {
  TextTable table({{"chip"},
                   {"memory"},
                   {"size", Align::kRight},
                   {"bandwidth", Align::kRight},
                   {"highest peak", Align::kRight},
                   {"price", Align::kRight},
                   {"marks", Align::kRight}});
  for (const std::string& name : catalog.ChipNames()) {
    const Chip chip = *catalog.FindChip(name);
    table.AddRow({name, chip.memory_class, FormatQuantity(chip.memory_bytes.value, Unit::kBytes),
                  FormatQuantity(chip.bandwidth_bytes_per_s.value, Unit::kBytesPerSecond),
                  BestPeak(chip), PriceText(chip.dollars_per_hour, 1),
                  MarkCounts(AllFiguresOf(chip))});
  }
  return table.ToString();
}

std::string DevicesTable(const Catalog& catalog) {
  TextTable table({{"device"},
                   {"chips"},
                   {"size", Align::kRight},
                   {"bandwidth", Align::kRight},
                   {"price", Align::kRight},
                   {"own marks", Align::kRight}});
  for (const std::string& name : catalog.DeviceNames()) {
    const Device device = *catalog.FindDevice(name);
    const double chips = device.count;
    table.AddRow(
        {name, ChipsText(device),
         FormatQuantity(device.chip.memory_bytes.value * chips, Unit::kBytes),
         FormatQuantity(device.chip.bandwidth_bytes_per_s.value * device.tp, Unit::kBytesPerSecond),
         PriceText(device.chip.dollars_per_hour, chips), MarkCounts(FiguresOf(device))});
  }
  return table.ToString();
}

std::string EnginesTable(const Catalog& catalog) {
  TextTable table({{"engine"},
                   {"a step", Align::kRight},
                   {"a sequence", Align::kRight},
                   {"a request", Align::kRight},
                   {"factors", Align::kRight},
                   {"marks", Align::kRight}});
  for (const std::string& name : catalog.EngineNames()) {
    const Engine engine = *catalog.FindEngine(name);
    table.AddRow({name, FormatQuantity(engine.step_seconds.value, Unit::kSeconds),
                  FormatQuantity(engine.sequence_seconds.value, Unit::kSeconds),
                  FormatQuantity(engine.request_seconds.value, Unit::kSeconds),
                  absl::StrCat(engine.factors.size()), MarkCounts(FiguresOf(engine))});
  }
  return table.ToString();
}

std::string ModelsTable(const Catalog& catalog) {
  TextTable table({{"model"},
                   {"layers", Align::kRight},
                   {"parameters", Align::kRight},
                   {"active", Align::kRight},
                   {"bf16 weights", Align::kRight},
                   {"KV a token", Align::kRight},
                   {"context", Align::kRight}});
  const auto billions = [](uint64_t n) { return absl::StrFormat("%.4g B", Count(n) / 1e9); };
  for (const std::string& name : catalog.ModelNames()) {
    const ModelShape shape = *catalog.FindModel(name);
    const uint64_t weights = cost::WeightBytes(shape, {}, cost::Holding::Everything());
    table.AddRow({name, absl::StrCat(shape.layers), billions(shape.parameters()),
                  billions(shape.active_parameters()), FormatQuantity(Count(weights), Unit::kBytes),
                  FormatQuantity(Count(cost::KvBytesPerToken(shape, {})), Unit::kBytes),
                  absl::StrCat(shape.context_tokens)});
  }
  return table.ToString();
}

std::vector<DerivedFigure> ShapeOf(const ModelShape& shape) {
  std::vector<DerivedFigure> lines;
  const auto add = [&](const char* name, uint64_t value) {
    if (value > 0) lines.push_back({name, Count(value), Unit::kNone, ""});
  };
  add("layers", shape.layers);
  add("hidden", shape.hidden);
  add("heads", shape.heads);
  add("kv_heads", shape.kv_heads);
  add("head_dim", shape.head_dim);
  if (shape.latent.has_value()) {
    add("mla.q_rank", shape.latent->q_rank);
    add("mla.kv_rank", shape.latent->kv_rank);
    add("mla.rope_dim", shape.latent->rope_dim);
    add("mla.nope_dim", shape.latent->nope_dim);
    add("mla.value_dim", shape.latent->value_dim);
  }
  add("window", shape.window);
  add("windowed_layers", shape.windowed_layers());
  add("ffn", shape.ffn);
  add("experts", shape.experts);
  add("experts_per_token", shape.experts_per_token);
  add("shared_experts", shape.shared_experts);
  add("dense_layers", shape.dense_layers);
  add("dense_ffn", shape.dense_ffn);
  add("vocabulary", shape.vocabulary);
  add("context_tokens", shape.context_tokens);
  return lines;
}

json::array DerivedJson(const std::vector<DerivedFigure>& figures) {
  json::array list;
  for (const DerivedFigure& figure : figures) {
    list.push_back({{"name", figure.name},
                    {"value", figure.value},
                    {"unit", UnitName(figure.unit)},
                    {"how", figure.how}});
  }
  return list;
}

json::value ToJson(const CatalogEntry& entry) {
  json::array figures;
  for (const NamedFigure& figure : entry.figures) figures.push_back(FigureJson(figure));
  return {{"kind", entry.kind},
          {"name", entry.name},
          {"what", entry.what},
          {"source", entry.source},
          {"figures", std::move(figures)},
          {"shape", DerivedJson(entry.shape)},
          {"derived", DerivedJson(entry.derived)}};
}

std::vector<std::string> NamesOf(const Catalog& catalog, absl::string_view kind) {
  if (kind == "chip") return catalog.ChipNames();
  if (kind == "device") return catalog.DeviceNames();
  if (kind == "engine") return catalog.EngineNames();
  return catalog.ModelNames();
}

}  // namespace

CatalogEntry EntryOf(const Chip& chip) {
  CatalogEntry entry{"chip", chip.name, chip.memory_class, "", AllFiguresOf(chip), {}, {}};
  const double bandwidth = chip.bandwidth_bytes_per_s.value, memory = chip.memory_bytes.value;
  entry.derived = {{"room_bytes", memory * chip.usable_memory.value - chip.workspace_bytes.value,
                    Unit::kBytes, "for weights and KV: usable memory less workspace"},
                   {"full_read_seconds", memory / bandwidth, Unit::kSeconds,
                    "memory over bandwidth: to read all of it once"}};
  AddRidges(chip, entry.derived);
  AddPerDollar(chip.dollars_per_hour, "bandwidth_per_dollar", bandwidth, Unit::kBytesPerSecond,
               "for each dollar an hour", entry.derived);
  AddPerDollar(chip.dollars_per_hour, "memory_per_dollar", memory, Unit::kBytes,
               "for each dollar an hour", entry.derived);
  return entry;
}

CatalogEntry EntryOf(const Device& device) {
  CatalogEntry entry{"device", device.name, ChipsText(device), device.source, FiguresOf(device),
                     {},       {}};
  entry.derived = {{"room_bytes", device.memory_bytes() - device.workspace_bytes(), Unit::kBytes,
                    "for weights and KV: usable memory less workspace, of all chips"},
                   {"bandwidth_bytes_per_s", device.chip.bandwidth_bytes_per_s.value * device.tp,
                    Unit::kBytesPerSecond, "of the chips that share a layer"}};
  if (const auto dollars = device.dollars_per_second(); dollars.has_value()) {
    entry.derived.push_back(
        {"dollars_per_hour", *dollars * 3600, Unit::kDollarsPerHour, "of all chips"});
  }
  if (const auto watts = device.watts(); watts.has_value())
    entry.derived.push_back({"power_watts", *watts, Unit::kWatts, "of all chips"});
  AddRidges(device.chip, entry.derived);
  return entry;
}

CatalogEntry EntryOf(const Engine& engine) {
  return {"engine", engine.name, "of others", engine.source, FiguresOf(engine), {}, {}};
}

CatalogEntry EntryOf(const ModelShape& shape) {
  CatalogEntry entry{"model", shape.name, "", shape.source, {}, ShapeOf(shape), {}};
  entry.what = shape.experts > 0 ? "experts" : "dense";
  const auto add = [&](const std::string& name, double value, Unit unit, const char* how) {
    entry.derived.push_back({name, value, unit, how});
  };
  add("parameters", Count(shape.parameters()), Unit::kNone, "without norms and biases");
  add("active_parameters", Count(shape.active_parameters()), Unit::kNone, "that one token uses");
  add("kv_bytes_per_token", Count(cost::KvBytesPerToken(shape, {})), Unit::kBytes,
      "K and V of 16 bits, all layers");
  if (shape.window > 0) {
    add("kv_bytes_per_token_growing", Count(shape.kv_elements_growing() * 2), Unit::kBytes,
        "of the layers without a window");
  }
  for (const Dtype dtype : model::kAllDtypes) {
    const model::Precision precision{dtype};
    const std::string name(model::DtypeName(dtype));
    add(absl::StrCat(name, ".weight_bytes"),
        Count(cost::WeightBytes(shape, precision, cost::Holding::Everything())), Unit::kBytes,
        "prefill, or all stages");
    add(absl::StrCat(name, ".attention_bytes"),
        Count(cost::WeightBytes(shape, precision, {false, true, std::nullopt})), Unit::kBytes,
        "attention, gate of experts, embedding, head");
    add(absl::StrCat(name, ".ffn_bytes"),
        Count(cost::WeightBytes(shape, precision, {false, false, FfnShard()})), Unit::kBytes,
        "FFN or experts");
  }
  return entry;
}

absl::StatusOr<CatalogEntry> FindEntry(const Catalog& catalog, absl::string_view kind,
                                       const std::string& name) {
  RETURN_IF_ERROR(CheckKind(kind));
  if (kind == "chip") {
    ASSIGN_OR_RETURN(const Chip chip, catalog.ResolveChip(name));
    return EntryOf(chip);
  }
  if (kind == "device") {
    ASSIGN_OR_RETURN(const Device device, catalog.ResolveDevice(name));
    return EntryOf(device);
  }
  if (kind == "engine") {
    ASSIGN_OR_RETURN(const Engine engine, catalog.FindEngine(name));
    return EntryOf(engine);
  }
  ASSIGN_OR_RETURN(const ModelShape shape, catalog.ResolveModel(name));
  return EntryOf(shape);
}

absl::StatusOr<std::string> CatalogText(const Catalog& catalog, absl::string_view kind) {
  if (!kind.empty()) RETURN_IF_ERROR(CheckKind(kind));
  std::vector<std::string> tables;
  if (kind.empty() || kind == "chip") tables.push_back(ChipsTable(catalog));
  if (kind.empty() || kind == "device") tables.push_back(DevicesTable(catalog));
  if (kind.empty() || kind == "model") tables.push_back(ModelsTable(catalog));
  if (kind.empty() || kind == "engine") tables.push_back(EnginesTable(catalog));
  std::string text;
  for (const std::string& table : tables) absl::StrAppend(&text, text.empty() ? "" : "\n", table);
  if (kind != "model") absl::StrAppend(&text, "\n", kMarkCountsLegend);
  return std::string(absl::StripTrailingAsciiWhitespace(text));
}

absl::StatusOr<std::string> CatalogJson(const Catalog& catalog, absl::string_view kind) {
  if (!kind.empty()) RETURN_IF_ERROR(CheckKind(kind));
  json::object all;
  for (const absl::string_view each : kKinds) {
    if (!kind.empty() && kind != each) continue;
    json::array entries;
    for (const std::string& name : NamesOf(catalog, each)) {
      ASSIGN_OR_RETURN(const CatalogEntry entry, FindEntry(catalog, each, name));
      entries.push_back(ToJson(entry));
    }
    all[absl::StrCat(each, "s")] = std::move(entries);
  }
  return json::serialize(all);
}

std::string EntryText(const CatalogEntry& entry) {
  std::string text = absl::StrCat(entry.kind, " ", entry.name, ": ", entry.what);
  if (!entry.source.empty()) {
    const std::vector<std::string> lines =
        WrapText(absl::StrCat("source: ", entry.source), kTerminalColumns);
    absl::StrAppend(&text, "\n", absl::StrJoin(lines, "\n"));
  }
  if (!entry.shape.empty()) {
    TextTable table({{"shape"}, {"", Align::kRight}});
    for (const DerivedFigure& line : entry.shape)
      table.AddRow({line.name, FormatQuantity(line.value, line.unit)});
    absl::StrAppend(&text, "\n\n", absl::StripTrailingAsciiWhitespace(table.ToString()));
  }
  if (!entry.figures.empty()) {
    TextTable table({{"figure"}, {"value", Align::kRight}, {"mark"}, {"source"}});
    for (const NamedFigure& figure : entry.figures) {
      table.AddRow({figure.name, FigureText(figure),
                    std::string(model::MarkName(figure.figure.mark)), figure.figure.source});
    }
    absl::StrAppend(&text, "\n\n", absl::StripTrailingAsciiWhitespace(table.ToString()));
  }
  if (entry.derived.empty()) return text;
  TextTable table({{"derived"}, {"value", Align::kRight}, {"how"}});
  for (const DerivedFigure& figure : entry.derived)
    table.AddRow({figure.name, FormatQuantity(figure.value, figure.unit), figure.how});
  return absl::StrCat(text, "\n\n", absl::StripTrailingAsciiWhitespace(table.ToString()));
}

std::string EntryJson(const CatalogEntry& entry) { return json::serialize(ToJson(entry)); }

}  // namespace tandem::ctl
