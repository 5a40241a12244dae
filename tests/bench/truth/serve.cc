#include "tests/bench/truth/serve.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>
#include <absl/strings/str_split.h>

#include <cstdio>
#include <utility>

#include "scheduler/base/status.h"

namespace tandem::truth {
namespace {

struct Task {
  Row row;
  Subject subject;
};

absl::StatusOr<std::vector<Task>> Tasks(const std::string& file, const std::vector<Row>& rows) {
  std::vector<Task> tasks;
  for (const Row& row : rows) {
    absl::StatusOr<Subject> subject = SubjectOf(row);
    if (absl::IsNotFound(subject.status())) continue;  // known, and of a kind that is not predicted
    if (!subject.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat(file, ":", row.line, ": ", subject.status().message()));
    }
    tasks.push_back({row, *std::move(subject)});
  }
  return tasks;
}

std::string Describe(const Task& task) {
  const Row& row = task.row;
  return absl::StrJoin(
      std::make_tuple(task.subject.chip, model::DtypeName(task.subject.weights), row.engine,
                      row.version, task.subject.shape, row.prompt_tokens, row.output_tokens,
                      row.concurrency, row.tp, row.moe_ep, row.inferencex ? 1 : 0, row.ttft_ms,
                      row.tpot_ms, row.Configuration()),
      "\t");
}

absl::Status Set(absl::string_view line, Predictor& predictor) {
  const std::vector<std::string> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
  double value = 0;
  if (words.size() != 5 || !absl::SimpleAtod(words[4], &value))
    return absl::InvalidArgumentError(absl::StrCat("'", line, "': set KIND NAME KEY VALUE"));
  return predictor.Set(words[1], words[2], words[3], value);
}

}  // namespace

absl::Status Serve(const std::string& file, const std::vector<Row>& rows, Predictor& predictor,
                   std::istream& in) {
  ASSIGN_OR_RETURN(const std::vector<Task> tasks, Tasks(file, rows));
  std::string line;
  while (std::getline(in, line)) {
    if (absl::StartsWith(line, "set ")) {
      RETURN_IF_ERROR(Set(line, predictor));
      continue;
    }
    if (line == "clear") {
      predictor.ClearFactors();
      continue;
    }
    if (line == "rows") {
      std::printf("%zu\n", tasks.size());
      for (const Task& task : tasks) std::printf("%s\n", Describe(task).c_str());
    } else if (line == "steady") {
      for (const Task& task : tasks)
        std::printf("%.9g\n", predictor.SteadyTpotMs(task.row, task.subject).value_or(-1));
    } else if (line == "prompt") {
      for (const Task& task : tasks)
        std::printf("%.9g\n", predictor.PromptMs(task.row, task.subject).value_or(-1));
    } else if (line == "loop") {
      for (const Task& task : tasks) {
        const Prediction one =
            predictor.Predict(task.row, task.subject).value_or(Prediction{-1, -1});
        std::printf("%.9g %.9g\n", one.ttft_ms, one.tpot_ms);
      }
    } else {
      return absl::InvalidArgumentError(absl::StrCat("'", line,
                                                     "' is none of set, clear, rows, "
                                                     "steady, prompt and loop"));
    }
    std::fflush(stdout);
  }
  return absl::OkStatus();
}

}  // namespace tandem::truth
