#pragma once

// Predictions for a fit: figures are set and rows predicted by lines of text.

#include <absl/status/status.h>

#include <istream>
#include <string>
#include <vector>

#include "tests/bench/truth/predict.h"
#include "tests/bench/truth/rows.h"

namespace tandem::truth {

// Lines of `in`, until it ends:
//   set KIND NAME KEY VALUE   Predictor::Set
//   clear    forgets every factor of every engine
//   rows     what can be predicted: a count, then a line a row, fields by tabs
//   steady   TPOT in the steady state of each of those, ms; -1 where it does not fit
//   prompt   the prefill of one prompt of those, alone, ms
//   loop     TTFT and TPOT of the simulated loop, ms
// Answers go to stdout. kInvalidArgument, with file, line and column: a row names an unknown model,
// system or precision; or a line of `in` is none of these.
absl::Status Serve(const std::string& file, const std::vector<Row>& rows, Predictor& predictor,
                   std::istream& in);

}  // namespace tandem::truth
