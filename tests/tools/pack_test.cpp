#include "engine/data/pack.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>

#include "engine/data/batch_tensors.h"
#include "engine/data/loader.h"
#include "engine/io/npy.h"
#include "engine/io/text_file.h"
#include "tests/data/small_set.h"
#include "tools/data_check.h"
#include "tools/recipe.h"

namespace depthstill {
namespace {

namespace fs = std::filesystem;
using namespace testing_files;

constexpr uint64_t kSampleBytes = 64 * 5 + 24 * 16 * 7;  // the most for a sample of write_small_set()

std::shared_ptr<const Dataset> open(const DatasetSpec& spec) { return std::make_shared<const Dataset>(spec); }

PackOptions small_shards(int samples) {
  PackOptions options;
  options.shard_bytes = kSampleBytes * static_cast<uint64_t>(samples);
  return options;
}

void ignore(int64_t, int64_t) {}

DatasetSpec packed_spec(DatasetSpec spec, const std::string& folder) {
  spec.packed = folder;
  return spec;
}

LoaderOptions augmented(int workers) {
  LoaderOptions options;
  options.workers = workers;
  options.batch_size = 3;
  options.epochs = 2;
  options.seed = 5;
  options.views = one_crop({.crop = {8, 8}});
  return options;
}

// The bits of every tensor of every batch.
std::vector<uint32_t> bits_of(Loader loader) {
  std::vector<uint32_t> bits;
  while (const auto batch = loader.next()) {
    const BatchTensors tensors = to_tensors(*batch, DType::kFloat, Device::kCpu).at(0);
    for (const Tensor* tensor : {&tensors.image, &tensors.teacher, &tensors.truth}) {
      const auto* values = reinterpret_cast<const uint32_t*>(tensor->data<float>());
      bits.insert(bits.end(), values, values + tensor->numel());
    }
    for (const char c : names_of(*batch)) bits.push_back(static_cast<uint32_t>(c));
  }
  return bits;
}

TEST(Pack, TrainsOnTheSameBits) {
  const TemporaryFolder folder;
  DatasetSpec spec = write_small_set(folder, 11);
  for (const bool resized : {false, true}) {
    if (resized) spec.resize = ImageSize{17, 11};
    const std::string out = folder / (resized ? "resized" : "plain");
    const PackReport report = pack(open(spec), out, small_shards(3), ignore);
    EXPECT_EQ(report.written, 11);
    EXPECT_EQ(report.max_error, 0);
    EXPECT_GE(list_shards(out).size(), 2u);
    const auto files = open(spec), packed = open(packed_spec(spec, out));
    EXPECT_TRUE(packed->packed());
    for (const int workers : {1, 4}) {
      LoaderOptions options = augmented(workers);
      EXPECT_EQ(bits_of(Loader(packed, options)), bits_of(Loader(files, options)));
      options.first_epoch = 1;
      options.first_step = 2;
      EXPECT_EQ(bits_of(Loader(packed, options)), bits_of(Loader(files, options)));
      options.views = whole_frame();
      EXPECT_EQ(bits_of(Loader(packed, options)), bits_of(Loader(files, options)));
    }
  }
}

// Neither the list nor the files are needed any more; messages name the list's lines all the same.
TEST(Pack, StandsOnItsOwn) {
  const TemporaryFolder folder;
  const DatasetSpec spec = write_small_set(folder, 5);
  const auto files = open(spec);
  const Sample before = files->load(3);
  pack(files, folder / "out", {}, ignore);
  for (const char* name : {"images", "depth", "teacher", "list.txt"}) fs::remove_all(folder / name);
  const auto packed = open(packed_spec(spec, folder / "out"));
  const Sample after = packed->load(3);
  EXPECT_EQ(after.where, before.where);
  EXPECT_EQ(after.name, before.name);
  EXPECT_EQ(after.focal, before.focal);
  EXPECT_EQ(after.stored_size, before.stored_size);
  EXPECT_EQ(after.image.copy().rgb, before.image.copy().rgb);
  EXPECT_EQ(packed->depth_path(3), files->depth_path(3));
}

TEST(Pack, GoesOnWhereItWasInterrupted) {
  const TemporaryFolder folder;
  const DatasetSpec spec = write_small_set(folder, 9);
  const std::string out = folder / "out";
  struct Stop {};
  const auto stop = [](int64_t done, int64_t total) {
    EXPECT_EQ(total, 9);
    if (done == 5) throw Stop{};
  };
  EXPECT_THROW(pack(open(spec), out, {}, stop), Stop);
  EXPECT_EQ(list_shards(out), std::vector<int64_t>{0});
  expect_clear(error_of([&] { open(packed_spec(spec, out)); }), "expected 9 samples, found 5; run `depthstill pack`");
  const auto first_written = fs::last_write_time(out + "/" + shard_name(0));
  const PackReport report = pack(open(spec), out, {}, ignore);
  EXPECT_EQ(report.kept, 5);
  EXPECT_EQ(report.written, 4);
  EXPECT_EQ(fs::last_write_time(out + "/" + shard_name(0)), first_written);
  EXPECT_EQ(bits_of(Loader(open(packed_spec(spec, out)), augmented(2))), bits_of(Loader(open(spec), augmented(2))));
  EXPECT_EQ(pack(open(spec), out, {}, ignore).written, 0);
}

TEST(Pack, FillsAGapAndReportsADamagedShard) {
  const TemporaryFolder folder;
  const DatasetSpec spec = write_small_set(folder, 9);
  const std::string out = folder / "out";
  pack(open(spec), out, small_shards(2), ignore);
  const std::vector<int64_t> shards = list_shards(out);
  ASSERT_GE(shards.size(), 3u);
  const std::string second = out + "/" + shard_name(shards[1]);
  std::vector<uint8_t> bytes = read_bytes(second);
  bytes[64] ^= 1;
  write_quickly(second, bytes);
  const auto damaged = open(packed_spec(spec, out));
  expect_clear(error_of([&] { damaged->load(shards[1]); }),
               concat_text("list.txt:", shards[1] + 1, ": ", second, ": sample images/", shards[1], ".png is damaged"));
  fs::resize_file(second, 100);
  expect_clear(error_of([&] { open(packed_spec(spec, out)); }), second);
  fs::remove(second);
  const PackReport report = pack(open(spec), out, {}, ignore);
  EXPECT_EQ(report.written, shards[2] - shards[1]);
  EXPECT_EQ(list_shards(out), shards);
  EXPECT_EQ(bits_of(Loader(open(packed_spec(spec, out)), augmented(2))), bits_of(Loader(open(spec), augmented(2))));
}

TEST(Pack, ABadFileKeepsTheSamplesBeforeIt) {
  const TemporaryFolder folder;
  const DatasetSpec spec = write_small_set(folder, 6);
  const std::vector<uint8_t> good = read_bytes(folder / "images/4.png");
  fs::remove(folder / "images/4.png");
  expect_clear(error_of([&] { pack(open(spec), folder / "out", {}, ignore); }), "list.txt:5: " + (folder / "images/4"));
  write_quickly(folder / "images/4.png", good);
  EXPECT_EQ(pack(open(spec), folder / "out", {}, ignore).kept, 4);
}

TEST(Pack, RefusesOtherSettingsListsAndFolders) {
  const TemporaryFolder folder;
  const DatasetSpec spec = write_small_set(folder, 3);
  const std::string out = folder / "out";
  pack(open(spec), out, {}, ignore);
  const auto refused = [&](const std::string& what, const std::function<void(DatasetSpec&)>& change) {
    DatasetSpec other = packed_spec(spec, out);
    change(other);
    expect_clear(error_of([&] { open(other); }) + " (expected)", what);
    other.packed.clear();
    expect_clear(error_of([&] { pack(open(other), out, {}, ignore); }) + " (expected)", what);
  };
  refused("data.resize_height = 0, but the recipe says 8", [](DatasetSpec& s) { s.resize = ImageSize{8, 8}; });
  refused("data.depth_units_per_metre = 256, but", [](DatasetSpec& s) { s.depth.metres_per_unit = 1e-3; });
  refused("data.teacher_float_units = nothing, but the recipe says 1000",
          [](DatasetSpec& s) { s.teacher->format.metres_per_float_unit = 1e-3; });
  refused("teacher = teacher, but the recipe says other", [](DatasetSpec& s) { s.teacher->folder = "other"; });
  refused("teacher = teacher, but the recipe says ;", [](DatasetSpec& s) { s.teacher.reset(); });
  refused("data.sort_by_image = false", [](DatasetSpec& s) { s.order = ListOrder::kByImage; });
  write_file(folder / "list.txt", read_text(folder / "list.txt") + "images/0.png depth/0.png 1\n");
  refused("the list has changed", [](DatasetSpec&) {});
  const std::string mine = folder / "images";
  expect_clear(error_of([&] { pack(open(spec), mine, {}, ignore); }), "expected packed data or an empty folder");
}

TEST(Pack, FloatMapsKeepTheirStatedError) {
  const TemporaryFolder folder;
  DatasetSpec spec = write_small_set(folder, 2);
  spec.teacher = TeacherSpec{"maps", TeacherNaming::kFlat, ".npy", {1, MapFormat::Unusable::kRefused}};
  make_folder(folder / "maps");
  for (int i = 0; i < 2; ++i) {
    DepthMap map = numbered_depth(24, 16, i);
    for (float& metres : map.values) metres = metres * 1.2345f + 0.01f;
    write_map(folder / concat_text("maps/images_", i, ".npy"), map, {1});
  }
  const PackReport report = pack(open(spec), folder / "out", {}, ignore);
  EXPECT_GT(report.max_error, 0);
  EXPECT_LE(report.max_error, 1.2345 * 17 / 65535);
  const DepthMap expected = open(spec)->load(1).teacher.copy();
  const DepthMap found = open(packed_spec(spec, folder / "out"))->load(1).teacher.copy();
  for (size_t i = 0; i < expected.values.size(); ++i)
    ASSERT_NEAR(found.values[i], expected.values[i], report.max_error * 1.0001);
}

TEST(Pack, CheckDataReadsIt) {
  const TemporaryFolder folder;
  const DatasetSpec spec = write_small_set(folder, 3);
  pack(open(spec), folder / "out", {}, ignore);
  std::ostringstream files, packed;
  EXPECT_EQ(check_data(spec, nullptr, {}, files), 0) << files.str();
  EXPECT_EQ(check_data(packed_spec(spec, folder / "out"), nullptr, {}, packed), 0) << packed.str();
  EXPECT_EQ(packed.str(), files.str());
}

TEST(Pack, ARecipeNamesThePackedFolder) {
  const TemporaryFolder folder;
  write_file(folder / "r.toml",
             "[data.train]\nlist = 'list.txt'\nteacher = 'teacher'\npacked = 'there'\n"
             "[data.test]\nlist = 'list.txt'\n");
  const Recipe recipe = load_recipe(folder / "r.toml");
  EXPECT_EQ(dataset_spec(recipe, "train").packed, "there");
  EXPECT_EQ(dataset_spec(recipe, "test").packed, "");
}

}  // namespace
}  // namespace depthstill
