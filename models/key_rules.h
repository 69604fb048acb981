// How the names of some published checkpoints are rewritten: rules for models/checkpoint_keys.
#pragma once

#include <cstddef>
#include <string>

namespace depthstill {

// Our name for a key, and which of `of` parts it holds.
struct Renamed {
  std::string name;
  size_t part = 0, of = 1;
};

// A key without a rule keeps its name.
Renamed rename_hugging_face(const std::string& key);  // transformers' DepthAnythingForDepthEstimation and its encoder
Renamed rename_distill_any_depth(const std::string& key);  // the large model
Renamed rename_depth_anything_3(const std::string& key);   // the monocular networks

}  // namespace depthstill
