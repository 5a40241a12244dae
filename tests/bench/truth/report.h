#pragma once

// How far predictions are from rows, as tables.

#include <absl/status/statusor.h>

#include <string>
#include <vector>

#include "tests/bench/truth/predict.h"
#include "tests/bench/truth/rows.h"

namespace tandem::truth {

// Median absolute percentage error of TPOT and TTFT over all rows that can be predicted, and by
// chip, model, weights, engine, TP and client; and how many rows cannot, by reason, unknown models
// and systems by name. kInvalidArgument: none can.
absl::StatusOr<std::string> ErrorTables(const std::vector<Row>& rows, Predictor& predictor);

}  // namespace tandem::truth
