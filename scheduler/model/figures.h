#pragma once

// A chip's, a device's and an engine's figures by name and unit, for whoever lists them.

#include <string>
#include <vector>

#include "scheduler/model/chip.h"
#include "scheduler/model/device.h"
#include "scheduler/model/engine.h"
#include "scheduler/model/quantity.h"

namespace tandem::model {

struct NamedFigure {
  std::string name;  // as in the catalog's files: "scale_up.bytes_per_s"
  Unit unit = Unit::kNone;
  Figure figure;
};

// In the order of the files. A chip's are without those of its dtypes.
std::vector<NamedFigure> FiguresOf(const Chip& chip);
std::vector<NamedFigure> FiguresOf(const DtypeFigures& figures);
// The engine's own, and its factors as "h100-sxm/fp8.memory", those that the file states.
std::vector<NamedFigure> FiguresOf(const Engine& engine);
// Of the group itself, without its chip's: all-reduce where there is one, link, layer times.
std::vector<NamedFigure> FiguresOf(const Device& device);

}  // namespace tandem::model
