// Labels of regions: what a stored map says of a region, and what becomes of pixels that it says nothing of.
#include "engine/data/region_teacher.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "engine/data/batch_tensors.h"
#include "engine/data/loader.h"
#include "engine/io/npy.h"
#include "kernels/core/error.h"
#include "kernels/preprocess.h"
#include "tests/data/small_set.h"

namespace depthstill {
namespace {

using testing_files::TemporaryFolder;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

Region region_at(int top, int left, int side, bool mirrored = false) {
  Region region{};
  region.top = top;
  region.left = left;
  region.side = side;
  region.mirrored = mirrored;
  return region;
}

// A plane, so that bilinear interpolation has a formula: 10 row + column + 1.
DepthMap sloped(int width, int height) {
  DepthMap map{width, height, {}, kRelativeInverseDepth};
  for (int r = 0; r < height; ++r) {
    for (int c = 0; c < width; ++c) map.values.push_back(static_cast<float>(10 * r + c + 1));
  }
  return map;
}

TEST(RegionLabel, CopiesWhereSizesAgreeAndMirrors) {
  const DepthMap map = sloped(7, 5);
  EXPECT_EQ(region_label(map, region_at(1, 2, 2), 2), (std::vector<float>{13, 14, 23, 24}));
  EXPECT_EQ(region_label(map, region_at(1, 2, 2, true), 2), (std::vector<float>{14, 13, 24, 23}));
  EXPECT_THROW(region_label(map, region_at(4, 0, 2), 2), Error);
}

TEST(RegionLabel, IsBilinearOnPixelCentres) {
  const DepthMap map = sloped(9, 9);
  for (const int size : {3, 8, 13}) {
    const std::vector<float> label = region_label(map, region_at(2, 1, 6), size);
    for (int r = 0; r < size; ++r) {
      for (int c = 0; c < size; ++c) {
        const auto source = [&](int i) { return std::clamp((i + 0.5) * 6 / size - 0.5, 0.0, 5.0); };
        const double expected = 10 * (2 + source(r)) + 1 + source(c) + 1;
        EXPECT_NEAR(label[static_cast<size_t>(r * size + c)], expected, 1e-4) << size << ": " << r << ", " << c;
      }
    }
  }
}

TEST(RegionLabel, IsUnknownWhereTheNearestPixelIs) {
  DepthMap map{2, 2, {1, kNan, 3, 5}, kRelativeInverseDepth};
  const std::vector<float> label = region_label(map, region_at(0, 0, 2), 4);
  // Row 0 lies on pixels (0, .); column 1 stands at 0.25, column 2 at 0.75.
  EXPECT_EQ(label[0], 1.0f);
  EXPECT_EQ(label[1], 1.0f) << "the unknown neighbour does not count";
  EXPECT_TRUE(std::isnan(label[2]));
  EXPECT_TRUE(std::isnan(label[3]));
  EXPECT_FLOAT_EQ(label[5], (0.5625f * 1 + 0.1875f * 3 + 0.0625f * 5) / 0.8125f);
  EXPECT_EQ(label[15], 5.0f);
}

TEST(RegionLabel, DepthFeedsItsInverse) {
  DepthMap depth{4, 1, {2, 0, -1, kNan}, kMetricDepth};
  to_inverse_depth(depth);
  EXPECT_EQ(depth.values[0], 0.5f);
  for (size_t i = 1; i < 4; ++i) EXPECT_TRUE(std::isnan(depth.values[i])) << i;
  DepthMap inverse{4, 1, {2, 0, -1, std::numeric_limits<float>::infinity()}, kRelativeInverseDepth};
  to_inverse_depth(inverse);
  EXPECT_EQ(std::vector<float>(inverse.values.begin(), inverse.values.begin() + 3), (std::vector<float>{2, 0, -1}))
      << "0 is the farthest value, not a hole";
  EXPECT_TRUE(std::isnan(inverse.values[3]));
}

TEST(RegionLabel, SaysWhatTeachesNothing) {
  EXPECT_EQ(label_problem({kNan, kNan}), "holds no finite value");
  EXPECT_EQ(label_problem({kNan, 3.0f, 3.0f}), "is constant");
  EXPECT_EQ(label_problem({1000.0f, 1000.0005f}), "is constant");
  EXPECT_EQ(label_problem({0.0f, 0.0f}), "is constant");
  EXPECT_EQ(label_problem({0.0f, 1e-3f, kNan}), "");
}

// Four images of 40 x 30, whose first teacher knows their depth and whose second one knows the inverse of it, in files
// of each region.
class Regions : public testing::Test {
 protected:
  static constexpr int kImages = 4, kSize = 12;
  static constexpr uint64_t kSeed = 3;

  void SetUp() override {
    spec_ = testing_files::write_small_set(folder_, kImages, 40, 30);
    teacher_ = *spec_.teacher;
    spec_.teacher.reset();
    data_ = std::make_shared<const Dataset>(spec_);
    loading_.batch_size = 2;
    loading_.epochs = 2;
    loading_.seed = kSeed;
    loading_.regions = RegionLoading{{.patch = 12, .least = 16, .patches = 0, .flip_probability = 0.5}, kSize, {}, {}};
    settings_ = {{{"train.seed", "3"}}, data_->list_checksum(), 2, ""};
  }
  RegionLoading& regions() { return *loading_.regions; }
  std::unique_ptr<RegionTeacher> whole() const { return whole_image_teacher(spec_, teacher_); }
  // Labels of all regions that the run draws: the epoch and the sample as a constant slope.
  void write_regions() {
    make_folder(folder_ / "regions");
    write_region_settings(folder_ / "regions", settings_);
    for (int64_t epoch = 0; epoch < 2; ++epoch) {
      for (int64_t i = 0; i < kImages; ++i) {
        const std::string path = folder_ / ("regions/" + region_file(data_->entry(i).image, epoch));
        make_folder(std::filesystem::path(path).parent_path().string());
        std::vector<float> values(kSize * kSize, static_cast<float>(100 * epoch + i));
        values[1] = 0.5f;
        const std::vector<int64_t> shape = {1, kSize, kSize};
        write_npy(path, shape, values, NpyType::kHalf);
      }
    }
  }

  TemporaryFolder folder_;
  DatasetSpec spec_;
  TeacherSpec teacher_;
  std::shared_ptr<const Dataset> data_;
  LoaderOptions loading_;
  RegionFolderSettings settings_;
};

// Against the definition, pixel by pixel: numbered_depth() has a formula, and so have regions of its size.
TEST_F(Regions, TheLoaderDrawsThemAndReadsTheirLabels) {
  regions().teachers = {whole()};
  regions().shares = {1.0};
  Loader loader(data_, loading_);
  int batches = 0;
  while (const auto batch = loader.next()) {
    ++batches;
    for (const BatchItem& item : batch->items) {
      ASSERT_TRUE(item.region);
      EXPECT_TRUE(item.views.empty());
      EXPECT_TRUE(item.sample->depth.empty()) << "truth is not read";
      const Region expected = draw_region(regions().spec, {40, 30}, kSeed, batch->epoch, item.sample->index);
      const Region& region = item.region->region;
      EXPECT_EQ(region.side, expected.side);
      EXPECT_EQ(region.left, expected.left);
      DepthMap map =
          read_map(folder_ / ("teacher/images_" + std::to_string(item.sample->index) + ".png"), teacher_.format);
      for (float& value : map.values) value = 1.0f / value;
      EXPECT_EQ(item.region->label.region, region_label(map, expected, kSize));
    }
  }
  EXPECT_EQ(batches, 4);
}

TEST_F(Regions, TheTeacherOfAnIterationServesAllItsSamples) {
  write_regions();
  regions().teachers = {whole(), region_folder_teacher(folder_ / "regions", settings_, kRelativeInverseDepth, kSize)};
  regions().shares = {0.5, 0.5};
  loading_.epochs = 2;
  Loader loader(data_, loading_);
  while (const auto batch = loader.next()) {
    EXPECT_EQ(batch->teacher, draw_teacher(regions().shares, kSeed, batch->epoch, batch->step));
    for (const BatchItem& item : batch->items) {
      const float stored = static_cast<float>(100 * batch->epoch + item.sample->index);
      EXPECT_EQ(item.region->label.region[5] == stored, batch->teacher == 1);
      EXPECT_TRUE(batch->teacher == 0 || item.region->label.region[1] == 0.5f)
          << "a region's own map is not mirrored again";
    }
  }
}

// The same from any step on: what a step reads follows from its position alone.
TEST_F(Regions, GoOnFromAnyStep) {
  write_regions();
  regions().teachers = {whole(), region_folder_teacher(folder_ / "regions", settings_, kRelativeInverseDepth, kSize)};
  regions().shares = {0.5, 0.5};
  std::vector<Batch> all;
  Loader loader(data_, loading_);
  while (auto batch = loader.next()) all.push_back(std::move(*batch));
  ASSERT_EQ(all.size(), 4u);
  for (size_t first = 0; first < all.size(); ++first) {
    loading_.first_epoch = all[first].epoch;
    loading_.first_step = all[first].step;
    Loader again(data_, loading_);
    for (size_t i = first; i < all.size(); ++i) {
      const auto batch = again.next();
      ASSERT_TRUE(batch);
      EXPECT_EQ(batch->teacher, all[i].teacher);
      for (size_t k = 0; k < 2; ++k) {
        EXPECT_EQ(batch->items[k].sample->index, all[i].items[k].sample->index);
        EXPECT_EQ(batch->items[k].region->label.region, all[i].items[k].region->label.region);
      }
    }
  }
}

// Region and label are the same pixels: where a region has the student's size, both are copies.
TEST_F(Regions, BecomeTensorsWithTheirLabelsInAPlaneOfTheirOwn) {
  regions().spec.least = kSize;
  regions().spec.centred = false;
  regions().teachers = {whole()};
  regions().shares = {1.0};
  loading_.batch_size = 4;
  bool exact = false;
  for (loading_.seed = 0; !exact && loading_.seed < 400; ++loading_.seed) {
    Loader loader(data_, loading_);
    const Batch batch = *loader.next();
    const BatchViews views = to_tensors(batch, DType::kFloat, Device::kCpu);
    ASSERT_EQ(views.size(), 1u);
    ASSERT_EQ(views[0].image.shape(), (Shape{4, kSize, kSize, 3}));
    ASSERT_EQ(views[0].teacher.shape(), (Shape{4, kSize, kSize}));
    EXPECT_FALSE(views[0].truth.defined());
    const std::vector<float> image = to_vector<float>(views[0].image), labels = to_vector<float>(views[0].teacher);
    for (size_t n = 0; n < 4; ++n) {
      const LabelledRegion& drawn = *batch.items[n].region;
      for (size_t i = 0; i < drawn.label.region.size(); ++i) {
        ASSERT_EQ(labels[n * kSize * kSize + i], drawn.label.region[i]);
      }
      if (drawn.region.side != kSize) continue;
      exact = true;
      for (int r = 0; r < kSize; ++r) {
        for (int c = 0; c < kSize; ++c) {
          const int column = drawn.region.left + (drawn.region.mirrored ? kSize - 1 - c : c);
          const int64_t at = 3 * ((drawn.region.top + r) * 40 + column);
          for (int k = 0; k < 3; ++k) {
            const float v = static_cast<float>(batch.items[n].sample->image.rgb[static_cast<size_t>(at + k)]);
            ASSERT_NEAR(image[((n * kSize + static_cast<size_t>(r)) * kSize + static_cast<size_t>(c)) * 3 +
                              static_cast<size_t>(k)],
                        (v - kImageMean[k]) / kImageStd[k], 1e-5f);
          }
        }
      }
    }
  }
  EXPECT_TRUE(exact);
}

// Planes behind the region's are those of its patches, each with its window; without them a file is another's.
TEST_F(Regions, PatchesComeWithTheirWindows) {
  regions().spec.patches = 3;
  make_folder(folder_ / "regions/e0");
  write_region_settings(folder_ / "regions", settings_);
  for (int64_t i = 0; i < kImages; ++i) {
    std::vector<float> values(4 * kSize * kSize);
    for (size_t k = 0; k < values.size(); ++k) values[k] = static_cast<float>(k) + 1000.0f * static_cast<float>(i);
    const std::vector<int64_t> shape = {4, kSize, kSize};
    write_npy(folder_ / ("regions/" + region_file(data_->entry(i).image, 0)), shape, values);
  }
  regions().teachers = {region_folder_teacher(folder_ / "regions", settings_, kRelativeInverseDepth, kSize)};
  regions().shares = {1.0};
  loading_.epochs = 1;
  Loader loader(data_, loading_);
  while (const auto batch = loader.next()) {
    const BatchViews views = to_tensors(*batch, DType::kFloat, Device::kCpu);
    ASSERT_EQ(views[0].patches.shape(), (Shape{6, kSize, kSize}));
    ASSERT_EQ(views[0].windows.shape(), (Shape{6, 4}));
    const std::vector<float> maps = to_vector<float>(views[0].patches);
    const std::vector<int32_t> windows = to_vector<int32_t>(views[0].windows);
    for (size_t k = 0; k < 6; ++k) {
      const BatchItem& item = batch->items[k / 3];
      const Region drawn = draw_region(regions().spec, {40, 30}, kSeed, 0, item.sample->index);
      const Region::Patch& patch = drawn.patches.at(k % 3);
      const std::vector<int32_t> window(windows.begin() + static_cast<int64_t>(4 * k),
                                        windows.begin() + static_cast<int64_t>(4 * k) + 4);
      EXPECT_EQ(window, (std::vector<int32_t>{static_cast<int32_t>(k / 3), patch.row, patch.column, drawn.scaled}));
      const float first =
          static_cast<float>((1 + k % 3) * kSize * kSize) + 1000.0f * static_cast<float>(item.sample->index);
      EXPECT_EQ(maps[k * kSize * kSize], first);
      EXPECT_EQ(maps[(k + 1) * kSize * kSize - 1], first + kSize * kSize - 1);
    }
  }
  regions().spec.patches = 2;
  Loader other(data_, loading_);
  EXPECT_NE(testing_files::error_of([&] { other.next(); }).find("expected maps (3, 12, 12), found 4, 12, 12 numbers"),
            std::string::npos);
}

TEST_F(Regions, AFolderOfOtherDrawsIsRefused) {
  write_regions();
  const std::string folder = folder_ / "regions";
  EXPECT_TRUE(is_region_folder(folder));
  EXPECT_FALSE(is_region_folder(folder_ / "teacher"));
  const auto message_for = [&](const RegionFolderSettings& wanted) {
    try {
      region_folder_teacher(folder, wanted, kRelativeInverseDepth, kSize);
    } catch (const Error& error) {
      return std::string(error.what()).substr(folder.size());
    }
    return std::string("opened");
  };
  EXPECT_EQ(message_for(settings_), "opened");
  RegionFolderSettings other = settings_;
  other.settings = {{"train.seed", "4"}};
  EXPECT_EQ(message_for(other),
            ": labels of regions with train.seed = 3, but the recipe says 4; `teach --regions` "
            "writes others into another folder");
  other = settings_;
  other.settings.emplace_back("distill.least", "644");
  EXPECT_EQ(message_for(other),
            ": labels of regions with distill.least = nothing, but the recipe says 644; `teach "
            "--regions` writes others into another folder");
  other = settings_;
  other.epochs = 3;
  EXPECT_EQ(message_for(other),
            ": expected labels of 3 epochs, found 2; `teach --regions` adds those that are missing");
  other = settings_;
  other.list_checksum = "1";
  EXPECT_EQ(message_for(other).rfind(": the list has changed", 0), 0u);
  write_file(folder_ / "regions/regions.json", "{\"version\": 1}");
  EXPECT_EQ(message_for(settings_).rfind("/regions.json: expected what `teach --regions` writes", 0), 0u);
  write_file(folder_ / "regions/regions.json", "{\"version\": 1e300}");
  EXPECT_NE(message_for(settings_).find("expected a whole number of 64 bits"), std::string::npos);
  write_file(folder_ / "regions/regions.json", "{\"version\": 2}");
  EXPECT_EQ(message_for(settings_), "/regions.json: expected version 1, found 2");
}

TEST_F(Regions, AMissingLabelIsNamedWithItsLine) {
  write_regions();
  regions().teachers = {region_folder_teacher(folder_ / "regions", settings_, kRelativeInverseDepth, kSize)};
  regions().shares = {1.0};
  std::filesystem::remove(folder_ / "regions/e1/images_2.npy");
  Loader loader(data_, loading_);
  std::string message;
  try {
    while (loader.next()) {
    }
  } catch (const Error& error) {
    message = error.what();
  }
  EXPECT_NE(message.find("list.txt:3: "), std::string::npos) << message;
  EXPECT_NE(message.find("e1/images_2.npy"), std::string::npos) << message;
}

}  // namespace
}  // namespace depthstill
