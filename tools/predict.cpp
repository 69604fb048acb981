// depthstill predict: depth of images or folders of any size.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <set>
#include <sstream>

#include "engine/io/atomic_file.h"
#include "engine/io/npy.h"
#include "engine/ops.h"
#include "models/predictor.h"
#include "tools/args.h"
#include "tools/find_images.h"
#include "tools/interrupt.h"
#include "tools/load_network.h"
#include "tools/output_plan.h"
#include "tools/progress.h"
#include "tools/recipe.h"
#include "tools/report/colormap.h"

namespace depthstill {
namespace {

namespace fs = std::filesystem;

struct PredictArgs {
  std::vector<std::string> inputs;
  std::string weights, recipe, out, formats = "png,colour", colormap = "turbo", range;
  double png_scale = 256;
  int side = 0;
  bool flip = false;
  double focal = 0;
  std::string raw_input, raw_output;
  ExistingArgs existing;
  ComputeArgs compute;
};

std::set<std::string> parse_formats(const std::string& text) {
  std::set<std::string> formats;
  std::istringstream words(text);
  for (std::string word; std::getline(words, word, ',');) {
    check_usage(word == "png" || word == "npy" || word == "pfm" || word == "colour",
                "predict: --format: expected png, npy, pfm or colour, got '", word, "'");
    formats.insert(word);
  }
  check_usage(!formats.empty(), "predict: --format: expected at least one format");
  return formats;
}

// "near:far" in metres.
ColourRange parse_range(const std::string& text) {
  ColourRange range;
  char colon = 0;
  std::istringstream in(text);
  check_usage(static_cast<bool>(in >> range.near >> colon >> range.far) && colon == ':' && in.peek() == EOF &&
                  range.near > 0 && range.far > range.near,
              "predict: --colour-range: expected NEAR:FAR in metres such as 1:80, got '", text, "'");
  return range;
}

void reads_model(OutputPlan& plan, const PredictArgs& args) {
  plan.reads(args.weights);
  if (args.recipe.empty()) {  // what lies beside them counts for older weights alone, and is read then
    plan.reads((fs::path(args.weights).parent_path() / "recipe.toml").string());
  } else {
    plan.reads(load_recipe(args.recipe));
  }
}

struct Job {
  FoundImage image;
  std::map<std::string, std::string> files;  // files to write, by format
};

// What is to be written for each image. Images whose results are all there already are left out.
std::vector<Job> plan_jobs(const PredictArgs& args, const std::vector<FoundImage>& images) {
  const std::set<std::string> formats = parse_formats(args.formats);
  OutputPlan plan(args.existing.choice(), args.out);
  reads_model(plan, args);
  std::vector<Job> jobs;
  for (const FoundImage& image : images) {
    plan.reads(image.path);
    Job& job = jobs.emplace_back(Job{image, {}});
    const std::string base = (fs::path(args.out) / image.name).string();
    for (const std::string& format : formats) {
      job.files[format] = format == "colour" ? base + "_colour.png" : concat_text(base, '.', format);
      plan.writes(job.files[format], image.path);
    }
  }
  plan.approve();
  for (Job& job : jobs) {
    std::erase_if(job.files, [&](const auto& file) { return plan.skips(file.second); });
  }
  std::erase_if(jobs, [](const Job& job) { return job.files.empty(); });
  return jobs;
}

class Writer {
 public:
  Writer(const PredictArgs& args, const MapKind& kind)
      : relative_(kind.ambiguity != Ambiguity::kNone),
        inverse_(kind.quantity == Quantity::kInverseDepth),
        colormap_(parse_colormap(args.colormap)),
        metres_per_unit_(1 / args.png_scale),
        fixed_range_(!args.range.empty()) {
    if (fixed_range_) range_ = parse_range(args.range);
    check_usage(!relative_ || !fixed_range_, "predict: --colour-range is in metres, but the model's depth is relative");
    if (!parse_formats(args.formats).contains("png")) return;
    log_line(relative_
                 ? concat_text(name_of(kind), ": each PNG goes from ", inverse_ ? "its least value, 0," : "0, unknown,",
                               " to its greatest, 65535")
                 : concat_text("depth PNG: value / ", args.png_scale, " = metres, up to ", 65535 / args.png_scale));
  }

  void write(const std::map<std::string, std::string>& files, const DepthMap& depth) {
    for (const auto& [format, path] : files) {
      make_folder(fs::path(path).parent_path().string());
      if (format == "colour") {
        write_png(path, colour(depth));
      } else if (format == "png") {
        write_depth_png(path, depth);
      } else {
        write_map(path, depth, {1});
      }
    }
  }
  // Says what concerns the run as a whole, once all is written.
  void finish() const {
    if (clipped_ > 0) log_line(concat_text(clipped_, " depth PNGs cannot hold all depths: choose another --png-scale"));
  }

 private:
  void write_depth_png(const std::string& path, const DepthMap& depth) {
    if (relative_) {
      write_map(path, inverse_ ? stretch(depth, 65535) : scale_up(depth, 65535), {1});
      return;
    }
    const Clipping clipping = write_map(path, depth, {metres_per_unit_});
    if (clipping.any()) log_line(path + ": " + describe(clipping));
    clipped_ += clipping.any();
  }
  // The least value becomes `low`, the greatest `high`.
  static DepthMap stretch(const DepthMap& map, float high, float low = 0.0f) {
    const auto [least, greatest] = std::minmax_element(map.values.begin(), map.values.end());
    const float from = *least, factor = (high - low) / std::max(*greatest - from, 1e-20f);
    DepthMap stretched = map;
    for (float& value : stretched.values) value = low + (value - from) * factor;
    return stretched;
  }
  // The greatest value becomes `high`; 0 stays what it is of depth, unknown.
  static DepthMap scale_up(DepthMap map, float high) {
    const float factor = high / *std::max_element(map.values.begin(), map.values.end());
    for (float& value : map.values) value *= factor;
    return map;
  }
  Image8 colour(const DepthMap& depth) const {
    // Inverse depth: the greatest value is the nearest. 0 would mean "unknown".
    if (inverse_) return colour_depth(stretch(depth, 2, 1), colormap_, {2, 1, false});
    return colour_depth(depth, colormap_, fixed_range_ ? range_ : colour_range(depth));
  }

  bool relative_, inverse_;
  Colormap colormap_;
  double metres_per_unit_;
  int64_t clipped_ = 0;  // PNGs that could not hold their map
  bool fixed_range_;
  ColourRange range_;
};

struct Model {
  std::unique_ptr<DepthModel> student;
  PredictOptions options;
};

Model model_of(const PredictArgs& args) {
  Model model;
  model.student =
      args.recipe.empty() ? load_network(args.weights) : load_network(args.weights, load_recipe(args.recipe));
  model.options.flip = args.flip;
  model.options.side = args.side;
  model.options.device = args.compute.choose_device();
  model.options.graph = true;
  model.options.note = log_line;
  model.options.dtype = args.compute.dtype(name_of(model.student->trained_use().value_or(TrainedUse{}).dtype));
  model.student->to(model.options.device);
  model.student->eval();
  return model;
}

// Reads (3, H, W) as the network is fed and writes (H, W), or (bins, H, W), before the last activation. This compares
// networks bit by bit with others, without either side's image reading and resizing.
int run_raw(const PredictArgs& args) {
  OutputPlan plan(args.existing.choice());
  reads_model(plan, args);
  plan.reads(args.raw_input);
  plan.writes(args.raw_output, "--raw-output");
  plan.approve();
  if (plan.skips(args.raw_output)) return kExitOk;
  const Model model = model_of(args);
  const FloatArray input = read_npy(args.raw_input);
  check(input.shape.size() == 3 && input.shape[0] == 3, args.raw_input, ": expected an array (3, H, W), found ",
        input.shape.size(), " dimensions, the first of size ", input.shape.empty() ? 0 : input.shape[0]);
  const int64_t height = input.shape[1], width = input.shape[2], plane = height * width;
  std::vector<float> pixels(input.values.size());
  for (int64_t i = 0; i < plane; ++i)
    for (int64_t c = 0; c < 3; ++c)
      pixels[static_cast<size_t>(3 * i + c)] = input.values[static_cast<size_t>(c * plane + i)];
  const NoGrad no_grad;
  Tensor image = tensor<float>({1, height, width, 3}, pixels, model.options.device);
  if (model.options.dtype != DType::kFloat) image = cast(image, model.options.dtype);
  Tensor raw = model.student->forward_raw(image);
  if (raw.dtype() != DType::kFloat) raw = cast(raw, DType::kFloat);
  const std::vector<float> values = to_vector<float>(to_device(raw, Device::kCpu));
  check(std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); }), args.raw_input,
        ": expected a finite output of ", model.student->name(), ", found NaN or infinity");
  const ModelOptions& student = model.student->options();
  const int64_t stored = raw.size(3), channels = student.head == Head::kDpm ? student.bins : stored;
  std::vector<float> planes(static_cast<size_t>(channels * plane));
  for (int64_t i = 0; i < plane; ++i)
    for (int64_t c = 0; c < channels; ++c)
      planes[static_cast<size_t>(c * plane + i)] = values[static_cast<size_t>(stored * i + c)];
  std::vector<int64_t> shape{height, width};
  if (channels > 1) shape.insert(shape.begin(), channels);
  write_npy(args.raw_output, shape, planes);
  std::printf("%s\n", args.raw_output.c_str());
  return kExitOk;
}

// Returns the images that failed.
std::vector<std::string> predict_all(const PredictArgs& args, const std::vector<Job>& jobs) {
  const Model model = model_of(args);
  const Predictor predictor(*model.student, model.options);
  check_usage(args.focal == 0 || predictor.needs_focal(),
              "predict: --focal: expected a network whose metres depend on it (da3metric_*), found ",
              model.student->name());
  if (predictor.needs_focal() && args.focal == 0) {
    log_line(concat_text(model.student->name(), ": depth is up to scale; --focal makes it metres"));
  }
  Writer writer(args, predictor.kind(args.focal));
  Progress progress("predict", "img", static_cast<int64_t>(jobs.size()));
  std::vector<std::string> failed;
  int64_t done = 0;
  for (const Job& job : jobs) {
    throw_if_interrupted();
    try {
      writer.write(job.files, predictor(read_image(job.image.path), job.image.path, args.focal));
      print_result((fs::path(args.out) / job.image.name).string());
    } catch (const Error& error) {
      log_line(error.what());
      failed.push_back(job.image.path);
    }
    progress.update(++done);
  }
  progress.finish();
  writer.finish();
  return failed;
}

int run_predict(const PredictArgs& args) {
  check_usage(args.raw_input.empty() == args.raw_output.empty(),
              "predict: expected --raw-input and --raw-output together");
  check_usage(args.raw_input.empty() != (args.inputs.empty() || args.out.empty()),
              "predict: expected images and --out, or --raw-input and --raw-output");
  if (!args.raw_input.empty()) return run_raw(args);
  check_usage(args.png_scale > 0 && std::isfinite(args.png_scale),
              "predict: --png-scale: expected a number greater than 0, got ", args.png_scale);
  const FoundImages found = find_images(args.inputs, args.out);
  const std::vector<Job> jobs = plan_jobs(args, found.images);
  for (const std::string& message : found.unreadable) log_line(message);
  if (!found.left_out.empty()) log_line("left out: " + left_out_text(found));
  if (const size_t kept = found.images.size() - jobs.size(); kept > 0) {
    log_line(concat_text(kept, " of ", found.images.size(), " images have their results already"));
  }
  std::vector<std::string> failed;
  if (!jobs.empty()) failed = predict_all(args, jobs);
  check(failed.empty(), failed.size(), " of ", jobs.size(),
        " images failed: ", list_text(failed, [](const std::string& name) { return name; }));
  check(found.unreadable.empty(), "folders that could not be searched: ", found.unreadable.size(), "; ",
        found.unreadable.empty() ? "" : found.unreadable.front());
  return kExitOk;
}

}  // namespace

void add_predict_command(CLI::App& app, Run& run) {
  const auto args = std::make_shared<PredictArgs>();
  CLI::App* command = app.add_subcommand("predict", "Predict the depth of images and folders of images, of any size");
  command->add_option("inputs", args->inputs,
                      "PNG and JPEG files, and folders (searched with linked ones, names kept)");
  command->add_option("--weights", args->weights, "weights of the model: .safetensors or .pth")->required();
  command->add_option("--out", args->out, "folder to write to; below a folder of images, it is not searched");
  command->add_option("--recipe", args->recipe,
                      "recipe of the model [default: what the weights say; for older ones recipe.toml beside them]");
  command
      ->add_option(
          "--format", args->formats,
          "comma-separated: png (16-bit), npy and pfm (float32, as predicted), colour (picture NAME_colour.png)")
      ->capture_default_str();
  command->add_option("--png-scale", args->png_scale, "units per metre of the depth PNG")->capture_default_str();
  command->add_option("--colormap", args->colormap, "of the pictures: turbo, magma or grey")
      ->check(CLI::IsMember({"turbo", "magma", "grey"}))
      ->capture_default_str();
  command->add_option("--colour-range", args->range,
                      "NEAR:FAR in metres [default: 2nd to 98th percentile of each image]");
  command
      ->add_option("--side", args->side,
                   "pixels that the image's shorter side (midas_small, da3*: the longer) is brought to, aspect kept "
                   "[default: as "
                   "the network was trained]")
      ->check(CLI::Range(1, kMaxImageSide));
  command
      ->add_option("--focal", args->focal,
                   "focal length of the images in their pixels, by which da3metric_* give metres [default: not known, "
                   "depth up to scale]")
      ->check(CLI::PositiveNumber);
  command->add_option("--raw-input", args->raw_input,
                      "instead of images: a .npy (3, H, W), normalised as the network is fed");
  command->add_option("--raw-output", args->raw_output,
                      ".npy for the network's output to --raw-input, before its last activation");
  args->existing.add_to(*command, "results");
  command->add_flag("--flip", args->flip, "average with the prediction for the mirrored image (twice the time)");
  args->compute.add_to(*command);
  command->callback([args, &run] { run = [args] { return run_predict(*args); }; });
}

}  // namespace depthstill
