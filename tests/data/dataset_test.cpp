#include "engine/data/dataset.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "engine/eval/benchmarks.h"
#include "engine/io/npy.h"
#include "tests/data/small_set.h"
#include "tests/io/test_images.h"

namespace depthstill {
namespace {

using namespace testing_files;

TEST(dataset, loads_what_was_written) {
  const TemporaryFolder folder;
  const Dataset dataset(write_small_set(folder, 3));
  ASSERT_EQ(dataset.size(), 3);
  for (int i = 0; i < 3; ++i) {
    const Sample sample = dataset.load(i);
    EXPECT_EQ(sample.index, i);
    EXPECT_EQ(sample.name, concat_text("images/", i, ".png"));
    EXPECT_EQ(sample.where, concat_text(folder / "list.txt", ":", i + 1));
    EXPECT_EQ(sample.focal, 50.5);
    EXPECT_EQ(sample.image.copy().rgb, numbered_image(24, 16, i).rgb);
    EXPECT_EQ(sample.depth.copy().values, numbered_depth(24, 16, i).values);
    const DepthMap teacher = numbered_depth(24, 16, i + 1);
    ASSERT_EQ(sample.teacher.size(), teacher.size());
    const DepthMap found = sample.teacher.copy();
    for (size_t p = 0; p < teacher.values.size(); ++p) {
      EXPECT_NEAR(found.values[p], teacher.values[p], 40.0 / 65535 + 1e-5);
    }
  }
}

TEST(dataset, images_stand_upright_as_their_maps_do) {
  const TemporaryFolder folder;
  const DatasetSpec spec = write_small_set(folder, 3);
  const Dataset plain(spec);
  // The first image's rows and columns change places, and the second one is turned by half; both say so.
  const Image8 image = numbered_image(24, 16, 0);
  Image8 lying{16, 24, {}}, turned{24, 16, {}};
  for (int row = 0; row < 24; ++row) {
    for (int column = 0; column < 16; ++column) {
      const auto pixel = image.rgb.begin() + 3 * (column * 24 + row);
      lying.rgb.insert(lying.rgb.end(), pixel, pixel + 3);
    }
  }
  const Image8 second = numbered_image(24, 16, 1);
  for (auto pixel = second.rgb.end(); pixel != second.rgb.begin(); pixel -= 3) {
    turned.rgb.insert(turned.rgb.end(), pixel - 3, pixel);
  }
  std::vector<Sample> before;
  for (int i = 0; i < 3; ++i) before.push_back(plain.load(i));
  write_file(folder / "images/0.png", png_with_exif(encode_png(lying), exif_block(5, true)));
  write_file(folder / "images/1.png", png_with_exif(encode_png(turned), exif_block(3, false)));
  for (int i = 0; i < 3; ++i) {
    const Sample sample = plain.load(i);
    EXPECT_EQ(sample.stored_size, (ImageSize{24, 16})) << i;
    EXPECT_EQ(sample.image.copy().rgb, before[static_cast<size_t>(i)].image.copy().rgb) << i;
    EXPECT_EQ(sample.depth.copy().values, before[static_cast<size_t>(i)].depth.copy().values) << i;
  }
}

TEST(dataset, flat_names) {
  EXPECT_EQ(flat_name("2011_09_26/2011_09_26_drive_0002_sync/image_02/data/0000000069.png", ".png"),
            "2011_09_26_2011_09_26_drive_0002_sync_image_02_data_0000000069.png");
  EXPECT_EQ(flat_name("object/image_2/000001.jpg", ".png"), "object_image_2_000001.png");
  EXPECT_EQ(flat_name("a/b.c/d.jpg", ""), "a_b.c_d");
  EXPECT_EQ(flat_name("/a/b.jpg", ".npy"), "a_b.npy");
}

TEST(dataset, crop_rules) {
  const Rect kitti = crop_rect(CropRule::kKittiBenchmark, {1242, 375}, "a");
  EXPECT_EQ(kitti.left, 13);
  EXPECT_EQ(kitti.top, 23);
  EXPECT_EQ(kitti.size(), (ImageSize{1216, 352}));
  EXPECT_EQ(crop_rect(CropRule::kKittiBenchmark, {1241, 376}, "a").left, 12);
  const Rect nyu = crop_rect(CropRule::kNyuBorder, {640, 480}, "a");
  EXPECT_EQ(nyu.left + nyu.width, 601);
  EXPECT_EQ(nyu.top + nyu.height, 471);
  EXPECT_EQ(crop_rect(CropRule::kNone, {3, 2}, "a").size(), (ImageSize{3, 2}));
  EXPECT_EQ(error_of([] {
              crop_rect(CropRule::kKittiBenchmark, {1242, 351}, "a.png");
            }),
            "a.png: expected an image of at least 1216x352 for the KB crop, found 1242x351");
}

TEST(dataset, kb_crop_moves_image_depth_and_teacher_together) {
  const TemporaryFolder folder;
  DatasetSpec spec = write_small_set(folder, 1, 1242, 375);
  spec.crop = CropRule::kKittiBenchmark;
  const Rect rect{13, 23, 1216, 352};
  const Sample full = Dataset(spec).load(0);  // teacher as large as the image: cropped with it
  EXPECT_EQ(full.stored_size, (ImageSize{1242, 375}));
  EXPECT_EQ(full.image.copy().rgb, crop(numbered_image(1242, 375, 0), rect).rgb);
  EXPECT_EQ(full.depth.copy().values, crop(numbered_depth(1242, 375, 0), rect).values);
  EXPECT_NEAR(full.teacher.copy().values[5], crop(numbered_depth(1242, 375, 1), rect).values[5], 1e-3);

  const DepthMap cropped = numbered_depth(1216, 352, 9);  // teacher in the TIE-KD form: used as it is
  write_map(folder / "teacher/images_0.png", cropped, {80.0 / 65535});
  const Sample sample = Dataset(spec).load(0);
  EXPECT_EQ(sample.teacher.size(), (ImageSize{1216, 352}));
  EXPECT_NEAR(sample.teacher.copy().values[1216 * 7 + 5], cropped.values[1216 * 7 + 5], 1e-3);

  write_map(folder / "depth/0.png", cropped, {1.0 / 256});  // ground truth is never stored cropped
  EXPECT_EQ(
      error_of([&] { Dataset(spec).load(0); }),
      folder / "list.txt:1: " + (folder / "depth/0.png: expected a map of 1242x375 like its image, found 1216x352"));
}

TEST(dataset, resize_after_crop) {
  const TemporaryFolder folder;
  DatasetSpec spec = write_small_set(folder, 1);
  spec.resize = ImageSize{12, 8};
  const Sample sample = Dataset(spec).load(0);
  EXPECT_EQ(sample.image.copy().rgb, resize(numbered_image(24, 16, 0), {12, 8}).rgb);
  EXPECT_EQ(sample.depth.copy().values, resize(numbered_depth(24, 16, 0), {12, 8}).values);
  EXPECT_EQ(sample.teacher.size(), (ImageSize{12, 8}));
  EXPECT_EQ(sample.stored_size, (ImageSize{24, 16}));
}

TEST(dataset, teacher_namings) {
  const TemporaryFolder folder;
  DatasetSpec spec = write_small_set(folder, 1);
  spec.teacher = TeacherSpec{"", TeacherNaming::kTruth, "", {1.0 / 256}};
  EXPECT_EQ(Dataset(spec).load(0).teacher.copy().values, numbered_depth(24, 16, 0).values);
  make_folder(folder / "maps/images");
  write_map(folder / "maps/images/0.npy", numbered_depth(24, 16, 5), {});
  spec.teacher = TeacherSpec{"maps", TeacherNaming::kBeside, ".npy", {1.0, MapFormat::Unusable::kRefused}};
  EXPECT_EQ(Dataset(spec).load(0).teacher.copy().values, numbered_depth(24, 16, 5).values);
  spec.teacher->folder = folder / "maps";  // absolute
  EXPECT_EQ(Dataset(spec).load(0).teacher.copy().values, numbered_depth(24, 16, 5).values);
}

TEST(dataset, none_lines) {
  const TemporaryFolder folder;
  DatasetSpec spec = write_small_set(folder, 2);
  write_file(folder / "list.txt", std::string_view("images/0.png None 5\nimages/1.png depth/1.png 5"));
  EXPECT_EQ(Dataset(spec).size(), 1);
  EXPECT_EQ(Dataset(spec).skipped(), 1);
  EXPECT_EQ(Dataset(spec).load(0).name, "images/1.png");
  EXPECT_EQ(Dataset(spec).load(0).where, folder / "list.txt:2");
  spec.skip_without_depth = false;
  EXPECT_EQ(Dataset(spec).size(), 2);
  EXPECT_TRUE(Dataset(spec).load(0).depth.empty());
  EXPECT_FALSE(Dataset(spec).load(0).teacher.empty());
  write_file(folder / "list.txt", std::string_view("images/0.png None 5\n"));
  spec.skip_without_depth = true;
  expect_clear(error_of([&] { Dataset dataset(spec); }), "found only None; data.skip_without_depth = false keeps them");
}

TEST(dataset, lists_of_other_forms) {
  const TemporaryFolder folder;
  DatasetSpec spec = write_small_set(folder, 4);
  std::filesystem::rename(folder / "images/1.png", folder / "images/1 1.png");
  std::filesystem::rename(folder / "teacher/images_1.png", folder / "teacher/images_1 1.png");
  write_file(folder / "list.txt", "\xef\xbb\xbf# image depth focal\r\n\r\n/images/0.png /depth/0.png\r\n" +
                                      concat_text("images/1 1.png\tdepth/1.png\t5\r\n./images//2.png ", folder.path(),
                                                  "/depth/2.png mask.png\r\nimages\\3.png depth\\3.png"));
  const Dataset dataset(spec);
  ASSERT_EQ(dataset.size(), 4);
  for (int i = 0; i < 4; ++i) {
    const Sample sample = dataset.load(i);
    EXPECT_EQ(sample.name, i == 1 ? "images/1 1.png" : concat_text("images/", i, ".png"));
    EXPECT_EQ(sample.where, concat_text(folder / "list.txt", ":", i + 3));
    EXPECT_EQ(sample.focal, i == 1 ? 5 : 0);
    EXPECT_EQ(sample.image.copy().rgb, numbered_image(24, 16, i).rgb);
    EXPECT_EQ(sample.depth.copy().values, numbered_depth(24, 16, i).values);
    EXPECT_FALSE(sample.teacher.empty());
  }
}

TEST(dataset, list_lines_stay_below_the_root) {
  const TemporaryFolder folder;
  DatasetSpec spec = write_small_set(folder, 1);
  std::filesystem::create_directories(folder / "root");
  spec.root = folder / "root";
  write_file(folder / "root/list.txt", std::string_view("../images/0.png ../depth/0.png 7\n"));
  const auto refused = [&](const std::string& found) {
    return spec.root + "/list.txt:1: expected a path below " + spec.root + ", found " + found +
           " (--allow-outside reads it)";
  };
  EXPECT_EQ(error_of([&] { Dataset dataset(spec); }), refused("../images/0.png"));
  for (const char* name : {"images", "depth", "teacher"}) {
    std::filesystem::create_directory_symlink(folder / name, folder / (std::string("root/") + name));
  }
  write_file(folder / "root/list.txt", std::string_view("images/0.png depth/0.png 7\n"));
  EXPECT_EQ(error_of([&] { Dataset(spec).load(0); }),
            refused(folder / "root/images/0.png, which leads to " + (folder / "images/0.png")));
  EXPECT_EQ(error_of([&] { Dataset(spec).depth_path(0); }),
            refused(folder / "root/depth/0.png, which leads to " + (folder / "depth/0.png")));
  spec.allow_outside = true;
  EXPECT_EQ(Dataset(spec).load(0).image.copy().rgb, numbered_image(24, 16, 0).rgb);
}

// A map that is named after its image has its place below the teacher's folder, whatever may be read.
TEST(dataset, maps_beside_images_stay_below_the_teachers_folder) {
  const TemporaryFolder folder;
  DatasetSpec spec = write_small_set(folder, 1);
  spec.image_folder = "depth";
  spec.teacher = TeacherSpec{"teacher", TeacherNaming::kBeside, ".npy"};
  for (const std::string& path : {std::string("../images/0.png"), folder / "images/0.png"}) {
    write_file(folder / "list.txt", path + " depth/0.png 7\n");
    for (const bool allowed : {false, true}) {
      spec.allow_outside = allowed;
      expect_clear(error_of([&] { Dataset dataset(spec); }),
                   "list.txt:1: expected an image below " + (folder / "depth"));
    }
  }
  spec.teacher->naming = TeacherNaming::kFlat;
  EXPECT_EQ(Dataset(spec).size(), 1);
}

TEST(dataset, two_images_never_share_a_map) {
  const TemporaryFolder folder;
  DatasetSpec spec = write_small_set(folder, 1);
  const auto message_of = [&](std::string_view list, TeacherNaming naming, const std::string& extension) {
    write_file(folder / "list.txt", list);
    spec.teacher = TeacherSpec{"teacher", naming, extension};
    return error_of([&] { Dataset dataset(spec); });
  };
  const std::string line = folder / "list.txt:2: expected a map of its own for ";
  EXPECT_EQ(message_of("scene_1/a.png d.png\nscene/1_a.png d.png\n", TeacherNaming::kFlat, ".png"),
            line + "scene/1_a.png, found scene_1_a.png, the name of that of scene_1/a.png in line 1, too");
  const std::string_view jpg_and_png = "a/0.jpg d.png\na/0.png d.png\nb/0.png d.png\n";
  EXPECT_EQ(message_of(jpg_and_png, TeacherNaming::kFlat, ".npy"),
            line + "a/0.png, found a_0.npy, the name of that of a/0.jpg in line 1, too");
  EXPECT_EQ(message_of(jpg_and_png, TeacherNaming::kBeside, ".npy"),
            line + "a/0.png, found a/0.npy, the name of that of a/0.jpg in line 1, too");
  EXPECT_EQ(message_of(jpg_and_png, TeacherNaming::kTruth, ""), "");
  EXPECT_EQ(message_of("scene_1/a.png d.png\nscene/1_a.png d.png\n", TeacherNaming::kBeside, ".png"), "");
  EXPECT_EQ(message_of("a/0.png d.png\n./a//0.png d.png\n", TeacherNaming::kFlat, ".png"), "");  // the same image
  EXPECT_EQ(message_of("a/0.png d.png\na_0.png None\n", TeacherNaming::kFlat, ".png"), "");      // a line left out

  BadLines bad;
  write_file(folder / "list.txt", jpg_and_png);
  spec.teacher = TeacherSpec{"teacher"};
  EXPECT_EQ(Dataset(spec, &bad).size(), 2);  // the others, for a report
  EXPECT_EQ(bad.count, 1);
  spec.teacher.reset();
  expect_clear(error_of([&] { check_map_names(Dataset(spec), ".npy"); }), line + "a/0.png, found a_0.npy");
}

TEST(dataset, a_missing_list_says_where_it_was_looked_for) {
  const TemporaryFolder folder;
  DatasetSpec spec;
  spec.root = folder.path();
  spec.list = "train.txt";
  EXPECT_EQ(error_of([&] { Dataset dataset(spec); }),
            folder / "train.txt: expected a list, found no such file; the root is " + folder.path());
  spec.root = "nowhere";
  const std::string here = std::filesystem::current_path().string();
  EXPECT_EQ(error_of([&] { Dataset dataset(spec); }),
            here +
                "/nowhere/train.txt: expected a list, found no such file; the root is nowhere, relative to the "
                "current folder " +
                here);
}

TEST(dataset, errors_name_line_and_file) {
  const TemporaryFolder folder;
  DatasetSpec spec = write_small_set(folder, 3);
  const Dataset dataset(spec);
  std::filesystem::remove(folder / "images/0.png");
  expect_clear(error_of([&] { dataset.load(0); }), "list.txt:1: " + (folder / "images/0.png: "));
  write_map(folder / "teacher/images_1.png", numbered_depth(20, 16, 0), {80.0 / 65535});
  EXPECT_EQ(
      error_of([&] { dataset.load(1); }),
      folder / "list.txt:2: " + (folder / "teacher/images_1.png: expected a map of 24x16 like its image, found 20x16"));
  spec.teacher = TeacherSpec{"teacher", TeacherNaming::kFlat, ".npy", {1.0, MapFormat::Unusable::kRefused}};
  DepthMap with_nan = numbered_depth(24, 16, 0);
  with_nan.values[24 * 3 + 7] = std::nanf("");
  write_map(folder / "teacher/images_2.npy", with_nan, {});
  EXPECT_EQ(error_of([&] { Dataset(spec).load(2); }),
            folder / "list.txt:3: " +
                (folder / "teacher/images_2.npy: expected finite depths >= 0, found nan at row 3, column 7"));
}

TEST(dataset, real_sets_load) {
  const auto kitti = find_data_set("kitti"), nyu = find_data_set("nyuv2");
  if (!kitti || !nyu) GTEST_SKIP() << "skipped: no " << (kitti ? "nyuv2" : "kitti");
  struct Case {
    DatasetSpec spec;
    const char* teacher;
    int64_t count;
    int stride;  // step between the samples that are read
    ImageSize size;
  };
  const Case cases[] = {
      {dataset_spec(find_benchmark("kitti"), *kitti, "object_train.txt"), "teacher_lidar_dense", 25, 3, {1216, 352}},
      {dataset_spec(find_benchmark("kitti"), *kitti, "eigen_test_drive0052.txt"),
       "teacher_lidar_dense_val",
       25,
       6,
       {1216, 352}},
      {dataset_spec(find_benchmark("nyu"), *nyu, "train.txt"), nullptr, 400, 23, {640, 480}},
      {dataset_spec(find_benchmark("nyu"), *nyu, "test.txt"), nullptr, 150, 17, {640, 480}}};
  for (Case c : cases) {
    if (c.teacher != nullptr) c.spec.teacher = TeacherSpec{c.teacher};
    const Dataset dataset(c.spec);
    ASSERT_EQ(dataset.size(), c.count);
    for (int64_t i = 0; i < dataset.size(); i += c.stride) {
      const Sample sample = dataset.load(i);
      EXPECT_EQ(sample.image.size(), c.size);
      EXPECT_EQ(sample.depth.size(), c.size);
      EXPECT_EQ(sample.teacher.empty(), c.teacher == nullptr);
      const DepthMap depth = sample.depth.copy();
      const auto valid = std::count_if(depth.values.begin(), depth.values.end(),
                                       [&](float d) { return d > c.spec.min_depth && d < c.spec.max_depth; });
      EXPECT_GT(valid, 1000) << sample.where;
    }
  }
}

}  // namespace
}  // namespace depthstill
