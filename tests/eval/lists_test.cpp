// The lists of the five benchmarks that come with the project.
#include <gtest/gtest.h>

#include <set>

#include "engine/data/list_file.h"
#include "engine/eval/benchmarks.h"

namespace depthstill {
namespace {

TEST(BenchmarkLists, HaveTheImagesAndScenesOfThePublishedOnes) {
  const struct {
    const char *dataset, *file;
    size_t lines, with_truth, scenes;
    bool third_path;
  } cases[] = {{"nyu", "nyu_test_654.txt", 654, 654, 215, true},
               {"kitti", "kitti_eigen_test_652.txt", 652, 652, 28, false},
               {"eth3d", "eth3d_454.txt", 454, 454, 13, false},
               {"scannet", "scannet_val_800.txt", 800, 800, 271, false},
               {"diode", "diode_val_771.txt", 771, 771, 20, true}};
  for (const auto& c : cases) {
    SCOPED_TRACE(c.file);
    const std::vector<ListEntry> entries = read_list(std::string(DEPTHSTILL_SOURCE_DIR) + "/tools/lists/" + c.file);
    EXPECT_EQ(entries.size(), c.lines);
    std::set<std::string> scenes, images;
    size_t with_truth = 0;
    for (const ListEntry& entry : entries) {
      with_truth += !entry.depth.empty();
      images.insert(entry.image);
      scenes.insert(scene_of(find_benchmark(c.dataset), entry.image));
      EXPECT_EQ(!entry.extra.empty(), c.third_path) << entry.image;
    }
    EXPECT_EQ(with_truth, c.with_truth);
    EXPECT_EQ(images.size(), c.lines);
    EXPECT_EQ(scenes.size(), c.scenes);
  }
}

}  // namespace
}  // namespace depthstill
