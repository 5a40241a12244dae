#include "tests/bench/truth/rows.h"

#include <absl/strings/match.h>
#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>
#include <absl/strings/str_split.h>
#include <absl/strings/strip.h>
#include <zlib.h>

#include <cmath>
#include <map>
#include <optional>
#include <utility>

#include "scheduler/base/status.h"

namespace tandem::truth {
namespace {

constexpr size_t kMaxFileBytes = size_t{256} << 20;
constexpr double kMaxMilliseconds = 1e9;
constexpr uint64_t kMaxCount = uint64_t{1} << 24;

// The whole file, gunzipped where it is gzip.
absl::StatusOr<std::string> ReadText(const std::string& path) {
  gzFile file = gzopen(path.c_str(), "rb");
  if (file == nullptr) return absl::NotFoundError(absl::StrCat(path, ": cannot be opened"));
  std::string text;
  std::string block(1 << 16, '\0');
  int got = 0;
  while ((got = gzread(file, block.data(), static_cast<unsigned>(block.size()))) > 0 &&
         text.size() <= kMaxFileBytes) {
    text.append(block, 0, static_cast<size_t>(got));
  }
  const int closed = gzclose_r(file);
  if (got < 0 || (got == 0 && closed != Z_OK))
    return absl::InvalidArgumentError(absl::StrCat(path, ": no gzip, or cut off"));
  if (text.size() > kMaxFileBytes)
    return absl::InvalidArgumentError(absl::StrCat(path, ": more than ", kMaxFileBytes, " bytes"));
  return text;
}

// One line's fields; a field in quotes may hold commas, "" in it is a quote.
std::vector<std::string> Fields(absl::string_view line) {
  std::vector<std::string> fields(1);
  bool quoted = false;
  for (size_t i = 0; i < line.size(); i++) {
    const char c = line[i];
    if (quoted && c == '"' && i + 1 < line.size() && line[i + 1] == '"') {
      fields.back() += line[++i];
    } else if (c == '"') {
      quoted = !quoted;
    } else if (c == ',' && !quoted) {
      fields.emplace_back();
    } else {
      fields.back() += c;
    }
  }
  return fields;
}

// One line of the file, by column.
class Line {
 public:
  Line(const std::map<std::string, size_t>& columns, std::vector<std::string> fields,
       std::string where)
      : columns_(columns), fields_(std::move(fields)), where_(std::move(where)) {}

  const std::string& Text(const std::string& column) const { return fields_[columns_.at(column)]; }
  // `empty` where the field is.
  uint64_t Count(const std::string& column, std::optional<uint64_t> empty) {
    const std::string& text = Text(column);
    uint64_t value = 0;
    if (text.empty() && empty.has_value()) return *empty;
    if (!absl::SimpleAtoi(text, &value) || value > kMaxCount)
      Refuse(column, absl::StrCat("'", text, "' is no count up to ", kMaxCount));
    return value;
  }
  double Milliseconds(const std::string& column) {
    const std::string& text = Text(column);
    double value = 0;
    if (!absl::SimpleAtod(text, &value) || !(value > 0 && value <= kMaxMilliseconds))
      Refuse(column, absl::StrCat("'", text, "' is no time in ms above 0"));
    return value;
  }
  void Refuse(const std::string& column, const std::string& why) {
    if (status_.ok())
      status_ = absl::InvalidArgumentError(absl::StrCat(where_, ": ", column, ": ", why));
  }
  const absl::Status& status() const { return status_; }

 private:
  const std::map<std::string, size_t>& columns_;
  std::vector<std::string> fields_;
  std::string where_;
  absl::Status status_;
};

constexpr const char* kColumns[] = {"id",
                                    "silicon_data_source",
                                    "backend",
                                    "backend_version",
                                    "model_path",
                                    "system",
                                    "precision",
                                    "mode",
                                    "isl",
                                    "osl",
                                    "tp_size",
                                    "pp_size",
                                    "attention_dp_size",
                                    "moe_ep_size",
                                    "batch_size",
                                    "silicon_ttft_ms",
                                    "silicon_tpot_ms"};

absl::StatusOr<std::map<std::string, size_t>> Columns(absl::string_view header,
                                                      const std::string& path) {
  std::map<std::string, size_t> columns;
  const std::vector<std::string> names = Fields(header);
  for (size_t i = 0; i < names.size(); i++) columns.emplace(names[i], i);
  for (const char* column : kColumns) {
    if (!columns.contains(column)) {
      return absl::InvalidArgumentError(absl::StrCat(path, ":1: column '", column, "' is missing"));
    }
  }
  return columns;
}

// "silicon_concurrency=64" of the source, else the batch size.
uint64_t Concurrency(Line& line) {
  for (absl::string_view part : absl::StrSplit(line.Text("silicon_data_source"), ';')) {
    part = absl::StripAsciiWhitespace(part);
    if (!absl::ConsumePrefix(&part, "silicon_concurrency=")) continue;
    uint64_t value = 0;
    if (!absl::SimpleAtoi(part, &value) || value == 0 || value > kMaxCount)
      line.Refuse("silicon_data_source", absl::StrCat("concurrency '", part, "' is none"));
    return value;
  }
  return line.Count("batch_size", 0);
}

// Aggregated rows alone state one engine's shape: the other kind's columns differ, and stay unread.
void ReadShape(Line& line, Row& row) {
  row.concurrency = Concurrency(line);
  row.tp = line.Count("tp_size", 0);
  row.pp = line.Count("pp_size", 1);
  row.attention_dp = line.Count("attention_dp_size", 0);
  row.moe_ep = line.Count("moe_ep_size", 0);
}

Row ReadRow(Line& line, uint64_t number) {
  Row row;
  row.line = number;
  row.id = line.Text("id");
  row.engine = line.Text("backend") == "trtllm" ? "tensorrt-llm" : line.Text("backend");
  row.version = line.Text("backend_version");
  row.model = line.Text("model_path");
  row.system = line.Text("system");
  row.precision = line.Text("precision");
  row.mode = line.Text("mode");
  if (row.mode != "agg" && row.mode != "disagg")
    line.Refuse("mode", absl::StrCat("'", row.mode, "' is neither agg nor disagg"));
  row.prompt_tokens = line.Count("isl", std::nullopt);
  row.output_tokens = line.Count("osl", std::nullopt);
  if (row.mode == "agg") ReadShape(line, row);
  row.inferencex = !absl::StrContains(line.Text("silicon_data_source"), "aic-auto-gap-analysis");
  row.ttft_ms = line.Milliseconds("silicon_ttft_ms");
  row.tpot_ms = line.Milliseconds("silicon_tpot_ms");
  return row;
}

}  // namespace

std::string Row::Configuration() const {
  return absl::StrCat(absl::StrJoin({model, system, precision, engine, mode}, "|"), "|",
                      prompt_tokens, "|", output_tokens, "|", concurrency, "|", tp, "|", pp, "|",
                      attention_dp, "|", moe_ep);
}

absl::StatusOr<std::vector<Row>> ReadRows(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadText(path));
  std::vector<absl::string_view> lines = absl::StrSplit(text, '\n');
  ASSIGN_OR_RETURN(const auto columns, Columns(absl::StripSuffix(lines.front(), "\r"), path));
  std::vector<Row> rows;
  for (size_t i = 1; i < lines.size(); i++) {
    const absl::string_view bare = absl::StripSuffix(lines[i], "\r");
    if (bare.empty()) continue;
    const std::string where = absl::StrCat(path, ":", i + 1);
    std::vector<std::string> fields = Fields(bare);
    if (fields.size() != Fields(absl::StripSuffix(lines.front(), "\r")).size()) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, ": ", fields.size(), " fields, the header has ", columns.size()));
    }
    Line line(columns, std::move(fields), where);
    Row row = ReadRow(line, i + 1);
    RETURN_IF_ERROR(line.status());
    rows.push_back(std::move(row));
  }
  if (rows.empty()) return absl::InvalidArgumentError(absl::StrCat(path, ": holds no row"));
  return rows;
}

}  // namespace tandem::truth
