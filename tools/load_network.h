// Networks from weights, for the commands that use them.
#pragma once

#include <memory>
#include <string>

#include "models/depth_model.h"
#include "tools/recipe.h"

namespace depthstill {

// The weights say what they are. Older and published ones leave open what the recipe.toml beside them then says, if
// there is one.
std::unique_ptr<DepthModel> load_network(const std::string& weights);

// The recipe's network with these weights. How images are brought to it is the weights' to say; a line is logged where
// the recipe says something else.
std::unique_ptr<DepthModel> load_network(const std::string& weights, const Recipe& recipe);

}  // namespace depthstill
