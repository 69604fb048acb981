#include "engine/data/list_folder.h"

#include <algorithm>

#include "engine/data/list_file.h"
#include "engine/io/text_file.h"
#include "kernels/core/error.h"

namespace depthstill {
namespace {

namespace fs = std::filesystem;

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

fs::path without_links(const fs::path& path) {
  std::error_code error;
  const fs::path real = fs::weakly_canonical(path, error);
  check(!error, path.string(), ": expected a readable file, found: ", error.message());
  return real;
}

bool goes_up(const fs::path& path) { return std::find(path.begin(), path.end(), "..") != path.end(); }

// The rest of a path behind `folder`; empty if it does not lie there.
std::string rest_behind(const fs::path& folder, const fs::path& path) {
  const fs::path rest = path.lexically_relative(folder);
  return goes_up(path) || goes_up(rest) ? "" : rest.string();
}

}  // namespace

ListFolder::Place::Place(const fs::path& path) : plain(fs::absolute(path.empty() ? "." : path).lexically_normal()) {
  if (!plain.has_filename()) plain = plain.parent_path();
  std::error_code error;
  real = fs::weakly_canonical(plain, error);
  if (error) real = plain;  // nothing below it can be read
}

ListFolder::ListFolder(const std::string& root, const std::string& folder, bool allow_outside)
    : base_(fs::path(root) / folder), root_(root), folder_(base_), allow_outside_(allow_outside) {}

void ListFolder::refuse(const std::string& found) const {
  fail("expected a path below ", root_.plain.string(), ", found ", one_line(found), " (--allow-outside reads it)");
}

std::string ListFolder::name_inside(const std::string& written) const {
  const fs::path real = without_links(written);
  for (const fs::path& path : {fs::path(written), real}) {
    for (const fs::path& folder : {folder_.plain, folder_.real}) {
      if (std::string name = rest_behind(folder, path); !name.empty()) return name;
    }
  }
  return rest_behind(root_.real, real).empty() ? "" : written;
}

bool ListFolder::leaves(const std::string& name) const {
  if (!goes_up(name)) return false;
  const fs::path path = (folder_.plain / name).lexically_normal();
  return rest_behind(root_.plain, path).empty() && rest_behind(folder_.plain, path).empty();
}

ListPath ListFolder::place(const std::string& written) const {
  std::string name = written;
  ListPath file;
  const auto is_file = [&](const std::string& path) {
    return path.starts_with('/') ? is_there(base_ / path.substr(1)) || is_there(path) : is_there(base_ / path);
  };
  if (name.find('\\') != std::string::npos && !is_file(name)) {
    file.tried = (base_ / name).string();
    std::replace(name.begin(), name.end(), '\\', '/');
    name = plain_path(name);
  }
  file.name = name.substr(name.starts_with('/') ? 1 : 0);
  if (name.starts_with('/') && !is_there(base_ / file.name)) {
    if (const std::string inside = name_inside(name); !inside.empty()) {
      return {inside, (base_ / file.name).string()};
    }
    if (is_there(name)) {
      if (!allow_outside_) refuse(name);
      return {name, ""};
    }
    file.tried += (file.tried.empty() ? "" : " or ") + name;
  }
  if (!allow_outside_ && leaves(file.name)) refuse(written);
  return file;
}

std::string ListFolder::path(const ListPath& file) const {
  const fs::path path = base_ / file.name;
  check(file.tried.empty() || is_there(path), "expected a file at ", path.string(), " or ", one_line(file.tried),
        ", found none");
  if (!allow_outside_) {
    const fs::path real = without_links(path);
    const bool inside = !rest_behind(root_.real, real).empty() || !rest_behind(folder_.real, real).empty();
    if (!inside) refuse(concat_text(path.string(), ", which leads to ", real.string()));
  }
  return path.string();
}

}  // namespace depthstill
