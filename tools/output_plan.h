// What a command reads and what it will write, said before it begins. A command that would write over one of its
// inputs, write one file twice, leave its folder or replace what it was not told to ends here, before its first byte.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace depthstill {

class Dataset;
struct Recipe;

// What becomes of an output that exists already.
enum class Existing : uint8_t { kRefuse, kOverwrite, kSkip };

class OutputPlan {
 public:
  // `folder`, which the command makes: what writes() names stays below it, also through links and "..", and folders are
  // made as needed. Empty: outputs may lie anywhere, in folders that exist.
  explicit OutputPlan(Existing existing, std::string folder = "");

  // A file that the command reads or belongs to what it reads; an empty path and a missing file are passed over.
  void reads(const std::string& path);
  void reads(const Recipe& recipe);  // its file and those that it inherits
  void reads(const Dataset& data);   // its list, and the images and ground truth that are there
  // A file that the command makes of `source`, which is a file or the option that asks for it. The same output of the
  // same source may be named twice.
  void writes(const std::string& path, const std::string& source);
  // A file anywhere that is replaced if it exists: --json and --csv. An empty path is none.
  void replaces(const std::string& path, const std::string& source);

  // Throws UsageError, one line that names the first file in question, for an output that is an input (the same file on
  // the disk), one of two sources, one outside of the folder, and one that exists if Existing is kRefuse. Throws Error
  // for an output that cannot be written: its folder is missing or write-protected, or it is a folder itself. Devices
  // and pipes are no files in this sense: they are written to by anyone, as often as wanted.
  void approve();

  // After approve(): whether the output exists and is to be left as it is.
  bool skips(const std::string& path) const { return skipped_.contains(path); }

 private:
  struct Output {
    std::string path, source;
    Existing existing;
    bool below;              // of folder_
    std::string place = {};  // the path without links and dots
    bool exists = false;     // as an ordinary file
  };

  const std::string& place_of_folder(const std::string& folder);  // without links and dots
  void look_at(Output& output);
  void refuse_inputs() const;
  void refuse_two_sources() const;
  void refuse_places();
  void refuse_existing();

  const Existing existing_;
  const std::string folder_;
  std::vector<std::string> inputs_;
  std::vector<Output> outputs_;
  std::map<std::string, std::string> folders_;  // as spelled -> without links and dots
  std::set<std::string> skipped_;
};

}  // namespace depthstill
