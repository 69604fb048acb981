// A training run as a TOML file: everything that decides what is trained on what, and how it is judged. A recipe may
// inherit another one (`inherit = "base.toml"`, relative to itself), and `--set key=value` overrides single keys.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/data/augment.h"
#include "engine/data/dataset.h"
#include "engine/data/loader.h"
#include "engine/data/region.h"
#include "engine/eval/protocol.h"
#include "engine/optim.h"
#include "engine/schedule.h"
#include "losses/distill_any_depth.h"
#include "losses/tie_kd.h"
#include "models/depth_model.h"
#include "models/model_file.h"

namespace depthstill {

struct ModelRecipe {
  std::string name = "mobilenet_unet";
  ModelOptions options;  // head, bins, d_min, d_max
  std::string weights;   // weights to start from; empty: random ones
  InitialParts parts = InitialParts::kAll;
  std::string frozen = "nothing";  // the part that is not trained: nothing, encoder or head
};

// One list of the data set. `teacher` is the folder of its teacher maps, empty: none.
struct SplitRecipe {
  std::string list, teacher;
};

struct DataRecipe {
  std::string root = ".";                  // --data
  std::string image_folder, depth_folder;  // folders below the root
  CropRule crop = CropRule::kNone;
  int resize_height = 0, resize_width = 0;                              // 0: not resized
  double depth_units_per_metre = 1000, teacher_units_per_metre = 1000;  // of integer maps
  double depth_float_units = 1, teacher_float_units = 1;                // per metre, of float maps
  TeacherNaming teacher_naming = TeacherNaming::kFlat;
  std::string teacher_extension = ".png";
  bool sort_by_image = false, skip_without_depth = true;
  int workers = 2, cache_mib = 1024;
  SplitRecipe train, val, test;
  std::string train_packed;    // folder of `depthstill pack`, in place of the training files; empty: none
  bool allow_outside = false;  // --allow-outside, which no recipe can say for its user
};

struct TrainRecipe {
  int epochs = 24, batch_size = 8;
  std::string precision = "fp32";
  uint64_t seed = 70;
  bool drop_last = true;
  int log_every = 1;        // steps between lines of metrics.jsonl
  int64_t save_every = 0;   // steps between writings of last.safetensors; 0: after epochs only
  int checkpoint_keep = 5;  // last checkpoints that are kept
  int64_t max_steps = 0;    // 0: epochs decide
};

// Of the loss distill_any_depth: the regions that it is of, and its teachers.
struct RegionRecipe {
  RegionSpec spec;
  int size = 560;                               // pixels of a side that the student sees
  std::vector<std::string> teachers;            // folders of stored maps, below the root, or files of weights
  std::vector<double> shares;                   // in which they are drawn; empty: equal ones
  Quantity unstated = Quantity::kInverseDepth;  // what stored maps are that do not say it
};

struct EvalRecipe {
  std::string protocol = "plain";  // the data set, a row of engine/eval/benchmarks.h
  std::string rules = "default";   // the named protocol, a row of engine/eval/protocols.h
  Alignment align = Alignment::kNone;
  std::string crop = "default";  // the protocol's
  bool flip = true;              // average with the mirrored image's prediction
  bool median_scaling = false;
  int every = 1;  // epochs
  int report_panels = 4;
};

struct SelectRecipe {
  std::string metric = "d1";  // abs_rel favours maps that are too near
  std::string on = "val";     // the list that the kept model is chosen on; "test" is what the published runs did
};

struct Recipe {
  std::string name;                // the file's name without extension
  std::vector<std::string> files;  // the recipe's file and those that it inherits; empty if it was made by a program
  ModelRecipe model;
  std::string loss_name = "tie_kd";
  float loss_alpha = 0.1f, loss_beta = 10.0f;
  LossOptions loss = named_loss("tie_kd");  // named_loss() with the recipe's changes
  DistillOptions distill;                   // of the loss distill_any_depth
  std::string features;                     // weights of the frozen encoder of its L_feat; empty: none
  RegionRecipe regions;
  int label_batch = 8;        // images that networks see at a time which make labels
  double drift_factor = 100;  // of the student's scale, beyond which it is a warning
  DataRecipe data;
  bool augment_on = true;
  AugmentSpec augment;
  AdamWOptions optimiser;
  float encoder_lr_scale = 1.0f, head_lr_scale = 1.0f;
  Schedule schedule;
  TrainRecipe train;
  EvalRecipe eval;
  SelectRecipe select;
};

// Reads a recipe with everything that it inherits, then applies "key=value" overrides. Throws Error "file:line: ..."
// for an unknown key (with the likely one), a wrong type or value, and settings that contradict each other.
Recipe load_recipe(const std::string& path, std::span<const std::string> overrides = {});

// The effective recipe as TOML that load_recipe() reads back to the same values.
std::string print_recipe(const Recipe& recipe);

// The data set of a list: "train", "val" or "test". Throws Error if the recipe has no such list.
bool has_split(const Recipe& recipe, const std::string& split);
DatasetSpec dataset_spec(const Recipe& recipe, const std::string& split);
// The list that a run scores for its report: the one that the kept model is chosen on, else "test"; empty: none.
std::string report_split(const Recipe& recipe);
Protocol protocol_of(const Recipe& recipe);
AugmentSpec augment_of(const Recipe& recipe);  // with the sides that the network needs
// What the loader draws, but for regions (distill_recipe.h).
LoaderOptions loader_options(const Recipe& recipe);
// The part of the network that is not trained keeps its weights.
void freeze_part(DepthModel& model, const Recipe& recipe);
// Learning rates of the parts of this network.
std::vector<ParameterGroup> parameter_groups(const Recipe& recipe, const DepthModel& model);
// The recipe's network, and the size, precision and flip that its training uses.
NetworkRecord network_record(const Recipe& recipe);

}  // namespace depthstill
