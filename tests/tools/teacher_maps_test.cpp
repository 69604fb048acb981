#include "tools/teacher_maps.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "engine/io/npy.h"
#include "models/depth_anything.h"
#include "tests/data/small_set.h"
#include "tools/usage.h"

namespace depthstill {
namespace {

namespace fs = std::filesystem;

std::unique_ptr<DepthModel> tiny(Head head) {
  DepthAnythingConfig config{{.dim = 32, .depth = 4, .heads = 2, .taps = {0, 1, 2, 3}, .grid = 2},
                             {.dim = 32, .features = 8, .out_channels = {8, 8, 16, 16}}};
  if (is_exponential(head)) config.head.sky = SkyBranch::kSigmoid;
  auto student = std::make_unique<DepthAnything>("tiny", config, ModelOptions{.head = head});
  student->initialize(9);
  student->eval();
  return student;
}

PredictOptions small_options() {
  PredictOptions options;
  options.flip = false;
  options.side = 28;
  return options;
}

void ignore_progress(int64_t, int64_t) {}

class Teach : public testing::Test {
 protected:
  testing_files::TemporaryFolder folder_;
  DatasetSpec spec_ = testing_files::write_small_set(folder_, 3, 40, 30);

  DatasetSpec with_teacher(const std::string& name, const std::string& extension) const {
    DatasetSpec spec = spec_;
    spec.teacher = TeacherSpec{name, TeacherNaming::kFlat, extension};
    spec.teacher->format.metres_per_unit = extension == ".png" ? 80.0 / 65535 : 1.0;
    return spec;
  }
};

TEST_F(Teach, WritesWhatTrainingReads) {
  const auto student = tiny(Head::kRegression);
  const Predictor predictor(*student, small_options());
  for (const char* extension : {".png", ".npy", ".pfm"}) {
    const Dataset data(with_teacher(concat_text("made", extension), extension));
    const TeachReport report = teach(data, predictor, {}, ignore_progress);
    EXPECT_EQ(report.written, 3);
    for (int64_t i = 0; i < data.size(); ++i) {
      const Sample sample = data.load(i);
      const DepthMap expected = predictor(sample.image.copy());
      ASSERT_EQ(sample.teacher.size(), expected.size());
      const DepthMap found = sample.teacher.copy();
      for (size_t k = 0; k < expected.values.size(); ++k)
        ASSERT_NEAR(found.values[k], expected.values[k], 80.0 / 65535) << extension;
    }
  }
}

TEST_F(Teach, GoesOnWhereItWasInterrupted) {
  const auto student = tiny(Head::kRelative);
  const Predictor predictor(*student, small_options());
  const Dataset data(with_teacher("maps", ".npy"));
  EXPECT_EQ(teach(data, predictor, {}, ignore_progress).written, 3);
  fs::remove(data.teacher_path(1));
  const auto before = fs::last_write_time(data.teacher_path(0));
  const TeachReport again = teach(data, predictor, {}, ignore_progress);
  EXPECT_EQ(again.written, 1);
  EXPECT_EQ(again.kept, 2);
  EXPECT_EQ(fs::last_write_time(data.teacher_path(0)), before);
  EXPECT_EQ(teach(data, predictor, {.overwrite = true}, ignore_progress).written, 3);
}

TEST_F(Teach, HalfPrecision) {
  const auto student = tiny(Head::kRelative);
  const Predictor predictor(*student, small_options());
  const Dataset data(with_teacher("half", ".npy"));
  teach(data, predictor, {.half = true}, ignore_progress);
  const DepthMap expected = predictor(Dataset(spec_).load(0).image.copy());
  EXPECT_EQ(fs::file_size(data.teacher_path(0)) % 64, expected.values.size() * 2 % 64);
  const FloatArray found = read_npy(data.teacher_path(0));
  for (size_t i = 0; i < expected.values.size(); ++i)
    ASSERT_NEAR(found.values[i], expected.values[i], 1e-3f * expected.values[i] + 1e-6f);
}

// A unit of PNG has no say in float maps, and half precision changes nothing but the last digits.
TEST_F(Teach, FloatMapsAreMetresAtEitherPrecision) {
  const auto student = tiny(Head::kRegression);
  const Predictor predictor(*student, small_options());
  for (const double float_unit : {1.0, 1e-2}) {
    DatasetSpec spec = with_teacher(concat_text("unit", float_unit), ".npy");
    spec.teacher->format.metres_per_unit = 80.0 / 65535;
    spec.teacher->format.metres_per_float_unit = float_unit;
    const Dataset data(spec);
    const DepthMap expected = predictor(Dataset(spec_).load(0).image.copy());
    for (const bool half : {false, true}) {
      teach(data, predictor, {.half = half, .overwrite = true}, ignore_progress);
      const std::vector<float> found = read_npy(data.teacher_path(0)).values;
      const DepthMap read = data.load(0).teacher.copy();
      for (size_t i = 0; i < found.size(); ++i) {
        ASSERT_NEAR(found[i], expected.values[i] / float_unit, 1e-3 * found[i]) << half;
        ASSERT_NEAR(read.values[i], expected.values[i], 1e-3 * read.values[i]) << half;
      }
    }
  }
}

TEST_F(Teach, SaysWhatAPngCannotHold) {
  const auto student = tiny(Head::kRegression);
  DatasetSpec spec = with_teacher("clipped", ".png");
  spec.teacher->format.metres_per_unit = 1e-6;  // up to 6.6 cm
  testing::internal::CaptureStderr();
  EXPECT_EQ(teach(Dataset(spec), Predictor(*student, small_options()), {}, ignore_progress).clipped, 3);
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("images_1.png: 1200 of 1200 pixels are beyond 0.0655 m"), std::string::npos) << said;
}

// Windows of a map that they agree with change nothing, whatever their own scale and shift.
TEST_F(Teach, TilesOfAConsistentModelChangeNothing) {
  const auto student = tiny(Head::kRegression);
  const auto zeroed = [&](const char* name) {
    for (const StateEntry& entry : student->parameters()) {
      if (entry.name == name) copy_(*entry.tensor, zeros(entry.tensor->shape()));
    }
  };
  zeroed("depth_head.scratch.output_conv2.2.weight");  // depth is then one constant
  const Predictor predictor(*student, small_options());
  const Image8 image = Dataset(spec_).load(0).image.copy();
  const DepthMap whole = predictor(image), tiled = predict_tiled(predictor, image, {.tiles = 3});
  ASSERT_EQ(tiled.size(), whole.size());
  for (size_t i = 0; i < whole.values.size(); ++i) ASSERT_NEAR(tiled.values[i], whole.values[i], 1e-4);
}

TEST_F(Teach, TilesOfARelativeModelKeepItsScale) {
  const auto student = tiny(Head::kRelative);
  for (const StateEntry& entry : student->parameters()) {  // a large bias keeps everything from being cut off at 0
    if (entry.name == "depth_head.scratch.output_conv2.2.bias") copy_(*entry.tensor, tensor<float>({1}, {{5.0f}}));
  }
  const Predictor predictor(*student, small_options());
  const Image8 image = Dataset(spec_).load(0).image.copy();
  const DepthMap whole = predictor(image), tiled = predict_tiled(predictor, image, {.tiles = 2});
  double sum = 0, difference = 0;
  for (size_t i = 0; i < whole.values.size(); ++i) {
    sum += whole.values[i];
    difference += whole.values[i] - tiled.values[i];
  }
  EXPECT_LT(std::abs(difference), 1e-3 * sum);  // least squares keeps each window's mean
}

// The maps of a relative model would be taken for metres if they did not say what they are.
TEST_F(Teach, RelativeMapsAreNoMetres) {
  const auto relative = tiny(Head::kRelative);
  for (const char* extension : {".npy", ".pfm"}) {
    const Dataset data(with_teacher(concat_text("relative", extension), extension));
    teach(data, Predictor(*relative, small_options()), {}, ignore_progress);
    testing_files::expect_clear(
        testing_files::error_of([&] { data.load(1); }),
        "list.txt:2: " + data.teacher_path(1) + ": expected depth in metres, found inverse depth");
  }
}

TEST_F(Teach, RefusesWhatTrainingCouldNotRead) {
  const auto relative = tiny(Head::kRelative);
  const Predictor predictor(*relative, small_options());
  const Dataset png(with_teacher("maps", ".png")), npy(with_teacher("maps", ".npy")), pfm(with_teacher("maps", ".pfm"));
  EXPECT_THROW(teach(png, predictor, {}, ignore_progress), Error);
  EXPECT_THROW(teach(pfm, predictor, {.half = true}, ignore_progress), Error);
  DatasetSpec none = spec_;
  none.teacher.reset();
  EXPECT_THROW(teach(Dataset(none), predictor, {}, ignore_progress), Error);
  EXPECT_NO_THROW(teach(npy, predictor, {}, ignore_progress));
}

// Metres need the list's focal lengths, labels do not; either is what training reads.
TEST_F(Teach, DepthAnything3GivesMetresOrLabels) {
  const auto metric = tiny(Head::kCanonicalDepth);
  const Dataset data(with_teacher("metres", ".npy"));
  const Predictor predictor(*metric, small_options());
  EXPECT_EQ(teach(data, predictor, {}, ignore_progress).written, 3);
  const DepthMap expected = predictor(data.load(1).image.copy(), "image", 50.5), found = data.load(1).teacher.copy();
  EXPECT_EQ(found.values, expected.values);
  const Image8 image = data.load(1).image.copy();
  EXPECT_EQ(predict_tiled(predictor, image, {.tiles = 2}, "image", 50.5).kind, kMetricDepth);

  PredictOptions options = small_options();
  options.labels = true;
  write_file(folder_ / "list.txt", std::string_view("images/0.png depth/0.png\nimages/1.png depth/1.png\n"));
  const Dataset without(with_teacher("labels", ".npy"));
  testing_files::expect_clear(testing_files::error_of([&] { teach(without, predictor, {}, ignore_progress); }),
                              "list.txt:1: expected a focal length in pixels");
  EXPECT_EQ(teach(without, Predictor(*metric, options), {.tiles = 2}, ignore_progress).written, 2);
  const DepthMap label = read_map(without.teacher_path(1), {.unusable = MapFormat::Unusable::kKept});
  EXPECT_EQ(name_of(label.kind), "inverse depth up to scale");
}

// The message of the UsageError for the plan of a data set's maps.
std::string refusal(const DatasetSpec& spec, Existing existing = Existing::kSkip) {
  OutputPlan plan = plan_teacher_maps(Dataset(spec), existing);
  try {
    plan.approve();
  } catch (const UsageError& error) {
    return error.what();
  }
  return "approved";
}

TEST_F(Teach, PlansToWriteMapsAlone) {
  using testing_files::expect_clear;
  DatasetSpec spec = with_teacher("maps", ".npy");
  spec.teacher->naming = TeacherNaming::kBeside;
  EXPECT_EQ(refusal(spec, Existing::kRefuse), "approved");
  make_folder(folder_ / "maps");
  fs::create_directory_symlink("../images", folder_ / "maps/images");
  expect_clear(refusal(spec), "maps/images/0.npy: expected a path below " + (folder_ / "maps"));

  DatasetSpec images = with_teacher(".", ".png"), truth = with_teacher("flat", ".png");
  images.teacher->naming = TeacherNaming::kBeside;
  make_folder(folder_ / "flat");
  fs::create_hard_link(folder_ / "depth/1.png", folder_ / "flat/images_1.png");
  for (const Existing existing : {Existing::kSkip, Existing::kOverwrite}) {
    expect_clear(refusal(images, existing), "images/0.png: expected an output that is no input");
    expect_clear(refusal(truth, existing), "flat/images_1.png: expected an output that is no input, found the input");
  }
}

TEST_F(Teach, RefusesTwoImagesOfOneMap) {
  write_file(folder_ / "list.txt", std::string_view("a/b_c.png None 1\na_b/c.png None 1\na/b_c.png None 1\n"));
  spec_.skip_without_depth = false;
  const std::string message = testing_files::error_of([&] { Dataset(with_teacher("maps", ".npy")); });
  testing_files::expect_clear(message, "list.txt:2: expected a map of its own for a_b/c.png, found a_b_c.npy");
  write_file(folder_ / "list.txt", std::string_view("a/b_c.png None 1\na/b_c.png None 1\n"));
  EXPECT_EQ(refusal(with_teacher("maps", ".npy")), "approved") << "a line may stand twice";
}

}  // namespace
}  // namespace depthstill
