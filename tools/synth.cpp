// depthstill synth: tools/synth/synth.h on the command line.
#include "tools/synth/synth.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <mutex>

#include "tools/args.h"
#include "tools/progress.h"

namespace depthstill {
namespace {

struct SynthArgs {
  SynthOptions options;
  std::string size = "375x1242", scene = "street";
};

int run_synth(const SynthArgs& args) {
  SynthOptions options = args.options;
  const SizeArg size = parse_size(args.size);
  options.size = {size.width, size.height};
  options.scene = args.scene == "indoor"  ? SynthScene::kIndoor
                  : args.scene == "mixed" ? SynthScene::kMixed
                                          : SynthScene::kStreet;
  Progress progress("synth", "img", options.train + options.validation + options.test);
  std::mutex mutex;
  int shown = 0;
  options.progress = [&](int done, int) {
    const std::lock_guard lock(mutex);
    shown = std::max(shown, done);
    progress.update(shown);
  };
  synthesize(options);
  progress.finish();
  std::printf("%s: %d training, %d validation and %d test frames, all of it simulated\n", options.out.c_str(),
              options.train, options.validation, options.test);
  return kExitOk;
}

}  // namespace

void add_synth_command(CLI::App& app, Run& run) {
  const auto args = std::make_shared<SynthArgs>();
  CLI::App* command = app.add_subcommand("synth", "Render a simulated data set: images, exact depth and teacher maps");
  SynthOptions& options = args->options;
  command
      ->add_option("--out", options.out,
                   "folder to write to: missing, empty, or an earlier data set of synth, which is written anew")
      ->required();
  command->add_option("--train", options.train, "training frames")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--val", options.validation, "validation frames")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--test", options.test, "test frames: test.txt and teacher_test/")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--seed", options.seed, "of the scenes")->capture_default_str();
  command->add_option("--size", args->size, "HEIGHTxWIDTH in pixels")->capture_default_str();
  command->add_option("--scene", args->scene, "street, indoor or mixed (in turn)")
      ->check(CLI::IsMember({"street", "indoor", "mixed"}))
      ->capture_default_str();
  command->add_flag("--sparse", options.sparse, "ground truth as a 64-beam scanner sees it, about 5 % of the pixels");
  command->callback([args, &run] { run = [args] { return run_synth(*args); }; });
}

}  // namespace depthstill
