#include "services/ctl/topology.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tandem::ctl {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const TopologyPreset& Preset(absl::string_view name) { return **FindTopology(name); }

TEST(Shape, CountsTheWorkersOfEachPool) {
  EXPECT_THAT(*ParseShape(Preset("colocated"), "3W"), ElementsAre(3));
  EXPECT_THAT(*ParseShape(Preset("pd"), "2P1D"), ElementsAre(2, 1));
  EXPECT_THAT(*ParseShape(Preset("afd"), "1A4F"), ElementsAre(1, 4));
  EXPECT_THAT(*ParseShape(Preset("pd-afd"), "1P2A12F"), ElementsAre(1, 2, 12));
  EXPECT_THAT(*ParseShape(Preset("pd-afd"), "1p2a2f"), ElementsAre(1, 2, 2));
}

TEST(Shape, EmptyIsOneEach) {
  EXPECT_THAT(*ParseShape(Preset("pd-afd"), ""), ElementsAre(1, 1, 1));
}

TEST(Shape, FormatIsTheInverse) {
  EXPECT_EQ(FormatShape(Preset("pd-afd"), {1, 2, 12}), "1P2A12F");
  EXPECT_EQ(FormatShape(Preset("colocated"), {3}), "3W");
}

TEST(Shape, OneThatDoesNotFitSaysWhichFormIsNeeded) {
  const std::pair<const char*, const char*> cases[] = {
      {"pd", "1P1F"},      {"pd", "1P"},           {"afd", "1P1A1F"},
      {"pd-afd", "1A1F"},  {"pd-afd", "1P1A1F1F"}, {"colocated", "W"},
      {"colocated", "0W"}, {"colocated", "65W"},   {"colocated", "99999999999W"},
      {"afd", "-1A1F"},    {"afd", "1A 1F"}};
  for (const auto& [topology, shape] : cases) {
    const absl::Status status = ParseShape(Preset(topology), shape).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << topology << " " << shape;
    EXPECT_THAT(std::string(status.message()), HasSubstr(std::string(Preset(topology).shape_form)))
        << shape;
    EXPECT_THAT(std::string(status.message()), HasSubstr(shape));
  }
}

TEST(Topology, AnUnknownOneListsThoseThereAre) {
  const absl::Status status = FindTopology("dp").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("colocated, pd, afd, pd-afd, pd-sram, sram"));
}

}  // namespace
}  // namespace tandem::ctl
