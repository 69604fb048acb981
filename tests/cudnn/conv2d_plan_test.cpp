// cuDNN plans for an H100, built without any GPU, for every dense convolution of the students: each pass must have one
// within the workspace cap. Runs wherever cuDNN is installed.
#include "kernels/cudnn/conv2d_plan.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <vector>

#include "kernels/cudnn/h100.h"

namespace depthstill::cudnn {
namespace {

struct Layer {
  const char* name;
  Conv2dShape shape;
};

Conv2dShape conv(int64_t h, int64_t w, int64_t c, int64_t o, int kernel, int stride = 1) {
  Conv2dShape s;
  s.N = 1;
  s.H = h;
  s.W = w;
  s.C = c;
  s.O = o;
  s.R = s.S = kernel;
  s.stride = stride;
  s.pad_top = s.pad_bottom = s.pad_left = s.pad_right = kernel / 2;
  return s;
}

// Layers of the TIE-KD MobileNetV2 student at 352 x 704 (names as in the checkpoint, heaviest shapes of each kind),
// those that only the ResNets have, and those of the DPT head at 518 x 518 and of MiDaS.
const std::vector<Layer> kLayers = {
    {"backbone.conv1", conv(352, 704, 3, 32, 3, 2)},
    {"backbone.layer2.0.conv.0", conv(176, 352, 16, 96, 1)},
    {"backbone.layer3.0.conv.2", conv(44, 88, 144, 32, 1)},
    {"backbone.layer7.0.conv.2", conv(44, 88, 960, 320, 1)},
    {"decode_head.conv_list.0", conv(44, 88, 320, 2048, 1)},
    {"decode_head.conv_list.1.convA", conv(44, 88, 2144, 512, 3)},
    {"decode_head.conv_list.1.convB", conv(44, 88, 512, 512, 3)},
    {"decode_head.conv_list.2.convA", conv(44, 88, 544, 256, 3)},
    {"decode_head.conv_list.2.convB", conv(44, 88, 256, 256, 3)},
    {"decode_head.conv_list.3.convA", conv(88, 176, 280, 128, 3)},
    {"decode_head.conv_list.3.convB", conv(88, 176, 128, 128, 3)},
    {"decode_head.upsample_custom.convA", conv(176, 352, 128, 128, 3)},
    {"decode_head.upsample_custom2.convB", conv(352, 704, 128, 128, 3)},
    {"decode_head.conv_out.0", conv(352, 704, 128, 257, 1)},
    {"regression head", conv(352, 704, 128, 1, 3)},
    {"resnet stem", conv(352, 704, 3, 64, 7, 2)},
    {"resnet layer2.0.conv1", conv(88, 176, 64, 128, 3, 2)},
    {"resnet layer2.0.downsample", conv(88, 176, 64, 128, 1, 2)},
    {"resnet50 conv_list.1.convA", conv(22, 44, 3072, 1024, 3)},
    {"dpt_s projects.3", conv(37, 37, 384, 384, 1)},
    {"dpt_s resize_layers.3", conv(37, 37, 384, 384, 3, 2)},
    {"dpt_s layer1_rn", conv(148, 148, 48, 64, 3)},
    {"dpt_s resConfUnit", conv(148, 148, 64, 64, 3)},
    {"dpt_s output_conv2.0", conv(518, 518, 32, 32, 3)},
    {"dpt_s output_conv2.2", conv(518, 518, 32, 1, 1)},
    {"dpt_l layer4_rn", conv(19, 19, 1024, 256, 3)},
    {"midas_small layer4_rn", conv(6, 8, 384, 512, 3)},
};

TEST(CudnnPlans, EveryConvolutionOfTheStudentsHasAPlanOnAnH100) {
  const Target h100{nullptr, kH100};
  std::printf("%-38s %5s %-5s %-16s %6s %12s\n", "layer", "batch", "type", "pass", "plans", "workspace MB");
  const auto plan_one = [&](const char* name, const Conv2dShape& shape, cudnnDataType_t type, Pass pass) {
    try {
      const Plan plan = make_conv2d_plan(h100, shape, type, pass);
      std::printf("%-38s %5lld %-5s %-16s %6d %12.1f\n", name, static_cast<long long>(shape.N),
                  type == CUDNN_DATA_FLOAT ? "fp32" : "bf16", name_of(pass), plan.offered(),
                  static_cast<double>(plan.workspace_bytes()) / 1e6);
      EXPECT_GE(plan.offered(), 1);
    } catch (const std::exception& error) {
      ADD_FAILURE() << name << ": " << error.what();
    }
  };
  for (Layer layer : kLayers) {
    for (const int64_t batch : {1, 8, 32}) {
      layer.shape.N = batch;
      for (const cudnnDataType_t type : {CUDNN_DATA_BFLOAT16, CUDNN_DATA_FLOAT}) {
        for (const Pass pass : {Pass::kForward, Pass::kDataGradient, Pass::kWeightGradient})
          plan_one(layer.name, layer.shape, type, pass);
      }
    }
  }
}

TEST(CudnnPlans, ARefusedConvolutionIsNamed) {
  Conv2dShape impossible = conv(8, 8, 4, 4, 3);
  try {
    PlanOptions options;
    options.workspace_cap_bytes = -1;
    make_conv2d_plan({nullptr, kH100}, impossible, CUDNN_DATA_BFLOAT16, Pass::kForward, options);
    FAIL();
  } catch (const std::exception& error) {
    EXPECT_NE(std::string(error.what()).find("conv2d forward of (1, 8, 8, 4)"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace depthstill::cudnn
