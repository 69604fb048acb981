#include "models/onnx/export.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "engine/ops_loss.h"
#include "kernels/preprocess.h"
#include "models/depth_anything.h"
#include "models/model_table.h"
#include "models/onnx/graph.h"
#include "tests/models/oracle.h"
#include "tests/onnx/reference.h"

namespace depthstill::test {
namespace {

using Output = OnnxOptions::Output;

std::string temporary_path(const std::string& name) {
  return (std::filesystem::temp_directory_path() / concat_text("depthstill_", ::getpid(), "_", name)).string();
}

onnx::ModelProto exported(const DepthModel& student, const OnnxOptions& options = {}) {
  const std::string path = temporary_path("export.onnx");
  export_onnx(student, path, options);
  onnx::ModelProto model = read_model(path);
  std::filesystem::remove(path);
  return model;
}

std::unique_ptr<DepthModel> random_student(const std::string& name, Head head) {
  ModelOptions options;
  options.head = head;
  options.bins = 17;
  options.d_min = 0.5f;
  options.d_max = 20.0f;
  auto student = make_model(name, options);
  set_hash_weights(*student);
  student->eval();
  return student;
}

Array nchw(const Tensor& x) {
  const int64_t N = x.size(0), H = x.size(1), W = x.size(2), C = x.size(3);
  const std::vector<float> from = to_vector<float>(x);
  Array y{{N, C, H, W}, std::vector<double>(from.size())};
  for (int64_t i = 0; i < x.numel(); ++i) {
    const int64_t c = i % C, pixel = i / C % (H * W), n = i / (C * H * W);
    y.values[static_cast<size_t>((n * C + c) * H * W + pixel)] = from[static_cast<size_t>(i)];
  }
  return y;
}

// The largest difference relative to the largest value.
double error_of(const Array& found, const Array& expected) {
  EXPECT_EQ(found.shape, expected.shape);
  double most = 0, worst = 0;
  for (size_t i = 0; i < std::min(found.values.size(), expected.values.size()); ++i) {
    most = std::max(most, std::abs(expected.values[i]));
    const double difference = std::abs(found.values[i] - expected.values[i]);
    worst = difference <= worst ? worst : difference;  // NaN stays
  }
  return worst / most;
}

std::vector<std::string> dims_of(const onnx::ValueInfoProto& info) {
  std::vector<std::string> dims;
  for (const auto& dim : info.type().tensor_type().shape().dim())
    dims.push_back(dim.has_dim_param() ? dim.dim_param() : std::to_string(dim.dim_value()));
  return dims;
}

using Dims = std::vector<std::string>;

// fp32 against double over about 60 layers; the students' own parity tests allow the same.
constexpr double kTolerance = 2e-5;

// protobuf's stream writes once more when it is destroyed, which must not throw.
TEST(OnnxExport, AFullDiskIsAnError) {
  try {
    export_onnx(*random_student("mobilenet_unet", Head::kDpm), "/dev/full");
    FAIL() << "written";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("/dev/full: expected space to write"), std::string::npos) << error.what();
  }
}

TEST(OnnxGraph, WritesWhatItIsTold) {
  OnnxGraph graph("small");
  const OnnxValue x = graph.input("x", {"batch", int64_t{2}});
  const OnnxValue y = graph.node("Mul", {x, graph.constant("w", {2}, std::array{3.0f, -5.0f})});
  const OnnxValue z = graph.node("Mul", {y, graph.scalar(0.1f)}, {});
  EXPECT_EQ(graph.scalar(0.1f), graph.scalar(0.1f));
  EXPECT_NE(graph.scalar(0.1f), graph.scalar(std::nextafter(0.1f, 1.0f)));
  graph.node("Odd", {z, ""}, {{"i", int64_t{-7}}, {"f", 0.25f}, {"s", std::string("text")}, {"is", OnnxInts{1, -2}}});
  graph.output(z, "z", {"batch", int64_t{2}});
  graph.set_metadata("key", "value");
  const std::string path = temporary_path("graph.onnx");
  graph.write(path);
  const onnx::ModelProto model = read_model(path);
  std::filesystem::remove(path);
  EXPECT_EQ(model.ir_version(), kOnnxIrVersion);
  ASSERT_EQ(model.opset_import_size(), 1);
  EXPECT_GE(model.opset_import(0).version(), 17);
  EXPECT_EQ(metadata(model, "key"), "value");
  const onnx::NodeProto& odd = model.graph().node(2);
  EXPECT_EQ(odd.input(1), "");
  EXPECT_EQ(find_attribute(odd, "i")->i(), -7);
  EXPECT_EQ(find_attribute(odd, "f")->f(), 0.25f);
  EXPECT_EQ(find_attribute(odd, "s")->s(), "text");
  EXPECT_EQ(find_attribute(odd, "is")->ints(1), -2);
  EXPECT_EQ(model.graph().initializer_size(), 3);
  EXPECT_EQ(dims_of(model.graph().output(0)), (Dims{"batch", "2"}));
}

TEST(OnnxGraph, RefusesTwoOfAName) {
  OnnxGraph graph("twice");
  graph.constant("w", {1}, std::array{1.0f});
  EXPECT_THROW(graph.constant("w", {1}, std::array{2.0f}), Error);
}

TEST(OnnxGraph, RefusesMoreThanAFileHolds) {
  OnnxGraph graph("large", 12);
  graph.constant("a", {2}, std::array{1.0f, 2.0f});
  graph.constant("b", {1}, std::array{1.0f});
  EXPECT_THROW(graph.constant("c", {1}, std::array{1.0f}), Error);
}

TEST(OnnxGraph, FaultsAreFound) {
  OnnxGraph graph("faulty");
  const OnnxValue x = graph.input("x", {int64_t{1}});
  graph.node("Add", {x, "nowhere"});
  EXPECT_EQ(faults(graph.model().graph()).size(), 2u);  // a name is not defined, and its sum is not used
}

class OnnxUnet : public ::testing::TestWithParam<std::string> {};

TEST_P(OnnxUnet, StructureIsSound) {
  const auto student = random_student(GetParam(), Head::kDpm);
  const onnx::ModelProto model = exported(*student, {.metadata = {{"source", "test"}}, .version = "1.2"});
  const onnx::GraphProto& graph = model.graph();
  EXPECT_EQ(faults(graph), std::vector<std::string>{});
  ASSERT_EQ(graph.input_size(), 1);
  ASSERT_EQ(graph.output_size(), 1);
  EXPECT_EQ(graph.input(0).name(), "image");
  EXPECT_EQ(dims_of(graph.input(0)), (Dims{"batch", "3", "height", "width"}));
  EXPECT_EQ(graph.output(0).name(), "depth");
  EXPECT_EQ(dims_of(graph.output(0)), (Dims{"batch", "height", "width"}));
  int convolutions = 0;
  for (const StateEntry& entry : student->state()) convolutions += entry.layout != Layout::kPlain;
  EXPECT_EQ(count_nodes(graph, "Conv"), convolutions);
  EXPECT_EQ(count_nodes(graph, "BatchNormalization"), 0);
  int weights = 0;
  for (const onnx::TensorProto& constant : graph.initializer()) weights += constant.dims_size() == 4;
  EXPECT_EQ(weights, convolutions);
  EXPECT_EQ(metadata(model, "architecture"), GetParam());
  EXPECT_EQ(metadata(model, "head"), "dpm");
  EXPECT_EQ(metadata(model, "d_max"), "20");
  EXPECT_EQ(metadata(model, "source"), "test");
  EXPECT_EQ(metadata(model, "depthstill_version"), "1.2");
  EXPECT_EQ(model.producer_version(), "1.2");
}

TEST_P(OnnxUnet, ComputesTheStudent) {
  const NoGrad no_grad;
  for (const Head head : {Head::kDpm, Head::kRegression}) {
    const auto student = random_student(GetParam(), head);
    const Tensor image = hash_tensor("image", {2, 12, 20, 3}, 0.0, 2.0);
    const std::vector<float> metres = to_vector<float>(depth_of(student->forward(image)));
    const Array found = evaluate(exported(*student).graph(), nchw(image));
    EXPECT_LT(error_of(found, {{2, 12, 20}, {metres.begin(), metres.end()}}), kTolerance) << name_of(head);
  }
}

TEST_P(OnnxUnet, FixedSizeAndPixels) {
  const NoGrad no_grad;
  const auto student = random_student(GetParam(), Head::kRegression);
  const onnx::ModelProto model =
      exported(*student, {.output = Output::kRaw, .normalise = true, .size = MapSize{16, 12}});
  EXPECT_EQ(dims_of(model.graph().input(0)), (Dims{"batch", "3", "16", "12"}));
  EXPECT_EQ(dims_of(model.graph().output(0)), (Dims{"batch", "1", "16", "12"}));
  EXPECT_EQ(faults(model.graph()), std::vector<std::string>{});
  const Tensor pixels = hash_tensor("pixels", {1, 16, 12, 3}, 127.5, 127.5);
  Tensor image = clone(pixels);
  for (int64_t i = 0; i < image.numel(); ++i)
    image.data<float>()[i] = (image.data<float>()[i] - kImageMean[i % 3]) / kImageStd[i % 3];
  EXPECT_LT(error_of(evaluate(model.graph(), nchw(pixels)), nchw(student->forward_raw(image))), kTolerance);
  EXPECT_THROW(exported(*student, {.size = MapSize{16, 13}}), Error);
}

TEST(OnnxExport, MidasSmall) {
  const NoGrad no_grad;
  const auto student = random_student("midas_small", Head::kRelative);
  const onnx::ModelProto model = exported(*student);
  EXPECT_EQ(faults(model.graph()), std::vector<std::string>{});
  EXPECT_EQ(model.graph().output(0).name(), "inverse_depth");
  EXPECT_EQ(metadata(model, "size_multiple"), "32");
  EXPECT_EQ(metadata(model, "d_max"), "");
  const Tensor image = hash_tensor("image", {1, 32, 64, 3}, 0.0, 2.0);
  const Array raw = evaluate(exported(*student, {.output = Output::kRaw}).graph(), nchw(image));
  EXPECT_LT(error_of(raw, nchw(student->forward_raw(image))), kTolerance);
}

// Attention with swiglu or gelu, taps that are not the last block's, positions that are interpolated.
TEST(OnnxExport, DepthAnything) {
  const NoGrad no_grad;
  for (const bool swiglu : {false, true}) {
    DepthAnythingConfig config{{24, 5, 3, {0, 1, 3, 4}, swiglu, 3}, {24, 8, {4, 6, 8, 10}}};
    DepthAnything student("dpt_s", config, {.head = Head::kRegression, .d_max = 10.0f});
    for (const StateEntry& entry : student.state()) {
      const Shape file = to_file_shape(entry.tensor->shape(), entry.layout);
      const bool around_one = entry.name.find("norm") != std::string::npos && entry.name.ends_with("weight");
      copy_(*entry.tensor, from_file_layout(hash_tensor(entry.name, file, around_one ? 1.0 : 0.0, 0.4), entry.layout));
    }
    student.eval();
    const onnx::ModelProto model = exported(student, {.output = Output::kRaw, .size = MapSize{42, 70}});
    EXPECT_EQ(faults(model.graph()), std::vector<std::string>{});
    EXPECT_EQ(dims_of(model.graph().input(0)), (Dims{"batch", "3", "42", "70"}));
    const Tensor image = hash_tensor("image", {2, 42, 70, 3}, 0.0, 2.0);
    EXPECT_LT(error_of(evaluate(model.graph(), nchw(image)), nchw(student.forward_raw(image))), kTolerance);
    EXPECT_THROW(exported(student), Error);
    EXPECT_THROW(exported(student, {.size = MapSize{42, 64}}), Error);
  }
}

// Depth and sky, with either activation of the latter and an eps that is seen.
TEST(OnnxExport, DepthAnything3) {
  const NoGrad no_grad;
  for (const SkyBranch sky : {SkyBranch::kRelu, SkyBranch::kSigmoid}) {
    DepthAnythingConfig config{{24, 4, 3, {0, 1, 2, 3}, false, 3, 0.5f}, {24, 8, {4, 6, 8, 10}, sky}};
    const bool mono = sky == SkyBranch::kRelu;
    DepthAnything student("da3", config, {.head = mono ? Head::kRelativeDepth : Head::kCanonicalDepth});
    for (const StateEntry& entry : student.state()) {
      const Shape file = to_file_shape(entry.tensor->shape(), entry.layout);
      const bool around_one = entry.name.find("norm") != std::string::npos && entry.name.ends_with("weight");
      copy_(*entry.tensor, from_file_layout(hash_tensor(entry.name, file, around_one ? 1.0 : 0.0, 0.2), entry.layout));
    }
    student.eval();
    const onnx::ModelProto model = exported(student, {.size = MapSize{42, 28}});
    EXPECT_EQ(faults(model.graph()), std::vector<std::string>{});
    ASSERT_EQ(model.graph().output_size(), 2);
    EXPECT_EQ(model.graph().output(0).name(), "depth");
    EXPECT_EQ(model.graph().output(1).name(), "sky");
    EXPECT_EQ(dims_of(model.graph().output(1)), (Dims{"batch", "42", "28"}));
    EXPECT_EQ(metadata(model, "output"), mono ? "depth up to scale and shift, larger is farther"
                                              : "depth in metres times 300 / focal length in pixels of the input");
    EXPECT_EQ(metadata(model, "d_max"), "");
    const Tensor image = hash_tensor("image", {2, 42, 28, 3}, 0.0, 2.0);
    const Prediction expected = student.forward(image);
    int output = 0;
    for (const Tensor& map : {expected.map, expected.sky}) {
      const std::vector<float> values = to_vector<float>(map);
      EXPECT_LT(error_of(evaluate(model.graph(), nchw(image), output++), {{2, 42, 28}, {values.begin(), values.end()}}),
                kTolerance);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Unet, OnnxUnet,
                         ::testing::Values("mobilenet_unet", "resnet18_unet", "resnet50_unet", "mobilenet_unet_small"));

}  // namespace
}  // namespace depthstill::test
