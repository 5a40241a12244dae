#include <absl/strings/str_cat.h>
#include <absl/strings/string_view.h>
#include <boost/json.hpp>

#include "scheduler/base/check.h"
#include "services/ctl/explain/page.h"
#include "services/ctl/explain/render.h"

namespace tandem::ctl {
namespace {

// JSON that stands in a <script> element: no byte of it can end the element, open a comment or be
// read as markup. Inside JSON's strings, the only place where these bytes occur, an escape means
// the same.
std::string ScriptSafe(absl::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    if (c == '<' || c == '>' || c == '&') {
      absl::StrAppend(&out, "\\u00", absl::Hex(static_cast<unsigned char>(c)));
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace

std::string ExplainHtml(const ExplainReport& report) {
  const absl::string_view page = kExplainPage;
  const size_t at = page.find(kExplainPagePlace);
  TANDEM_CHECK(at != absl::string_view::npos);
  return absl::StrCat(page.substr(0, at), ScriptSafe(boost::json::serialize(ExplainJson(report))),
                      page.substr(at + kExplainPagePlace.size()));
}

}  // namespace tandem::ctl
