#include "services/router/tco/tco_page.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_split.h>

#include <boost/json.hpp>

#include "scheduler/base/status.h"
#include "services/runtime/tco_json.h"
#include "services/runtime/tco_words.h"

namespace tandem::router {

namespace json = boost::json;

absl::StatusOr<std::string> TcoPage(TcoBook& book, absl::string_view query, Instant now) {
  absl::string_view asked = kDefaultWindow;
  for (const absl::string_view parameter : absl::StrSplit(query, '&', absl::SkipEmpty())) {
    const std::pair<absl::string_view, absl::string_view> pair =
        absl::StrSplit(parameter, absl::MaxSplits('=', 1));
    if (pair.first != "window") {
      return absl::InvalidArgumentError(
          absl::StrCat("'", pair.first, "': the only parameter is window"));
    }
    asked = pair.second;
  }
  ASSIGN_OR_RETURN(const Duration window, ParseWindow(asked));
  ASSIGN_OR_RETURN(const std::vector<ledger::DeviceAccount> devices, book.Over(window, now));
  json::object out = TcoJson(devices, ledger::CostOf(devices));
  out["window_seconds"] = window.seconds();
  const TcoBook::Refusals refusals = book.refusals();
  out["ledgers_refused"] = {{"count", refusals.count}, {"last", refusals.last}};
  return json::serialize(out);
}

}  // namespace tandem::router
