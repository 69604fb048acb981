#include "models/predictor.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "engine/data/batch_tensors.h"
#include "engine/data/cubic.h"
#include "engine/ops_loss.h"
#include "tools/progress.h"

namespace depthstill {
namespace {

int round_up(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }

}  // namespace

Image8 pad_to_multiple(const Image8& image, int multiple) {
  const int height = round_up(image.height, multiple), width = round_up(image.width, multiple);
  if (height == image.height && width == image.width) return image;
  Image8 padded{width, height, {}};
  padded.rgb.reserve(3 * static_cast<size_t>(height) * static_cast<size_t>(width));
  for (int y = 0; y < height; ++y) {
    const size_t row = static_cast<size_t>(std::min(y, image.height - 1)) * static_cast<size_t>(image.width);
    for (int x = 0; x < width; ++x) {
      const uint8_t* const pixel = &image.rgb[3 * (row + static_cast<size_t>(std::min(x, image.width - 1)))];
      padded.rgb.insert(padded.rgb.end(), pixel, pixel + 3);
    }
  }
  return padded;
}

Image8 mirror(const Image8& image) {
  Image8 mirrored = image;
  const auto width = static_cast<size_t>(image.width);
  for (size_t y = 0; y < static_cast<size_t>(image.height); ++y) {
    for (size_t x = 0; x < width; ++x) {
      std::copy_n(&image.rgb[3 * (y * width + x)], 3, &mirrored.rgb[3 * (y * width + width - 1 - x)]);
    }
  }
  return mirrored;
}

DepthMap resize_bilinear(const DepthMap& depth, ImageSize size, bool align_corners) {
  if (depth.size() == size) return depth;
  struct Blend {
    size_t low, high;
    float weight;  // of high
  };
  const auto blends = [align_corners](int from, int to) {
    std::vector<Blend> result;
    for (int i = 0; i < to; ++i) {
      const double at = align_corners ? static_cast<double>(i) * (from - 1) / std::max(to - 1, 1)
                                      : std::clamp((i + 0.5) * from / to - 0.5, 0.0, from - 1.0);
      const auto low = static_cast<size_t>(at);
      result.push_back(
          {low, std::min(low + 1, static_cast<size_t>(from - 1)), static_cast<float>(at - std::floor(at))});
    }
    return result;
  };
  const std::vector<Blend> rows = blends(depth.height, size.height), columns = blends(depth.width, size.width);
  DepthMap result{size.width, size.height, {}};
  result.metres.reserve(rows.size() * columns.size());
  const auto width = static_cast<size_t>(depth.width);
  for (const Blend& row : rows) {
    const float *upper = &depth.metres[row.low * width], *lower = &depth.metres[row.high * width];
    for (const Blend& column : columns) {
      const float top = upper[column.low] + column.weight * (upper[column.high] - upper[column.low]);
      const float bottom = lower[column.low] + column.weight * (lower[column.high] - lower[column.low]);
      result.metres.push_back(top + row.weight * (bottom - top));
    }
  }
  return result;
}

PredictOptions predict_options(const Recipe& recipe) {
  PredictOptions options;
  options.flip = recipe.eval.flip;
  const DataRecipe& data = recipe.data;
  if (data.resize_height > 0) {
    const ImageSize size{data.resize_width, data.resize_height};
    if (data.crop == CropRule::kNone) {
      options.input_size = size;
    } else {
      const CropRect cropped = crop_rect(data.crop, {1242, 480}, "recipe");  // any image that is large enough
      options.scale_height = static_cast<double>(size.height) / cropped.height;
      options.scale_width = static_cast<double>(size.width) / cropped.width;
    }
  }
  return options;
}

Predictor::Predictor(const DepthModel& student, const PredictOptions& options) : student_(student), options_(options) {}

DepthMap Predictor::run_network(const Tensor& image, ImageSize kept) const {
  const NoGrad no_grad;
  const ModelOptions& student = student_.options();
  const Tensor depth = student_.depth_of(student_.forward_before_head(image));
  const std::vector<float> values = to_vector<float>(to_device(depth, Device::kCpu));
  DepthMap map{kept.width, kept.height, {}};
  map.metres.reserve(static_cast<size_t>(kept.width) * static_cast<size_t>(kept.height));
  for (int y = 0; y < kept.height; ++y) {
    const auto row = values.begin() + static_cast<std::ptrdiff_t>(y) * image.size(2);
    map.metres.insert(map.metres.end(), row, row + kept.width);
  }
  if (student.head != Head::kRelative) {
    for (float& metres : map.metres) metres = std::clamp(metres, student.d_min, student.d_max);
  }
  return map;
}

DepthMap Predictor::run_by_rule(const Image8& image, const InputRule& rule) const {
  const ImageSize size = fitted_size(image.size(), rule);
  return run_network(to_tensor(resize_cubic(image, size), size, options_.dtype, options_.device), size);
}

DepthMap Predictor::run_resized(const Image8& image) const {
  const auto scaled = [](int side, double scale) { return std::max(1, static_cast<int>(std::lround(side * scale))); };
  const ImageSize size = options_.input_size.value_or(
      ImageSize{scaled(image.width, options_.scale_width), scaled(image.height, options_.scale_height)});
  const Image8 padded =
      pad_to_multiple(size == image.size() ? image : resize(image, size), static_cast<int>(student_.size_multiple()));
  return run_network(to_tensor(padded, options_.dtype, options_.device), size);
}

DepthMap Predictor::operator()(const Image8& image) const {
  InputRule rule = student_.input_rule();
  if (options_.side > 0) rule.size = options_.side;
  const bool by_rule = rule.fit != InputRule::Fit::kPad && !options_.input_size && options_.scale_height == 1.0 &&
                       options_.scale_width == 1.0;
  const auto run = [&](const Image8& input) { return by_rule ? run_by_rule(input, rule) : run_resized(input); };
  DepthMap depth = run(image);
  if (options_.flip) {
    const DepthMap mirrored = run(mirror(image));
    const auto width = static_cast<size_t>(depth.width);
    for (size_t y = 0; y < static_cast<size_t>(depth.height); ++y) {
      for (size_t x = 0; x < width; ++x) {
        float& metres = depth.metres[y * width + x];
        metres = 0.5f * (metres + mirrored.metres[y * width + width - 1 - x]);
      }
    }
  }
  if (!by_rule) return resize_bilinear(depth, image.size());
  if (depth.size() == image.size()) return depth;
  if (!rule.cubic_output) return resize_bilinear(depth, image.size(), true);
  DepthMap resized = resize_cubic(depth, image.size());
  for (float& value : resized.metres) value = std::max(value, 0.0f);  // overshoot
  return resized;
}

std::vector<EvalItem> eval_items(const Dataset& data, Target target) {
  const bool teacher = target == Target::kTeacher;
  check(!teacher || data.spec().teacher, data.spec().list, ": expected a folder of teacher maps, found none");
  std::vector<EvalItem> items;
  for (int64_t i = 0; i < data.size(); ++i) {
    items.push_back(
        {data.entry(i).image, data.where(i), data.image_path(i), teacher ? data.teacher_path(i) : data.depth_path(i)});
  }
  return items;
}

Evaluation evaluate_student(const DepthModel& student, const Dataset& data, const Protocol& protocol,
                            const PredictOptions& options, size_t wanted_panels, std::vector<ReportPanel>* panels,
                            const KeepPrediction& keep) {
  check(student.options().head != Head::kRelative, student.name(),
        ": expected a student that predicts metres, found a relative one, which the metrics cannot score");
  const DatasetSpec& spec = data.spec();
  const Predictor predictor(student, options);
  const std::vector<EvalItem> items = eval_items(data, protocol.target);
  const size_t stride = std::max<size_t>(1, items.size() / std::max<size_t>(1, wanted_panels));
  size_t position = 0;
  Image8 frame;
  const auto predict = [&](const EvalItem& item) {
    const Image8 image = read_image(item.image);
    frame = crop(image, frame_window(protocol.frame, image.height, image.width));
    DepthMap prediction = predictor(frame);
    if (keep) keep(item, prediction);
    return prediction;
  };
  EvaluateOptions evaluating;
  evaluating.progress = interruptible_progress("eval", "img");
  evaluating.truth_format = protocol.target == Target::kTeacher ? spec.teacher->format : spec.depth;
  evaluating.observe = [&](const EvalItem& item, const DepthMap& truth, const DepthMap& prediction,
                           const ImageMetrics&) {
    const size_t index = position++;
    if (panels == nullptr || panels->size() >= wanted_panels || index % stride != 0) return;
    ReportPanel panel{item.name, frame, truth, prediction, ""};
    const std::string teacher = data.teacher_path(&item - items.data());
    if (std::filesystem::exists(teacher)) {
      panel.reference = read_depth(teacher, spec.teacher->format);
      panel.reference =
          crop(panel.reference, frame_window(protocol.frame, panel.reference.height, panel.reference.width));
      panel.reference_label = "teacher";
    }
    if (panel.reference.size() == prediction.size()) panels->push_back(std::move(panel));
  };
  Evaluation evaluation = evaluate(protocol, items, predict, evaluating);
  evaluation.prediction = options.flip ? "prediction averaged with that for the mirrored image, each clamped"
                                       : "one prediction per image, without its mirror image";
  return evaluation;
}

}  // namespace depthstill
