// Ground truth as the benchmarks' files hold it.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "engine/eval/benchmarks.h"
#include "engine/io/map_file.h"
#include "engine/io/open_file.h"

namespace depthstill {

// MoGe's map in a 16-bit PNG whose texts `near` and `far` are depths > 0: value 0 is unknown and 65535 infinitely far,
// which both become 0; v between them is near^(1 - q) far^q with q = (v - 1) / 65533, times the text `unit` if there is
// one (MoGe, moge/utils/io.py). Throws Error that names the file.
DepthMap read_log_png(const std::string& path);

// Open ground truth of which rows can be read, so that a large map need not be in memory whole.
class TruthReader {
 public:
  // The map in `path`, in metres, with 0 where nothing is known. `mask`: the path of a map as large that is 0 where
  // truth does not count; empty: none. raw_size: the size of a file without a header (TruthFile::kRawFloats). Throws
  // Error that names the file, for a raw file whose size is not that of the floats also what was expected.
  TruthReader(TruthFile kind, const std::string& path, const std::string& mask, const MapFormat& format,
              ImageSize raw_size);

  ImageSize size() const { return size_; }
  MapKind kind() const { return map_ ? map_->kind() : kMetricDepth; }
  // Rows [first, last), width values each. Safe from several threads.
  void read_rows(int first, int last, float* values) const;

 private:
  std::optional<MapReader> map_;  // one of these three
  std::unique_ptr<OpenFile> raw_;
  std::optional<DepthMap> decoded_;
  std::optional<MapReader> mask_;
  ImageSize size_;
};

// All of it.
DepthMap read_truth(const TruthReader& reader);

}  // namespace depthstill
