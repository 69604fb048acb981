// These tests ask what cuDNN fuses to a convolution on an H100, without any GPU. Engines that are compiled into cuDNN
// finish their plan; those that are compiled for the graph ask for a driver last, and stop there at the toolkit's stub
// (CMakeLists.txt puts it on the path): both count as accepted, anything else as refused.
#include <gtest/gtest.h>

#include <cstdio>
#include <string>
#include <vector>

#include "kernels/conv2d/cudnn/conv2d_graphs.h"
#include "kernels/cudnn/plan.h"

namespace depthstill::cudnn {
namespace {

struct Layer {
  const char* name;
  Conv2dShape shape;
};

Conv2dShape conv(int64_t n, int64_t h, int64_t w, int64_t c, int64_t o, int kernel) {
  Conv2dShape s{n, h, w, c, o, kernel, kernel};
  s.pad_top = s.pad_bottom = s.pad_left = s.pad_right = kernel / 2;
  return s;
}

Conv2dShape without_top_padding(Conv2dShape s) {
  s.pad_top = 0;  // the case where the rows above are dead
  return s;
}

Conv2dShape strided(Conv2dShape s, int stride) {
  s.stride = stride;
  return s;
}

const Layer kDecoderPair = {"decoder pair 3x3", without_top_padding(conv(8, 88, 176, 128, 128, 3))};
const Layer kExpand = {"expand 1x1", conv(8, 88, 176, 24, 144, 1)};
const Layer kStrided = {"downsampling 1x1", strided(conv(8, 88, 176, 64, 128, 1), 2)};
const Layer kHead = {"head 1x1", conv(8, 88, 176, 128, 264, 1)};
const Layer kOneChannel = {"depth 3x3", conv(8, 88, 176, 128, 1, 3)};

void expect_accepted(const Layer& layer, const char* pattern, cudnnDataType_t type, const Graph& graph) {
  const LibraryOptions options;
  const PlanOffer offer = find_plans(h100_target(), graph, {.options = &options, .limit = 1});
  std::printf("%-18s %-34s %-5s %s\n", layer.name, pattern, type == CUDNN_DATA_FLOAT ? "fp32" : "bf16",
              !offer.plans.empty()    ? "compiled into cuDNN"
              : offer.need_driver > 0 ? "compiled for the graph"
                                      : "refused");
  EXPECT_TRUE(offer.accepted()) << graph.name() << ": " << offer.refusal;
}

const cudnnDataType_t kTypes[] = {CUDNN_DATA_BFLOAT16, CUDNN_DATA_FLOAT};

class FusedGraphs : public ::testing::Test {
 protected:
  // One JIT compilation must have reached the stub, or nothing here means anything.
  static void SetUpTestSuite() {
    const LibraryOptions options;
    const Graph graph = conv2d_chain_graph(kExpand.shape, CUDNN_DATA_BFLOAT16, {.sums = true});
    const PlanOffer offer = find_plans(h100_target(), graph, {.options = &options, .limit = 1});
    usable_ = offer.accepted() || offer.refusal.find("libcuda") == std::string::npos;
  }
  void SetUp() override {
    if (!usable_) GTEST_SKIP() << "skipped: no libcuda.so.1, not even the toolkit's stub";
  }
  static inline bool usable_ = false;
};

TEST_F(FusedGraphs, BiasAndActivation) {
  for (const cudnnDataType_t type : kTypes) {
    for (const Layer& layer : {kDecoderPair, kExpand, kHead, kOneChannel}) {
      for (const cudnnDataType_t bias_type : {type, CUDNN_DATA_FLOAT}) {
        const auto graph = [&](Activation activation) {
          return conv2d_epilogue_graph(layer.shape, type,
                                       {.bias = true, .bias_type = bias_type, .activation = activation});
        };
        expect_accepted(layer, "bias", type, graph(Activation::kNone));
        expect_accepted(layer, "bias, relu", type, graph(Activation::kRelu));
        expect_accepted(layer, "bias, relu6", type, graph(Activation::kRelu6));
        expect_accepted(layer, "bias, sigmoid", type, graph(Activation::kSigmoid));
        if (type == CUDNN_DATA_FLOAT) break;
      }
    }
  }
}

TEST_F(FusedGraphs, ResidualBiasAndRelu) {
  for (const cudnnDataType_t type : kTypes) {
    for (const Layer& layer : {kDecoderPair, kExpand}) {
      expect_accepted(
          layer, "residual, bias, relu", type,
          conv2d_epilogue_graph(layer.shape, type, {.bias = true, .residual = true, .activation = Activation::kRelu}));
      expect_accepted(layer, "residual", type, conv2d_epilogue_graph(layer.shape, type, {.residual = true}));
    }
  }
}

TEST_F(FusedGraphs, GradientOfTheActivationBelowAndItsBias) {
  for (const cudnnDataType_t type : kTypes) {
    for (const Layer& layer : {kDecoderPair, kHead}) {
      expect_accepted(layer, "dgrad, relu', channel sums", type,
                      conv2d_gradient_below_graph(layer.shape, type, Activation::kRelu, true));
      expect_accepted(layer, "dgrad, relu'", type,
                      conv2d_gradient_below_graph(layer.shape, type, Activation::kRelu, false));
    }
  }
}

TEST_F(FusedGraphs, BatchNormsBelowAndAbove) {
  for (const cudnnDataType_t type : kTypes) {
    for (const Layer& layer : {kDecoderPair, kExpand, kStrided}) {
      expect_accepted(layer, "moments", type, conv2d_chain_graph(layer.shape, type, {.sums = true}));
      for (const Activation activation : {Activation::kNone, Activation::kRelu, Activation::kRelu6}) {
        for (const bool sums : {false, true}) {
          expect_accepted(layer, sums ? "batch norm before, moments" : "batch norm before", type,
                          conv2d_chain_graph(layer.shape, type, {true, activation, sums}));
        }
      }
    }
  }
}

}  // namespace
}  // namespace depthstill::cudnn
