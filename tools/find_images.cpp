#include "tools/find_images.h"

#include <algorithm>
#include <deque>
#include <filesystem>
#include <iterator>
#include <optional>
#include <set>
#include <system_error>
#include <utility>

#include "kernels/core/error.h"
#include "tools/file_id.h"

namespace depthstill {
namespace {

namespace fs = std::filesystem;

std::string lower_extension(const fs::path& path) {
  std::string extension = path.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return extension;
}

bool is_image(const fs::path& path) {
  const std::string extension = lower_extension(path);
  return extension == ".png" || extension == ".jpg" || extension == ".jpeg";
}

// macOS keeps what it knows of NAME in ._NAME on disks that are not its own.
bool is_macos_note(const fs::path& path) { return path.filename().string().starts_with("._"); }

// One folder given as an input. Links wait until all real folders are done, so that what can be reached without them is
// named without them.
class FolderSearch {
 public:
  FolderSearch(const std::string& folder, std::optional<FileId> except, FoundImages& found)
      : found_(found), except_(except) {
    waiting_.emplace_back(folder, "");
    while (!waiting_.empty()) {
      const auto [path, name] = std::move(waiting_.front());
      waiting_.pop_front();
      search(path, name);
    }
  }

 private:
  // `name`: the folder's path below the input.
  void search(const fs::path& folder, const fs::path& name) {
    const auto id = file_id(folder.string());
    if (id && (!seen_.insert(*id).second || (!name.empty() && id == except_))) return;
    std::vector<fs::directory_entry> entries;
    std::error_code error;
    for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
      entries.push_back(*at);
    }
    if (error) {
      found_.unreadable.push_back(
          concat_text(folder.string(), ": expected a readable folder, found: ", error.message()));
    }
    std::sort(entries.begin(), entries.end());
    for (const fs::directory_entry& entry : entries) take(entry, name / entry.path().filename());
  }

  void take(const fs::directory_entry& entry, const fs::path& name) {
    std::error_code error;
    if (entry.is_directory(error)) {
      if (entry.is_symlink(error)) {
        waiting_.emplace_back(entry.path(), name);
      } else {
        search(entry.path(), name);
      }
    } else if (entry.is_regular_file(error) && is_image(name) && !is_macos_note(name)) {
      found_.images.push_back({entry.path().string(), fs::path(name).replace_extension().string()});
    } else if (!name.filename().string().starts_with('.')) {
      ++found_.left_out[kind_of(entry)];
    }
  }

  static std::string kind_of(const fs::directory_entry& entry) {
    std::error_code error;
    if (!entry.exists(error)) return "broken link(s)";
    if (!entry.is_regular_file(error)) return "special file(s)";
    const std::string extension = lower_extension(entry.path());
    return extension.empty() ? "without extension" : extension;
  }

  FoundImages& found_;
  const std::optional<FileId> except_;
  std::set<FileId> seen_;
  std::deque<std::pair<fs::path, fs::path>> waiting_;  // linked folders, and their paths below the input
};

// One image may be named by several inputs.
void drop_repeated(std::vector<FoundImage>& images) {
  std::set<std::pair<std::string, FileId>> seen;
  std::erase_if(images, [&](const FoundImage& image) {
    const auto id = file_id(image.path);
    return id && !seen.emplace(image.name, *id).second;
  });
}

void keep_extensions(std::vector<FoundImage>& images) {
  std::map<std::string, int> uses;
  for (const FoundImage& image : images) ++uses[image.name];
  for (FoundImage& image : images) {
    const std::string extension = fs::path(image.path).extension().string();
    if (uses[image.name] > 1 && !extension.empty()) image.name += '_' + extension.substr(1);
  }
}

}  // namespace

FoundImages find_images(const std::vector<std::string>& inputs, const std::string& out) {
  const auto out_id = file_id(out);
  FoundImages found;
  bool among_images = false;
  for (const std::string& input : inputs) {
    std::error_code ignored;
    if (!fs::is_directory(input, ignored)) {
      found.images.push_back({input, fs::path(input).stem().string()});  // a missing file is reported when it is read
      continue;
    }
    among_images = among_images || (out_id && out_id == file_id(input));
    FoundImages here;
    FolderSearch(input, out_id, here);
    const std::string others = left_out_text(here);
    check(!here.images.empty() || !here.unreadable.empty(), input,
          ": expected PNG or JPEG images in the folder, found ", others.empty() ? "none" : others);
    std::move(here.images.begin(), here.images.end(), std::back_inserter(found.images));
    std::move(here.unreadable.begin(), here.unreadable.end(), std::back_inserter(found.unreadable));
    for (const auto& [kind, count] : here.left_out) found.left_out[kind] += count;
  }
  drop_repeated(found.images);
  // Results among the images would be images of the next run, under new names each time.
  if (!among_images) keep_extensions(found.images);
  return found;
}

std::string left_out_text(const FoundImages& found) {
  std::string text;
  for (const auto& [kind, count] : found.left_out) text += concat_text(text.empty() ? "" : ", ", count, ' ', kind);
  return text;
}

}  // namespace depthstill
