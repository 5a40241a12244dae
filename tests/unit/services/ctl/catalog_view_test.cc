#include "services/ctl/catalog_view.h"

#include <absl/strings/str_split.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "services/ctl/table.h"
#include "tests/unit/scheduler/model/catalog_texts.h"
#include "tests/unit/scheduler/model/shipped_catalog.h"

namespace tandem::ctl {
namespace {

namespace json = boost::json;
using model::Shipped;
using testing::ContainsRegex;
using testing::HasSubstr;
using testing::Not;

model::Catalog Small() {
  model::Catalog catalog;
  EXPECT_TRUE(catalog.AddChip(model::kChipText, "c.yaml").ok());
  EXPECT_TRUE(catalog.AddDevice(model::kDeviceText, "d.yaml").ok());
  EXPECT_TRUE(catalog.AddModel(model::kModelText, "m.yaml").ok());
  return catalog;
}

double Derived(const CatalogEntry& entry, absl::string_view name) {
  for (const DerivedFigure& figure : entry.derived) {
    if (figure.name == name) return figure.value;
  }
  ADD_FAILURE() << "no " << name;
  return 0;
}

TEST(CatalogText, OneLineAnEntry) {
  EXPECT_EQ(*CatalogText(Small(), ""),
            "chip  memory   size  bandwidth     highest peak   price      marks\n"
            "tiny  sram    44 GB    21 PB/s  125 PFLOPS bf16  $7.2/h  2/1/4/8/3\n"
            "\n"
            "device   chips             size  bandwidth    price  own marks\n"
            "tiny-x4  4 x tiny, tp 2  176 GB    42 PB/s  $28.8/h  1/3/2/0/0\n"
            "\n"
            "model  layers   parameters       active  bf16 weights  KV a token  context\n"
            "small       6  0.0004147 B  0.0002304 B      829.4 kB       768 B     1024\n"
            "\n"
            "marks: figures that are measured/fitted/stated/assumed/unknown");
}

TEST(CatalogText, KindsCanBeAskedForAlone) {
  EXPECT_THAT(*CatalogText(Small(), "device"), Not(HasSubstr("small")));
  EXPECT_THAT(*CatalogText(Small(), "model"), Not(HasSubstr("tiny")));
  EXPECT_EQ(CatalogText(Small(), "chips").status(),
            absl::InvalidArgumentError("'chips' is none of chip, device, model and engine"));
  EXPECT_EQ(CatalogJson(Small(), "chips").status(), CatalogText(Small(), "chips").status());
}

TEST(CatalogText, ShippedOneFitsATerminal) {
  const std::string text = *CatalogText(Shipped(), "");
  for (const absl::string_view line : absl::StrSplit(text, '\n'))
    EXPECT_LE(line.size(), kTerminalColumns) << line;
}

TEST(CatalogEntry, ChipHasEveryFigureWithItsMarkAndSource) {
  const std::string text = EntryText(*FindEntry(Small(), "chip", "tiny"));
  EXPECT_THAT(text, HasSubstr("chip tiny: sram\n"));
  EXPECT_THAT(text, ContainsRegex("\nmemory_bytes +44 GB  stated +data sheet\n"));
  EXPECT_THAT(text,
              ContainsRegex("\nscale_up.bytes_per_s +unknown  unknown +looked for, not found\n"));
  EXPECT_THAT(text, ContainsRegex("\nbf16.layer_seconds +17.3 us  fitted +a system\n"));
}

// Source: facts/chips.md section 3, facts/models.md.
TEST(CatalogEntry, DerivedFiguresAreThoseOfTheFacts) {
  const CatalogEntry h100 = *FindEntry(Shipped(), "chip", "h100");
  EXPECT_EQ(h100.name, "h100-sxm");
  EXPECT_NEAR(Derived(h100, "fp8.ridge_rows_at_peak"), 295, 1);
  const model::DtypeFigures fp8 = Shipped().FindChip("h100-sxm")->dtypes.at(model::Dtype::kFp8);
  EXPECT_NEAR(Derived(h100, "fp8.ridge_rows"),
              295 * fp8.compute_efficiency.value / fp8.bandwidth_efficiency.value, 2);
  EXPECT_NEAR(Derived(h100, "bandwidth_per_dollar"), 3.35e12 / 1.69, 1);
  EXPECT_NEAR(Derived(h100, "room_bytes"), 69e9, 1);
  const CatalogEntry llama = *FindEntry(Shipped(), "model", "llama-3-70b");
  EXPECT_EQ(Derived(llama, "kv_bytes_per_token"), 327'680);
  EXPECT_NEAR(Derived(llama, "bf16.weight_bytes"), 141.1e9, 0.1e9);
  EXPECT_NEAR(Derived(llama, "bf16.ffn_bytes"), 112.7e9, 0.1e9);
  EXPECT_NEAR(Derived(llama, "int4.weight_bytes"), 39.7e9, 0.1e9);
  const CatalogEntry gpt = *FindEntry(Shipped(), "model", "gpt-oss-120b");
  EXPECT_EQ(Derived(gpt, "kv_bytes_per_token_growing"), 36'864);
  EXPECT_NEAR(Derived(gpt, "active_parameters"), 5.7e9, 0.05e9);
  const CatalogEntry rack = *FindEntry(Shipped(), "device", "groq3-lpx");
  EXPECT_NEAR(Derived(rack, "room_bytes"), 128e9, 1);
}

TEST(CatalogEntry, AFittedFigureHasItsUncertainty) {
  const std::string text = EntryText(*FindEntry(Shipped(), "chip", "h100"));
  EXPECT_THAT(text,
              ContainsRegex("\nfp8.layer_seconds +[0-9.]+ us \\+-[0-9.]+ %  fitted +fitted "));
  const json::value entry = json::parse(EntryJson(*FindEntry(Shipped(), "engine", "vllm")));
  const json::array& figures = entry.at("figures").as_array();
  EXPECT_EQ(figures.front().at("name").as_string(), "step_seconds");
  EXPECT_GT(figures.front().at("error").as_double(), 0);
}

TEST(CatalogEntry, UnknownPriceHasNothingPerDollar) {
  EXPECT_THAT(EntryText(*FindEntry(Shipped(), "chip", "cs-3")), Not(HasSubstr("per_dollar")));
  EXPECT_THAT(EntryText(*FindEntry(Shipped(), "chip", "h100")), HasSubstr("per_dollar"));
}

TEST(CatalogEntry, UnknownNamesAndKindsAreRefused) {
  EXPECT_EQ(FindEntry(Small(), "chips", "tiny").status(),
            absl::InvalidArgumentError("'chips' is none of chip, device, model and engine"));
  EXPECT_EQ(FindEntry(Small(), "chip", "huge").status(),
            absl::NotFoundError("chip 'huge' is not in the catalog; nearest: tiny (of 1)"));
}

TEST(CatalogJson, UnknownIsNullAndUnitsAreBase) {
  const json::value entry = json::parse(EntryJson(*FindEntry(Shipped(), "chip", "cs-3")));
  EXPECT_EQ(entry.at("name"), "cs-3");
  for (const json::value& figure : entry.at("figures").as_array()) {
    if (figure.at("name") == "dollars_per_hour") {
      EXPECT_TRUE(figure.at("value").is_null());
      EXPECT_EQ(figure.at("mark"), "unknown");
      EXPECT_EQ(figure.at("unit"), "$/h");
    }
    if (figure.at("name") == "memory_bytes") {
      EXPECT_EQ(figure.at("value").as_double(), 44e9);
      EXPECT_EQ(figure.at("unit"), "B");
      EXPECT_EQ(figure.at("mark"), "stated");
    }
  }
  const json::value all = json::parse(*CatalogJson(Shipped(), ""));
  EXPECT_EQ(all.at("chips").as_array().size(), Shipped().ChipNames().size());
  EXPECT_EQ(all.at("devices").as_array().size(), Shipped().DeviceNames().size());
  EXPECT_EQ(all.at("models").as_array().size(), Shipped().ModelNames().size());
}

}  // namespace
}  // namespace tandem::ctl
