// Packed data sets: decoded, cropped and resized samples in files that are mapped into memory and read in place. The
// format is described in docs/packed-data.md. A folder holds one list:
//   packed.json               the settings that the samples were made with
//   samples_00000000.shard    samples from 0 on, then samples_00000907.shard and so on
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/data/list_file.h"
#include "engine/data/sample.h"
#include "engine/io/atomic_file.h"
#include "engine/io/mapped_file.h"

namespace depthstill {

// These settings decide the contents of samples: names and values as text, in a fixed order.
using PackSettings = std::vector<std::pair<std::string, std::string>>;

struct PackManifest {
  PackSettings settings;
  std::string list_checksum;         // checksum of the list file; empty: not known
  int64_t samples = 0, skipped = 0;  // skipped: lines of the list without ground truth
};

// nullopt if `folder` is missing or empty. Throws Error if it holds something else.
std::optional<PackManifest> read_pack_manifest(const std::string& folder);
void write_pack_manifest(const std::string& folder, const PackManifest& manifest);

// Throws Error "WHAT with KEY = OLD, but the recipe says NEW; REMEDY" of the first setting that differs.
void check_settings(const std::string& what, const PackSettings& found, const PackSettings& wanted,
                    const std::string& remedy);
// The same of packed data, and of its list.
void check_pack_settings(const std::string& folder, const PackManifest& packed, const PackManifest& expected);

// A shard's name without its folder, and the first sample of a name of that form.
std::string shard_name(int64_t first);
std::optional<int64_t> first_of_shard(const std::string& name);

// A PackedPlane says where a plane lies in its shard. metres_per_unit is 0 for images.
struct PackedPlane {
  uint64_t offset = 0;
  ImageSize size;
  double metres_per_unit = 0, max_error = 0;  // metres; 0: the stored units give the source's floats exactly
};

struct PackedEntry {
  ListEntry line;
  ImageSize stored_size;
  PackedPlane image, depth, teacher;  // no size: not there
  uint64_t checksum = 0;              // checksum of the planes
};

// A depth map in 16 bits. The unit is the given one if that gives back every float exactly; otherwise it is a 65535th
// of the greatest depth, and depths are off by at most half a unit (those below half a unit become one: 0 means none).
struct DepthUnits {
  std::vector<uint16_t> units;
  double metres_per_unit = 0, max_error = 0;
};
DepthUnits to_units(const SampleDepth& depth, double metres_per_unit);

// Writes a shard, which appears when it is committed.
class ShardWriter {
 public:
  ShardWriter(const std::string& folder, int64_t first);

  // Scales: the metres per unit that the source files are known to have.
  void add(const Sample& sample, const ListEntry& line, double depth_scale, double teacher_scale);
  int64_t count() const { return static_cast<int64_t>(entries_.size()); }
  uint64_t bytes() const { return at_; }
  double max_error() const { return max_error_; }
  void commit();

 private:
  void write(const void* data, size_t bytes);
  PackedPlane write_plane(const void* data, size_t bytes, ImageSize size, uint64_t& checksum);
  PackedPlane write_depth(const SampleDepth& depth, double scale, uint64_t& checksum);

  AtomicFile file_;
  int64_t first_;
  uint64_t at_ = 0;
  double max_error_ = 0;
  std::vector<PackedEntry> entries_;
};

// A shard for reading. Throws Error that names the file if it is cut short or damaged.
class Shard {
 public:
  explicit Shard(const std::string& path);
  const std::string& path() const { return file_->path(); }
  int64_t first() const { return first_; }
  const std::vector<PackedEntry>& entries() const { return entries_; }

  // Sets the image and the maps of the sample, which refer to the shard's memory and keep it mapped. Reads them once,
  // to check them and to have them in memory; throws Error "PATH: sample NAME: ..." if they are damaged.
  void load(const PackedEntry& entry, Sample& sample) const;

 private:
  std::shared_ptr<const MappedFile> file_;
  int64_t first_ = 0;
  std::vector<PackedEntry> entries_;
};

// The first samples of the shards in a folder, in order.
std::vector<int64_t> list_shards(const std::string& folder);

class PackedSet {
 public:
  explicit PackedSet(const std::string& folder);  // throws Error if it is not complete
  const PackManifest& manifest() const { return manifest_; }
  int64_t size() const { return manifest_.samples; }
  const PackedEntry& entry(int64_t index) const;
  void load(Sample& sample) const;  // loads the sample of sample.index

 private:
  const Shard& shard_of(int64_t index) const;
  PackManifest manifest_;
  std::vector<Shard> shards_;
};

}  // namespace depthstill
