#include "tools/data_check.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <iomanip>
#include <limits>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "kernels/core/parallel.h"

namespace depthstill {
namespace {

struct DepthSummary {
  int64_t maps = 0, valid = 0, pixels = 0;
  double min = std::numeric_limits<double>::infinity(), max = 0;  // depths > 0, before the range is applied

  void add(const DepthSummary& other) {
    maps += other.maps;
    valid += other.valid;
    pixels += other.pixels;
    min = std::min(min, other.min);
    max = std::max(max, other.max);
  }
};

struct SampleReport {
  ImageSize stored{}, sample{};
  DepthSummary depth, teacher;
  double ratio = std::nan("");  // median of teacher / ground truth where both are known
  std::vector<std::string> problems;
};

DepthSummary summarise(const DepthMap& map, const DatasetSpec& spec) {
  DepthSummary summary;
  summary.maps = 1;
  summary.pixels = static_cast<int64_t>(map.values.size());
  for (const float stored : map.values) {
    const double metres = static_cast<double>(stored);
    if (metres <= 0) continue;
    summary.valid += metres > spec.min_depth && metres < spec.max_depth;
    summary.min = std::min(summary.min, metres);
    summary.max = std::max(summary.max, metres);
  }
  return summary;
}

double median_ratio(const DepthMap& teacher, const DepthMap& truth) {
  std::vector<float> ratios;
  for (size_t i = 0; i < truth.values.size() && truth.size() == teacher.size(); ++i) {
    if (truth.values[i] > 0 && teacher.values[i] > 0) ratios.push_back(teacher.values[i] / truth.values[i]);
  }
  if (ratios.empty()) return std::nan("");
  const auto middle = ratios.begin() + static_cast<std::ptrdiff_t>(ratios.size() / 2);
  std::nth_element(ratios.begin(), middle, ratios.end());
  return static_cast<double>(*middle);
}

// Runs `f`; what it throws becomes a problem.
template <class F>
bool attempt(std::vector<std::string>& problems, const F& f) {
  try {
    f();
    return true;
  } catch (const std::exception& error) {
    problems.emplace_back(error.what());
    return false;
  }
}

SampleReport check_sample(const Dataset& dataset, int64_t index, const CheckOptions& options) {
  SampleReport report;
  const DatasetSpec& spec = dataset.spec();
  attempt(report.problems, [&] {
    Sample sample = dataset.start(index);
    if (!attempt(report.problems, [&] { dataset.load_image(sample); })) return;
    report.stored = sample.stored_size;
    report.sample = sample.image.size();
    const auto& crop = options.crop;
    if (crop && (crop->width > report.sample.width || crop->height > report.sample.height)) {
      report.problems.push_back(concat_text(sample.where, ": expected a sample of at least the training crop's ", *crop,
                                            ", found ", report.sample));
    }
    if (options.protocol) attempt(report.problems, [&] { check_frame(*options.protocol, sample); });
    if (attempt(report.problems, [&] { dataset.load_depth(sample); }) && !sample.depth.empty()) {
      report.depth = summarise(sample.depth.copy(), spec);
      check(report.depth.valid > 0, sample.where, ": ", dataset.depth_path(index), ": expected depths between ",
            spec.min_depth, " and ", spec.max_depth, " m, found none");
    }
    if (attempt(report.problems, [&] { dataset.load_teacher(sample); }) && !sample.teacher.empty()) {
      const DepthMap teacher = sample.teacher.copy();
      report.teacher = summarise(teacher, spec);
      check(report.teacher.valid > 0, sample.where, ": ", dataset.teacher_path(index), ": expected depths between ",
            spec.min_depth, " and ", spec.max_depth, " m, found none");
      report.ratio = median_ratio(teacher, sample.depth.copy());
    }
  });
  return report;
}

std::vector<SampleReport> check_samples(const Dataset& dataset, const CheckOptions& options) {
  std::vector<SampleReport> reports(static_cast<size_t>(dataset.size()));
  std::atomic<int64_t> done{0};
  parallel_for(dataset.size(), 1, [&](int64_t i) {
    reports[static_cast<size_t>(i)] = check_sample(dataset, i, options);
    if (options.progress) options.progress(++done, dataset.size());
  });
  return reports;
}

std::string describe_sizes(const std::vector<SampleReport>& reports, ImageSize SampleReport::*size) {
  std::map<std::string, int64_t> counts;
  for (const SampleReport& report : reports) {
    if ((report.*size).width > 0) ++counts[concat_text(report.*size)];
  }
  std::string text;
  for (const auto& [name, count] : counts) text += concat_text(text.empty() ? "" : ", ", name, " (", count, ")");
  return text.empty() ? "none" : text;
}

std::string describe_depth(const DepthSummary& depth, const DatasetSpec& spec) {
  if (depth.maps == 0) return "none";
  const double share =
      100.0 * static_cast<double>(depth.valid) / static_cast<double>(std::max<int64_t>(depth.pixels, 1));
  std::ostringstream text;
  text << std::setprecision(4) << depth.maps << " maps";
  if (depth.max > 0) text << ", " << depth.min << " to " << depth.max << " m";
  text << ", " << std::fixed << std::setprecision(1) << share << " % of pixels between " << std::defaultfloat
       << std::setprecision(4) << spec.min_depth << " and " << spec.max_depth << " m";
  return text.str();
}

// A factor between teacher and ground truth is what a wrongly stated unit looks like; a good teacher is near 1.
std::string describe_ratio(const std::vector<SampleReport>& reports) {
  std::vector<double> ratios;
  for (const SampleReport& report : reports) {
    if (!std::isnan(report.ratio)) ratios.push_back(report.ratio);
  }
  if (ratios.empty()) return "";
  const auto middle = ratios.begin() + static_cast<std::ptrdiff_t>(ratios.size() / 2);
  std::nth_element(ratios.begin(), middle, ratios.end());
  const bool odd = *middle < 0.5 || *middle > 2;
  std::ostringstream text;
  text << std::setprecision(3) << *middle << (odd ? "  (note: far from 1; check the stated depth scales)" : "");
  return text.str();
}

void print_problems(const std::vector<SampleReport>& reports, int shown, std::ostream& out) {
  int64_t count = 0;
  for (const SampleReport& report : reports) {
    for (const std::string& problem : report.problems) {
      if (count++ < shown) out << "  " << problem << '\n';
    }
  }
  if (count > shown) out << "  ... and " << count - shown << " more\n";
}

// Prints the report of one list and returns the number of problems.
int64_t check_set(const char* title, const DatasetSpec& spec, const CheckOptions& options, std::ostream& out) {
  std::optional<Dataset> dataset;
  out << title << ": " << spec.root << ", " << spec.list << '\n';
  std::vector<std::string> problems;
  if (!attempt(problems, [&] { dataset.emplace(spec); })) {
    out << "  " << problems[0] << '\n';
    return 1;
  }
  const std::vector<SampleReport> reports = check_samples(*dataset, options);
  DepthSummary depth, teacher;
  int64_t readable = 0, count = 0;
  for (const SampleReport& report : reports) {
    depth.add(report.depth);
    teacher.add(report.teacher);
    readable += report.sample.width > 0;
    count += static_cast<int64_t>(report.problems.size());
  }
  const std::string ratio = describe_ratio(reports);
  out << "  samples        " << dataset->size() << " (" << dataset->skipped()
      << " lines without ground truth left out)\n"
      << "  images         " << readable << " readable: " << describe_sizes(reports, &SampleReport::stored) << '\n'
      << "  after crop     " << describe_sizes(reports, &SampleReport::sample) << '\n'
      << "  ground truth   " << describe_depth(depth, spec) << '\n'
      << "  teacher        " << (spec.teacher ? describe_depth(teacher, spec) : "not used") << '\n';
  if (!ratio.empty()) out << "  teacher/truth  " << ratio << '\n';
  out << "  problems       " << count << '\n';
  print_problems(reports, options.max_problems_shown, out);
  return count;
}

// Images that are in both lists: allowed, but worth knowing.
void note_shared_images(const DatasetSpec& train, const DatasetSpec& validation, std::ostream& out) {
  if (train.root != validation.root) return;
  const Dataset first(train), second(validation);
  std::set<std::string> images;
  for (int64_t i = 0; i < first.size(); ++i) images.insert(first.entry(i).image);
  int64_t shared = 0;
  for (int64_t i = 0; i < second.size(); ++i) shared += images.contains(second.entry(i).image);
  if (shared > 0) out << "note: " << shared << " images are in both the training and the validation list\n";
}

}  // namespace

int check_data(const DatasetSpec& train, const DatasetSpec* validation, const CheckOptions& options,
               std::ostream& out) {
  CheckOptions cropped = options, framed = options;
  cropped.protocol.reset();
  framed.crop.reset();
  int64_t problems = check_set("train", train, cropped, out);
  if (validation != nullptr) {
    problems += check_set("validation", *validation, framed, out);
    if (problems == 0) note_shared_images(train, *validation, out);
  }
  if (problems > 0) {
    out << "training would fail: " << problems << (problems == 1 ? " problem\n" : " problems\n");
  } else {
    out << "training would run: no problems\n";
  }
  return problems > 0 ? 1 : 0;
}

}  // namespace depthstill
