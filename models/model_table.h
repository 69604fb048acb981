// The networks that there are, one row each: from here follow make_model(), the names in recipes and on the command
// line, `depthstill info`, the recognition of checkpoints and which writer exports a network.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "models/depth_anything.h"
#include "models/depth_model.h"
#include "models/midas_small.h"
#include "models/unet.h"

namespace depthstill {

struct MidasSmallConfig {};  // there is one size

// The counts are those of the default options, so that a table of networks can be shown without building them.
struct ModelCounts {
  static constexpr int kHeight = 352, kWidth = 704;  // pixels of the image that `macs` are stated for
  int64_t parameters;  // as the published code counts them, with layers that it never runs
  int64_t executed;
  int64_t macs;  // multiply-adds per image
};

struct ModelRow {
  const char* name;
  Head head;  // head of a published network of this name
  ModelCounts counts;
  std::variant<UnetConfig, DepthAnythingConfig, MidasSmallConfig> config;
};

std::span<const ModelRow> model_table();
std::vector<std::string> model_names();             // "mobilenet_unet", "resnet18_unet", "dpt_s", ...
const ModelRow& find_model(std::string_view name);  // throws Error that lists the names
inline Head default_head(std::string_view name) { return find_model(name).head; }

// Whether files of these networks cannot be told apart: Depth Anything 3's mono and metric networks of one size.
bool same_weights(std::string_view a, std::string_view b);

// How images are brought to the network; nothing is built.
InputRule input_rule(std::string_view name);

// Parameters are zero (batch norm: one) until initialize() or a checkpoint sets them.
std::unique_ptr<DepthModel> make_model(std::string_view name, const ModelOptions& options);

}  // namespace depthstill
