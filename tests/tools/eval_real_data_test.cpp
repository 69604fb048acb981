#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "engine/data/dataset.h"
#include "engine/eval/benchmarks.h"
#include "engine/eval/evaluate.h"
#include "models/predictor.h"

namespace depthstill {
namespace {

namespace fs = std::filesystem;

// Scores of predicting the mean depth of the training set at every pixel, found with NumPy on the same files. NYU: mean
// of the ground truth; KITTI: of the teacher maps, since ground truth is sparse.
struct MeanDepth {
  const char* dataset;
  const char* folder;
  const char* train_list;
  const char* test_list;
  double abs_rel;
};

TEST(EvalOnRealData, MeanDepthOfTheTrainingSet) {
  const MeanDepth sets[] = {{"nyu", "nyuv2", "train.txt", "test.txt", 0.397},
                            {"kitti", "kitti", "object_train.txt", "eigen_test_drive0052.txt", 0.886}};
  const char* const variable = std::getenv("DEPTHSTILL_TEST_DATA");
  const fs::path data = variable ? fs::path(variable) : fs::path(DEPTHSTILL_SOURCE_DIR) / ".." / "shared" / "data";
  int found = 0;
  for (const MeanDepth& set : sets) {
    const fs::path root = data / set.folder;
    if (!fs::exists(root / set.test_list)) continue;
    ++found;
    const bool nyu = std::string(set.dataset) == "nyu";
    const Protocol protocol = make_protocol(set.dataset);
    DatasetSpec spec = dataset_spec(find_benchmark(set.dataset), root.string(), set.train_list);
    spec.teacher = TeacherSpec{"teacher_lidar_dense"};
    const Dataset train(spec);
    const Target target = nyu ? Target::kTruth : Target::kTeacher;
    std::vector<double> sum, count;
    int height = 0, width = 0;
    for (const EvalItem& item : eval_items(train, target)) {
      DepthMap depth = read_map(item.truth, nyu ? spec.depth : spec.teacher->format);
      depth = crop(depth, frame_rect(protocol, depth.size()));
      height = depth.height;
      width = depth.width;
      sum.resize(depth.values.size());
      count.resize(depth.values.size());
      for (size_t i = 0; i < sum.size(); ++i) {
        sum[i] += static_cast<double>(depth.values[i]);
        count[i] += depth.values[i] > 0;
      }
    }
    double all = 0, all_count = 0;
    for (size_t i = 0; i < sum.size(); ++i) {
      all += sum[i];
      all_count += count[i];
    }
    DepthMap mean{width, height, {}};
    for (size_t i = 0; i < sum.size(); ++i) {
      mean.values.push_back(static_cast<float>(count[i] > 0 ? sum[i] / count[i] : all / all_count));
    }
    DatasetSpec test_spec = spec;
    test_spec.list = set.test_list;
    const Dataset test(test_spec);
    EvaluateOptions options;
    options.truth_format = spec.depth;
    const Evaluation evaluation = evaluate(
        protocol, eval_items(test, Target::kTruth), [&](const EvalItem&) { return mean; }, options);
    EXPECT_NEAR(evaluation.summary.mean.abs_rel, set.abs_rel, 0.0006) << set.dataset;
    EXPECT_EQ(evaluation.summary.images, nyu ? 150 : 25);
  }
  if (found == 0) GTEST_SKIP() << "skipped: no nyuv2 and no kitti";
}

TEST(Predictor, PadsMirrorsAndResizes) {
  const Image8 image{3, 2, {1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 6}};
  const Image8 padded = pad_to_multiple(image, 4);
  EXPECT_EQ(padded.size(), (ImageSize{4, 4}));
  EXPECT_EQ(padded.rgb[3 * 3], 3);
  EXPECT_EQ(padded.rgb[3 * 15], 6);
  EXPECT_EQ(mirror(image).rgb[0], 3);
  EXPECT_EQ(mirror(mirror(image)).rgb, image.rgb);
  const DepthMap ramp{2, 1, {1, 3}};
  EXPECT_EQ(resize_bilinear(ramp, {4, 1}).values, (std::vector<float>{1, 1.5f, 2.5f, 3}));
  EXPECT_EQ(resize_bilinear(ramp, {2, 1}).values, ramp.values);
  EXPECT_EQ(resize_bilinear(ramp, {1, 3}).values, (std::vector<float>{2, 2, 2}));
}

}  // namespace
}  // namespace depthstill
