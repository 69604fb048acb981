// Ground truth as the benchmarks' files hold it.
#pragma once

#include <string>

#include "engine/eval/benchmarks.h"
#include "engine/io/map_file.h"

namespace depthstill {

// The map in `path`, in metres, with 0 where nothing is known. `mask`: the path of a map as large that is 0 where truth
// does not count; empty: none. raw_size: the size of a file without a header (TruthFile::kRawFloats). Throws Error that
// names the file, for a raw file whose size is not that of the floats also what was expected.
DepthMap read_truth(TruthFile kind, const std::string& path, const std::string& mask, const MapFormat& format,
                    ImageSize raw_size);

}  // namespace depthstill
