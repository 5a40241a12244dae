#pragma once

// A cost report as JSON: the same words in the router's answer and in tandemctl's. Times named
// `seconds` are the devices'; emulated ones are labelled by `time_scale`. What is unknown is null.

#include <boost/json/value.hpp>

#include <vector>

#include "scheduler/ledger/tco.h"

namespace tandem {

boost::json::value ToJson(const model::Figure& figure);  // {value, mark, source}
boost::json::value ToJson(const std::vector<ledger::Input>& inputs);

// {workers: [...], rows: [...], totals: {...}, emulated: {...} or null}. `tco` is of `devices`.
boost::json::object TcoJson(const std::vector<ledger::DeviceAccount>& devices,
                            const ledger::Tco& tco);

// Of devices in emulated time; their sums over all of them. `devices` 0: none is.
struct EmulatedTime {
  size_t devices = 0;
  double device_seconds = 0, wall_seconds = 0;
};
EmulatedTime EmulatedTimeOf(const std::vector<ledger::DeviceAccount>& devices);

}  // namespace tandem
