// `depthstill profile --estimate`: its figures against counts by hand, and what options do to them.
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "models/model_file.h"
#include "tests/data/small_set.h"
#include "tests/dry_run/train_step.h"
#include "tools/bench/profile.h"

namespace depthstill {
namespace {

constexpr int64_t kHeight = 352, kWidth = 704, kTopRows = 110, kParameters = 17646465;

StepEstimate estimate(int batch, const ProfileOptions& options = {.dtype = DType::kBf16}) {
  enable_dry_run();
  Recipe recipe;
  recipe.loss.top_rows = kTopRows;
  recipe.augment.crop = {kWidth, kHeight};
  recipe.train.batch_size = batch;
  return estimate_training(recipe, options, h100_peak(options.dtype, false));
}

// Bytes of what a network keeps beside its parameters.
size_t network_statistics(const DepthModel& network) {
  size_t bytes = 0;
  for (const StateEntry& entry : network.state()) bytes += entry.trainable ? 0 : entry.tensor->bytes();
  return bytes;
}

StepBound bound_of(const StepEstimate& estimate) { return step_bound(estimate.profile.table, estimate.profile.peak); }

OpRow row_of(const StepEstimate& estimate, const std::string& layer, const std::string& op) {
  for (const OpRow& row : estimate.profile.table.rows()) {
    if (row.layer == layer && row.op == op) return row;
  }
  ADD_FAILURE() << "no row " << layer << ' ' << op;
  return {};
}

TEST(Estimate, CountsWhatAHandCounts) {
  const StepEstimate step = estimate(2);
  // The head: 128 channels to 257 bins and what fills them up to 264, in the rows that reach the loss.
  const double pixels = 2.0 * (kHeight - kTopRows) * kWidth;
  const double x = pixels * 128 * 2, y = pixels * 264 * 2, weight = 264 * 128 * 4;
  const OpRow head = row_of(step, "decode_head.conv_out.0", "conv2d");
  EXPECT_EQ(head.forward.calls, 1);
  EXPECT_EQ(head.forward.work.flops, 2 * pixels * 128 * 264);
  EXPECT_EQ(head.backward.work.flops, 2 * head.forward.work.flops);
  EXPECT_EQ(head.forward.work.bytes, x + weight + y);
  // dx and dweight, each reading dy; the first with the activation below, whose output it reads again.
  EXPECT_EQ(head.backward.work.bytes, 2 * (y + weight + x) + x);

  // A depthwise 3 x 3 convolution of stride 2, 96 channels.
  const OpRow conv = row_of(step, "backbone.layer2.0.conv.1.conv", "depthwise_conv2d");
  constexpr int64_t kProducts = 2 * (kHeight / 4) * (kWidth / 4) * 96 * 9;
  EXPECT_EQ(conv.forward.work.flops, 2.0 * kProducts);
  EXPECT_EQ(conv.backward.work.flops, 2 * conv.forward.work.flops);

  // Parameter, gradient and both moments are read, all but the gradient written, and the parameter in bf16; the norm
  // reads the gradient first.
  EXPECT_EQ(row_of(step, "update/adamw", "adamw").forward.work.bytes, (8.0 * 4 + 2) * kParameters);

  EXPECT_EQ(step.parameter_bytes, size_t{4} * kParameters);
  EXPECT_EQ(step.optimiser_bytes, size_t{8} * kParameters);
  EXPECT_GT(step.kernels, 293);
  EXPECT_EQ(step.profile.height, kHeight);
  EXPECT_EQ(step.profile.width, kWidth);
}

TEST(Estimate, PlansTheMemoryOfATrainingStep) {
  EXPECT_EQ(estimate(32).step_bytes, size_t{16263908864});  // train_step_test.cpp
}

TEST(Estimate, ABoundIsTheLargerOfProductsAndMemory) {
  const StepEstimate step = estimate(2);
  const MachinePeak& peak = step.profile.peak;
  EXPECT_EQ(peak.flops_per_s, 989.4e12);
  double products_ms = 0, memory_ms = 0;
  for (const OpRow& row : step.profile.table.rows()) {
    for (const Work& work : {row.forward.work, row.backward.work}) {
      const double flops_ms = work.flops / 989.4e9, bytes_ms = work.bytes / 3.35e9;
      (flops_ms > bytes_ms ? products_ms : memory_ms) += std::max(flops_ms, bytes_ms);
    }
  }
  const StepBound bound = bound_of(step);
  EXPECT_NEAR(bound.products_ms, products_ms, 1e-9 * products_ms);
  EXPECT_NEAR(bound.memory_ms, memory_ms, 1e-9 * memory_ms);
  EXPECT_GT(bound.products_ms, 0.0);
  EXPECT_EQ(step.profile.table.ops_ms(), 0.0);  // nothing is timed
}

TEST(Estimate, AFusedHeadSparesMemoryForOneMoreProduct) {
  const StepEstimate stored = estimate(2), fused = estimate(2, {.dtype = DType::kBf16, .fused_head = true});
  EXPECT_LT(bound_of(fused).memory_ms, 0.9 * bound_of(stored).memory_ms);
  EXPECT_GT(bound_of(fused).products_ms, bound_of(stored).products_ms);
  EXPECT_LT(bound_of(fused).ms(), bound_of(stored).ms());
  EXPECT_LT(fused.step_bytes, stored.step_bytes);
}

double forward_gmac(const StepEstimate& step) {
  double flops = 0;
  for (const OpRow& row : step.profile.table.rows()) flops += row.forward.work.flops;
  return 0.5e-9 * flops / static_cast<double>(step.profile.batch);
}

TEST(Estimate, DeadRowsAreAQuarterOfTheProducts) {
  const StepEstimate needed = estimate(2), all = estimate(2, {.dtype = DType::kBf16, .dead_rows = false});
  const double filled = 1e-9 * kHeight * kWidth * 128 * 7;  // the head's channels past the bins
  EXPECT_NEAR(forward_gmac(all), make_model("mobilenet_unet", {})->gmac(kHeight, kWidth) + filled, 0.01);
  EXPECT_NEAR(forward_gmac(all) / forward_gmac(needed), 171.1 / 127.5, 0.002);
  EXPECT_GT(bound_of(all).products_ms, 1.3 * bound_of(needed).products_ms);
}

TEST(Estimate, TablesAddUp) {
  const StepEstimate step = estimate(2);
  const auto json = nlohmann::json::parse(bound_json(step.profile.table, step.profile.peak).dump());
  const double total = json["bound_ms"];
  for (const char* list : {"rows", "ops"}) {
    double ms = 0, flops = 0, bytes = 0, split[2] = {0, 0}, previous = total;
    for (const auto& row : json[list]) {
      ms += row["bound_ms"].get<double>();
      EXPECT_LE(row["bound_ms"].get<double>(), previous);
      previous = row["bound_ms"];
      for (const char* direction : {"forward", "backward"}) {
        flops += row[direction]["flops"].get<double>();
        bytes += row[direction]["bytes"].get<double>();
        split[row[direction]["bound_by"] == "products"] += row[direction]["bound_ms"].get<double>();
      }
    }
    EXPECT_NEAR(ms, total, 1e-9 * total) << list;
    EXPECT_NEAR(flops, json["flops"].get<double>(), 1e-9 * flops) << list;
    EXPECT_NEAR(bytes, json["bytes"].get<double>(), 1e-9 * bytes) << list;
    EXPECT_NEAR(split[1], json["bound_by_products_ms"].get<double>(), 1e-9 * total) << list;
    EXPECT_NEAR(split[0], json["bound_by_memory_ms"].get<double>(), 1e-9 * total) << list;
  }

  const std::string text = bound_text(step.profile.table, step.profile.peak, 5);
  const auto ops = static_cast<int64_t>(json["ops"].size());
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1 + 5 + 2 + 1 + 1 + ops + 1);
  EXPECT_NE(text.find(" more "), std::string::npos);
  EXPECT_NE(text.find("bwd bound ms bound by"), std::string::npos);
}

TEST(Estimate, Fp32IsBoundByTf32OrByTheFp32Units) {
  EXPECT_EQ(h100_peak(DType::kBf16, true).flops_per_s, 989.4e12);
  EXPECT_EQ(h100_peak(DType::kFloat, false).flops_per_s, 494.7e12);
  EXPECT_EQ(h100_peak(DType::kFloat, true).flops_per_s, 66.9e12);
  EXPECT_EQ(h200_peak(DType::kFloat, true).flops_per_s, 66.9e12);
  const StepEstimate fp32 = estimate(2, {.dtype = DType::kFloat}), bf16 = estimate(2);
  EXPECT_NEAR(bound_of(fp32).ms(), 2 * bound_of(bf16).ms(), 0.1 * bound_of(fp32).ms());
}

TEST(Estimate, AnH200DiffersInWhatMemoryBounds) {
  const StepEstimate step = estimate(2);
  const StepBound h100 = bound_of(step), h200 = step_bound(step.profile.table, h200_peak(DType::kBf16, false));
  EXPECT_LT(h200.ms(), h100.ms());
  EXPECT_GE(h200.ms(), h100.ms() * 3350 / 4800);
  EXPECT_GE(h200.products_ms, h100.products_ms);
}

// Networks that make labels: their weights, and what a pass of label_batch images takes.
TEST(Estimate, CountsTheNetworksThatMakeLabels) {
  enable_dry_run();
  const testing_files::TemporaryFolder folder;
  const auto network = make_model("mobilenet_unet_small", {.head = Head::kRelative});
  save_model(folder / "teacher.safetensors", *network);
  Recipe recipe;
  recipe.model.name = "mobilenet_unet_small";
  recipe.model.options = network->options();
  recipe.loss_name = kDistillAnyDepthLoss;
  recipe.regions.spec = {.patch = 128, .least = 160, .patches = 4};
  recipe.regions.size = 64;
  recipe.train.batch_size = 2;
  recipe.regions.teachers = {"stored", folder / "teacher.safetensors"};
  const auto estimated = [&] {
    return estimate_training(recipe, {.dtype = DType::kBf16}, h100_peak(DType::kBf16, false));
  };
  const StepEstimate eight = estimated();
  EXPECT_EQ(eight.labels.weights, eight.parameter_bytes + network_statistics(*network));
  recipe.label_batch = 4;
  const StepEstimate four = estimated();
  EXPECT_GT(four.labels.temporaries, size_t{4} * 128 * 128 * 2 * 16);
  EXPECT_NEAR(static_cast<double>(eight.labels.temporaries), 2.0 * static_cast<double>(four.labels.temporaries),
              0.1 * static_cast<double>(eight.labels.temporaries));
  EXPECT_EQ(four.step_bytes, eight.step_bytes);
  double labels = 0;
  for (const OpRow& row : four.profile.table.rows()) {
    if (row.layer.starts_with("teacher/")) labels += row.work().flops;
  }
  // Two regions and eight patches of 128 pixels.
  EXPECT_NEAR(labels, 10 * 2e9 * network->gmac(128, 128), 0.02 * labels);
  recipe.regions.teachers = {"stored"};
  recipe.label_batch = 8;
  EXPECT_EQ(estimated().labels.weights, 0u);
}

}  // namespace
}  // namespace depthstill
