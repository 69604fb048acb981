#include "tools/training_needs.h"

#include <algorithm>
#include <filesystem>

#include "kernels/core/error.h"
#include "tools/distill_recipe.h"
#include "tools/recipe.h"

namespace depthstill {
namespace {

namespace fs = std::filesystem;

const char* name_of(DepthTarget target) { return target == DepthTarget::kTruth ? "ground truth" : "a teacher map"; }

void check_crop_sides(const TrainingNeeds& needs, std::vector<std::string>& problems) {
  if (!needs.augment) return;
  const auto side = [&](const char* key, int pixels) {
    if (pixels % needs.crop.multiple == 0) return;
    problems.push_back(
        concat_text(key, ": expected a multiple of ", needs.crop.multiple, " for ", needs.model, ", found ", pixels));
  };
  side("augment.crop_height", needs.crop.crop.height);
  side("augment.crop_width", needs.crop.crop.width);
}

// Lines without the map that is learnt from.
void check_targets(const Dataset& data, DepthTarget target, std::vector<std::string>& problems) {
  if (target == DepthTarget::kTeacher) {
    if (!data.spec().teacher)
      problems.push_back(data.spec().list + ": expected teacher maps to learn from, found none");
    return;
  }
  for (int64_t i = 0; i < data.size(); ++i) {
    if (!data.entry(i).depth.empty()) continue;
    problems.push_back(concat_text(data.where(i), ": expected ", name_of(target), " to learn from, found None"));
  }
}

}  // namespace

std::string missing_weights(const char* key, const std::string& path) {
  return concat_text(key, ": ", fs::absolute(path).string(),
                     ": expected weights, found no such file; a relative path starts from the current folder");
}

TrainingNeeds needs_of(const Recipe& recipe) {
  TrainingNeeds needs;
  needs.model = recipe.model.name;
  needs.augment = recipe.augment_on;
  needs.crop = augment_of(recipe);
  needs.top_rows = recipe.loss.top_rows;
  needs.loading = loader_options(recipe);
  needs.weights = recipe.model.weights;
  needs.target = recipe.loss.target;
  needs.regions = distills(recipe);
  return needs;
}

std::vector<std::string> training_problems(const Dataset& data, const TrainingNeeds& needs) {
  std::vector<std::string> problems;
  try {
    static_cast<void>(steps_per_epoch(data.size(), needs.loading));
  } catch (const Error& error) {
    problems.push_back(concat_text("train.batch_size: ", error.what(),
                                   needs.loading.drop_last ? "; train.drop_last = false takes smaller ones" : ""));
  }
  if (!needs.regions) check_crop_sides(needs, problems);
  const int rows = needs.crop.crop.height;
  if (!needs.regions && needs.augment && rows > 0 && needs.top_rows >= rows) {
    problems.push_back(concat_text("loss.top_rows: expected fewer than the ", rows, " rows of a training crop, found ",
                                   needs.top_rows));
  }
  if (!needs.weights.empty() && !fs::exists(needs.weights)) {
    problems.push_back(missing_weights("model.init", needs.weights));
  }
  if (!needs.regions) check_targets(data, needs.target, problems);
  return problems;
}

std::string frame_problem(const TrainingNeeds& needs, ImageSize size, ImageSize first) {
  if (needs.regions) return "";
  const ImageSize crop = needs.augment ? crop_of(needs.crop, size) : size;
  const int multiple = needs.crop.multiple;
  if (crop.width > size.width || crop.height > size.height) {
    return concat_text("expected a sample of at least the training crop's ", crop, ", found ", size);
  }
  const bool whole = !needs.augment || needs.crop.crop.width == 0 || needs.crop.crop.height == 0;
  if (!whole) return "";
  if (crop.width == 0 || crop.height == 0 || crop.width % multiple != 0 || crop.height % multiple != 0) {
    return concat_text("expected sides that are multiples of ", multiple, " for ", needs.model, ", found ", size,
                       "; augment.crop_height and crop_width or data.resize_* give such");
  }
  if (needs.top_rows >= crop.height) {
    return concat_text("loss.top_rows: expected fewer than the ", crop.height, " rows of the sample, found ",
                       needs.top_rows);
  }
  const ImageSize other = needs.augment ? crop_of(needs.crop, first) : first;
  if (needs.loading.batch_size > 1 && !(crop == other)) {
    return concat_text("expected samples of one size, ", other, " as the first, found ", crop,
                       "; augment.crop_height and crop_width, data.resize_* or batches of 1 take several");
  }
  return "";
}

const SampleDepth& target_of(const Sample& sample, DepthTarget target) {
  return target == DepthTarget::kTruth ? sample.depth : sample.teacher;
}

DepthRange range_of(const DatasetSpec& spec) {
  return {static_cast<float>(spec.min_depth), static_cast<float>(spec.max_depth)};
}

bool has_target(const SampleDepth& map, DepthRange range, int first_row) {
  const auto from = static_cast<size_t>(first_row) * static_cast<size_t>(map.width);
  if (!map.units.empty()) {
    return from < map.units.size() &&
           std::any_of(map.units.begin() + static_cast<std::ptrdiff_t>(from), map.units.end(), [&](uint16_t unit) {
             return valid_depth(static_cast<float>(unit * map.metres_per_unit), range);
           });
  }
  return from < map.values.size() &&
         std::any_of(map.values.begin() + static_cast<std::ptrdiff_t>(from), map.values.end(),
                     [&](float depth) { return valid_depth(depth, range); });
}

std::string no_target_text(DepthRange range, int first_row) {
  return concat_text("expected depths between ", range.min, " and ", range.max, " m",
                     first_row > 0 ? concat_text(" from row ", first_row, " on (loss.top_rows)") : "", ", found none");
}

}  // namespace depthstill
