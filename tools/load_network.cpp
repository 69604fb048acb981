#include "tools/load_network.h"

#include <filesystem>

#include "models/model_file.h"
#include "models/model_table.h"
#include "tools/progress.h"

namespace depthstill {

std::unique_ptr<DepthModel> load_network(const std::string& weights) {
  namespace fs = std::filesystem;
  const fs::path beside = fs::path(weights).parent_path() / "recipe.toml";
  if (!fs::exists(beside)) return load_model(weights);
  return load_model(weights, [&] { return network_record(load_recipe(beside.string())); });
}

std::unique_ptr<DepthModel> load_network(const std::string& weights, const Recipe& recipe) {
  const NetworkRecord record = network_record(recipe);
  auto model = make_model(record.architecture, record.options);
  model->set_trained_use(record.use);
  load_weights(*model, weights);
  const std::string asked = input_text(*record.use), stated = input_text(*model->trained_use());
  if (asked != stated) {
    log_line(concat_text(weights, ": trained on images ", stated, ", which counts; the recipe says ", asked));
  }
  return model;
}

}  // namespace depthstill
