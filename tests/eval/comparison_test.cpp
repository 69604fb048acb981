#include "engine/eval/comparison.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "engine/eval/benchmarks.h"
#include "engine/eval/metrics_csv.h"
#include "kernels/core/error.h"
#include "tests/io/test_files.h"

namespace depthstill {
namespace {

using testing_files::error_of;
using testing_files::TemporaryFolder;

std::vector<ImageMetrics> images_of(const std::vector<double>& abs_rel, double d1 = 0.5) {
  std::vector<ImageMetrics> images{{"none", 0}};
  for (const double value : abs_rel) {
    Metrics metrics;
    metrics.abs_rel = value;
    metrics.d1 = d1;
    images.push_back({"image" + std::to_string(images.size()), 7, metrics});
  }
  return images;
}

TEST(Comparison, DifferencesAreTakenImageByImage) {
  const std::vector<ImageMetrics> ours = images_of({0.1, 0.2, 0.9, 0.4}, 0.6), others = images_of({0.2, 0.3, 0.8, 0.4});
  const Comparison found = compare(ours, others, "other.csv", kMetricFields, {1000, 5});
  EXPECT_EQ(found.images, 4);
  EXPECT_NEAR(found.metrics[0].difference, -0.025, 1e-12);
  EXPECT_EQ(found.metrics[0].better_share, 0.5);  // a tie is not better
  EXPECT_LT(found.metrics[0].interval.low, -0.09);
  EXPECT_GT(found.metrics[0].interval.high, 0.04);
  EXPECT_NEAR(found.metrics[6].interval.low, 0.1, 1e-12);  // d1, which is the same everywhere: no spread
  EXPECT_EQ(found.metrics[6].better_share, 1);
}

TEST(Comparison, OtherListsAndProtocolsAreRefused) {
  const std::vector<ImageMetrics> ours = images_of({1, 2});
  std::vector<ImageMetrics> others = images_of({1});
  const auto error = [&] { return error_of([&] { compare(ours, others, "o.csv", kMetricFields, {10, 0}); }); };
  EXPECT_EQ(error(), "o.csv: expected the figures of 3 images, found 2");
  others = images_of({1, 2});
  others[2].name = "x";
  EXPECT_EQ(error(), "o.csv: expected image2 as image 3, found x");
  others = images_of({1, 2});
  others[1].pixels = 6;
  EXPECT_EQ(error(), "o.csv: expected figures by the same protocol, which counts 7 pixels of image1, found 6");
}

// By hand: two scenes, of which one has three images.
TEST(Bootstrap, ScenesAreDrawnWithAllOfTheirImages) {
  const std::vector<ImageMetrics> images = images_of({1, 1, 1, 5});
  const auto scene = [](const std::string& image) { return std::string(image == "image4" ? "b" : "a"); };
  const std::vector<Interval> found = bootstrap(images, kMetricFields, {400, 3}, scene);
  EXPECT_EQ(found[0].low, 1);   // a, a
  EXPECT_EQ(found[0].high, 5);  // b, b; a and b: 2
  const std::vector<Interval> one = bootstrap(images, kMetricFields, {400, 3}, [](const std::string&) { return ""; });
  EXPECT_EQ(one[0].low, 2);
  EXPECT_EQ(one[0].high, 2);
  const auto own = [](const std::string& image) { return image; };
  EXPECT_EQ(bootstrap(images, kMetricFields, {400, 3}, own)[0].high,
            bootstrap(images, kMetricFields, {400, 3})[0].high);
}

TEST(Scenes, AreFoldersAboveTheImage) {
  const auto scene = [](const char* set, const char* image) { return scene_of(find_benchmark(set), image); };
  EXPECT_EQ(scene("nyu", "test/kitchen_0004/rgb_0001.png"), "test/kitchen_0004");
  EXPECT_EQ(scene("kitti", "2011_09_26/2011_09_26_drive_0002_sync/image_02/data/0000000069.png"),
            "2011_09_26/2011_09_26_drive_0002_sync");
  EXPECT_EQ(scene("eth3d", "rgb/office/images/dslr_images/DSC_0219.JPG"), "rgb/office");
  EXPECT_EQ(scene("scannet", "scene0406_02/color/000300.jpg"), "scene0406_02");
  EXPECT_EQ(scene("diode", "indoors/scene_00021/scan_00189/00021_00189_indoors_200_010.png"),
            "indoors/scene_00021/scan_00189");
  EXPECT_EQ(scene("kitti", "drive/0.png"), "drive");
  EXPECT_EQ(scene("plain", "0.png"), "");
}

TEST(MetricsTable, IsReadAsItWasWritten) {
  const TemporaryFolder folder;
  const std::string path = folder / "a.csv";
  std::vector<ImageMetrics> images = images_of({0.25, 3});
  images[1].name = "a, \"b\"";
  write_metrics_csv(path, images, kEvalFields, true);
  const MetricsTable table = read_metrics_csv(path);
  EXPECT_TRUE(table.fits);
  EXPECT_EQ(table.fields.size(), kEvalFields.size());
  ASSERT_EQ(table.images.size(), 3u);
  EXPECT_FALSE(table.images[0].metrics.has_value());
  EXPECT_EQ(table.images[1].name, images[1].name);
  EXPECT_EQ(table.images[1].pixels, 7);
  EXPECT_EQ(table.images[1].metrics->abs_rel, 0.25);
  EXPECT_EQ(table.images[2].metrics->abs_rel, 3);
}

TEST(MetricsTable, OtherFilesAreRefused) {
  const TemporaryFolder folder;
  const std::string path = folder / "a.csv";
  const auto error = [&](const std::string& text) {
    std::ofstream(path) << text;
    return error_of([&] { read_metrics_csv(path); });
  };
  EXPECT_EQ(error("a,b\n"), path + ":1: expected the columns of eval --csv, image,pixels,..., found 'a,b'");
  EXPECT_EQ(error("image,pixels,abs_rel\nx,1,0.5\ny,1\n"), path + ":3: expected 3 columns, found 2");
  EXPECT_EQ(error("image,pixels,abs_rel\nx,1,0.5m\n"), path + ":2: expected a number as abs_rel, found '0.5m'");
  EXPECT_EQ(error("image,pixels,abs_rel\n"), path + ": expected a line per image, found none");
}

}  // namespace
}  // namespace depthstill
