// Architecture facts of the students: parameters, work, names, needed rows.
#include <gtest/gtest.h>

#include <algorithm>

#include "losses/tie_kd.h"
#include "models/model_table.h"
#include "models/unet.h"
#include "tests/models/oracle.h"

namespace depthstill {
namespace {

struct Counts {
  const char* name;
  Head head;
  int64_t reference, executed;
  double gmac;  // work at 352 x 704
};

constexpr Counts kCounts[] = {
    {"mobilenet_unet", Head::kDpm, 17'647'618, 17'646'465, 171.1},
    {"resnet18_unet", Head::kDpm, 16'783'938, 16'487'617, 129.1},
    {"resnet50_unet", Head::kDpm, 78'394'178, 78'097'857, 244.0},
    {"mobilenet_unet_small", Head::kDpm, 2'629'137, 2'629'137, 5.7},
    {"mobilenet_unet_small", Head::kRegression, 2'624'913, 2'624'913, 4.72},
    {"mobilenet_unet", Head::kRegression, 17'647'489, 17'614'465, 163.2},
    {"resnet18_unet", Head::kRegression, 16'783'809, 16'455'617, 121.2},
    {"resnet50_unet", Head::kRegression, 78'394'049, 78'065'857, 236.2},
};

UnetModel mobilenet_unet() {
  return UnetModel("mobilenet_unet", std::get<UnetConfig>(find_model("mobilenet_unet").config), {});
}

TEST(DepthModel, ParameterCountsAreThePublishedOnes) {
  for (const Counts& expected : kCounts) {
    const auto student = make_model(expected.name, {.head = expected.head});
    EXPECT_EQ(student->reference_parameter_count(), expected.reference) << expected.name;
    EXPECT_EQ(student->parameter_count(), expected.executed) << expected.name;
    EXPECT_NEAR(student->gmac(352, 704), expected.gmac, 0.05) << expected.name;
  }
}

TEST(DepthModel, CountsOfTheTableAreThoseOfTheNetworks) {
  for (const ModelRow& row : model_table()) {
    const auto model = make_model(row.name, {.head = row.head});
    EXPECT_EQ(model->reference_parameter_count(), row.counts.parameters) << row.name;
    if (row.name == std::string_view("dpt_l")) {
      EXPECT_EQ(model->state().size() + model->dead_parameter_names().size(), 407u);
    }
    EXPECT_EQ(model->parameter_count(), row.counts.executed) << row.name;
    EXPECT_NEAR(model->gmac(ModelCounts::kHeight, ModelCounts::kWidth), static_cast<double>(row.counts.macs) * 1e-9,
                1e-9)
        << row.name;
  }
}

TEST(DepthModel, WorkByPart) {
  const UnetModel student = mobilenet_unet();
  const EncoderTrace trace = student.encoder().trace({352, 704});
  EXPECT_NEAR(static_cast<double>(trace.macs) * 1e-9, 7.25, 0.01);
  EXPECT_EQ(trace.taps, (std::vector<MapSize>{{88, 176}, {44, 88}, {44, 88}, {44, 88}}));
  EXPECT_EQ(student.decoder().output_size(trace.taps), (MapSize{352, 704}));
  // The rows that only the ignored top of the map needs are a good quarter of the decoder.
  EXPECT_NEAR(static_cast<double>(student.decoder().macs(trace.taps, 110)) * 1e-9, 120.2, 0.05);
}

TEST(DepthModel, OptionsSetTheDecodersWidths) {
  const auto wide = make_model("mobilenet_unet_small", {.decoder_widths = {32, 32, 64, 128, 256}});
  EXPECT_EQ(wide->parameter_count(), 2'660'961);
  EXPECT_NEAR(wide->gmac(352, 704), 11.003, 1e-3);
  EXPECT_EQ(make_model("mobilenet_unet", {.decoder_widths = {128, 256, 512, 2048}})->parameter_count(), 17'646'465);
  const auto refused = [](const char* model, std::vector<int64_t> widths) {
    try {
      make_model(model, {.head = default_head(model), .decoder_widths = std::move(widths)});
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("made");
  };
  EXPECT_EQ(refused("mobilenet_unet_small", {16, 32}), "unet_decoder: expected one width per tap, got 2 for 5 taps");
  EXPECT_EQ(refused("mobilenet_unet", {8, 0, 8, 8}), "unet_decoder: expected widths of 1 to 8192 channels, got 0");
  EXPECT_EQ(refused("dpt_s", {16}), "dpt_s: expected no decoder_widths, which are for U-Nets");
}

TEST(DepthModel, TheSmallStudentTakesAnyEvenSize) {
  const auto student = make_model("mobilenet_unet_small", {.bins = 9});
  student->initialize(3);
  student->eval();
  const NoGrad no_grad;
  EXPECT_EQ(student->size_multiple(), 2);
  EXPECT_EQ(student->forward_raw(test::hash_tensor("image", {1, 38, 50, 3}, 0.0, 2.0)).shape(), (Shape{1, 38, 50, 9}));
}

// Maps that are compared after division by a small deviation: bf16 below does not round them.
TEST(DepthModel, RelativeHeadsEndInFp32AndBeginAboveZero) {
  for (const char* name : {"mobilenet_unet_small", "midas_small", "dpt_s"}) {
    const auto student = make_model(name, {.head = Head::kRelative});
    const int64_t side = name == std::string("dpt_s") ? 28 : 32;
    const Tensor image = test::hash_tensor("image", {1, side, side, 3}, 0.0, 2.0);
    const NoGrad no_grad;
    student->initialize(11);
    student->eval();
    const Tensor raw = student->forward_raw(cast(image, DType::kBf16));
    EXPECT_EQ(raw.dtype(), DType::kFloat) << name;
    EXPECT_EQ(raw.shape(), (Shape{1, side, side, 1})) << name;
    const std::vector<float> map = to_vector<float>(student->forward(cast(image, DType::kBf16)).map);
    int rounded = 0, positive = 0;
    for (const float v : map) {
      rounded += static_cast<float>(bf16(v)) == v;
      positive += v > 0;
    }
    EXPECT_LT(rounded, static_cast<int>(map.size() / 8)) << name;
    EXPECT_EQ(positive, static_cast<int>(map.size())) << name;
    EXPECT_EQ(map, to_vector<float>(raw)) << name << ": its ReLU changes nothing there";
  }
}

TEST(DepthModel, TiesStudentsCanHaveARelativeHead) {
  const auto unet = make_model("mobilenet_unet_small", {.head = Head::kRelative});
  unet->initialize(1);
  unet->eval();
  const NoGrad no_grad;
  const Tensor image = test::hash_tensor("image", {1, 38, 50, 3}, 0.0, 2.0);
  const Tensor all = unet->forward(image).map, rest = unet->forward(image, 5).map;
  EXPECT_EQ(to_vector<float>(rest), to_vector<float>(crop_rows(all, 5, 33)));
  for (const StateEntry& entry : unet->state()) {
    EXPECT_TRUE(entry.name != "decode_head.conv_depth.weight" || entry.tensor->shape() == (Shape{1, 1, 1, 16}));
    EXPECT_FALSE(entry.name.starts_with("decode_head.conv_out")) << entry.name;
  }
  EXPECT_TRUE(make_model("mobilenet_unet", {.head = Head::kRelative})->parts().encoder == std::string("backbone."));
}

TEST(DepthModel, OptionsSetTheHead) {
  const auto nyu = make_model("mobilenet_unet", {.bins = 49, .d_max = 10.0f});
  EXPECT_EQ(nyu->parameter_count(), 17'646'465 - (257 - 49) * 129);
  EXPECT_THROW(make_model("vgg_unet", {}), Error);
  EXPECT_THROW(make_model("mobilenet_unet", {.d_min = 5.0f, .d_max = 2.0f}), Error);
}

TEST(DepthModel, NamesAndShapesAreThoseOfThePublishedCheckpoints) {
  struct Expected {
    const char* model;
    const char* name;
    Shape file_shape;
  };
  const Expected entries[] = {
      {"mobilenet_unet", "backbone.conv1.conv.weight", {32, 3, 3, 3}},
      {"mobilenet_unet", "backbone.layer1.0.conv.0.conv.weight", {32, 1, 3, 3}},
      {"mobilenet_unet", "backbone.layer2.0.conv.1.bn.running_var", {96}},
      {"mobilenet_unet", "backbone.layer7.0.conv.2.bn.num_batches_tracked", {}},
      {"mobilenet_unet", "decode_head.conv_list.0.conv.weight", {2048, 320, 1, 1}},
      {"mobilenet_unet", "decode_head.conv_list.1.convA.conv.weight", {512, 2144, 3, 3}},
      {"mobilenet_unet", "decode_head.upsample_custom2.convB.conv.bias", {128}},
      {"mobilenet_unet", "decode_head.conv_out.0.weight", {257, 128, 1, 1}},
      {"resnet18_unet", "backbone.layer2.0.downsample.0.weight", {128, 64, 1, 1}},
      {"resnet50_unet", "backbone.layer1.0.downsample.1.running_mean", {256}},
      {"resnet50_unet", "backbone.layer4.2.conv3.weight", {2048, 512, 1, 1}},
      {"resnet50_unet", "decode_head.conv_list.4.convA.conv.weight", {128, 320, 3, 3}},
      {"resnet50_unet", "decode_head.upsample_custom.convA.conv.weight", {128, 128, 3, 3}},
  };
  for (const Expected& expected : entries) {
    const auto student = make_model(expected.model, {});
    const std::vector<StateEntry> state = student->state();
    const auto found =
        std::find_if(state.begin(), state.end(), [&](const StateEntry& e) { return e.name == expected.name; });
    ASSERT_NE(found, state.end()) << expected.model << " " << expected.name;
    EXPECT_EQ(to_file_shape(found->tensor->shape(), found->layout), expected.file_shape) << expected.name;
  }
  EXPECT_EQ(make_model("mobilenet_unet", {})->dead_parameter_names(),
            (std::vector<std::string>{"decode_head.conv_depth.weight", "decode_head.conv_depth.bias"}));
}

TEST(UnetDecoder, RowsThatTheOutputNeeds) {
  const UnetModel student = mobilenet_unet();
  const std::vector<MapSize> taps = student.encoder().trace({352, 704}).taps;
  const std::vector<std::string> names = student.decoder().step_names();
  const std::vector<int64_t> rows = student.decoder().first_rows(taps, 110);
  ASSERT_EQ(rows.size(), names.size() + 1);
  const auto first_output_row = [&](const std::string& name) {
    return rows[static_cast<size_t>(std::find(names.begin(), names.end(), name) - names.begin()) + 1];
  };
  const std::pair<const char*, int64_t> expected[] = {
      {"conv_list.0.conv", 7},
      {"conv_list.1.convA.conv", 8},
      {"conv_list.1.convB.conv", 9},
      {"conv_list.2.convA.conv", 10},
      {"conv_list.2.convB.conv", 11},
      {"conv_list.3.convA.conv", 24},
      {"conv_list.3.convB.conv", 25},
      {"upsample_custom.convA.conv", 52},
      {"upsample_custom.convB.conv", 53},
      {"upsample_custom2.convA.conv", 109},
      {"upsample_custom2.convB.conv", 110},
      {"conv_out.0", 110},
  };
  for (const auto& [name, row] : expected) EXPECT_EQ(first_output_row(name), row) << name;
  EXPECT_EQ(student.decoder().first_rows(taps, 0), std::vector<int64_t>(rows.size(), 0));
  EXPECT_THROW(student.decoder().first_rows(taps, 352), Error);
}

struct Pass {
  Tensor output;
  std::vector<std::pair<std::string, std::vector<float>>> gradients;
};

Pass run_pass(DepthModel& student, const Tensor& image, int64_t first_needed_row, int64_t loss_first_row) {
  student.clear_grads();
  Tensor y = test::output_of(student.forward(image, first_needed_row));
  const int64_t skip = loss_first_row - first_needed_row;
  if (skip > 0) y = crop_rows(y, skip, y.size(1) - skip);
  backward(y, test::hash_tensor("window dy", y.shape(), 0.0, 1.0));
  Pass pass{y.detach(), {}};
  for (const StateEntry& p : student.parameters())
    pass.gradients.emplace_back(p.name, to_vector<float>(p.tensor->grad()));
  return pass;
}

TEST(DepthModel, SkippedRowsChangeNeitherOutputNorGradients) {
  struct Case {
    const char* model;
    Head head;
    int64_t height, first_row;
  };
  const Case cases[] = {{"mobilenet_unet", Head::kDpm, 96, 30},
                        {"mobilenet_unet", Head::kRegression, 64, 21},
                        {"resnet18_unet", Head::kDpm, 96, 61},
                        {"mobilenet_unet", Head::kDpm, 32, 1},
                        {"mobilenet_unet_small", Head::kDpm, 96, 41}};
  for (const Case& c : cases) {
    SCOPED_TRACE(testing::Message() << c.model << " " << c.height << " rows from " << c.first_row);
    const auto student = make_model(c.model, {.head = c.head, .bins = 17});
    test::set_hash_weights(*student);
    const Tensor image = test::hash_tensor("image", {2, c.height, 64, 3}, 0.0, 2.0);
    const Pass whole = run_pass(*student, image, 0, c.first_row);
    const Pass window = run_pass(*student, image, c.first_row, c.first_row);
    ASSERT_EQ(window.output.shape(), whole.output.shape());
    EXPECT_LE(test::relative_distance(to_vector<float>(window.output), to_vector<float>(whole.output)), 1e-6);
    for (size_t i = 0; i < whole.gradients.size(); ++i) {
      EXPECT_LE(test::relative_distance(window.gradients[i].second, whole.gradients[i].second), 1e-4)
          << whole.gradients[i].first;
    }
  }
}

// With random weights and a random dy, PyTorch's own bf16 run (same weights) is 0.115 off its fp32 run in the output,
// 0.12 in the head's gradient and 0.6 to 1.4 in those of the layers before: ReLU masks differ. So deep gradients are
// held to their norms only.
TEST(DepthModel, Bf16ActivationsFollowFp32) {
  const auto student = make_model("mobilenet_unet", {.bins = 17});
  test::set_hash_weights(*student);
  const Tensor image = test::hash_tensor("image", {2, 64, 64, 3}, 0.0, 2.0);
  const auto pass = [&](DType dtype) {
    student->clear_grads();
    const Tensor y = test::output_of(student->forward(cast(image, dtype), 20));
    EXPECT_EQ(y.dtype(), dtype);
    backward(y, cast(test::hash_tensor("window dy", y.shape(), 0.0, 1.0), dtype));
    std::vector<std::vector<float>> out{to_vector<float>(cast(y.detach(), DType::kFloat))};
    for (const Tensor& p : student->parameter_tensors()) out.push_back(to_vector<float>(p.grad()));
    return out;
  };
  const auto norm = [](const std::vector<float>& x) {
    double squares = 0.0;
    for (const float v : x) squares += static_cast<double>(v) * v;
    return std::sqrt(squares);
  };
  const std::vector<std::vector<float>> expected = pass(DType::kFloat), found = pass(DType::kBf16);
  EXPECT_LE(test::relative_distance(found[0], expected[0]), 0.15);
  const std::vector<StateEntry> parameters = student->parameters();
  for (size_t i = 0; i < parameters.size(); ++i) {
    const std::vector<float>&g = found[i + 1], &e = expected[i + 1];
    // A shift that only reaches batch norms has gradient zero: rounding noise in both.
    if (norm(e) > 1e-5 * norm(expected.back())) {
      EXPECT_NEAR(norm(g) / norm(e), 1.0, 0.5) << parameters[i].name;
    }
    if (parameters[i].name.starts_with("decode_head.conv_out")) {
      EXPECT_LE(test::relative_distance(g, e), 0.2) << parameters[i].name;
    }
  }
}

TEST(DepthModel, RegressionHeadIsScaledSigmoid) {
  const auto student = make_model("resnet18_unet", {.head = Head::kRegression, .d_max = 10.0f});
  student->initialize(5);
  student->eval();
  const NoGrad no_grad;
  const Tensor depth = student->forward(test::hash_tensor("image", {1, 64, 32, 3}, 0.0, 2.0)).map;
  EXPECT_EQ(depth.shape(), (Shape{1, 64, 32}));
  for (const float d : to_vector<float>(depth)) ASSERT_TRUE(d > 0.0f && d < 10.0f) << d;
}

// The head's logits stored or made again: the same numbers but for the order in which dweight is added up.
TEST(DepthModel, BothWaysOfTheHeadTrainTheSame) {
  for (const char* name : {"mobilenet_unet", "resnet18_unet"}) {
    SCOPED_TRACE(name);
    const auto student = make_model(name, {.bins = 33});
    test::set_hash_weights(*student);
    const Tensor image = test::hash_tensor("image", {2, 64, 32, 3}, 0.0, 2.0);
    const Tensor teacher = test::hash_tensor("teacher", {2, 64, 32}, 5.0, 60.0);
    LossOptions options = named_loss("tie_kd");
    options.top_rows = 20;
    const auto step = [&](DpmHeadWay way) {
      student->clear_grads();
      const Prediction output = student->forward(image, 20);
      EXPECT_EQ(output.shape(), (Shape{2, 44, 32}));
      const LossResult loss = tie_kd_loss(output, teacher, {}, options, way);
      backward(loss.total);
      return item(loss.total);
    };
    const float stored = step(DpmHeadWay::kStored);
    std::vector<std::vector<float>> expected;
    for (const Tensor& p : student->parameter_tensors()) expected.push_back(to_vector<float>(p.grad()));
    EXPECT_EQ(step(DpmHeadWay::kFused), stored);
    const std::vector<Tensor> parameters = student->parameter_tensors();
    for (size_t i = 0; i < parameters.size(); ++i) {
      EXPECT_LE(test::relative_distance(to_vector<float>(parameters[i].grad()), expected[i]), 1e-6) << i;
    }
    const NoGrad no_grad;
    const Prediction output = student->forward(image);
    EXPECT_EQ(to_vector<float>(depth_of(output, DpmHeadWay::kFused)),
              to_vector<float>(depth_of(output, DpmHeadWay::kStored)));
    EXPECT_EQ(student->forward_raw(image).shape(), (Shape{2, 64, 32, 33}));
  }
}

TEST(DepthModel, RefusesImagesItCannotRestoreTheSizeOf) {
  const auto student = make_model("mobilenet_unet", {});
  EXPECT_THROW(student->forward(zeros({1, 66, 64, 3})), Error);
  EXPECT_THROW(student->forward(zeros({1, 64, 64, 4})), Error);
}

// Of values whose mean is 0.
double deviation(const std::vector<float>& x) {
  double sum = 0.0;
  for (const float v : x) sum += static_cast<double>(v) * v;
  return std::sqrt(sum / static_cast<double>(x.size()));
}

TEST(DepthModel, InitialWeightsFollowTheRule) {
  const auto a = make_model("mobilenet_unet", {}), b = make_model("mobilenet_unet", {});
  a->initialize(1);
  b->initialize(2);
  const std::vector<StateEntry> other = b->parameters();
  size_t i = 0;
  for (const StateEntry& p : a->parameters()) {
    const std::vector<float> x = to_vector<float>(*p.tensor);
    const bool random = p.layout != Layout::kPlain || p.name == "decode_head.conv_out.0.bias";
    EXPECT_EQ(x != to_vector<float>(*other[i++].tensor), random) << p.name;
    if (p.name == "decode_head.conv_list.1.convA.conv.weight") {  // fan-out 9 * 512
      EXPECT_NEAR(deviation(x), std::sqrt(2.0 / (9 * 512)), 1e-4);
    } else if (p.name == "decode_head.conv_out.0.weight") {  // uniform, fan-in 128
      EXPECT_NEAR(deviation(x), std::sqrt(1.0 / (3 * 128)), 1e-3);
      EXPECT_LE(*std::max_element(x.begin(), x.end()), 1.0f / std::sqrt(128.0f));
    } else if (p.name == "backbone.conv1.conv.weight") {
      EXPECT_NEAR(deviation(x), std::sqrt(2.0 / (9 * 32)), 6e-3);
    }
  }
}

TEST(DepthModel, TheLightDecoderIsDrawnOverFanIn) {
  const auto model = make_model("mobilenet_unet_small", {});
  model->initialize(1);
  int seen = 0;
  for (const StateEntry& p : model->parameters()) {
    const double fan_in = p.name == "decode_head.conv_list.1.convA.conv.weight"   ? 9 * (256 + 96)
                          : p.name == "decode_head.conv_list.1.convB.conv.weight" ? 9 * 128
                                                                                  : 0;
    if (fan_in == 0) continue;
    EXPECT_NEAR(deviation(to_vector<float>(*p.tensor)), std::sqrt(2 / fan_in), 2e-4) << p.name;
    ++seen;
  }
  EXPECT_EQ(seen, 2);
}

}  // namespace
}  // namespace depthstill
