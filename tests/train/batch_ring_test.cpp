// The ring against the direct way: the same tensors, whatever is under way.
#include "engine/train/batch_ring.h"

#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <vector>

#include "tests/data/small_set.h"
#include "tests/paces.h"

namespace depthstill {
namespace {

using testing_files::TemporaryFolder;

LoaderOptions augmented(int batch_size) {
  LoaderOptions options;
  options.batch_size = batch_size;
  options.drop_last = false;
  options.epochs = 2;
  options.views = one_crop({.crop = {16, 12}, .rotate_probability = 1.0, .colour_probability = 1.0});
  return options;
}

// The crop of augmented(), and a view of two crops that are smaller: the left upper corner, and the right lower one.
LoaderOptions two_views(int batch_size) {
  LoaderOptions options = augmented(batch_size);
  options.views = [first = options.views](ImageSize frame, uint64_t seed, int64_t epoch, int64_t index) {
    std::vector<View> views = first(frame, seed, epoch, index);
    AugmentParams corner;
    corner.crop = {8, 4};
    AugmentParams other = corner;
    other.image.crop_x = other.teacher.crop_x = frame.width - 8;
    other.image.crop_y = other.teacher.crop_y = frame.height - 4;
    views.push_back({corner, other});
    return views;
  };
  return options;
}

std::vector<std::vector<float>> values_of(const BatchViews& views) {
  std::vector<std::vector<float>> values;
  for (const BatchTensors& tensors : views) {
    for (const auto member : kBatchTensors) {
      const Tensor& t = tensors.*member;
      if (!t.defined()) continue;
      if (t.dtype() == DType::kFloat) {
        values.push_back(to_vector<float>(t));
      } else if (t.dtype() == DType::kInt32) {
        values.emplace_back();
        for (const int32_t v : to_vector<int32_t>(t)) values.back().push_back(static_cast<float>(v));
      } else {
        values.emplace_back();
        for (const bf16 v : to_vector<bf16>(t)) values.back().push_back(static_cast<float>(v));
      }
    }
  }
  return values;
}

void fill(BatchRing& ring, Loader& loader) {
  while (!ring.full()) {
    auto batch = loader.next();
    if (!batch) break;
    ring.push(std::move(*batch));
  }
}

void expect_same_tensors(const std::shared_ptr<const Dataset>& data, const LoaderOptions& options, Device device,
                         DType dtype, int slots) {
  Loader loader(data, options), again(data, options);  // batches of 3, 3 and 1
  BatchRing ring(dtype, device, slots);
  BatchViews tensors;
  int seen = 0;
  while (true) {
    fill(ring, loader);
    if (ring.empty()) break;
    const auto expected_batch = again.next();
    ASSERT_TRUE(expected_batch);
    EXPECT_EQ(ring.front().step, expected_batch->step);
    if (!fits(ring.front(), tensors)) tensors = empty_tensors(ring.front(), dtype, device);
    ring.pop(tensors);
    EXPECT_EQ(values_of(tensors), values_of(to_tensors(*expected_batch, dtype, device))) << "batch " << seen;
    ++seen;
  }
  EXPECT_EQ(seen, 6);
}

void expect_same_tensors(Device device, DType dtype, int slots, const LoaderOptions& options = augmented(3)) {
  const TemporaryFolder folder;
  const auto data = std::make_shared<const Dataset>(testing_files::write_small_set(folder, 7));
  expect_same_tensors(data, options, device, dtype, slots);
}

// Regions of several sides, half of them mirrored, with the inverse of the stored depth as labels.
void expect_same_regions(Device device, DType dtype, int slots) {
  const TemporaryFolder folder;
  DatasetSpec spec = testing_files::write_small_set(folder, 7);
  LoaderOptions options = augmented(3);
  options.regions = RegionLoading{{.patch = 8, .least = 9, .patches = 0, .flip_probability = 0.5},
                                  14,
                                  {whole_image_teacher(spec, *spec.teacher)},
                                  {1.0}};
  spec.teacher.reset();
  expect_same_tensors(std::make_shared<const Dataset>(spec), options, device, dtype, slots);
}

// Knows a region and two patches of it by the sample's number.
class CountingTeacher final : public RegionTeacher {
 public:
  bool every_sample() const override { return true; }
  std::string path(const Dataset&, int64_t, int64_t) const override { return ""; }
  RegionLabel load(const Dataset&, const Sample& sample, const Region&, int64_t epoch, int size) const override {
    RegionLabel label{std::vector<float>(static_cast<size_t>(size * size)), std::vector<float>(2 * 8 * 8)};
    float value = static_cast<float>(1000 * sample.index + 100 * epoch);
    for (float& v : label.region) v = value++;
    for (float& v : label.patches) v = -value++;
    return label;
  }
};

void expect_same_patches(Device device, DType dtype) {
  const TemporaryFolder folder;
  DatasetSpec spec = testing_files::write_small_set(folder, 7);
  spec.teacher.reset();
  LoaderOptions options = augmented(3);
  options.regions =
      RegionLoading{{.patch = 8, .least = 9, .patches = 2}, 14, {std::make_shared<CountingTeacher>()}, {1.0}};
  expect_same_tensors(std::make_shared<const Dataset>(spec), options, device, dtype, 3);
}

// The host reads nothing before the last batch was given out: the device may be as far behind as it likes.
void expect_same_tensors_late(DType dtype, int slots) {
  const TemporaryFolder folder;
  const auto data = std::make_shared<const Dataset>(testing_files::write_small_set(folder, 7));
  Loader loader(data, augmented(3)), again(data, augmented(3));
  BatchRing ring(dtype, Device::kCuda, slots);
  std::vector<BatchViews> given;
  while (true) {
    fill(ring, loader);
    if (ring.empty()) break;
    given.push_back(empty_tensors(ring.front(), dtype, Device::kCuda));
    ring.pop(given.back());
  }
  ASSERT_EQ(given.size(), 6u);
  for (size_t i = 0; i < given.size(); ++i) {
    EXPECT_EQ(values_of(given[i]), values_of(to_tensors(*again.next(), dtype, Device::kCuda))) << "batch " << i;
  }
}

TEST(BatchRing, GivesTheSameTensorsOnTheCpu) {
  expect_same_tensors(Device::kCpu, DType::kFloat, 3);
  expect_same_tensors(Device::kCpu, DType::kBf16, 1);
  expect_same_regions(Device::kCpu, DType::kFloat, 1);
  expect_same_patches(Device::kCpu, DType::kFloat);
}

TEST(BatchRing, GivesTheSameTensorsOnTheDevice) {
  if (!built_with_cuda()) enable_emulated_cuda();
  if (!available(Device::kCuda)) GTEST_SKIP() << "skipped: " << cuda_unavailable_reason();
  test::at_every_pace([] {
    for (const int slots : {1, 2, 3, 5}) {
      expect_same_tensors(Device::kCuda, DType::kFloat, slots);
      expect_same_tensors(Device::kCuda, DType::kBf16, slots);
      expect_same_tensors(Device::kCuda, DType::kBf16, slots, two_views(3));
      expect_same_regions(Device::kCuda, DType::kBf16, slots);
      expect_same_patches(Device::kCuda, DType::kBf16);
      expect_same_tensors_late(DType::kFloat, slots);
    }
  });
}

TEST(BatchRing, ABatchHasTensorsForEachViewAndAPlaceForEachCrop) {
  expect_same_tensors(Device::kCpu, DType::kFloat, 1, two_views(3));
  const TemporaryFolder folder;
  const auto data = std::make_shared<const Dataset>(testing_files::write_small_set(folder, 2));
  LoaderOptions plain = two_views(2);
  plain.shuffle = false;
  Loader loader(data, plain);
  const Batch batch = *loader.next();
  const BatchViews views = to_tensors(batch, DType::kFloat, Device::kCpu);
  ASSERT_EQ(views.size(), 2u);
  EXPECT_EQ(views[0].image.shape(), (Shape{2, 12, 16, 3}));
  EXPECT_EQ(views[1].image.shape(), (Shape{4, 4, 8, 3}));
  const std::vector<float> truth = to_vector<float>(views[1].truth);
  for (size_t n = 0; n < 2; ++n) {
    const DepthMap whole = batch.items[n].sample->depth.copy();
    EXPECT_EQ(truth[(2 * n) * 32], whole.values[0]) << "upper corner of sample " << n;
    EXPECT_EQ(truth[(2 * n + 1) * 32 + 31], whole.values.back()) << "lower corner of sample " << n;
  }
}

TEST(BatchRing, RefusesTensorsThatDoNotFit) {
  const TemporaryFolder folder;
  const auto data = std::make_shared<const Dataset>(testing_files::write_small_set(folder, 3));
  Loader loader(data, augmented(2));
  BatchRing ring(DType::kFloat, Device::kCpu);
  EXPECT_THROW(ring.pop({}), Error);
  ring.push(*loader.next());
  EXPECT_TRUE(ring.full());
  const auto last = loader.next();
  EXPECT_THROW(ring.push(*last), Error);
  EXPECT_THROW(ring.pop(empty_tensors(*last, DType::kFloat, Device::kCpu)), Error);
}

}  // namespace
}  // namespace depthstill
