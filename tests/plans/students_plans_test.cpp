// Plans for an H100, built without any GPU, of every dense convolution that training the students runs: a dry run of
// one step per student, batch and precision leaves behind what was planned. A convolution that cuDNN refuses fails the
// step. Where a data gradient goes on through a relu below, or a large map is normalised before a convolution or summed
// up behind it, cuDNN must also accept the plans that fuse this: they are compiled when they are made, which ends at
// the toolkit's stand-in for the driver, so that a dry run takes the plain ones.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <tuple>
#include <vector>

#include "engine/ops.h"
#include "kernels/conv2d/cudnn/conv2d_graphs.h"
#include "kernels/conv2d/cudnn/conv2d_registry.h"
#include "kernels/core/dry_run.h"
#include "kernels/plans/timer.h"
#include "losses/tie_kd.h"
#include "models/model_table.h"

namespace depthstill {
namespace {

struct Training {
  const char* student;
  int64_t height, width;
  const char* loss;
};

// The students as base_kitti.toml trains them, with the rows that cannot reach the loss left out.
constexpr Training kTrainings[] = {{"mobilenet_unet", 352, 704, "tie_kd"},
                                   {"resnet18_unet", 352, 704, "tie_kd"},
                                   {"resnet50_unet", 352, 704, "tie_kd"},
                                   {"dpt_s", 518, 518, "l1"},
                                   {"midas_small", 256, 256, "l1"}};

struct Precision {
  DType dtype;
  bool strict;
};
constexpr Precision kPrecisions[] = {{DType::kBf16, false}, {DType::kFloat, false}, {DType::kFloat, true}};

void dry_step(const Training& training, int64_t batch, DType dtype) {
  const Device device = Device::kCuda;
  const auto student = make_model(training.student, {.head = default_head(training.student)});
  student->to(device);
  const Shape map{batch, training.height, training.width};
  const Tensor image = empty({batch, training.height, training.width, 3}, dtype, device);
  const Tensor teacher = empty(map, DType::kFloat, device);
  LossOptions loss = named_loss(training.loss);
  const ModelOptions& options = student->options();
  if (options.head == Head::kDpm) loss.top_rows = 110;
  const Tensor total = [&] {  // the output is gone by then, as in training
    return tie_kd_loss(student->forward(image, loss.top_rows), teacher, {}, loss).total;
  }();
  backward(total);
}

// A row of the table stands for a shape but for the batch, in one precision: tf32 and strict are fp32.
std::string row_name(const cudnn::ChosenConvolution& chosen) {
  const cudnn::Problem& problem = chosen.problem;
  const bool strict = chosen.options.strict_fp32;
  const Conv2dShape& s = problem.shape;
  char text[176];
  std::snprintf(text, sizeof text, "%4lldx%-4lld %4lld -> %-4lld %lldx%lld/%d d%d p%d%d%d%d  %s %-15s%s%s%s%s",
                static_cast<long long>(s.H), static_cast<long long>(s.W), static_cast<long long>(s.C),
                static_cast<long long>(s.O), static_cast<long long>(s.R), static_cast<long long>(s.S), s.stride,
                s.dilation, s.pad_top, s.pad_bottom, s.pad_left, s.pad_right,
                problem.type == CUDNN_DATA_BFLOAT16 ? "bf16  "
                : strict                            ? "strict"
                                                    : "tf32  ",
                name_of(problem.pass), problem.bias ? " bias" : "", problem.norm ? " norm" : "",
                problem.activation != Activation::kNone ? " act" : "", problem.moments ? " moments" : "");
  return text;
}

TEST(StudentsPlans, EveryConvolutionOfATrainingStepHasAPlanOnAnH100) {
  constexpr int64_t kBatches[] = {1, 8, 32};
  cuda::enable_dry_run(size_t{1} << 40);  // the largest does not fit an H100 in fp32: here only its plans matter
  for (const Training& training : kTrainings) {
    for (const int64_t batch : kBatches) {
      for (const Precision& precision : kPrecisions) {
        library_options() = {};
        library_options().strict_fp32 = precision.strict;
        try {
          dry_step(training, batch, precision.dtype);
        } catch (const Error& error) {
          ADD_FAILURE() << training.student << " at batch " << batch << ": " << error.what();
        }
      }
    }
  }

  EXPECT_FALSE(plans::may_measure(stream_of(Device::kCuda))) << "there is nothing to time in a dry run";
  EXPECT_EQ(plans::device_cache(stream_of(Device::kCuda)), nullptr);

  const std::vector<cudnn::ChosenConvolution> chosen = cudnn::chosen_convolutions();
  std::printf("%-74s  workspace in MB at batch 1, 8, 32\n", "convolution");
  std::string previous, line;
  int shapes = 0;
  std::vector<std::tuple<std::string, int64_t, std::string>> rows;
  for (const cudnn::ChosenConvolution& c : chosen) {
    if (cudnn::is_linear_layer(c.problem.shape)) continue;  // a row for each number of tokens
    char cell[64];
    std::snprintf(cell, sizeof cell, "%9.1f %-11s", static_cast<double>(c.workspace_bytes) / 1e6, c.way.c_str());
    rows.emplace_back(row_name(c), c.problem.shape.N, cell);
    EXPECT_LE(c.workspace_bytes, cuda::kH100Bytes / 50) << row_name(c);
  }
  std::sort(rows.begin(), rows.end());
  for (const auto& [name, batch, cell] : rows) {
    if (name != previous) {
      if (!line.empty()) std::printf("%s\n", line.c_str());
      line = name + std::string(name.size() < 74 ? 74 - name.size() : 0, ' ');
      previous = name;
      ++shapes;
    }
    line += cell;
  }
  std::printf("%s\n%d rows, %zu plans\n", line.c_str(), shapes, rows.size());
  EXPECT_EQ(rows.size(), 3 * static_cast<size_t>(shapes)) << "each at every batch";
}

// Lists what cuDNN is to fuse for a problem, besides the plain convolution.
std::vector<cudnn::Graph> fused_graphs(const cudnn::Problem& problem) {
  std::vector<cudnn::Graph> graphs;
  if (fuses_below(problem)) {
    graphs.push_back(cudnn::conv2d_gradient_below_graph(problem.shape, problem.type, problem.activation, problem.bias));
  }
  for (const cudnn::ChainLink& link : chain_fusions(problem))
    graphs.push_back(cudnn::conv2d_chain_graph(problem.shape, problem.type, link));
  return graphs;
}

// The batches are ones that the test above leaves alone. Only the default student takes a large one, and fp32: each
// plan is compiled for a second or two.
TEST(StudentsPlans, WhatIsToBeFusedIsAcceptedForAnH100) {
  constexpr int64_t kBatch = 2, kLargeBatch = 31;
  cuda::enable_dry_run(size_t{1} << 40);
  library_options() = {};
  for (const Training& training : kTrainings) dry_step(training, kBatch, DType::kBf16);
  dry_step(kTrainings[0], kBatch, DType::kFloat);
  dry_step(kTrainings[0], kLargeBatch, DType::kBf16);

  int below = 0, chain = 0;
  for (const cudnn::ChosenConvolution& chosen : cudnn::chosen_convolutions()) {
    const cudnn::Problem& problem = chosen.problem;
    const bool large = problem.shape.N == kLargeBatch && !chain_fusions(problem).empty();
    if ((problem.shape.N != kBatch && !large) || chosen.options.strict_fp32) continue;
    for (const cudnn::Graph& graph : fused_graphs(problem)) {
      const cudnn::PlanOffer offer = find_plans(cudnn::h100_target(), graph, {.limit = 1});
      if (!offer.accepted() && offer.refusal.find("libcuda") != std::string::npos)
        GTEST_SKIP() << "skipped: no libcuda.so.1, not even the toolkit's stub";
      std::printf("%s  %s\n", row_name(chosen).c_str(), offer.accepted() ? "fused" : "refused");
      EXPECT_TRUE(offer.accepted()) << row_name(chosen) << ": " << graph.name() << ": " << offer.refusal;
      ++(problem.in_chain() ? chain : below);
    }
  }
  EXPECT_GE(below, 20);
  EXPECT_GE(chain, 20);
}

}  // namespace
}  // namespace depthstill
