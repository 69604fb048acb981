#include "tools/evaluate_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "engine/eval/evaluate_files.h"
#include "engine/eval/evaluation_text.h"
#include "models/depth_anything.h"
#include "tests/data/small_set.h"
#include "tools/stored_predictions.h"

namespace depthstill {
namespace {

std::unique_ptr<DepthModel> tiny(Head head) {
  DepthAnythingConfig config{{.dim = 32, .depth = 4, .heads = 2, .taps = {0, 1, 2, 3}, .grid = 2},
                             {.dim = 32, .features = 8, .out_channels = {8, 8, 16, 16}}};
  if (is_exponential(head)) config.head.sky = SkyBranch::kRelu;
  auto model = std::make_unique<DepthAnything>("tiny", config, ModelOptions{.head = head});
  model->initialize(9);
  model->eval();
  return model;
}

Protocol aligned(Alignment alignment) {
  Protocol protocol = make_protocol("plain", "marigold");
  protocol.alignment = alignment;
  return protocol;
}

class EvaluateModel : public testing::Test {
 protected:
  testing_files::TemporaryFolder folder_;
  Dataset data_{testing_files::write_small_set(folder_, 2, 40, 30)};
  PredictOptions options_{.flip = true, .side = 28};
};

TEST_F(EvaluateModel, RelativeModelsNeedAnAffineAlignment) {
  const auto relative = tiny(Head::kRelative);
  for (const Alignment alignment : {Alignment::kNone, Alignment::kMedian, Alignment::kScaleL1}) {
    testing_files::expect_clear(
        testing_files::error_of([&] { evaluate_model(*relative, data_, aligned(alignment), options_); }),
        "tiny: what it predicts is inverse depth up to scale and shift, expected depth");
  }
  EXPECT_EQ(evaluate_model(*relative, data_, aligned(Alignment::kDisparityLs), options_).summary.images, 2);
}

TEST_F(EvaluateModel, DepthAnything3IsScoredByWhatItsHeadGives) {
  const auto mono = tiny(Head::kRelativeDepth), metric = tiny(Head::kCanonicalDepth);
  testing_files::expect_clear(
      testing_files::error_of([&] { evaluate_model(*mono, data_, aligned(Alignment::kMedian), options_); }),
      "tiny: what it predicts is depth up to scale and shift, expected depth");
  EXPECT_EQ(evaluate_model(*mono, data_, aligned(Alignment::kDepthLs), options_).summary.images, 2);
  const Evaluation metres = evaluate_model(*metric, data_, aligned(Alignment::kNone), options_);
  EXPECT_EQ(metres.predicted, kMetricDepth);
  EXPECT_EQ(metres.prediction, "prediction averaged with that for the mirrored image");
  write_file(folder_ / "list.txt", std::string_view("images/0.png depth/0.png\nimages/1.png depth/1.png\n"));
  const Dataset without(data_.spec());
  testing_files::expect_clear(
      testing_files::error_of([&] { evaluate_model(*metric, without, aligned(Alignment::kNone), options_); }),
      "list.txt:1: expected a focal length in pixels");
  EXPECT_EQ(evaluate_model(*metric, without, aligned(Alignment::kMedian), options_).summary.images, 2);
}

TEST_F(EvaluateModel, PicturesOfTheWorstImagesComeFirst) {
  const Dataset data(testing_files::write_small_set(folder_, 5, 40, 30));
  const auto model = tiny(Head::kRegression);
  std::vector<ReportPanel> panels{{}};
  const EvaluateExtras extras{.panels = &panels, .wanted_panels = 5, .worst_by = "abs_rel"};
  Evaluation evaluation = evaluate_model(*model, data, aligned(Alignment::kNone), options_, extras);
  const std::set<std::string> spread{evaluation.images[0].name, evaluation.images[1].name, evaluation.images[2].name};
  std::stable_sort(
      evaluation.images.begin(), evaluation.images.end(),
      [](const ImageMetrics& a, const ImageMetrics& b) { return a.metrics->abs_rel > b.metrics->abs_rel; });
  std::set<std::string> names;
  for (size_t i = 0; i < panels.size(); ++i) {
    EXPECT_TRUE(i >= 2 || panels[i].name == evaluation.images[i].name) << panels[i].name;
    EXPECT_TRUE(names.insert(panels[i].name).second) << "twice";
    EXPECT_TRUE(i < 2 || spread.contains(panels[i].name)) << panels[i].name;
  }
  for (const std::string& name : spread) EXPECT_TRUE(names.contains(name)) << name;
}

// Teacher and student, a model at work and its maps on the disk: one figure.
TEST_F(EvaluateModel, AModelAndItsStoredMapsHaveTheSameFigures) {
  const auto relative = tiny(Head::kRelative), metric = tiny(Head::kRegression);
  const Protocol protocol = aligned(Alignment::kDisparityLs);
  for (const DepthModel* model : {relative.get(), metric.get()}) {
    const std::string maps = folder_ / (model == relative.get() ? "relative" : "metric");
    make_folder(maps);
    EvaluateExtras extras;
    extras.keep = [&](const EvalItem& item, const DepthMap& map) {
      write_map(maps + "/" + flat_name(item.name, ".npy"), map, {});
    };
    const Evaluation expected = evaluate_model(*model, data_, protocol, options_, extras);
    StoredPredictions stored(maps, PredictionNames::kFlat, std::nullopt, 0, protocol);
    EvaluateOptions options;
    options.truth_format = data_.spec().depth;
    const std::vector<EvalItem> items = eval_items(data_, protocol);
    stored.check_exist(items);
    const Evaluation found = evaluate_files(
        protocol, items, [&](const EvalItem& item) { return stored.open(item); }, options);
    EXPECT_EQ(found.summary.mean.abs_rel, expected.summary.mean.abs_rel);
    EXPECT_EQ(found.images[1].fit.scale, expected.images[1].fit.scale);
    EXPECT_GT(found.images[1].fit.pixels, 0);
    const std::string inverted = "; predictions are depth in metres, inverted first";
    EXPECT_EQ(describe(found).find(inverted) != std::string::npos, model == metric.get());
  }
}

}  // namespace
}  // namespace depthstill
