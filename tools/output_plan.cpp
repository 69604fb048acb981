#include "tools/output_plan.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "engine/data/dataset.h"
#include "engine/io/atomic_file.h"
#include "tools/file_id.h"
#include "tools/recipe.h"
#include "tools/usage.h"

namespace depthstill {
namespace {

namespace fs = std::filesystem;

bool same_source(const std::string& a, const std::string& b) {
  if (a == b) return true;
  const auto first = file_id(a);
  return first && first == file_id(b);
}

// The folder itself, or the nearest one above it that exists.
fs::path existing_folder(fs::path folder) {
  std::error_code ignored;
  while (!fs::exists(folder, ignored) && folder != folder.parent_path()) folder = folder.parent_path();
  return folder;
}

// 0 if files can be made in the folder, else the errno that says why not.
int why_unwritable(const fs::path& folder) {
  struct stat status {};
  if (stat(folder.c_str(), &status) != 0) return errno;
  if (!S_ISDIR(status.st_mode)) return ENOTDIR;
  return access(folder.c_str(), W_OK | X_OK) == 0 ? 0 : errno;
}

}  // namespace

OutputPlan::OutputPlan(Existing existing, std::string folder) : existing_(existing), folder_(std::move(folder)) {}

void OutputPlan::reads(const std::string& path) {
  if (!path.empty()) inputs_.push_back(path);
}

void OutputPlan::reads(const Recipe& recipe) {
  for (const std::string& file : recipe.files) reads(file);
}

void OutputPlan::reads(const Dataset& data) {
  reads((fs::path(data.spec().root) / data.spec().list).string());
  const auto reads_if_found = [&](auto find) {
    try {
      reads(find());
    } catch (const Error&) {  // whoever needs the file says that there is none
    }
  };
  for (int64_t i = 0; i < data.size(); ++i) {
    reads_if_found([&] { return data.image_path(i); });
    reads_if_found([&] { return data.depth_path(i); });
  }
}

void OutputPlan::writes(const std::string& path, const std::string& source) {
  outputs_.push_back({path, source, existing_, !folder_.empty()});
}

void OutputPlan::replaces(const std::string& path, const std::string& source) {
  if (!path.empty()) outputs_.push_back({path, source, Existing::kOverwrite, false});
}

void OutputPlan::approve() {
  for (Output& output : outputs_) look_at(output);
  refuse_inputs();
  refuse_two_sources();
  refuse_places();
  refuse_existing();
}

const std::string& OutputPlan::place_of_folder(const std::string& folder) {
  const auto [known, is_new] = folders_.try_emplace(folder);
  if (is_new) {
    std::error_code error;
    known->second = fs::weakly_canonical(fs::current_path() / folder, error).string();
    check(!error, folder, ": expected a path that can be followed, found: ", error.message());
  }
  return known->second;
}

void OutputPlan::look_at(Output& output) {
  struct stat status {};
  const bool found = stat(output.path.c_str(), &status) == 0;
  check(!found || !S_ISDIR(status.st_mode), output.path, ": expected a file to write, found a folder");
  output.exists = found && S_ISREG(status.st_mode);
  const bool opened = output.existing == Existing::kOverwrite || !output.exists;
  check(!found || !opened || access(output.path.c_str(), W_OK) == 0, output.path,
        ": expected a file that can be written to, found: ", std::strerror(errno));
  if (found && !output.exists) return;
  const fs::path file = follow_links(output.path);
  output.place = (fs::path(place_of_folder(file.parent_path().string())) / file.filename()).string();
}

void OutputPlan::refuse_inputs() const {
  std::map<FileId, const Output*> written;
  for (const Output& output : outputs_) {
    if (const auto id = output.exists ? file_id(output.path) : std::nullopt) written.emplace(*id, &output);
  }
  if (written.empty()) return;
  for (const std::string& input : inputs_) {
    const auto id = file_id(input);
    const auto found = id ? written.find(*id) : written.end();
    if (found == written.end()) continue;
    const std::string& path = found->second->path;
    check_usage(false, path, ": expected an output that is no input, found the input ",
                path == input ? "itself" : input, "; write to another place");
  }
}

void OutputPlan::refuse_two_sources() const {
  std::map<std::string, const Output*> written;
  for (const Output& output : outputs_) {
    if (output.place.empty()) continue;  // a device
    const auto [first, is_new] = written.emplace(output.place, &output);
    check_usage(is_new || same_source(first->second->source, output.source), output.path,
                ": expected one source of this output, found two: ", first->second->source, " and ", output.source);
  }
}

void OutputPlan::refuse_places() {
  const fs::path below = fs::path(place_of_folder(folder_)) / "";  // it ends with '/'
  const auto is_made = [&](const std::string& folder) {
    return !folder_.empty() && folder == place_of_folder(folder_);
  };
  std::set<std::string> seen;
  for (const Output& output : outputs_) {
    if (output.place.empty()) continue;
    check_usage(!output.below || output.place.starts_with(below.native()), output.path, ": expected a path below ",
                folder_, ", found ", output.place);
    const std::string folder = fs::path(output.place).parent_path().string();
    if (!seen.insert(folder).second) continue;
    const int reason = why_unwritable(output.below || is_made(folder) ? existing_folder(folder) : fs::path(folder));
    check(reason == 0, output.path, ": expected a writable folder, found: ", std::strerror(reason));
  }
}

void OutputPlan::refuse_existing() {
  std::set<std::string> in_the_way;
  std::string first;
  for (const Output& output : outputs_) {
    if (!output.exists) continue;
    if (output.existing == Existing::kSkip) skipped_.insert(output.path);
    if (output.existing != Existing::kRefuse || !in_the_way.insert(output.place).second) continue;
    if (first.empty()) first = output.path;
  }
  check_usage(in_the_way.empty(), first, ": expected no file of this name, found one",
              in_the_way.size() > 1 ? concat_text(" (and ", in_the_way.size() - 1, " more such)") : "",
              "; give --overwrite or --skip-existing, or write to another place");
}

}  // namespace depthstill
