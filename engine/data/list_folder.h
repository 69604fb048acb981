// Where the files of a list lie: a folder below the data set's root that its paths start from, and the bounds that they
// stay within.
#pragma once

#include <filesystem>
#include <string>

namespace depthstill {

struct ListPath {
  std::string name;   // starts from the folder; absolute for a file elsewhere in the root, or outside of it
  std::string tried;  // where else the file was looked for, as text for a message; empty: nowhere
};

class ListFolder {
 public:
  // `folder` starts from `root`, or is absolute. Files lie below one of the two, unless they may lie outside.
  ListFolder(const std::string& root, const std::string& folder, bool allow_outside);

  // The file that a list means by `written`, a plain_path():
  //   - A path starts from the folder. One with '/' in front (as in the lists of BTS) does so, too, if there is such a
  //     file; else it is what was written, provided that this lies inside the root.
  //   - '\' stands for '/', except in the name of a file that is there.
  // Throws Error "expected a path below ROOT, found ..." for a path that leaves the root by "..", or that starts
  // outside. That of a file which is not there is placed as well.
  ListPath place(const std::string& written) const;

  // The full path of a file. Throws Error if links lead out of the root to it, and, naming every place, if it was
  // looked for in several and is in none.
  std::string path(const ListPath& file) const;

 private:
  // Absolute, without ".."; `real`: and without links.
  struct Place {
    explicit Place(const std::filesystem::path& path);
    std::filesystem::path plain, real;
  };
  std::string name_inside(const std::string& written) const;  // empty if it is not in the root
  bool leaves(const std::string& name) const;                 // by ".."
  [[noreturn]] void refuse(const std::string& found) const;

  std::filesystem::path base_;
  Place root_, folder_;
  bool allow_outside_;
};

}  // namespace depthstill
