#include "tools/data_check.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <filesystem>
#include <iomanip>
#include <limits>
#include <map>
#include <set>
#include <span>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "kernels/core/error.h"
#include "kernels/core/parallel.h"
#include "tools/distill_recipe.h"
#include "tools/map_agreement.h"

namespace depthstill {
namespace {

constexpr double kFalling = -0.3;  // a correlation that is no accident
constexpr const char* kNothingScored =
    ": expected ground truth that the protocol counts in at least one image, found none";

// Pixels that count are `valid`; of the others, those with a depth lie beyond the range or before it.
struct DepthSummary {
  int64_t maps = 0, valid = 0, pixels = 0, beyond = 0, before = 0;
  double min = std::numeric_limits<double>::infinity(), max = 0;  // depths > 0, before the range is applied

  void add(const DepthSummary& other) {
    maps += other.maps;
    valid += other.valid;
    pixels += other.pixels;
    beyond += other.beyond;
    before += other.before;
    min = std::min(min, other.min);
    max = std::max(max, other.max);
  }
};

struct SampleReport {
  ImageSize stored{}, sample{};
  DepthSummary depth, teacher;
  MapAgreement agreement;
  double teacher_rise = 0;  // where there is no ground truth to compare with
  bool has_target = false;  // a pixel of the map that is learnt from counts
  int64_t scored = 0;       // pixels that the protocol compares
  std::vector<std::string> problems, notes;
};

DepthSummary summarise(const DepthMap& map, DepthRange range) {
  DepthSummary summary;
  summary.maps = 1;
  summary.pixels = static_cast<int64_t>(map.values.size());
  for (const float stored : map.values) {
    const double metres = static_cast<double>(stored);
    if (metres <= 0) continue;
    summary.valid += valid_depth(stored, range);
    summary.beyond += stored > range.max;
    summary.before += stored < range.min;
    summary.min = std::min(summary.min, metres);
    summary.max = std::max(summary.max, metres);
  }
  return summary;
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

DepthSummary check_map(const SampleDepth& map, const std::string& path, const std::string& where, DepthRange range,
                       int first_row, std::vector<std::string>& notes) {
  if (!has_target(map, range, first_row)) {
    notes.push_back(concat_text(where, ": ", path, ": ", no_target_text(range, first_row)));
  }
  return summarise(map.copy(), range);
}

// Whether a label of the sample's region in the first epoch teaches something. A teacher that has not drawn it then may
// have none.
bool check_labels(const Dataset& dataset, const Sample& sample, const RegionLoading& regions,
                  const CheckOptions& options, SampleReport& report) {
  const Region region = draw_region(regions.spec, sample.image.size(), options.training->loading.seed, 0, sample.index);
  bool teaches = false;
  for (const auto& teacher : regions.teachers) {
    if (teacher->online()) teaches = true;  // as far as a label can be known before it is made
    if (teacher->online()) continue;
    attempt(report.problems, [&] {
      const std::string path = teacher->path(dataset, sample.index, 0);
      if (!teacher->every_sample() && !std::filesystem::exists(path)) return;
      const std::string problem = label_problem(teacher->load(dataset, sample, region, 0, regions.size).region);
      teaches = teaches || problem.empty();
      if (!problem.empty()) report.notes.push_back(concat_text(sample.where, ": ", path, ' ', problem));
    });
  }
  return teaches;
}

SampleReport check_sample(const Dataset& dataset, int64_t index, const CheckOptions& options,
                          const std::optional<RegionLoading>& regions) {
  SampleReport report;
  const DatasetSpec& spec = dataset.spec();
  const DepthRange range = range_of(spec);
  const auto first_row = [&](DepthTarget of) {
    return options.training && options.training->target == of ? options.training->top_rows : 0;
  };
  attempt(report.problems, [&] {
    Sample sample = dataset.start(index);
    if (!attempt(report.problems, [&] { dataset.load_image(sample); })) return;
    report.stored = sample.stored_size;
    report.sample = sample.image.size();
    if (options.protocol) attempt(report.problems, [&] { check_frame(*options.protocol, sample); });
    if (regions) {  // the labels are all that is learnt from
      report.has_target = check_labels(dataset, sample, *regions, options, report);
      return;
    }
    if (options.distilled != nullptr) return;
    if (attempt(report.problems, [&] { dataset.load_depth(sample); }) && !sample.depth.empty()) {
      report.depth = check_map(sample.depth, dataset.depth_path(index), sample.where, range,
                               first_row(DepthTarget::kTruth), report.notes);
    }
    std::vector<std::string>& of_teacher = options.protocol ? report.notes : report.problems;
    if (attempt(of_teacher, [&] { dataset.load_teacher(sample); }) && !sample.teacher.empty()) {
      const DepthMap teacher = sample.teacher.copy();
      report.teacher = check_map(sample.teacher, dataset.teacher_path(index), sample.where, range,
                                 first_row(DepthTarget::kTeacher), report.notes);
      if (sample.depth.empty())
        report.teacher_rise = rise_towards_bottom(teacher);
      else
        report.agreement = compare_maps(teacher, sample.depth.copy(), spec.max_depth);
    }
    if (options.training) {
      const SampleDepth& target = target_of(sample, options.training->target);
      report.has_target = !target.empty() && has_target(target, range, options.training->top_rows);
    }
    if (options.protocol && report.problems.empty()) {
      attempt(report.problems, [&] { report.scored = scored_pixels(dataset, index, *options.protocol); });
    }
  });
  return report;
}

std::vector<SampleReport> check_samples(const Dataset& dataset, const CheckOptions& options,
                                        const std::optional<RegionLoading>& regions) {
  std::vector<SampleReport> reports(static_cast<size_t>(dataset.size()));
  std::atomic<int64_t> done{0};
  parallel_for(dataset.size(), 1, [&](int64_t i) {
    reports[static_cast<size_t>(i)] = check_sample(dataset, i, options, regions);
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
  if (depth.beyond > 0) text << ", " << depth.beyond << " pixels beyond left out";
  if (depth.before > 0) text << ", " << depth.before << " pixels before left out";
  return text.str();
}

bool holds_floats(const std::string& path) {
  const std::string extension = std::filesystem::path(path).extension().string();
  return extension != ".png" && extension != ".PNG";
}

// What a list says as a whole about maps that do not agree; empty: nothing.
std::string describe_disagreement(const ListAgreement& list) {
  if (list.frames < 3 || list.correlation >= 0.6) return "";
  return concat_text(std::setprecision(2), "the correlation of teacher and ground truth is ", list.correlation,
                     list.correlation < kFalling ? "; the teacher's maps fall where ground truth rises: inverse depth?"
                                                 : "; are these the maps of these images?");
}

// What may be wrong where teacher / truth is `list.ratio` over the whole list. teacher_path: one of its maps.
std::string explain_ratio(const Dataset& dataset, const std::string& teacher_path, const ListAgreement& list) {
  if (list.correlation < kFalling) return "the maps fall where ground truth rises, as inverse depth does";
  const MapFormat& format = dataset.spec().teacher->format;
  const bool floats = holds_floats(teacher_path);
  const double stated = 1 / (floats ? format.metres_per_float_unit : format.metres_per_unit);
  const double of_integers = 1 / format.metres_per_unit, seems = stated * list.ratio;
  std::ostringstream text;
  text << std::setprecision(7);
  if (floats && std::abs(std::log(seems / of_integers)) < std::log(1.5)) {
    text << "that is how version 0.1.0 of teach wrote float maps: set data.teacher_float_units = " << of_integers;
    return text.str();
  }
  text << "check the stated depth scales: if ground truth is right, data.teacher_"
       << (floats ? "float_units" : "units_per_metre") << " is not " << stated << " but about " << std::setprecision(3)
       << seems;
  return text.str();
}

// What the maps of a teacher look like of which no ground truth says what they hold; empty: nothing.
std::string describe_rise(std::span<const double> rises) {
  const auto count = static_cast<int64_t>(rises.size());
  const auto rising = std::count_if(rises.begin(), rises.end(), [](double rise) { return rise > -kFalling; });
  if (count < 3 || 2 * rising <= count) return "";
  return concat_text(rising, " of ", count,
                     " of the teacher's maps grow towards the lower edge of their images, where ",
                     "things mostly are near: inverse depth?");
}

// `frames`: how the maps of the samples `indices` agree. `rises`: rise_towards_bottom() of the teacher's.
DataFindings judge_maps(const Dataset& dataset, std::span<const int64_t> indices, std::span<const MapAgreement> frames,
                        std::span<const double> rises) {
  DataFindings findings;
  const ListAgreement list = agreement_of(frames);
  const std::string rise = list.frames == 0 ? describe_rise(rises) : "";
  if (!rise.empty()) findings.notes.push_back(dataset.spec().list + ": " + rise);
  if (list.frames > 0 && !(list.ratio >= 0.5 && list.ratio <= 2)) {
    const auto known =
        std::find_if(frames.begin(), frames.end(), [](const MapAgreement& frame) { return frame.known; });
    const std::string path = dataset.teacher_path(indices[static_cast<size_t>(known - frames.begin())]);
    findings.problems.push_back(concat_text(dataset.spec().list, ": expected teacher/truth with a median of 0.5 to 2, ",
                                            "found ", list.ratio, "; ", explain_ratio(dataset, path, list)));
  }
  const std::string disagreement = describe_disagreement(list);
  if (!disagreement.empty()) findings.notes.push_back(dataset.spec().list + ": " + disagreement);
  for (size_t i = 0; i < frames.size(); ++i) {
    const std::string oddity = depthstill::oddity(frames[i], list);
    if (oddity.empty()) continue;
    const int64_t index = indices[i];
    findings.notes.push_back(concat_text(dataset.where(index), ": ", dataset.depth_path(index), " and ",
                                         dataset.teacher_path(index), ": ", oddity));
  }
  return findings;
}

// Prints the first `shown` lines and how many of `count` in all are not among them.
void print_lines(const std::vector<std::string>& lines, int64_t count, int shown, const char* before,
                 std::ostream& out) {
  int64_t printed = 0;
  for (const std::string& line : lines) {
    if (printed == shown) break;
    out << "  " << before << line << '\n';
    ++printed;
  }
  if (count > printed) out << "  ... and " << count - printed << " more\n";
}

// What a list lacks as a whole. Samples that cannot be read say so themselves.
std::vector<std::string> check_list_needs(const Dataset& dataset, const std::vector<SampleReport>& reports,
                                          const CheckOptions& options) {
  std::vector<std::string> problems;
  const std::string& list = dataset.spec().list;
  if (options.training) problems = training_problems(dataset, *options.training);
  bool readable = false, target = false, scored = false;
  for (const SampleReport& report : reports) {
    readable = readable || report.problems.empty();
    target = target || report.has_target;
    scored = scored || report.scored > 0;
  }
  if (options.distilled != nullptr && readable && !target) {
    problems.push_back(list + ": nothing to learn from in any sample: expected labels that are not constant");
  } else if (options.training && readable && !target) {
    problems.push_back(concat_text(list, ": nothing to learn from in any sample: ",
                                   no_target_text(range_of(dataset.spec()), options.training->top_rows)));
  }
  if (options.protocol && readable && !scored) {
    problems.push_back(list + kNothingScored);
  }
  return problems;
}

// Everything found in a list, what explains most first: the list as a whole, repeated lines, the samples.
DataFindings findings_of(const Dataset& dataset, const std::vector<SampleReport>& reports,
                         const CheckOptions& options) {
  std::vector<MapAgreement> frames;
  std::vector<double> rises;
  std::vector<int64_t> indices;
  for (const SampleReport& report : reports) {
    indices.push_back(static_cast<int64_t>(indices.size()));
    frames.push_back(report.agreement);
    rises.push_back(report.teacher_rise);
  }
  DataFindings findings = judge_maps(dataset, indices, frames, rises);
  const auto add = [](std::vector<std::string>& to, const std::vector<std::string>& more) {
    to.insert(to.end(), more.begin(), more.end());
  };
  add(findings.problems, check_list_needs(dataset, reports, options));
  add(findings.problems, repeated_lines(dataset));
  const auto first =
      std::find_if(reports.begin(), reports.end(), [](const SampleReport& report) { return report.sample.width > 0; });
  for (size_t i = 0; i < reports.size(); ++i) {
    const SampleReport& report = reports[i];
    if (options.training && report.sample.width > 0) {
      const std::string problem = frame_problem(*options.training, report.sample, first->sample);
      if (!problem.empty()) findings.problems.push_back(dataset.where(static_cast<int64_t>(i)) + ": " + problem);
    }
    add(findings.problems, report.problems);
    add(findings.notes, report.notes);
  }
  return findings;
}

// Prints the report of one list and returns the number of problems.
int64_t check_set(const std::string& title, const DatasetSpec& spec, const CheckOptions& options, std::ostream& out) {
  std::optional<Dataset> dataset;
  BadLines bad;
  out << title << ": " << spec.root << ", " << spec.list << '\n';
  std::vector<std::string> problems;
  if (!attempt(problems, [&] { dataset.emplace(spec, &bad); })) {
    out << "  " << problems[0] << '\n';
    return 1;
  }
  std::optional<RegionLoading> regions;
  std::vector<std::string> lacking;
  attempt(lacking, [&] {
    if (options.distilled == nullptr) return;
    regions = region_loading(*options.distilled, *dataset);
    lacking = missing_labels(*options.distilled, *dataset, *regions);
    label_networks(*options.distilled, Device::kCpu);
  });
  const std::vector<SampleReport> reports = check_samples(*dataset, options, regions);
  DepthSummary depth, teacher;
  std::vector<MapAgreement> frames;
  int64_t readable = 0;
  for (const SampleReport& report : reports) {
    depth.add(report.depth);
    teacher.add(report.teacher);
    readable += report.sample.width > 0;
    frames.push_back(report.agreement);
  }
  const ListAgreement list = agreement_of(frames);
  DataFindings findings = findings_of(*dataset, reports, options);
  findings.problems.insert(findings.problems.begin(), lacking.begin(), lacking.end());
  out << "  samples        " << dataset->size() << " (" << dataset->skipped()
      << " lines without ground truth left out)\n"
      << "  images         " << readable << " readable: " << describe_sizes(reports, &SampleReport::stored) << '\n'
      << "  after crop     " << describe_sizes(reports, &SampleReport::sample) << '\n'
      << "  ground truth   " << describe_depth(depth, spec) << '\n'
      << "  teacher        " << (spec.teacher ? describe_depth(teacher, spec) : "not used") << '\n';
  if (list.frames > 0) out << "  teacher/truth  " << concat_text(std::setprecision(3), list.ratio) << '\n';
  const int64_t count = bad.count + static_cast<int64_t>(findings.problems.size());
  std::vector<std::string> lines = bad.named;
  lines.insert(lines.end(), findings.problems.begin(), findings.problems.end());
  out << "  problems       " << count << '\n';
  print_lines(lines, count, options.max_problems_shown, "", out);
  if (!findings.notes.empty()) out << "  notes          " << findings.notes.size() << '\n';
  print_lines(findings.notes, static_cast<int64_t>(findings.notes.size()), options.max_problems_shown, "note: ", out);
  return count;
}

// Images that are in both lists: allowed, but worth knowing.
void note_shared_images(const DatasetSpec& train, const DatasetSpec& scored, const std::string& title,
                        std::ostream& out) {
  if (train.root != scored.root) return;
  const Dataset first(train), second(scored);
  std::set<std::string> images;
  for (int64_t i = 0; i < first.size(); ++i) images.insert(first.entry(i).image);
  int64_t shared = 0;
  for (int64_t i = 0; i < second.size(); ++i) shared += images.contains(second.entry(i).image);
  if (shared > 0) out << "note: " << shared << " images are in both the training and the " << title << " list\n";
}

}  // namespace

std::vector<std::string> repeated_lines(const Dataset& dataset) {
  std::map<std::pair<std::string, std::string>, int64_t> first;
  std::vector<std::string> problems;
  for (int64_t i = 0; i < dataset.size(); ++i) {
    const ListEntry& entry = dataset.entry(i);
    const auto [seen, is_new] = first.try_emplace({entry.image, entry.depth}, i);
    if (is_new) continue;
    problems.push_back(concat_text(dataset.where(i), ": expected each line once, found ", entry.image, " as in line ",
                                   dataset.entry(seen->second).line, " again"));
  }
  return problems;
}

DataFindings compare_with_truth(const Dataset& dataset, int64_t most_frames) {
  if (!dataset.spec().teacher) return {};
  const int64_t count = std::min(dataset.size(), most_frames);
  std::vector<int64_t> indices;
  for (int64_t i = 0; i < count; ++i) indices.push_back(i * dataset.size() / count);
  std::vector<MapAgreement> frames(indices.size());
  std::vector<double> rises(indices.size());
  parallel_for(count, 1, [&](int64_t at) {
    const auto i = static_cast<size_t>(at);
    std::vector<std::string> ignored;
    attempt(ignored, [&] {
      const Sample sample = dataset.load(indices[i]);
      if (sample.teacher.empty()) return;
      const DepthMap teacher = sample.teacher.copy();
      if (sample.depth.empty())
        rises[i] = rise_towards_bottom(teacher);
      else
        frames[i] = compare_maps(teacher, sample.depth.copy(), dataset.spec().max_depth);
    });
  });
  return judge_maps(dataset, indices, frames, rises);
}

int64_t scored_pixels(const Dataset& dataset, int64_t index, const Protocol& protocol) {
  const std::string path = dataset.depth_path(index);
  if (path.empty()) return 0;
  return at_line(dataset.where(index), [&] {
    DepthMap truth = read_map(path, dataset.spec().depth);
    truth = crop(truth, frame_rect(protocol, truth.size()));
    const std::vector<uint8_t> valid = valid_mask(protocol, truth.size(), truth.values);
    return int64_t{std::count(valid.begin(), valid.end(), uint8_t{1})};
  });
}

void check_scored(const Dataset& dataset, const Protocol& protocol) {
  for (int64_t i = 0; i < dataset.size(); ++i) {
    if (scored_pixels(dataset, i, protocol) > 0) return;
  }
  fail(dataset.spec().list, kNothingScored);
}

int check_data(const DatasetSpec& train, const DatasetSpec* scored, const CheckOptions& options, std::ostream& out) {
  CheckOptions cropped = options, framed = options;
  cropped.protocol.reset();
  framed.training.reset();
  framed.distilled = nullptr;
  int64_t problems = check_set("train", train, cropped, out);
  if (scored != nullptr) {
    problems += check_set(options.scored, *scored, framed, out);
    if (problems == 0) note_shared_images(train, *scored, options.scored, out);
  }
  if (problems > 0) {
    out << "training would fail: " << problems << (problems == 1 ? " problem\n" : " problems\n");
  } else {
    out << "training would run: no problems\n";
  }
  return problems > 0 ? 1 : 0;
}

}  // namespace depthstill
