// Maps of depth or inverse depth, in the formats that depth data sets use. What the stored numbers mean is never
// guessed from their values: a file that says it (engine/io/map_kind.h), as all that write_map writes, is believed;
// otherwise the caller states it. One reader serves ground truth, teachers and predictions.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/io/image.h"
#include "engine/io/map_kind.h"
#include "engine/io/npy.h"

namespace depthstill {

struct DepthMap {
  int width = 0, height = 0;
  std::vector<float> values;  // (height, width); of depth, 0 = nothing known
  MapKind kind = kMetricDepth;
  ImageSize size() const { return {width, height}; }
  bool empty() const { return values.empty(); }
};

// What the caller states of a map.
struct MapFormat {
  // The size of a stored unit of integers (PNG, .npy of integers) in the map's unit, metres for depth: KITTI 1/256,
  // NYU 1/1000, TIE-KD teacher maps 80/65535. 0 means that it is not stated: an error for PNG, 1 for .npy.
  double metres_per_unit = 0;
  // An Unusable says what becomes of a number that is negative, NaN or infinite.
  enum class Unusable : uint8_t {
    kHole,     // 0: ground truth marks pixels without depth by any of them
    kRefused,  // an error that names the pixel: teacher maps
    kKept,     // whoever uses the map decides: predictions
  };
  Unusable unusable = Unusable::kHole;
  MapKind kind = kMetricDepth;
  double metres_per_float_unit = 1;  // the same of floats (.pfm, .npy of floats), which nearly all sets keep in metres
};

// An open map of which rows can be read, so that a large one need not be in memory whole. PNG files are decoded when
// they are opened.
class MapReader {
 public:
  // The extension tells the format: .png (16-bit grey), .npy (numbers of any type, byte order and order of
  // dimensions, (H, W) or with more dimensions of size 1 around them), .pfm (one channel). Throws Error that names the
  // file.
  MapReader(const std::string& path, const MapFormat& format);
  // The map at `index`, from 0, of a stack: an .npy (N, H, W) in C order.
  static MapReader of_stack(const std::string& path, int64_t index, const MapFormat& format);
  ~MapReader();
  MapReader(MapReader&&) noexcept;
  MapReader& operator=(MapReader&&) noexcept;

  ImageSize size() const;
  const MapKind& kind() const { return statement_.kind; }
  // Rows [first, last), width values each, in the map's unit.
  void read_rows(int first, int last, float* values) const;

  class Source;

 private:
  MapReader(const std::string& path, const MapFormat& format, std::unique_ptr<Source> source);

  std::string path_;
  MapFormat format_;
  std::unique_ptr<Source> source_;
  MapStatement statement_;  // the file's, else the caller's
};

// How many maps a stack holds: N of an .npy (N, H, W). Throws Error for another file.
int64_t stack_size(const std::string& path);

// All rows.
DepthMap read_map(const MapReader& reader);
DepthMap read_map(const std::string& path, const MapFormat& format);

// A Clipping says what a file's numbers could not hold of a map.
struct Clipping {
  int64_t pixels = 0;    // of the map
  int64_t beyond = 0;    // those greater than `limit`, which were stored as `limit`
  int64_t vanished = 0;  // depths that were stored as 0, which means unknown
  double limit = 0;      // in the map's unit
  bool any() const { return beyond > 0 || vanished > 0; }
};
// "310 of 4800 pixels are beyond 21.8 m and stored as 21.8 m"
std::string describe(const Clipping& clipping);

// Writes the same formats, atomically: .npy and .pfm as floats in units of metres_per_float_unit (`type` is for .npy),
// PNG in units of metres_per_unit, rounded to the nearest. Values are held to what the file can store. The file says
// what it holds; the map's kind counts, not the format's. A .pfm that is not depth in metres gets a NAME.pfm.txt beside
// it.
Clipping write_map(const std::string& path, const DepthMap& map, const MapFormat& format,
                   NpyType type = NpyType::kFloat);

}  // namespace depthstill
