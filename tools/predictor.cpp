#include "tools/predictor.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "engine/ops_loss.h"
#include "tools/batch_tensors.h"

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

DepthMap resize_bilinear(const DepthMap& depth, ImageSize size) {
  if (depth.size() == size) return depth;
  struct Blend {
    size_t low, high;
    float weight;  // of high
  };
  const auto blends = [](int from, int to) {
    std::vector<Blend> result;
    for (int i = 0; i < to; ++i) {
      const double at = std::clamp((i + 0.5) * from / to - 0.5, 0.0, from - 1.0);
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

Predictor::Predictor(const Student& student, const PredictOptions& options) : student_(student), options_(options) {}

DepthMap Predictor::run_once(const Image8& input) const {
  const Image8 padded = pad_to_multiple(input, static_cast<int>(student_.size_multiple()));
  const NoGrad no_grad;
  const Tensor output = student_.forward(to_tensor(padded, options_.dtype, options_.device));
  const StudentOptions& student = student_.options();
  const Tensor depth = student.head == Head::kDpm
                           ? dpm_depth(output, DpmBins{static_cast<int>(student.bins), student.d_min, student.d_max})
                           : output;
  const std::vector<float> values = to_vector<float>(to_device(depth, Device::kCpu));
  DepthMap map{input.width, input.height, {}};
  map.metres.reserve(static_cast<size_t>(input.width) * static_cast<size_t>(input.height));
  for (int y = 0; y < input.height; ++y) {
    const auto row = values.begin() + static_cast<std::ptrdiff_t>(y) * padded.width;
    map.metres.insert(map.metres.end(), row, row + input.width);
  }
  for (float& metres : map.metres) metres = std::clamp(metres, student.d_min, student.d_max);
  return map;
}

DepthMap Predictor::operator()(const Image8& image) const {
  const auto scaled = [](int side, double scale) { return std::max(1, static_cast<int>(std::lround(side * scale))); };
  const ImageSize size = options_.input_size.value_or(
      ImageSize{scaled(image.width, options_.scale_width), scaled(image.height, options_.scale_height)});
  const Image8 input = size == image.size() ? image : resize(image, size);
  DepthMap depth = run_once(input);
  if (options_.flip) {
    const DepthMap mirrored = run_once(mirror(input));
    const auto width = static_cast<size_t>(depth.width);
    for (size_t y = 0; y < static_cast<size_t>(depth.height); ++y) {
      for (size_t x = 0; x < width; ++x) {
        float& metres = depth.metres[y * width + x];
        metres = 0.5f * (metres + mirrored.metres[y * width + width - 1 - x]);
      }
    }
  }
  return resize_bilinear(depth, image.size());
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

Evaluation evaluate_student(const Student& student, const Dataset& data, const Protocol& protocol,
                            const PredictOptions& options, size_t wanted_panels, std::vector<ReportPanel>* panels,
                            const KeepPrediction& keep) {
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
