#include "tools/synth/synth.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <sstream>

#include "engine/eval/benchmarks.h"
#include "engine/io/text_file.h"
#include "kernels/core/parallel.h"
#include "tests/data/small_set.h"
#include "tools/data_check.h"
#include "tools/synth/synth_scene.h"
#include "tools/usage.h"

namespace depthstill {
namespace {

using namespace testing_files;

SynthOptions small(const TemporaryFolder& folder, const char* name, SynthScene scene) {
  SynthOptions options;
  options.out = folder / name;
  options.train = 3;
  options.validation = 2;
  options.size = {160, 96};
  options.scene = scene;
  return options;
}

DatasetSpec spec_of(const SynthOptions& options, bool training) {
  DatasetSpec spec = dataset_spec(find_benchmark("kitti"), options.out, training ? "train.txt" : "val.txt");
  spec.crop = options.size.width < 1216 ? CropRule::kNone : CropRule::kKittiBenchmark;
  spec.teacher = TeacherSpec{training ? "teacher" : "teacher_val"};
  return spec;
}

std::vector<std::vector<uint8_t>> all_bytes(const DatasetSpec& spec) {
  const Dataset dataset(spec);
  std::vector<std::vector<uint8_t>> out;
  for (int64_t i = 0; i < dataset.size(); ++i) {
    out.push_back(read_bytes(dataset.image_path(i)));
    out.push_back(read_bytes(dataset.depth_path(i)));
    out.push_back(read_bytes(dataset.teacher_path(i)));
  }
  return out;
}

TEST(synth, a_set_that_training_accepts) {
  const TemporaryFolder folder;
  for (const SynthScene scene : {SynthScene::kStreet, SynthScene::kIndoor, SynthScene::kMixed}) {
    const SynthOptions options = small(folder, "set", scene);
    synthesize(options);
    const DatasetSpec train = spec_of(options, true), validation = spec_of(options, false);
    std::ostringstream report;
    EXPECT_EQ(check_data(train, &validation, {}, report), 0) << report.str();
    EXPECT_NE(report.str().find("samples        3"), std::string::npos) << report.str();
    EXPECT_NE(read_text(options.out + "/README.txt").find("Simulated"), std::string::npos);
  }
}

TEST(synth, every_list_has_scenes_of_its_own) {
  const TemporaryFolder folder;
  SynthOptions options = small(folder, "set", SynthScene::kStreet);
  options.train = options.validation = 1;
  synthesize(options);
  EXPECT_FALSE(std::filesystem::exists(options.out + "/test.txt"));
  const auto train = all_bytes(spec_of(options, true)), validation = all_bytes(spec_of(options, false));
  options.test = 1;
  synthesize(options);
  EXPECT_EQ(all_bytes(spec_of(options, true)), train) << "a further list changes no frame of the others";
  DatasetSpec spec = spec_of(options, true);
  spec.list = "test.txt";
  spec.teacher->folder = "teacher_test";
  EXPECT_EQ(Dataset(spec).entry(0).image, "raw/synth/test_drive_0000_sync/image_02/data/0000000000.png");
  const auto test = all_bytes(spec);
  EXPECT_NE(test, train);
  EXPECT_NE(test, validation);
  options.test = 0;
  synthesize(options);
  EXPECT_FALSE(std::filesystem::exists(options.out + "/test.txt")) << "the set is written anew";
}

TEST(synth, full_size_frames_have_the_kitti_forms) {
  const TemporaryFolder folder;
  SynthOptions options = small(folder, "set", SynthScene::kStreet);
  options.size = {1242, 375};
  options.train = options.validation = 1;
  options.sparse = true;
  synthesize(options);
  const Dataset dataset(spec_of(options, true));
  EXPECT_EQ(dataset.entry(0).image, "raw/synth/train_drive_0000_sync/image_02/data/0000000000.png");
  EXPECT_NEAR(dataset.entry(0).focal, 721.5377, 1e-3);
  EXPECT_EQ(read_png16(dataset.teacher_path(0)).size(), (ImageSize{1216, 352}));
  EXPECT_EQ(read_png16(dataset.depth_path(0)).size(), (ImageSize{1242, 375}));
  const Sample sample = dataset.load(0);
  const auto known =
      std::count_if(sample.depth.values.begin(), sample.depth.values.end(), [](float d) { return d > 0; });
  EXPECT_GT(known, 5000);
  EXPECT_LT(known, 1216 * 352 / 10);
}

TEST(synth, depends_on_the_seed_and_not_on_threads) {
  const TemporaryFolder folder;
  SynthOptions options = small(folder, "one", SynthScene::kMixed);
  const int threads = num_threads();
  set_num_threads(1);
  synthesize(options);
  const auto expected = all_bytes(spec_of(options, true));
  options.out = folder / "three";
  set_num_threads(3);
  synthesize(options);
  set_num_threads(threads);
  EXPECT_EQ(all_bytes(spec_of(options, true)), expected);
  options.out = folder / "other";
  options.seed = 2;
  synthesize(options);
  EXPECT_NE(all_bytes(spec_of(options, true)), expected);
  EXPECT_NE(all_bytes(spec_of(options, false)), expected);
}

// Depth is the distance along the optical axis to the solid under the pixel's centre.
TEST(synth, depth_of_known_solids) {
  synth::Scene scene;
  scene.camera.size = {65, 49};
  scene.camera.focal = 50;
  scene.camera.centre_x = 32;
  scene.camera.centre_y = 24;
  scene.camera.position = {0, 1.5f, 0};
  scene.light = {0, 1, 0};
  using synth::Material;
  using synth::Solid;
  scene.add(Solid::kBox, Material::kGround, {0, -1, 100}, {500, 1, 500}, {});
  scene.add(Solid::kBox, Material::kPlain, {0, 1.5f, 11}, {1, 0.5f, 1}, {});      // front face at z = 10
  scene.add(Solid::kEllipsoid, Material::kPlain, {-3, 1.5f, 10}, {1, 1, 2}, {});  // front point at z = 8
  scene.add(Solid::kCylinder, Material::kPlain, {3, 1.5f, 10}, {0.5f, 1.5f, 0.5f}, {});
  scene.add_frustum(Material::kPlain, {0, 5, 20}, {2, 1, 2}, 0.5f, 0.5f, 0.5f, {});
  Philox random(1);
  const synth::Rendering out = synth::render(scene, random);
  const auto at = [&](size_t x, size_t y) { return out.depth[y * 65 + x]; };
  EXPECT_NEAR(at(32, 24), 10, 1e-4);
  EXPECT_NEAR(at(28, 24), 10, 1e-4);  // flat: the same depth off the axis
  EXPECT_NEAR(at(32, 44), 1.5 * 50 / 20, 1e-4);
  EXPECT_NEAR(at(10, 44), 1.5 * 50 / 20, 1e-4);
  const double u = -16.0 / 50;  // x = u z meets the ellipsoid ((x + 3) / 1)^2 + ((z - 10) / 2)^2 = 1
  const double a = u * u + 0.25, b = 3 * u - 2.5, c = 9 + 25 - 1;
  EXPECT_NEAR(at(16, 24), (-b - std::sqrt(b * b - a * c)) / a, 1e-3);
  const double v = 15.0 / 50, a2 = v * v + 1, b2 = -3 * v - 10, c2 = 9 + 100 - 0.25;
  EXPECT_NEAR(at(47, 24), (-b2 - std::sqrt(b2 * b2 - a2 * c2)) / a2, 1e-3);
  const double up = 9.0 / 50;  // front of the frustum: z = 18 + (y - 4) / 2 with y = 1.5 + up z
  EXPECT_NEAR(at(32, 15), (18 - 1.25) / (1 - up / 2), 1e-3);
  EXPECT_EQ(at(2, 2), 0.0f);  // sky
}

TEST(synth, teacher_is_near_but_not_exact) {
  Philox random(3);
  const synth::Scene scene = synth::make_street(random, {310, 94});
  const synth::Rendering out = synth::render(scene, random);
  const DepthMap depth{310, 94, out.depth}, teacher = simulate_teacher(depth, random);
  double error = 0;
  int count = 0;
  for (size_t i = 0; i < depth.values.size(); ++i) {
    ASSERT_TRUE(teacher.values[i] >= 1e-3f && teacher.values[i] <= 80);
    if (depth.values[i] <= 0 || depth.values[i] > 80) continue;
    error += static_cast<double>(std::abs(teacher.values[i] - depth.values[i]) / depth.values[i]);
    ++count;
  }
  EXPECT_GT(error / count, 0.01);
  EXPECT_LT(error / count, 0.25);
}

TEST(synth, refusals) {
  const TemporaryFolder folder;
  SynthOptions options = small(folder, "set", SynthScene::kStreet);
  options.size = {8, 8};
  expect_clear(error_of([&] { synthesize(options); }), "synth: expected 32 to 4096");
  options = small(folder, "set", SynthScene::kStreet);
  options.train = 0;
  expect_clear(error_of([&] { synthesize(options); }), "synth: expected at least one frame");
  write_file(folder / "file", std::string_view("x"));
  options = small(folder, "file", SynthScene::kStreet);
  expect_clear(error_of([&] { synthesize(options); }), "file/");
}

TEST(synth, writes_only_into_folders_of_its_own) {
  const TemporaryFolder folder;
  SynthOptions options = small(folder, "mine", SynthScene::kIndoor);
  options.train = options.validation = 1;
  make_folder(folder / "mine");
  for (const char* name : {"train.txt", "README.txt"}) {
    write_file(folder / ("mine/" + std::string(name)), std::string_view("my own"));
    EXPECT_THROW(synthesize(options), UsageError);
    expect_clear(error_of([&] { synthesize(options); }), "mine: expected an empty folder");
    EXPECT_EQ(read_text(folder / ("mine/" + std::string(name))), "my own");
  }
  make_folder(folder / "set");
  options.out = folder / "set";
  synthesize(options);
  EXPECT_NO_THROW(synthesize(options)) << "anew";
  std::filesystem::rename(folder / "set/teacher", folder / "elsewhere");
  std::filesystem::create_directory_symlink("../elsewhere", folder / "set/teacher");
  expect_clear(error_of([&] { synthesize(options); }), "expected a path below");
}

}  // namespace
}  // namespace depthstill
