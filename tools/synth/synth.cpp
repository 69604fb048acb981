#include "tools/synth/synth.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <filesystem>
#include <iomanip>
#include <mutex>
#include <sstream>

#include "engine/data/dataset.h"
#include "engine/io/atomic_file.h"
#include "engine/io/text_file.h"
#include "kernels/core/error.h"
#include "kernels/core/parallel.h"
#include "tools/output_plan.h"
#include "tools/synth/synth_scene.h"
#include "tools/usage.h"

namespace depthstill {
namespace {

constexpr float kTeacherMaxMetres = 80.0f;
constexpr MapFormat kTruthFormat{1.0 / 256}, kTeacherFormat{80.0 / 65535};
constexpr float kTruthMaxMetres = 65535.0f / 256;
constexpr int kFastPng = 3;

// A folder of ours is known by the first line.
constexpr const char* kReadme =
    "Simulated data. Images are ray-cast from procedural scenes, depth is exact, and the \"teacher\" maps are that "
    "depth\n"
    "with blur, a smooth scale error and a distance bias added: no network and no camera was involved. For trying out\n"
    "the program and for tests; figures obtained on it say nothing about real scenes.\n"
    "\n"
    "train.txt, val.txt      image, ground truth, focal length in pixels; test.txt where it was asked for\n"
    "raw/                    8-bit RGB PNG\n"
    "gt/                     16-bit PNG, metres = value / 256, 0 = no depth (sky)\n"
    "teacher/, teacher_val/  16-bit PNG, metres = value * 80 / 65535, one flat folder per list\n";

// The lists in the order of their random streams.
struct ListRow {
  const char *name, *teacher;
  int SynthOptions::*frames;
};
constexpr ListRow kLists[] = {{"train", "teacher", &SynthOptions::train},
                              {"val", "teacher_val", &SynthOptions::validation},
                              {"test", "teacher_test", &SynthOptions::test}};

struct Frame {
  size_t list;
  int number;
  std::string image, depth;  // relative to the set's root
  float focal = 0;           // known once it is written
};

Frame name_frame(size_t list, int number) {
  constexpr int kPerDrive = 1000;
  std::ostringstream drive, file;
  drive << kLists[list].name << "_drive_" << std::setw(4) << std::setfill('0') << number / kPerDrive << "_sync";
  file << std::setw(10) << std::setfill('0') << number % kPerDrive << ".png";
  return {list, number, "raw/synth/" + drive.str() + "/image_02/data/" + file.str(),
          "gt/" + drive.str() + "/proj_depth/groundtruth/image_02/" + file.str(), 0};
}

std::string teacher_path(const SynthOptions& options, const Frame& frame) {
  return options.out + "/" + kLists[frame.list].teacher + "/" + flat_name(frame.image, ".png");
}

// A 64-beam scanner about as high as the camera: rows at equal angles from 2 degrees above the horizon to 25 below it,
// columns at equal angles.
void keep_scan_points(const synth::Camera& camera, Philox& random, std::vector<float>& depth) {
  const auto width = static_cast<size_t>(camera.size.width), height = static_cast<size_t>(camera.size.height);
  std::vector<float> kept(depth.size(), 0.0f);
  for (int beam = 0; beam < 64; ++beam) {
    const float elevation = (2.0f - 27.0f * static_cast<float>(beam) / 63) * 0.01745329f;
    for (float azimuth = -0.9f; azimuth < 0.9f; azimuth += 0.0031f) {
      const float x = camera.centre_x + camera.focal * std::tan(azimuth);
      const float y = camera.centre_y - camera.focal * std::tan(elevation) / std::cos(azimuth);
      if (x < 0 || y < 0 || random.uniform() < 0.1) continue;  // a tenth of the beams come back from nothing
      const auto column = static_cast<size_t>(x), row = static_cast<size_t>(y);
      if (column < width && row < height) kept[row * width + column] = depth[row * width + column];
    }
  }
  depth = std::move(kept);
}

void write_frame(const SynthOptions& options, Frame& frame) {
  Philox random(options.seed, stream_id(RandomUse::kSynthesize, static_cast<int64_t>(frame.list), frame.number));
  const bool street =
      options.scene == SynthScene::kStreet || (options.scene == SynthScene::kMixed && frame.number % 2 == 0);
  const synth::Scene scene = street ? synth::make_street(random, options.size) : synth::make_room(random, options.size);
  frame.focal = scene.camera.focal;
  synth::Rendering rendering = synth::render(scene, random);
  for (float& metres : rendering.depth) {
    if (metres > kTruthMaxMetres) metres = 0;
  }
  DepthMap depth{options.size.width, options.size.height, std::move(rendering.depth)};

  const bool kitti = options.size.width >= 1216 && options.size.height >= 352;
  const CropRule rule = kitti ? CropRule::kKittiBenchmark : CropRule::kNone;
  const DepthMap seen = crop(depth, crop_rect(rule, options.size, frame.image));
  write_map(teacher_path(options, frame), simulate_teacher(seen, random), kTeacherFormat);
  write_png(options.out + "/" + frame.image, rendering.image, kFastPng);
  if (options.sparse) keep_scan_points(scene.camera, random, depth.values);
  write_map(options.out + "/" + frame.depth, depth, kTruthFormat);
}

// Threads must not throw; the first error comes out afterwards.
template <class Body>
void parallel_frames(std::vector<Frame>& frames, const Body& body) {
  std::exception_ptr error;
  std::mutex mutex;
  parallel_for(static_cast<int64_t>(frames.size()), 1, [&](int64_t i) {
    try {
      {
        const std::lock_guard lock(mutex);
        if (error) return;
      }
      body(frames[static_cast<size_t>(i)]);
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!error) error = std::current_exception();
    }
  });
  if (error) std::rethrow_exception(error);
}

// A Gaussian blur along one axis; `step` between neighbours, `count` values a line, edges repeated.
void blur_line(const float* from, size_t step, int count, const std::vector<float>& half_kernel, float* to) {
  const int reach = static_cast<int>(half_kernel.size()) - 1;
  for (int i = 0; i < count; ++i) {
    float sum = 0;
    for (int k = -reach; k <= reach; ++k) {
      sum += half_kernel[static_cast<size_t>(std::abs(k))] *
             from[static_cast<size_t>(std::clamp(i + k, 0, count - 1)) * step];
    }
    to[static_cast<size_t>(i) * step] = sum;
  }
}

std::vector<float> blur(const std::vector<float>& values, ImageSize size, float sigma) {
  std::vector<float> half_kernel(static_cast<size_t>(std::ceil(2.5f * sigma)) + 1);
  float total = 0;
  for (size_t k = 0; k < half_kernel.size(); ++k) {
    const float x = static_cast<float>(k) / sigma;
    half_kernel[k] = std::exp(-0.5f * x * x);
    total += half_kernel[k] * (k == 0 ? 1.0f : 2.0f);
  }
  for (float& weight : half_kernel) weight /= total;
  const auto width = static_cast<size_t>(size.width), height = static_cast<size_t>(size.height);
  std::vector<float> rows(values.size()), out(values.size());
  for (size_t y = 0; y < height; ++y) blur_line(&values[y * width], 1, size.width, half_kernel, &rows[y * width]);
  for (size_t x = 0; x < width; ++x) blur_line(&rows[x], width, size.height, half_kernel, &out[x]);
  return out;
}

std::string list_path(const SynthOptions& options, const ListRow& list) {
  return concat_text(options.out, "/", list.name, ".txt");
}

void check_options(const SynthOptions& options) {
  check(!options.out.empty(), "synth: expected a folder to write to, found none");
  check(options.train >= 1 && options.validation >= 1, "synth: expected at least one frame per list, got ",
        options.train, " and ", options.validation);
  check(options.size.width >= 32 && options.size.height >= 32 && options.size.width <= 4096 &&
            options.size.height <= 4096,
        "synth: expected 32 to 4096 pixels a side, got ", options.size);
}

void check_folder(const SynthOptions& options, const std::vector<Frame>& frames) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  const auto is_ours = [&](const std::string& readme) {
    return fs::is_regular_file(readme, ignored) && read_text(readme).starts_with(split_lines(kReadme).front());
  };
  const bool is_empty = !fs::is_directory(options.out, ignored) || fs::is_empty(options.out, ignored);
  check_usage(is_empty || is_ours(options.out + "/README.txt"), options.out,
              ": expected an empty folder or an earlier simulated data set, found something else");
  OutputPlan plan(Existing::kOverwrite, options.out);
  plan.writes(options.out + "/README.txt", "README.txt");
  for (const ListRow& list : kLists) plan.writes(list_path(options, list), list.name);
  for (const Frame& frame : frames) {
    plan.writes(options.out + "/" + frame.image, frame.image);
    plan.writes(options.out + "/" + frame.depth, frame.depth);
    plan.writes(teacher_path(options, frame), frame.image);
  }
  plan.approve();
}

}  // namespace

DepthMap simulate_teacher(const DepthMap& depth, Philox& random) {
  DepthMap teacher = depth;
  const uint32_t seed = random.bits();
  const auto amplitude = static_cast<float>(random.uniform(0.04, 0.10)),
             pull = static_cast<float>(random.uniform(0, 0.08));
  const auto sigma = static_cast<float>(random.uniform(1.2, 2.6));
  for (float& metres : teacher.values) {
    metres = std::log(metres > 0 ? std::min(metres, kTeacherMaxMetres) : kTeacherMaxMetres);
  }
  teacher.values = blur(teacher.values, depth.size(), sigma);  // the blur is of logarithms: near edges stay near
  for (size_t i = 0; i < teacher.values.size(); ++i) {
    const auto x = static_cast<float>(i % static_cast<size_t>(depth.width));
    const size_t row = i / static_cast<size_t>(depth.width);
    const auto y = static_cast<float>(row);
    const float smooth = synth::noise({x / 210, y / 120, 0}, seed), rough = synth::noise({x / 13, y / 13, 5}, seed);
    const float metres = std::exp(teacher.values[i] + amplitude * smooth + 0.012f * rough);
    teacher.values[i] = std::clamp(metres * (1 - pull * metres / kTeacherMaxMetres), 1e-3f, kTeacherMaxMetres);
  }
  return teacher;
}

void synthesize(const SynthOptions& options) {
  check_options(options);
  std::vector<Frame> frames;
  for (size_t list = 0; list < std::size(kLists); ++list) {
    for (int i = 0; i < options.*kLists[list].frames; ++i) frames.push_back(name_frame(list, i));
  }
  check_folder(options, frames);
  const auto folder_of = [&](const std::string& path) { return options.out + "/" + path.substr(0, path.rfind('/')); };
  for (const Frame& frame : frames) {
    make_folder(folder_of(frame.image));
    make_folder(options.out + "/" + kLists[frame.list].teacher);
    make_folder(folder_of(frame.depth));
  }
  write_file(options.out + "/README.txt", kReadme);

  std::atomic<int> done{0};
  parallel_frames(frames, [&](Frame& frame) {
    write_frame(options, frame);
    if (options.progress) options.progress(++done, static_cast<int>(frames.size()));
  });

  // The lists come last: where they exist, the set is whole.
  std::string lists[std::size(kLists)];
  for (const Frame& frame : frames) {
    lists[frame.list] += concat_text(frame.image, ' ', frame.depth, ' ', frame.focal, '\n');
  }
  for (size_t i = 0; i < std::size(kLists); ++i) {
    const std::string path = list_path(options, kLists[i]);
    if (lists[i].empty())
      std::filesystem::remove(path);  // an earlier set's
    else
      write_file(path, lists[i]);
  }
}

}  // namespace depthstill
