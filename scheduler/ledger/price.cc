#include "scheduler/ledger/price.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <array>
#include <utility>

#include "scheduler/base/status.h"
#include "scheduler/model/yaml_reader.h"

namespace tandem::ledger {
namespace {

using model::Figure;
using model::Mark;
using model::Range;

constexpr Range kDollarsRange = {0, 1e12}, kDollarsPerHourRange = {0, 1e9};
constexpr Range kDollarsPerKwhRange = {0, 100}, kWattsRange = {0, 1e9};
constexpr Range kLifeYearsRange = {0.01, 100}, kPueRange = {1, 10};

constexpr std::array<Mark, 6> kFromWeakest = {Mark::kUnknown, Mark::kWhatIf, Mark::kAssumed,
                                              Mark::kStated,  Mark::kFitted, Mark::kMeasured};

// A number, which the file states, or a figure with a mark and source of its own; nothing where the
// key is absent.
void GetFigure(YamlReader& reader, const std::string& key, Range range, Figure& figure) {
  if (!reader.Has(key)) return;
  bool plain = false;
  reader.GetAny(key, [&plain](const YAML::Node& node) {
    plain = node.IsScalar();
    return absl::OkStatus();
  });
  if (!plain) return model::RequireFigure(reader, key, range, figure);
  reader.Get(key, figure.value, range.min, range.max);
  figure.mark = Mark::kStated;
  figure.source = "the prices file";
}

void RequireFigureOrNumber(YamlReader& reader, const std::string& key, Range range,
                           Figure& figure) {
  if (reader.Needs(key)) GetFigure(reader, key, range, figure);
}

void ReadOwned(YamlReader& reader, OwnedDevice& owned) {
  RequireFigureOrNumber(reader, "capex_dollars", kDollarsRange, owned.capex_dollars);
  RequireFigureOrNumber(reader, "life_years", kLifeYearsRange, owned.life_years);
  RequireFigureOrNumber(reader, "power_watts", kWattsRange, owned.power_watts);
  RequireFigureOrNumber(reader, "pue", kPueRange, owned.pue);
  RequireFigureOrNumber(reader, "electricity_dollars_per_kwh", kDollarsPerKwhRange,
                        owned.electricity_dollars_per_kwh);
  GetFigure(reader, "hosting_dollars_per_hour", kDollarsPerHourRange,
            owned.hosting_dollars_per_hour);
}

absl::Status ReadEntry(YamlReader reader, std::map<std::string, Price>& pools,
                       std::map<std::string, Price>& devices) {
  const bool by_pool = reader.Has("pool");
  if (by_pool && reader.Has("device"))
    reader.Refuse("device", "names a pool and a device: one of them");
  const std::string key = by_pool ? "pool" : "device";
  std::string name;
  model::RequireText(reader, key, name);
  const bool rented = reader.Has("dollars_per_hour");
  if (rented && reader.Has("capex_dollars"))
    reader.Refuse("capex_dollars", "has dollars_per_hour too: a device is rented or owned");
  Price price;
  if (rented) {
    Figure dollars, watts;
    GetFigure(reader, "dollars_per_hour", kDollarsPerHourRange, dollars);
    GetFigure(reader, "power_watts", kWattsRange, watts);
    price = RentedPrice(name, std::move(dollars), std::move(watts));
  } else {
    OwnedDevice owned;
    ReadOwned(reader, owned);
    // Numbers that were refused are no numbers to divide by.
    if (owned.life_years.known()) price = OwnedPrice(name, owned);
  }
  auto& table = by_pool ? pools : devices;
  if (!table.emplace(name, std::move(price)).second)
    reader.Refuse(key, absl::StrCat("'", name, "' has a price already"));
  return reader.Finish();
}

}  // namespace

Mark Weakest(const std::vector<Input>& inputs) {
  auto weakest = kFromWeakest.end() - 1;
  for (const Input& input : inputs)
    weakest =
        std::min(weakest, std::find(kFromWeakest.begin(), kFromWeakest.end(), input.figure.mark));
  return *weakest;
}

Price RentedPrice(absl::string_view device, Figure dollars_per_hour, Figure watts) {
  Price price;
  price.inputs.push_back({absl::StrCat("price of ", device, ", $/h"), dollars_per_hour});
  price.dollars_per_hour = std::move(dollars_per_hour);
  price.watts = std::move(watts);
  return price;
}

Price CatalogPrice(const model::Device& device) {
  const auto of_all = [&device](Figure figure) {
    figure.value *= device.count;
    if (device.count > 1) absl::StrAppend(&figure.source, "; ", device.count, " of them");
    return figure;
  };
  return RentedPrice(device.name, of_all(device.chip.dollars_per_hour),
                     of_all(device.chip.power_watts));
}

Price OwnedPrice(absl::string_view device, const OwnedDevice& owned) {
  Price price;
  const auto add = [&](absl::string_view what, const Figure& figure) {
    if (figure.known()) price.inputs.push_back({absl::StrCat(what, " of ", device), figure});
    return figure.value;
  };
  const double capital = add("capex, $,", owned.capex_dollars) /
                         (add("life, years,", owned.life_years) * kHoursPerYear);
  const double energy = add("power, W,", owned.power_watts) / 1e3 * add("PUE", owned.pue) *
                        add("electricity, $/kWh,", owned.electricity_dollars_per_kwh);
  const double hosting = add("hosting, $/h,", owned.hosting_dollars_per_hour);
  price.dollars_per_hour = {capital + energy + hosting, Weakest(price.inputs),
                            "owned: capex / life + power x PUE x electricity + hosting"};
  price.watts = owned.power_watts;
  return price;
}

absl::string_view CatalogName(absl::string_view device) {
  constexpr absl::string_view kEmulated = "emulated/";
  return absl::StartsWith(device, kEmulated) ? device.substr(kEmulated.size()) : device;
}

absl::StatusOr<PriceList> PriceList::Read(absl::string_view yaml, absl::string_view where) {
  const std::string file(where);
  ASSIGN_OR_RETURN(const YAML::Node root, ParseYaml(yaml, file));
  YamlReader reader(root, file);
  PriceList list;
  if (reader.Needs("prices")) {
    reader.GetList("prices", [&](const YAML::Node& node) {
      return ReadEntry(reader.Below(node, "prices"), list.pools_, list.devices_);
    });
  }
  RETURN_IF_ERROR(reader.Finish());
  return list;
}

Price PriceList::PriceOf(const std::string& pool, absl::string_view device, Price otherwise) const {
  auto found = pools_.find(pool);
  if (found == pools_.end()) {
    found = devices_.find(std::string(CatalogName(device)));
    if (found == devices_.end()) return otherwise;
  }
  Price price = found->second;
  if (!price.watts.known()) price.watts = std::move(otherwise.watts);
  return price;
}

}  // namespace tandem::ledger
