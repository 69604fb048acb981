#include "tools/student_file.h"

#include <algorithm>
#include <charconv>

#include "kernels/error.h"

namespace depthstill {
namespace {

constexpr const char* kTrainingPrefix = "training.";  // optimiser moments and the like in last.safetensors

std::string number_text(double value) {
  char text[40];
  const auto [end, error] = std::to_chars(text, text + sizeof text, value);
  return {text, end};
}

double number_in(const Metadata& metadata, const std::string& key, double fallback, const std::string& path) {
  const auto at = metadata.find(key);
  if (at == metadata.end()) return fallback;
  double value = 0;
  const char* const end = at->second.data() + at->second.size();
  const auto [rest, error] = std::from_chars(at->second.data(), end, value);
  check(error == std::errc() && rest == end, path, ": metadata ", key, ": expected a number, found '", at->second, "'");
  return value;
}

}  // namespace

Metadata student_metadata(const Student& student, const InputScale& scale) {
  const StudentOptions& options = student.options();
  return {{"model", student.name()},
          {"head", options.head == Head::kDpm ? "dpm" : "regression"},
          {"bins", std::to_string(options.bins)},
          {"min_depth", number_text(static_cast<double>(options.d_min))},
          {"max_depth", number_text(static_cast<double>(options.d_max))},
          {"input_scale_height", number_text(scale.height)},
          {"input_scale_width", number_text(scale.width)}};
}

void load_student_weights(Student& student, const SafetensorsFile& file) {
  const std::vector<std::string> dead = student.dead_parameter_names();
  LoadOptions options;
  options.may_ignore = [&](const std::string& name) {
    return name.starts_with(kTrainingPrefix) || std::find(dead.begin(), dead.end(), name) != dead.end();
  };
  load_state(student, file, options);
}

LoadedStudent load_student(const std::string& path, const std::string& model, Device device) {
  const SafetensorsFile file(path);
  const Metadata& metadata = file.metadata();
  const auto named = metadata.find("model");
  const bool ours = named != metadata.end();
  check(ours || !model.empty(), path, ": the file does not say which model it is: name it with --model");
  check(!ours || model.empty() || named->second == model, path, ": expected the model ", model, ", found ",
        ours ? named->second : "");
  StudentOptions options;
  const auto head = metadata.find("head");
  if (head != metadata.end()) {
    check(head->second == "dpm" || head->second == "regression", path,
          ": metadata head: expected dpm or regression, found '", head->second, "'");
    options.head = head->second == "dpm" ? Head::kDpm : Head::kRegression;
  }
  options.bins = static_cast<int64_t>(number_in(metadata, "bins", static_cast<double>(options.bins), path));
  options.d_min = static_cast<float>(number_in(metadata, "min_depth", static_cast<double>(options.d_min), path));
  options.d_max = static_cast<float>(number_in(metadata, "max_depth", static_cast<double>(options.d_max), path));
  check(options.bins >= 2 && options.bins <= 4096, path, ": metadata bins: expected 2 to 4096, found ", options.bins);

  LoadedStudent loaded;
  loaded.scale.height = number_in(metadata, "input_scale_height", 1, path);
  loaded.scale.width = number_in(metadata, "input_scale_width", 1, path);
  for (const double scale : {loaded.scale.height, loaded.scale.width}) {
    check(scale > 0.01 && scale < 100, path, ": metadata input_scale: expected 0.01 to 100, found ", scale);
  }
  loaded.student = make_student(ours ? named->second : model, options);
  load_student_weights(*loaded.student, file);
  loaded.student->to(device);
  loaded.student->eval();
  return loaded;
}

}  // namespace depthstill
