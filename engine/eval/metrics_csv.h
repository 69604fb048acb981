// The figures of each image as a table that scripts and spreadsheets read.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "engine/eval/metrics.h"

namespace depthstill {

// One line per image: name, pixels and metrics (empty where skipped), written atomically. The columns are the nine of
// kMetricFields that are among `fields`, then, with `fits`, scale, shift and fit_pixels, then the others of `fields`,
// and boundary_f1 if the images have it.
void write_metrics_csv(const std::string& path, std::span<const ImageMetrics> images,
                       std::span<const MetricField> fields = kMetricFields, bool fits = false);

// A table that write_metrics_csv() has written; `fields` are the columns that it has.
struct MetricsTable {
  std::vector<ImageMetrics> images;
  std::vector<MetricField> fields;
  bool fits = false;  // it has scale, shift and fit_pixels
};
// Throws Error "FILE:LINE: expected ..., found ..." for another file.
MetricsTable read_metrics_csv(const std::string& path);

}  // namespace depthstill
