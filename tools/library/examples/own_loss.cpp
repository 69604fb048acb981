// Trains a network with a loss of your own: the mean absolute error of log depth against ground truth.
//   own_loss ROOT LIST WEIGHTS.safetensors [STEPS]
// LIST: lines "image depth focal", paths relative to ROOT; depth maps are KITTI's 16-bit PNG (value / 256 = metres).
#include <depthstill.h>

#include <cstdio>
#include <cstdlib>

namespace ds = depthstill;

class LogError final : public ds::Objective {
 public:
  explicit LogError(ds::DepthModel& model) : model_(model) {}

  ds::Module& trained() override { return model_; }

  ds::LossResult losses(std::span<const ds::BatchTensors> views) override {
    const ds::Tensor depth = ds::depth_of(model_.forward(views[0].image)), truth = views[0].truth;
    const ds::Tensor error = ds::abs(ds::sub(ds::log(depth), ds::log(truth)));
    return {ds::mean(error, ds::depth_mask(truth)), {}};  // pixels without depth are left out
  }

 private:
  ds::DepthModel& model_;
};

class Print final : public ds::TrainObserver {
  void log(const ds::StepRecord& step) override {
    std::printf("step %d: loss %.4f\n", static_cast<int>(step.step), step.losses[0].second);
  }
};

int main(int argc, char** argv) try {
  if (argc < 4) return std::fprintf(stderr, "usage: own_loss ROOT LIST WEIGHTS [STEPS]\n"), 2;
  ds::DatasetSpec spec;
  spec.root = argv[1];
  spec.list = argv[2];

  const auto model = ds::make_model("mobilenet_unet", {.head = ds::Head::kRegression, .d_max = 80.0f});
  model->initialize(1);
  LogError objective(*model);
  Print print;
  ds::TrainerOptions options;
  options.loading.batch_size = 2;
  options.loading.epochs = 1000;
  options.loading.views = ds::one_crop({.crop = {128, 96}});
  options.max_steps = argc > 4 ? std::atoi(argv[4]) : 100;
  options.schedule.lr = 1e-4;
  ds::Trainer(std::make_shared<ds::Dataset>(spec), objective, options, print).run();
  ds::save_model(argv[3], *model);
} catch (const ds::Error& error) {
  return std::fprintf(stderr, "own_loss: %s\n", error.what()), 1;
}
