#include "engine/eval/baselines.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "engine/eval/evaluate.h"
#include "engine/eval/evaluation_text.h"
#include "engine/io/map_file.h"
#include "kernels/core/error.h"
#include "tests/io/test_files.h"

namespace depthstill {
namespace {

using testing_files::error_of;
using testing_files::TemporaryFolder;

// Maps on disk as the items of a list; 0 is a hole.
class Maps {
 public:
  void add(const DepthMap& map) {
    const std::string name = std::to_string(items_.size());
    write_map(folder_ / (name + ".pfm"), map, {});
    items_.push_back({name, "list.txt:" + name, folder_ / (name + ".pfm")});
  }
  std::vector<EvalItem>& items() { return items_; }

 private:
  TemporaryFolder folder_;
  std::vector<EvalItem> items_;
};

float hashed(int i) { return static_cast<float>(0.6 + 60 * std::fmod(i * 0.6180339887498949, 1.0)); }

// Images of different sizes and depths, some with holes.
std::vector<DepthMap> some_maps() {
  std::vector<DepthMap> maps;
  const ImageSize sizes[] = {{7, 6}, {5, 12}, {9, 6}, {3, 4}};
  int i = 0;
  for (const ImageSize size : sizes) {
    DepthMap map{size.width, size.height, {}};
    for (int k = 0; k < size.width * size.height; ++k, ++i) map.values.push_back(i % 5 == 3 ? 0 : hashed(i));
    maps.push_back(map);
  }
  return maps;
}

double abs_rel_of(const std::vector<DepthMap>& maps, double constant) {
  double sum = 0;
  for (const DepthMap& map : maps) {
    double error = 0, pixels = 0;
    for (const float g : map.values) {
      if (g <= 0) continue;
      error += std::abs(constant - static_cast<double>(g)) / static_cast<double>(g);
      ++pixels;
    }
    sum += error / pixels;
  }
  return sum / static_cast<double>(maps.size());
}

TEST(Baselines, TheConstantIsLeastInAbsRel) {
  Maps files;
  const std::vector<DepthMap> maps = some_maps();
  for (const DepthMap& map : maps) files.add(map);
  const Baselines found = measure_baselines(make_protocol("plain"), "list.txt", files.items(), {});
  EXPECT_EQ(found.images, 4);
  ASSERT_EQ(found.each.at(0).name, "constant");
  ASSERT_EQ(found.each[0].rows.size(), 1u);
  const double least = abs_rel_of(maps, static_cast<double>(found.each[0].rows[0]));
  for (double constant = 0.5; constant < 62; constant *= 1.01) EXPECT_GE(abs_rel_of(maps, constant), least * 0.999);
  EXPECT_GT(abs_rel_of(maps, 30.0), 1.5 * least);  // neither the middle depth nor the mean
}

TEST(Baselines, RowsShareMediansByRelativeHeight) {
  Maps files;
  // Rows of the first frame: 10, none, 30, 40. The second frame is twice as high, the third half.
  files.add({3, 4, {10, 10, 10, 0, 0, 0, 30, 0, 0, 40, 40, 0}});
  DepthMap high{1, 8, {10, 12, 0, 0, 0, 34, 38, 0}};
  files.add(high);
  files.add({1, 2, {0, 90}});  // beyond the protocol's range
  const Baselines found = measure_baselines(make_protocol("plain"), "list.txt", files.items(), {});
  EXPECT_EQ(found.images, 2);
  const Baseline& rows = found.each.at(1);
  EXPECT_EQ(rows.name, "row_median");
  ASSERT_EQ(rows.rows.size(), 4u);
  const float expected[] = {10, 10, 30, 40};  // the row without pixels takes the one above
  for (size_t r = 0; r < 4; ++r) EXPECT_NEAR(rows.rows[r], expected[r], 0.14f * expected[r]) << r;
  EXPECT_NEAR(rows.rows[0], 10.0f, 0.02f);
  EXPECT_EQ(rows.rows[1], rows.rows[0]);
  const DepthMap map = baseline_map(rows, {2, 8});
  EXPECT_EQ(map.size(), (ImageSize{2, 8}));
  for (size_t i = 0; i < map.values.size(); ++i) EXPECT_EQ(map.values[i], rows.rows[i / 4]) << i;
  EXPECT_EQ(baseline_map(found.each[0], {3, 2}).values, std::vector<float>(6, found.each[0].rows[0]));
}

TEST(Baselines, SayWhatIsMissing) {
  Maps files;
  files.add({2, 2, {0, 0, 0, 0}});
  EXPECT_EQ(error_of([&] { measure_baselines(make_protocol("plain"), "list.txt", files.items(), {}); }),
            "list.txt: expected depth to take baselines from, found none");
  files.items().push_back({"b", "list.txt:2", "/nowhere/b.pfm"});
  const std::string message =
      error_of([&] { measure_baselines(make_protocol("plain"), "list.txt", files.items(), {}); });
  EXPECT_EQ(message.rfind("list.txt:2: /nowhere/b.pfm", 0), 0u) << message;
}

TEST(Baselines, AreScoredOnThePixelsOfThePredictions) {
  Maps files;
  for (const DepthMap& map : some_maps()) files.add(map);
  const Protocol protocol = make_protocol("plain");
  const Baselines baselines{"train.txt", 3, {{"constant", "constant 8 m", {8}}, {"row_median", "rows", {4, 8, 16}}}};
  EvaluateOptions options;
  const auto eights = [](const EvalItem& item) {
    DepthMap map = read_map(item.truth, {});
    std::fill(map.values.begin(), map.values.end(), 8.0f);
    return map;
  };
  const Evaluation alone = evaluate(protocol, files.items(), eights, options);
  EXPECT_EQ(evaluation_json(alone).find("baselines"), std::string::npos);
  options.baselines = &baselines;
  const Evaluation beside = evaluate(protocol, files.items(), eights, options);
  ASSERT_EQ(beside.baselines.size(), 2u);
  EXPECT_EQ(beside.baselines[0].summary.mean.abs_rel, beside.summary.mean.abs_rel);
  EXPECT_NE(beside.baselines[1].summary.mean.abs_rel, beside.summary.mean.abs_rel);
  EXPECT_EQ(beside.baselines[1].summary.images, 4);

  auto json = nlohmann::json::parse(evaluation_json(beside));
  EXPECT_EQ(json.at("baselines").at("constant").at("d1"), json.at("d1"));
  EXPECT_EQ(json.at("baselines").at("source"), "train.txt, 3 images");
  json.erase("baselines");
  EXPECT_EQ(json, nlohmann::json::parse(evaluation_json(alone))) << "the other keys stay as they are";
  const std::string text = format_evaluation(beside), plain = format_evaluation(alone);
  EXPECT_EQ(text.rfind(plain, 0), 0u);
  EXPECT_NE(text.find("from train.txt, 3 images:\n"), std::string::npos);
  EXPECT_NE(text.find("  constant 8 m\n"), std::string::npos);
}

}  // namespace
}  // namespace depthstill
