// Samples of a depth data set on disk: image, ground truth and teacher map of one list line, cropped and checked.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/data/crop_rule.h"
#include "engine/data/list_file.h"
#include "engine/data/list_folder.h"
#include "engine/data/packed.h"
#include "engine/data/pixels.h"
#include "engine/data/sample.h"

namespace depthstill {

enum class TeacherNaming {
  kFlat,    // TIE-KD: one folder, file name = image path with '/' -> '_', extension replaced
  kBeside,  // the image's path under the teacher's folder, extension replaced
  kTruth,   // the list's depth column, under the teacher's folder: dense ground truth as the teacher
};

struct TeacherSpec {
  std::string folder;  // relative to the root, or absolute
  TeacherNaming naming = TeacherNaming::kFlat;
  std::string extension = ".png";  // kTruth does not use it
  MapFormat format{80.0 / 65535, MapFormat::Unusable::kRefused};
};

struct DatasetSpec;

// Where a teacher's maps of a data set's images lie.
class TeacherFolder {
 public:
  TeacherFolder(const DatasetSpec& set, TeacherSpec spec);
  // The map of a line. Throws Error "LIST:LINE: expected ..." as ListFolder::path() does.
  std::string path(const ListEntry& entry, const std::string& where) const;

 private:
  TeacherSpec spec_;
  ListFolder folder_;
};

struct DatasetSpec {
  std::string root, list;                  // list: relative to the root, or absolute
  std::string image_folder, depth_folder;  // folders below the root that the list's columns start from; empty: the root
  CropRule crop = CropRule::kNone;
  std::optional<ImageSize> resize;  // size after the crop: images by area or bilinear, depth by nearest (see pixels.h)
  MapFormat depth{1.0 / 256};
  double min_depth = 1e-3, max_depth = 80;  // metres; what counts as valid depth
  std::optional<TeacherSpec> teacher;
  ListOrder order = ListOrder::kAsWritten;
  ListForm list_form = ListForm::kColumns;
  bool skip_without_depth = true;  // leave out lines with None, as the reference does
  bool allow_outside = false;      // read files that ".." or links of the list lead to out of the root
  std::string packed;              // a folder of packed data (engine/data/packed.h) to read instead; empty: the files
};

// These settings have to be equal for packed samples to be those of `spec`. Their names are those of recipes.
PackSettings pack_settings(const DatasetSpec& spec);

// "raw/a/0.png", ".png" -> "raw_a_0.png"
std::string flat_name(const std::string& image, const std::string& extension);

class Dataset {
 public:
  // Reads the list, no images. Its bad lines are left out and handed over in `bad_lines`; where that is null, they
  // throw Error. Bad are also paths that leave the root, and a second image whose map would have the name of another
  // one's. With spec.packed the samples come from there, and neither list nor files need exist; throws Error if they
  // were packed with other settings or from another list.
  explicit Dataset(DatasetSpec spec, BadLines* bad_lines = nullptr);

  const DatasetSpec& spec() const { return spec_; }
  int64_t size() const { return static_cast<int64_t>(entries_.size()); }
  int64_t skipped() const { return skipped_; }  // lines with None that were left out
  bool packed() const { return packed_ != nullptr; }
  std::string list_checksum() const;  // checksum of the list file; empty if there is none
  const ListEntry& entry(int64_t index) const { return entries_.at(static_cast<size_t>(index)); }

  std::string where(int64_t index) const;  // "LIST:LINE"
  // Full paths. They throw Error "LIST:LINE: expected ..." as ListFolder::path() does.
  std::string image_path(int64_t index) const;
  std::string depth_path(int64_t index) const;    // empty if the line has none
  std::string extra_path(int64_t index) const;    // of the line's third path; empty if it has none
  std::string teacher_path(int64_t index) const;  // empty without a teacher

  // Errors name the list line and the file: "LIST:LINE: FILE: expected ..., found ...". Safe from several threads.
  Sample load(int64_t index) const;
  Sample load_image(int64_t index) const;  // without maps

  // load() in parts, for reports that go on after an error. The image comes first: it sets the sizes, and of packed
  // data it brings the maps along.
  void load_image(Sample& sample) const;
  void load_depth(Sample& sample) const;
  void load_teacher(Sample& sample) const;
  Sample start(int64_t index) const;  // names only
  // A map of the sample's stored image, or of its crop, as the image is: cropped and resized (nearest). Throws Error if
  // it has another size.
  DepthMap fitted(DepthMap map, const Sample& sample, const std::string& path) const;

 private:
  void read_entries(BadLines& bad);
  void place(ListEntry& entry) const;

  DatasetSpec spec_;
  std::string list_path_;
  ListFolder images_, depths_;
  std::optional<TeacherFolder> teachers_;
  std::vector<ListEntry> entries_;
  int64_t skipped_ = 0;
  std::shared_ptr<const PackedSet> packed_;
};

// Both throw Error, naming the lines, if maps of two images would have one name: their flat_name(), or that of a
// teacher's maps. An image that is in several lines, with ground truths of its own in each, may be refused as well.
enum class RepeatedImages : uint8_t { kAllowed, kRefused };
void check_map_names(const Dataset& data, const std::string& extension,
                     RepeatedImages repeated = RepeatedImages::kAllowed);
void check_map_names(const Dataset& data, const TeacherSpec& teacher);

}  // namespace depthstill
