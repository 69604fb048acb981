// The candidates for a pass of a convolution on an H100, without any GPU: what the switches leave of them, and that a
// plan survives the cache.
#include "kernels/conv2d/cudnn/conv2d_ways.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "kernels/core/messages.h"
#include "kernels/core/runtime.h"

namespace depthstill::cudnn {
namespace {

Conv2dShape conv(int64_t n, int64_t h, int64_t w, int64_t c, int64_t o, int kernel) {
  Conv2dShape s{n, h, w, c, o, kernel, kernel};
  s.pad_top = s.pad_bottom = s.pad_left = s.pad_right = kernel / 2;
  return s;
}

const Conv2dShape kDecoder = conv(8, 88, 176, 128, 128, 3);

Problem forward(cudnnDataType_t type, Activation activation = Activation::kNone, bool bias = false) {
  return {kDecoder, type, Pass::kForward, activation, bias};
}

TEST(CudnnWays, AFusedReluIsCompiledIntoCudnnAndComesFirst) {
  const Target h100 = h100_target();
  for (const cudnnDataType_t type : {CUDNN_DATA_BFLOAT16, CUDNN_DATA_FLOAT}) {
    const std::vector<Way> ways = ways_of(h100, forward(type, Activation::kRelu, true), {}, false);
    EXPECT_TRUE(ways.front().fused);
    EXPECT_EQ(ways.front().bias_type, type);
    bool plain = false;
    for (const Way& way : ways) plain = plain || (way.plan && !way.fused);
    EXPECT_TRUE(plain) << "no fallback without fusion";
    EXPECT_EQ(ways_of(h100, forward(type, Activation::kRelu, true), {}, true).size(), 1u);
  }
}

TEST(CudnnWays, ThePlainDataGradientStandsFirstWithAnActivationBelowAsWell) {
  // The fused plans behind it are compiled for the graph, for which there is no driver here (fused_graphs_test.cpp).
  const Target h100 = h100_target();
  const Problem plain{.shape = kDecoder, .type = CUDNN_DATA_BFLOAT16, .pass = Pass::kDataGradient};
  for (const Activation below : {Activation::kRelu, Activation::kRelu6, Activation::kSigmoid}) {
    for (const bool sums : {false, true}) {
      Problem problem = plain;
      problem.activation = below;
      problem.bias = sums;
      EXPECT_EQ(fuses_below(problem), below == Activation::kRelu);
      const std::vector<Way> ways = ways_of(h100, problem, {}, true);
      ASSERT_EQ(ways.size(), 1u);
      EXPECT_FALSE(ways[0].fused);
      EXPECT_TRUE(rebuild(h100, problem, {}, record_of(ways[0])).has_value());
      EXPECT_NE(key_of(problem, {}), key_of(plain, {}));
      EXPECT_NE(describe(problem, {}), describe(plain, {}));
    }
  }
  EXPECT_FALSE(fuses_below(plain));
  EXPECT_FALSE(fuses_below(forward(CUDNN_DATA_BFLOAT16, Activation::kRelu, true)));
  Problem one_output{conv(1, 8, 8, 32, 1, 1), CUDNN_DATA_BFLOAT16, Pass::kDataGradient, Activation::kRelu, true};
  EXPECT_FALSE(fuses_below(one_output));
  one_output.type = CUDNN_DATA_FLOAT;
  EXPECT_TRUE(fuses_below(one_output));
}

TEST(CudnnWays, BetweenBatchNormsThePlainPlanStandsFirst) {
  const Target h100 = h100_target();
  const Problem plain{.shape = conv(32, 88, 176, 24, 144, 1), .type = CUDNN_DATA_BFLOAT16};
  for (const bool norm : {false, true}) {
    for (const bool moments : {false, true}) {
      if (!norm && !moments) continue;
      Problem problem = plain;
      problem.norm = norm;
      problem.moments = moments;
      if (norm) problem.activation = Activation::kRelu6;
      const std::vector<ChainLink> links = chain_fusions(problem);
      EXPECT_EQ(links.size(), norm && moments ? 2u : 1u);
      EXPECT_EQ(links.front().norm, norm);
      EXPECT_EQ(links.front().sums, moments);
      const std::vector<Way> ways = ways_of(h100, problem, {}, true);
      ASSERT_EQ(ways.size(), 1u);
      EXPECT_FALSE(ways[0].fused || ways[0].sums);
      EXPECT_TRUE(rebuild(h100, problem, {}, record_of(ways[0])).has_value());
      EXPECT_NE(key_of(problem, {}), key_of(plain, {}));
      EXPECT_NE(describe(problem, {}), describe(plain, {}));
    }
  }
  EXPECT_TRUE(chain_fusions(plain).empty());
  Problem moments = plain;
  moments.moments = true;
  moments.shape.N = 3;  // 13 MB
  EXPECT_TRUE(chain_fusions(moments).empty());
  moments.shape.N = 4;
  EXPECT_EQ(chain_fusions(moments).size(), 1u);
  moments.shape.O = 143;
  EXPECT_TRUE(chain_fusions(moments).empty());

  Problem padded{.shape = kDecoder, .type = CUDNN_DATA_BFLOAT16, .norm = true, .moments = true};
  ASSERT_EQ(chain_fusions(padded).size(), 1u);
  EXPECT_FALSE(chain_fusions(padded).front().norm);
  padded.moments = false;
  EXPECT_TRUE(chain_fusions(padded).empty());
}

TEST(CudnnWays, ARecordSaysWhetherOnlyTheSumsAreFused) {
  const Target h100 = h100_target();
  const Problem problem{.shape = kDecoder, .type = CUDNN_DATA_BFLOAT16, .norm = true, .moments = true};
  Way way = std::move(ways_of(h100, problem, {}, true).front());
  for (const bool sums : {false, true}) {
    way.sums = sums;
    const std::optional<Way> again = rebuild(h100, problem, {}, record_of(way));
    ASSERT_TRUE(again.has_value());
    EXPECT_EQ(again->sums, sums);
    EXPECT_FALSE(again->fused);
  }
}

TEST(CudnnWays, EveryPlanSurvivesTheCache) {
  const Target h100 = h100_target();
  const LibraryOptions options;
  int plans = 0;
  for (const cudnnDataType_t type : {CUDNN_DATA_BFLOAT16, CUDNN_DATA_FLOAT}) {
    std::vector<Problem> problems = {forward(type), forward(type, Activation::kRelu, true)};
    for (const Pass pass : {Pass::kDataGradient, Pass::kWeightGradient})
      problems.push_back({.shape = kDecoder, .type = type, .pass = pass});
    for (const Problem& problem : problems) {
      for (const Way& way : ways_of(h100, problem, options, false)) {
        const std::string record = record_of(way);
        EXPECT_EQ(record.find_first_of("\t\n"), std::string::npos);
        const std::optional<Way> again = rebuild(h100, problem, options, record);
        ASSERT_TRUE(again.has_value()) << record;
        EXPECT_EQ(again->fused, way.fused);
        EXPECT_EQ(again->bias_type, way.bias_type);
        EXPECT_EQ(again->workspace_bytes(), way.workspace_bytes());
        EXPECT_EQ(record_of(*again), record);
        ++plans;
      }
    }
  }
  EXPECT_GE(plans, 40);
}

TEST(CudnnWays, RecordsOfSomethingElseAreNotAccepted) {
  const Target h100 = h100_target();
  const Problem problem = forward(CUDNN_DATA_BFLOAT16);
  const std::string record = record_of(ways_of(h100, problem, {}, true).front());
  EXPECT_TRUE(rebuild(h100, problem, {}, record).has_value());
  const std::string cut = record.substr(0, record.size() / 2);
  for (const std::string& text :
       {std::string(), std::string("plain"), std::string("plain {}"), std::string("plain \xff\x01"),
        std::string("fused fp16 {}"), std::string("matmul z"), std::string("matmul 10"), cut}) {
    EXPECT_FALSE(rebuild(h100, problem, {}, text).has_value()) << text;
  }
  LibraryOptions tight;
  tight.workspace_cap_bytes = -1;
  EXPECT_FALSE(rebuild(h100, problem, tight, record).has_value());
}

TEST(CudnnWays, StrictFp32HasOtherPlansThanTf32) {
  LibraryOptions strict;
  strict.strict_fp32 = true;
  for (const Pass pass : {Pass::kForward, Pass::kDataGradient, Pass::kWeightGradient}) {
    const Graph graph = conv2d_graph(kDecoder, CUDNN_DATA_FLOAT, pass);
    const LibraryOptions any;
    const size_t all = find_plans(h100_target(), graph, {.options = &any, .limit = 1000}).plans.size();
    const size_t left = find_plans(h100_target(), graph, {.options = &strict, .limit = 1000}).plans.size();
    EXPECT_GT(left, 0u) << name_of(pass);
    EXPECT_LT(left, all) << name_of(pass);
    const Graph bf16_graph = conv2d_graph(kDecoder, CUDNN_DATA_BFLOAT16, pass);
    EXPECT_EQ(find_plans(h100_target(), bf16_graph, {.options = &any, .limit = 1000}).plans.size(),
              find_plans(h100_target(), bf16_graph, {.options = &strict, .limit = 1000}).plans.size())
        << "bf16 is not concerned";
  }
}

TEST(CudnnWays, DeterministicPlansAreSomeOfAll) {
  LibraryOptions deterministic;
  deterministic.deterministic = true;
  for (const Pass pass : {Pass::kForward, Pass::kDataGradient, Pass::kWeightGradient}) {
    const Graph graph = conv2d_graph(kDecoder, CUDNN_DATA_FLOAT, pass);
    const LibraryOptions any;
    const size_t all = find_plans(h100_target(), graph, {.options = &any, .limit = 1000}).plans.size();
    const size_t left = find_plans(h100_target(), graph, {.options = &deterministic, .limit = 1000}).plans.size();
    EXPECT_GT(left, 0u) << name_of(pass);
    EXPECT_LE(left, all) << name_of(pass);
    if (pass == Pass::kWeightGradient) {
      EXPECT_LT(left, all) << "no split sum among the weight gradients?";
    }
  }
}

TEST(CudnnPlans, AreSpreadOverTheEngines) {
  using Order = std::vector<size_t>;
  EXPECT_EQ(spread_over_engines({}), Order{});
  EXPECT_EQ(spread_over_engines({5, 5, 7}), (Order{0, 1, 2}));
  // Engine 62 fills the top, 22 and 45 come late.
  std::vector<int64_t> engines(17, 62);
  engines.insert(engines.end(), {22, 45, 62, 22});
  EXPECT_EQ(spread_over_engines(engines),
            (Order{0, 1, 2, 3, 4, 5, 17, 18, 20, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 19}));
  // Ten are full before the last engines are met.
  engines = {1, 1, 2, 2, 2, 2, 2, 2, 1, 1, 2, 1, 3, 3, 4};
  EXPECT_EQ(spread_over_engines(engines), (Order{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 14, 10, 11, 13}));
}

TEST(CudnnWays, AreOfSeveralEngines) {
  for (const Pass pass : {Pass::kForward, Pass::kDataGradient, Pass::kWeightGradient}) {
    const Problem problem{.shape = conv(32, 242, 704, 128, 128, 3), .type = CUDNN_DATA_BFLOAT16, .pass = pass};
    LibraryOptions options;
    const std::vector<Way> ways = ways_of(h100_target(), problem, options, false);
    EXPECT_LE(ways.size(), 16u);
    std::map<int, int> engines;
    for (const Way& way : ways) {
      ++engines[way.plan->engine()];
      EXPECT_NE(words_of(way).find(concat_text("engine ", way.plan->engine(), ", workspace ")), std::string::npos);
    }
    EXPECT_GE(engines.size(), 3u) << name_of(pass);
    EXPECT_EQ(engines.count(-1), 0u) << "the text of a plan does not name its engine";
    options.all_plans = true;
    EXPECT_GE(ways_of(h100_target(), problem, options, false).size(), ways.size());
    EXPECT_NE(describe(problem, options), describe(problem, {}));
    EXPECT_NE(key_of(problem, options), key_of(problem, {}));
  }
}

// The stored logits of 48 images are more than 2^31.
TEST(CudnnWays, AddUpInLessThanFp32OnlyWhereNothingElseIsLeft) {
  std::vector<std::string> said;
  set_message_sink([&](const std::string& line) { said.push_back(line); });
  for (const int64_t batch : {47, 48}) {
    const Problem problem{
        .shape = conv(batch, 242, 704, 128, 264, 1), .type = CUDNN_DATA_BFLOAT16, .pass = Pass::kWeightGradient};
    const Graph graph = conv2d_graph(problem.shape, problem.type, problem.pass);
    const LibraryOptions options;
    const bool none = find_plans(h100_target(), graph, {.options = &options}).plans.empty();
    if (batch == 47 || cuda::emulated()) {  // other versions than 9.19 may know better
      EXPECT_EQ(none, batch == 48);
    }
    EXPECT_FALSE(ways_of(h100_target(), problem, options, true).empty());
    EXPECT_EQ(said.size(), none ? 1u : 0u);
  }
  set_message_sink(nullptr);
  if (said.empty()) return;
  EXPECT_NE(said[0].find("conv2d weight gradient bf16 (48, 242, 704, 128)"), std::string::npos) << said[0];
}

TEST(CudnnWays, TheWorkspaceGrowsWithTheDevice) {
  Target device = h100_target();
  LibraryOptions options;
  EXPECT_EQ(workspace_cap_bytes(device, options), (int64_t{80} << 30) / 50);
  device.memory_bytes = 1000;
  EXPECT_EQ(workspace_cap_bytes(device, options), 20);
  options.workspace_cap_bytes = 7;
  EXPECT_EQ(workspace_cap_bytes(device, options), 7);
}

TEST(CudnnWays, KeepToTheWorkspaceCap) {
  LibraryOptions options;
  options.workspace_cap_bytes = 1000;
  for (const Way& way : ways_of(h100_target(), forward(CUDNN_DATA_FLOAT), options, false))
    EXPECT_LE(way.workspace_bytes(), 1000u);
}

TEST(CudnnWays, KeysTellProblemsAndSwitchesApart) {
  const Problem problem = forward(CUDNN_DATA_BFLOAT16);
  std::vector<Problem> others(5, problem);
  others[0].shape.pad_top = 0;
  others[1].type = CUDNN_DATA_FLOAT;
  others[2].pass = Pass::kDataGradient;
  others[3].activation = Activation::kRelu6;
  others[4].bias = true;
  for (const Problem& other : others) {
    EXPECT_NE(key_of(other, {}), key_of(problem, {}));
    EXPECT_NE(describe(other, {}), describe(problem, {}));
  }
  std::vector<LibraryOptions> switched(3);
  switched[0].deterministic = true;
  switched[1].strict_fp32 = true;
  switched[2].workspace_cap_bytes = 7;
  for (const LibraryOptions& options : switched) {
    EXPECT_NE(key_of(problem, options), key_of(problem, {}));
    EXPECT_NE(describe(problem, options), describe(problem, {}));
  }
}

TEST(CudnnWays, ARefusedConvolutionIsNamed) {
  LibraryOptions options;
  options.workspace_cap_bytes = -1;
  try {
    ways_of(h100_target(), {.shape = conv(1, 8, 8, 4, 4, 3)}, options, false);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("conv2d forward fp32 (1, 8, 8, 4)"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("workspace"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace depthstill::cudnn
