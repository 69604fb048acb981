#include "tools/eval_options.h"

#include <algorithm>

#include "engine/eval/benchmarks.h"
#include "engine/eval/protocols.h"

namespace depthstill {
namespace {

constexpr const char* kExamples =
    "Five benchmarks, here by Marigold's protocol, with the relative inverse depth of any system:\n"
    "  depthstill eval --dataset nyu --root NYU --list tools/lists/nyu_test_654.txt --pred MAPS ...\n"
    "  depthstill eval --dataset kitti --root KITTI --list tools/lists/kitti_eigen_test_652.txt --pred MAPS ...\n"
    "  depthstill eval --dataset eth3d --root ETH3D --list tools/lists/eth3d_454.txt --pred MAPS ...\n"
    "  depthstill eval --dataset scannet --root SCANNET --list tools/lists/scannet_val_800.txt --pred MAPS ...\n"
    "  depthstill eval --dataset diode --root DIODE --list tools/lists/diode_val_771.txt --pred MAPS ...\n"
    "  ... = --protocol marigold --align disparity-ls\n";

template <class Rows>
CLI::IsMember one_of(const Rows& rows) {
  std::vector<std::string> names;
  for (const auto& row : rows) names.emplace_back(row.name);
  return CLI::IsMember(names);
}

std::vector<std::string> crop_names() {
  std::vector<std::string> names = box_names();
  names.insert(names.begin(), "none");
  return names;
}

void add_source_options(CLI::App& command, EvalArgs& args) {
  command.add_option("recipe", args.recipe, "TOML recipe of the model and its data set");
  command.add_option("--weights", args.weights, "weights of the model to score: .safetensors or .pth");
  command.add_option("--data", args.data, "root of the data set, in place of the recipe's data.root");
  add_allow_outside(command, args.allow_outside);
  command.add_option("--split", args.split, "the recipe's list: train, val or test [default: test, else val]")
      ->check(CLI::IsMember({"train", "val", "test"}));
  command.add_option("--set", args.overrides, "override a setting of the recipe, KEY=VALUE; may be repeated")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  command.add_flag("--no-flip", args.no_flip, "do not average with the prediction for the mirrored image");
  command.add_option("--save-pred", args.save, "folder for the predictions: one .npy per image, as --pred reads them");
  command.add_option(
      "--pred", args.predictions,
      "folder of stored predictions instead of a model: .npy, 16-bit PNG or .pfm, in metres unless --align "
      "says otherwise, of the size of the protocol's frame (kitti by tie-kd and marigold: 352x1216); or one .npy "
      "(N, H, W) of all of them in the order of the list");
  command
      .add_option(
          "--dataset", args.dataset,
          "data set without a recipe: kitti, nyu, eth3d, scannet, diode, moge (MoGe's bundles) or plain (no crops)")
      ->check(one_of(benchmarks()));
  command.add_option("--root", args.root, "with --dataset: folder that the list's paths are relative to");
  command.add_option("--image-folder", args.image_folder, "with --dataset: below the root, where image paths begin");
  command.add_option("--depth-folder", args.depth_folder, "with --dataset: below the root, where depth paths begin");
  command.add_option(
      "--list", args.list,
      "with --dataset: list file, lines 'image depth' or 'image depth focal'; moge: folders with image.jpg and "
      "depth.png (.index.txt)");
}

void add_prediction_options(CLI::App& command, EvalArgs& args) {
  command
      .add_option("--pred-kind", args.pred_kind,
                  "what predictions hold that do not say it: depth or disparity (inverse depth) [default: what the "
                  "alignment fits; monodepth2: disparity]")
      ->check(one_of(kQuantities));
  command.add_option("--pred-scale", args.pred_units, "units of predictions in integers (PNG): value = raw / UNITS")
      ->check(CLI::PositiveNumber);
  command
      .add_option("--pred-names", args.pred_names,
                  "names of predictions: flat (the image's path with '/' as '_'), marigold (pred_NAME beside it) or "
                  "image (its path) [default: flat]")
      ->check(one_of(kNamings));
  command
      .add_option("--pred-resize", args.pred_resize,
                  "how predictions of another size are brought to the frame's: none, half-pixel, corners or nearest "
                  "[default: none; monodepth2 half-pixel, dav2-metric corners]")
      ->check(one_of(prediction_resizes()));
}

void add_alignment_options(CLI::App& command, EvalArgs& args) {
  command
      .add_option("--protocol", args.protocol,
                  "tie-kd, marigold, monodepth2, dav2-metric, moge or ultralytics [default: tie-kd for kitti, nyu and "
                  "plain, or the recipe's; moge for moge; else marigold]")
      ->check(one_of(protocols()));
  command
      .add_option(
          "--align", args.align,
          "none, median, depth-ls, disparity-ls, scale-l1, depth-l1, disparity-l1 or log-ls: fit of each prediction "
          "to truth [default: none, or the recipe's]; relative models need disparity-ls or disparity-l1")
      ->check(one_of(alignments()));
  command.add_flag("--median-scaling", args.median_scaling, "another spelling of --align median");
  command
      .add_option("--fit-side", args.fit_side,
                  "pixels: affine fits see the columns of a longer side of so many; 0: all [default: eth3d by marigold "
                  "1024, else 0]")
      ->check(CLI::NonNegativeNumber);
  command
      .add_option(
          "--metric-space", args.metric_space,
          "what metrics compare: depth, or disparity, the inverse of aligned and limited depth [default: depth]")
      ->check(one_of(kQuantities));
  command
      .add_option("--nonfinite", args.nonfinite,
                  "a prediction that is NaN or infinite where there is truth: fail, or limit, the protocol's greatest "
                  "depth, the least for minus infinity [default: fail; ultralytics limit]")
      ->check(CLI::IsMember({"fail", "limit"}));
  command.add_flag(
      "--boundary", args.scoring.boundary,
      "also find Depth Pro's boundary F1 of aligned depth, which is made for dense truth: the rim of a hole is "
      "an edge to it");
  command.add_flag("--local-fit", args.scoring.local_fit,
                   "also compare, on the centre of the image, the fit to all of it with one to the centre alone");
  command
      .add_option("--bootstrap", args.bootstrap.draws,
                  "draws that 95 % intervals of the means are found from [default: 0, no intervals; with --compare "
                  "1000 for the differences]")
      ->check(CLI::NonNegativeNumber);
  command
      .add_option("--bootstrap-by", args.bootstrap_by,
                  "what is drawn: image, or scene, whose images are alike (nyu and eth3d scenes, kitti drives, scannet "
                  "and diode scans; else an image's folder) [default: image]")
      ->check(CLI::IsMember({"image", "scene"}));
  command.add_option("--compare", args.compare,
                     "another system on the same images, paired with this one: stored predictions, as --pred takes "
                     "them, or a table of --csv");
  command.add_option("--seed", args.bootstrap.seed, "of these draws [default: 0]");
  command.add_option("--truth-size", args.truth_size,
                     "HxW of ground truth without a header (eth3d) [default: the image's size, else the prediction's]");
}

void add_protocol_options(CLI::App& command, EvalArgs& args) {
  command.add_option("--depth-scale", args.depth_units,
                     "units per metre of ground truth in integers (PNG, .npy) [default: 256 for kitti and plain, 1000 "
                     "for nyu, or the recipe's]");
  command.add_option("--depth-float-scale", args.depth_float_units,
                     "units per metre of ground truth in floats (.npy, .pfm) [default: 1, or the recipe's]");
  command.add_option("--min-depth", args.min_depth,
                     "metres [default: the protocol's; tie-kd: 0.001, plain the recipe's]");
  command.add_option("--max-depth", args.max_depth,
                     "metres [default: the protocol's; tie-kd: kitti 80, nyu 10, plain 80 or the recipe's]");
  command
      .add_option("--crop", args.crop,
                  "pixels compared: none, garg or eigen [default: the protocol's; tie-kd: kitti garg, nyu eigen]")
      ->check(CLI::IsMember(crop_names()));
  command.add_flag("--teacher-similarity", args.teacher_similarity,
                   "compare with the teacher's maps instead of ground truth: kitti rows 110..351, all columns");
  command.add_option("--teacher", args.teacher, "folder of the teacher's maps [default: the recipe's]");
  command.add_option("--teacher-scale", args.teacher_units,
                     "units per metre of teacher maps in integers [default: 65535/80, nyu 65535/10]");
  command.add_option("--teacher-float-scale", args.teacher_float_units,
                     "units per metre of teacher maps in floats [default: 1, or the recipe's]");
  command.add_option("--json", args.json, "write the result to this file, also over an earlier one");
  command.add_option("--csv", args.csv, "write one line per image to this file, also over an earlier one");
  command.add_option("--picture", args.picture,
                     "write the first image, its truth (or teacher's map), prediction and relative error as one PNG, "
                     "also over an earlier one");
  args.existing.add_to(command, "predictions of --save-pred");
}

}  // namespace

void add_eval_options(CLI::App& command, EvalArgs& args) {
  add_source_options(command, args);
  add_prediction_options(command, args);
  add_alignment_options(command, args);
  add_protocol_options(command, args);
  args.compute.add_to(command);
  command.footer(kExamples);
}

}  // namespace depthstill
