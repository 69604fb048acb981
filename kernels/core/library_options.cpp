#include "kernels/core/library_options.h"

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "kernels/core/error.h"

namespace depthstill {
namespace {

// The index of the variable's value among `values`; `otherwise` if it is not set.
int one_of(const char* variable, const char* const (&values)[2], int otherwise) {
  const char* text = std::getenv(variable);
  if (text == nullptr) return otherwise;
  for (int i = 0; i < 2; ++i) {
    if (std::strcmp(text, values[i]) == 0) return i;
  }
  fail(variable, ": expected ", values[0], " or ", values[1], ", got '", text, "'");
}

bool flag(const char* variable, bool otherwise) { return one_of(variable, {"0", "1"}, otherwise ? 1 : 0) == 1; }

// The variable's value in bytes; nothing if it is not set.
std::optional<int64_t> megabytes(const char* variable) {
  const char* text = std::getenv(variable);
  if (text == nullptr) return std::nullopt;
  const std::string_view digits = text;
  int64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  check(error == std::errc() && end == digits.data() + digits.size() && value >= 0 && value <= (int64_t{1} << 20),
        variable, ": expected a number of megabytes up to 1048576, got '", text, "'");
  return value << 20;
}

std::string cache_folder() {
  if (const char* folder = std::getenv("DEPTHSTILL_CACHE")) return folder;
  if (const char* folder = std::getenv("XDG_CACHE_HOME"); folder != nullptr && *folder != '\0')
    return std::string(folder) + "/depthstill";
  if (const char* home = std::getenv("HOME"); home != nullptr && *home != '\0')
    return std::string(home) + "/.cache/depthstill";
  return "";
}

}  // namespace

LibraryOptions library_options_from_environment() {
  LibraryOptions options;
  options.deterministic = flag("DEPTHSTILL_DETERMINISTIC", options.deterministic);
  options.strict_fp32 = one_of("DEPTHSTILL_FP32", {"tf32", "strict"}, options.strict_fp32 ? 1 : 0) == 1;
  options.measure = flag("DEPTHSTILL_MEASURE", options.measure);
  options.all_plans = flag("DEPTHSTILL_ALL_PLANS", options.all_plans);
  options.log = flag("DEPTHSTILL_LOG_PLANS", options.log);
  options.workspace_cap_bytes = megabytes("DEPTHSTILL_WORKSPACE_MB");
  options.cache_folder = cache_folder();
  return options;
}

LibraryOptions& library_options() {
  static LibraryOptions options = library_options_from_environment();
  return options;
}

}  // namespace depthstill
