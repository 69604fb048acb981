#include "engine/data/loader.h"

#include <gtest/gtest.h>

#include <numeric>
#include <set>
#include <thread>

#include "tests/data/small_set.h"

namespace depthstill {
namespace {

using namespace testing_files;

LoaderOptions options_of(int workers, int batch_size, int64_t epochs) {
  LoaderOptions options;
  options.workers = workers;
  options.batch_size = batch_size;
  options.epochs = epochs;
  options.seed = 42;
  options.views = one_crop({.crop = {8, 8}});
  return options;
}

// Everything that a run of batches depends on, as numbers.
std::vector<double> trace(Loader& loader) {
  std::vector<double> out;
  while (const std::optional<Batch> batch = loader.next()) {
    out.insert(out.end(), {static_cast<double>(batch->epoch), static_cast<double>(batch->step)});
    for (const BatchItem& item : batch->items) {
      const PreprocessParams& params = item.views.at(0).at(0).image;
      const Image8 image = item.sample->image.copy();
      const DepthMap teacher = item.sample->teacher.copy();
      out.insert(
          out.end(),
          {static_cast<double>(item.sample->index), std::accumulate(image.rgb.begin(), image.rgb.end(), 0.0),
           std::accumulate(teacher.values.begin(), teacher.values.end(), 0.0),
           static_cast<double>(params.angle_degrees), static_cast<double>(params.crop_x), params.flip ? 1.0 : 0.0});
    }
  }
  return out;
}

std::shared_ptr<const Dataset> open(const DatasetSpec& spec) { return std::make_shared<const Dataset>(spec); }

TEST(loader, same_batches_for_any_workers_prefetch_and_cache) {
  const TemporaryFolder folder;
  const auto dataset = open(write_small_set(folder, 11));
  std::vector<double> expected;
  for (const int workers : {1, 2, 5}) {
    for (const int prefetch : {1, 4}) {
      for (const size_t cache : {size_t{0}, size_t{20000}, size_t{1} << 30}) {
        LoaderOptions options = options_of(workers, 3, 3);
        options.prefetch_batches = prefetch;
        options.cache_bytes = cache;
        Loader loader(dataset, options);
        const std::vector<double> found = trace(loader);
        if (expected.empty()) expected = found;
        EXPECT_EQ(found, expected) << workers << " workers";
        EXPECT_EQ(found.size(), 3u * 3 * (2 + 3 * 6));
        EXPECT_LE(loader.cached_bytes(), cache);
        EXPECT_EQ(loader.cached_bytes() > 0, cache > 0);
        EXPECT_FALSE(loader.next().has_value());
        EXPECT_GE(loader.wait_seconds(), 0);
      }
    }
  }
}

TEST(loader, every_sample_once_an_epoch) {
  const TemporaryFolder folder;
  const auto dataset = open(write_small_set(folder, 7));
  LoaderOptions options = options_of(2, 3, 2);
  options.drop_last = false;
  Loader loader(dataset, options);
  EXPECT_EQ(steps_per_epoch(dataset->size(), options), 3);
  std::vector<std::vector<int64_t>> order(2);
  std::vector<size_t> sizes;
  while (const auto batch = loader.next()) {
    sizes.push_back(batch->items.size());
    for (const BatchItem& item : batch->items) order[static_cast<size_t>(batch->epoch)].push_back(item.sample->index);
  }
  EXPECT_EQ(sizes, (std::vector<size_t>{3, 3, 1, 3, 3, 1}));
  for (const auto& epoch : order) EXPECT_EQ(std::set<int64_t>(epoch.begin(), epoch.end()).size(), 7u);
  EXPECT_NE(order[0], order[1]);
  EXPECT_EQ(order[1], epoch_order(7, options, 1));
}

TEST(loader, in_order_without_shuffle_and_augmentation) {
  const TemporaryFolder folder;
  LoaderOptions options;
  options.shuffle = options.drop_last = false;
  options.batch_size = 1;
  Loader loader(open(write_small_set(folder, 4)), options);
  for (int64_t i = 0; i < 4; ++i) {
    const auto batch = loader.next();
    ASSERT_TRUE(batch.has_value());
    EXPECT_EQ(batch->items[0].sample->index, i);
    EXPECT_EQ(batch->items[0].views.at(0).at(0).crop, (ImageSize{24, 16}));
    EXPECT_EQ(batch->items[0].views.at(0).at(0).image.angle_degrees, 0.0f);
  }
  EXPECT_FALSE(loader.next().has_value());
}

TEST(loader, resumes_anywhere) {
  const TemporaryFolder folder;
  const auto dataset = open(write_small_set(folder, 10));
  Loader whole(dataset, options_of(2, 3, 3));
  const std::vector<double> expected = trace(whole);
  const size_t per_batch = 2 + 3 * 6;
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    for (int64_t step = 0; step < 3; ++step) {
      LoaderOptions options = options_of(2, 3, 3);
      options.first_epoch = epoch;
      options.first_step = step;
      Loader loader(dataset, options);
      const auto begin = static_cast<std::ptrdiff_t>(static_cast<size_t>(epoch * 3 + step) * per_batch);
      EXPECT_EQ(trace(loader), std::vector<double>(expected.begin() + begin, expected.end()));
    }
  }
}

TEST(loader, a_worker_s_error_comes_out_of_next) {
  const TemporaryFolder folder;
  const auto dataset = open(write_small_set(folder, 8));
  std::filesystem::remove(folder / "images/5.png");
  for (const int workers : {1, 4}) {
    LoaderOptions options = options_of(workers, 2, 1);
    options.shuffle = false;
    Loader loader(dataset, options);
    EXPECT_TRUE(loader.next().has_value());
    EXPECT_TRUE(loader.next().has_value());
    for (int again = 0; again < 2; ++again) {
      expect_clear(error_of([&] { loader.next(); }), "list.txt:6: " + (folder / "images/5.png: expected"));
    }
  }
}

TEST(loader, crop_larger_than_the_sample) {
  const TemporaryFolder folder;
  LoaderOptions options = options_of(1, 1, 1);
  options.views = one_crop({.crop = {25, 8}});
  Loader loader(open(write_small_set(folder, 1)), options);
  expect_clear(error_of([&] { loader.next(); }), "list.txt:1: augment: expected a sample of at least");
}

TEST(loader, stops_at_any_moment) {
  const TemporaryFolder folder;
  const auto dataset = open(write_small_set(folder, 9));
  for (int batches = 0; batches < 6; ++batches) {
    for (const int workers : {1, 3}) {
      Loader loader(dataset, options_of(workers, 2, 1000));
      for (int i = 0; i < batches; ++i) EXPECT_TRUE(loader.next().has_value());
    }
  }
  Loader first(dataset, options_of(2, 2, 1000));
  first = Loader(dataset, options_of(2, 2, 1));
  EXPECT_TRUE(first.next().has_value());
}

TEST(loader, bad_options) {
  const TemporaryFolder folder;
  const auto dataset = open(write_small_set(folder, 2));
  const auto refused = [&](auto change) {
    LoaderOptions options = options_of(1, 1, 1);
    change(options);
    expect_clear(error_of([&] { Loader loader(dataset, options); }), "loader: ");
  };
  refused([](LoaderOptions& o) { o.batch_size = 0; });
  refused([](LoaderOptions& o) { o.batch_size = 3; });
  refused([](LoaderOptions& o) { o.workers = 0; });
  refused([](LoaderOptions& o) { o.prefetch_batches = 0; });
  refused([](LoaderOptions& o) { o.first_step = 2; });
}

}  // namespace
}  // namespace depthstill
