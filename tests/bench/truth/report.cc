#include "tests/bench/truth/report.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "scheduler/base/status.h"

namespace tandem::truth {
namespace {

struct Errors {
  std::vector<double> ttft, tpot;  // shares
};

double Median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<int64_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

double Worst(std::vector<double> values, double share) {  // what that share of them exceeds
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(static_cast<double>(values.size() - 1) * (1 - share))];
}

void AddLine(const std::string& name, const Errors& errors, std::string& text) {
  absl::StrAppendFormat(&text, "| %s | %d | %.1f | %.1f | %.1f | %.1f |\n", name,
                        errors.tpot.size(), 100 * Median(errors.tpot),
                        100 * Worst(errors.tpot, 0.25), 100 * Median(errors.ttft),
                        100 * Worst(errors.ttft, 0.25));
}

}  // namespace

absl::StatusOr<std::string> ErrorTables(const std::vector<Row>& rows, Predictor& predictor) {
  Errors all;
  std::map<std::string, std::map<std::string, Errors>> groups;
  std::map<std::string, int> not_predicted;
  for (const Row& row : rows) {
    const auto subject = SubjectOf(row);
    const auto predicted = subject.ok() ? predictor.Predict(row, *subject) : subject.status();
    if (!predicted.ok()) {
      not_predicted[subject.ok()
                        ? absl::StrCat("does not fit: ", subject->shape, " on ", subject->device)
                        : std::string(subject.status().message())]++;
      continue;
    }
    const double ttft = std::abs(predicted->ttft_ms / row.ttft_ms - 1);
    const double tpot = std::abs(predicted->tpot_ms / row.tpot_ms - 1);
    for (Errors* errors : {&all, &groups["chip"][subject->chip], &groups["model"][subject->shape],
                           &groups["weights"][std::string(model::DtypeName(subject->weights))],
                           &groups["engine"][row.engine], &groups["TP"][absl::StrCat(row.tp)],
                           &groups["client"][row.inferencex ? "InferenceX" : "aiconfigurator"]}) {
      errors->ttft.push_back(ttft);
      errors->tpot.push_back(tpot);
    }
  }
  std::string text = absl::StrCat(rows.size(), " rows; not predicted:");
  for (const auto& [why, count] : not_predicted) absl::StrAppend(&text, " ", count, " (", why, ")");
  if (all.tpot.empty()) return absl::InvalidArgumentError(absl::StrCat(text, ": nothing is left"));
  absl::StrAppend(
      &text,
      "\n\nError in %, the median and what a quarter of the rows exceed:\n\n"
      "| rows | n | TPOT median | TPOT worst quarter | TTFT median | TTFT worst quarter "
      "|\n|---|---|---|---|---|---|\n");
  AddLine("all", all, text);
  for (const auto& [kind, names] : groups) {
    for (const auto& [name, errors] : names) AddLine(absl::StrCat(kind, " ", name), errors, text);
  }
  return text;
}

}  // namespace tandem::truth
