#include "tools/teacher_maps.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <vector>

#include "engine/io/atomic_file.h"
#include "tools/progress.h"

namespace depthstill {
namespace {

namespace fs = std::filesystem;

struct Span {
  int first = 0, size = 0;
};

// `count` windows of one size, evenly spread over [0, length), neighbours sharing `overlap` of their size.
std::vector<Span> spread(int length, int count, double overlap) {
  const int size = std::min(length, static_cast<int>(std::ceil(length / (1 + (count - 1) * (1 - overlap)))));
  std::vector<Span> spans;
  for (int i = 0; i < count; ++i) {
    spans.push_back({count == 1 ? 0 : static_cast<int>(static_cast<int64_t>(length - size) * i / (count - 1)), size});
  }
  return spans;
}

// The weight falls from 1 in the middle towards 0 outside, over the overlapping part where there is a
// neighbour.
float fade(int position, const Span& span, int length, double overlap) {
  const double ramp = std::max(1.0, span.size * overlap);
  const double left = span.first == 0 ? 1.0 : (position - span.first + 0.5) / ramp;
  const double right = span.first + span.size == length ? 1.0 : (span.first + span.size - position - 0.5) / ramp;
  return static_cast<float>(std::clamp(std::min(left, right), 1e-3, 1.0));
}

// a and b that bring a * tile + b closest to the whole map's values in the window.
std::pair<double, double> fit(const DepthMap& tile, const DepthMap& whole, const Span& rows, const Span& columns) {
  double n = 0, x = 0, y = 0, xx = 0, xy = 0;
  for (int r = 0; r < rows.size; ++r) {
    for (int c = 0; c < columns.size; ++c) {
      const double t = tile.values[static_cast<size_t>(r) * static_cast<size_t>(tile.width) + static_cast<size_t>(c)];
      const double w = whole.values[static_cast<size_t>(rows.first + r) * static_cast<size_t>(whole.width) +
                                    static_cast<size_t>(columns.first + c)];
      n += 1;
      x += t;
      y += w;
      xx += t * t;
      xy += t * w;
    }
  }
  const double variance = n * xx - x * x;
  if (variance < 1e-12 * n * xx) return {1.0, (y - x) / n};  // a flat tile has no scale of its own
  const double a = std::max((n * xy - x * y) / variance, 0.0);
  return {a, (y - a * x) / n};
}

void check_writable(const DatasetSpec& spec) {
  check(spec.teacher.has_value(), spec.list,
        ": expected a teacher folder to write to in the recipe or --out, found none");
  check(spec.teacher->naming != TeacherNaming::kTruth, spec.list,
        ": the recipe's teacher is the ground truth (teacher_naming = \"truth\"); expected flat or beside");
}

}  // namespace

DepthMap predict_tiled(const Predictor& predictor, const Image8& image, const TeachOptions& options,
                       const std::string& name, double focal) {
  const DepthMap whole = predictor(image, name, focal);
  if (options.tiles <= 1 || std::isnan(whole.values.front())) return whole;  // NaN: a label that knows nothing
  std::vector<float> sum(whole.values.size()), weight(whole.values.size());
  for (const Span& rows : spread(image.height, options.tiles, options.overlap)) {
    for (const Span& columns : spread(image.width, options.tiles, options.overlap)) {
      const DepthMap tile =
          predictor(crop(image, Rect{columns.first, rows.first, columns.size, rows.size}), name, focal);
      if (std::isnan(tile.values.front())) continue;
      const auto [a, b] =
          tile.kind.ambiguity != Ambiguity::kNone ? fit(tile, whole, rows, columns) : std::pair{1.0, 0.0};
      for (int r = 0; r < rows.size; ++r) {
        const float fade_row = fade(rows.first + r, rows, image.height, options.overlap);
        for (int c = 0; c < columns.size; ++c) {
          const float w = fade_row * fade(columns.first + c, columns, image.width, options.overlap);
          const size_t at = static_cast<size_t>(rows.first + r) * static_cast<size_t>(whole.width) +
                            static_cast<size_t>(columns.first + c);
          const float value =
              tile.values[static_cast<size_t>(r) * static_cast<size_t>(tile.width) + static_cast<size_t>(c)];
          const bool sky = predictor.marks_sky() && value == 0;
          sum[at] += sky ? 0.0f : w * std::max(static_cast<float>(a * value + b), 0.0f);
          weight[at] += w;
        }
      }
    }
  }
  DepthMap blended = whole;
  for (size_t i = 0; i < sum.size(); ++i) {
    if (weight[i] > 0) blended.values[i] = sum[i] / weight[i];
  }
  return blended;
}

OutputPlan plan_teacher_maps(const Dataset& data, Existing existing) {
  const DatasetSpec& spec = data.spec();
  check_writable(spec);
  OutputPlan plan(existing, (fs::path(spec.root) / spec.teacher->folder).string());
  plan.reads(data);
  for (int64_t i = 0; i < data.size(); ++i) plan.writes(data.teacher_path(i), data.image_path(i));
  return plan;
}

TeachReport teach(const Dataset& data, const Predictor& predictor, const TeachOptions& options,
                  const std::function<void(int64_t done, int64_t total)>& progress) {
  const DatasetSpec& spec = data.spec();
  check_writable(spec);
  const std::string& extension = spec.teacher->extension;
  check(!predictor.relative() || extension != ".png", spec.list,
        ": the model's depth is relative, which a PNG of metres cannot hold; expected teacher_extension .npy or .pfm");
  check(!options.half || extension == ".npy", spec.list, ": half precision needs teacher_extension .npy, found ",
        extension);
  for (int64_t i = 0; i < data.size(); ++i) predictor.check_focal(data.entry(i).focal, data.where(i));
  TeachReport report;
  for (int64_t i = 0; i < data.size(); ++i) {
    progress(i, data.size());
    const std::string path = data.teacher_path(i);
    if (!options.overwrite && fs::exists(path)) {
      ++report.kept;
    } else {
      Sample sample = data.start(i);
      data.load_image(sample);
      const std::string name = data.where(i) + ": " + data.image_path(i);
      make_folder(fs::path(path).parent_path().string());
      const Clipping clipping =
          write_map(path, predict_tiled(predictor, sample.image.copy(), options, name, sample.focal),
                    spec.teacher->format, options.half ? NpyType::kHalf : NpyType::kFloat);
      if (clipping.any()) log_line(path + ": " + describe(clipping));
      report.clipped += clipping.any();
      ++report.written;
    }
  }
  progress(data.size(), data.size());
  return report;
}

}  // namespace depthstill
