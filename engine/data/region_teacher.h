// Stored maps of a teacher, as labels of the regions that a student sees (region.h). A label is inverse depth, larger
// is nearer, without scale or unit; NaN where nothing is known.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/data/dataset.h"
#include "engine/data/region.h"
#include "kernels/screen_labels.h"

namespace depthstill {

// Turns a map into labels by what it says that it is: of inverse depth every finite number counts, 0 too; depth counts
// where it is finite and > 0, and becomes its inverse.
void to_inverse_depth(DepthMap& map);

// The region of a map that is as large as the image, mirrored if the region is, on size x size pixels: bilinear, on
// pixel centres with edges repeated. Where the nearest pixel is unknown, so is the result; other unknown ones do not
// count. Whole maps of a region are those of {.side = the map's}.
std::vector<float> region_label(const DepthMap& map, const Region& region, int size);

// What a teacher says of a sample's region, and of patches of it that it sees at their own size.
struct RegionLabel {
  std::vector<float> region;   // (size, size)
  std::vector<float> patches;  // (patches of the region, patch, patch)
};

// Why a label teaches nothing: "holds no finite value", "is constant"; empty: it does.
std::string describe(LabelFault fault);
std::string label_problem(const std::vector<float>& label);

class RegionTeacher {
 public:
  virtual ~RegionTeacher() = default;
  // Whether a network makes the labels, beside the student: then load() gives none.
  virtual bool online() const { return false; }
  // Whether there is a label of every sample in every epoch; else only of those that a run draws for this teacher.
  virtual bool every_sample() const = 0;
  // The file that holds the label of a sample's region in this epoch, or the weights of the network that makes it.
  virtual std::string path(const Dataset& data, int64_t index, int64_t epoch) const = 0;
  // Throws Error that names list line and file. Safe from several threads.
  virtual RegionLabel load(const Dataset& data, const Sample& sample, const Region& region, int64_t epoch,
                           int size) const = 0;
};

// Maps of whole images, of which the region is cut: `spec.format.kind` is what they are where they do not say it. They
// have no patches.
std::unique_ptr<RegionTeacher> whole_image_teacher(const DatasetSpec& set, const TeacherSpec& spec);

// Knows nothing anywhere: for who wants the images alone.
std::unique_ptr<RegionTeacher> unknowing_teacher();

// A network of these weights, which whoever runs the steps has loaded.
std::unique_ptr<RegionTeacher> online_teacher(const std::string& weights);

// Maps of the very regions that a run draws, one file per epoch and sample: FOLDER/eEPOCH/NAME.npy, (1 + patches,
// patch, patch), the region's first; without patches any square of two dimensions, too. `regions.json` says which draws
// they are of.
struct RegionFolderSettings {
  PackSettings settings;      // that decide a draw and its order, in recipes' names
  std::string list_checksum;  // empty: not known
  int64_t epochs = 0;         // stored ones, from 0; of a run: those that it needs
  std::string teacher;  // checksum of the weights that made them, and precision; empty: not known, or not asked for
};
inline constexpr const char* kRegionsFile = "regions.json";
bool is_region_folder(const std::string& folder);
RegionFolderSettings read_region_settings(const std::string& folder);
void write_region_settings(const std::string& folder, const RegionFolderSettings& settings);
// The path of a label, relative to the folder: "e3/scene_1_a.npy".
std::string region_file(const std::string& image, int64_t epoch);
// Throws Error that names the first difference between what the folder holds and `wanted`, epochs apart. Gives what it
// holds.
RegionFolderSettings check_region_folder(const std::string& folder, const RegionFolderSettings& wanted);
// The same, and for too few epochs.
std::unique_ptr<RegionTeacher> region_folder_teacher(const std::string& folder, const RegionFolderSettings& wanted,
                                                     const MapKind& unstated, int patch);

}  // namespace depthstill
