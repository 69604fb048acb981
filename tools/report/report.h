// report.html of a run is one self-contained page with curves, metrics and pictures. It opens anywhere and needs no
// network.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/eval/evaluate.h"
#include "engine/io/image.h"
#include "engine/io/map_file.h"
#include "tools/report/run_log.h"

namespace depthstill {

struct ReportPanel {
  std::string name;
  Image8 image;
  DepthMap reference;                // the teacher's map, or ground truth; may be empty
  DepthMap prediction;               // all three of one size
  std::string reference_label = {};  // empty: the report's
};

struct Report {
  std::string title;                                       // the run's name
  std::vector<std::pair<std::string, std::string>> facts;  // device, precision, time, memory, parameters, ...
  std::optional<MetricsSummary> final;                     // metrics of the kept model
  std::string final_label;                                 // "best epoch 7, val list"
  std::string split;                                       // list of `final`, whose epochs stand beside it
  std::string select_metric = "d1";                        // name of the metric that the kept epoch is best in
  std::vector<ImageMetrics> images;                        // of `final`, of which the worst are shown
  std::vector<BaselineScore> baselines;                    // on the same images as `final`
  std::string baseline_source;                             // "train.txt, 48 images"
  std::string protocol;                                    // describe(protocol)
  std::string recipe;                                      // the effective recipe as TOML
  std::string reference_label = "teacher";                 // or "ground truth"
  RunLog log;
  std::vector<ReportPanel> panels;
};

// The panel's views as one picture: input and reference above, prediction and relative error below; without a reference
// input above prediction. Each view is brought down to at most 640 pixels of width.
Image8 panel_picture(const ReportPanel& panel);

// A table of the 20 images that are worst in `metric`, worst first, in HTML; empty if no image was scored. Most of what
// a mean hides is in them, and often in their ground truth.
std::string worst_images(std::span<const ImageMetrics> images, const std::string& metric);

// A page of its own in the report's style; `body` is HTML, the other two are text.
std::string report_page(const std::string& title, const std::string& subtitle, const std::string& body);

// The page in the file `path` with a last section of this title; its `body` is HTML without sections. A section of the
// title that the page has already is replaced. Throws Error for what is no page of a report.
std::string with_section(const std::string& path, const std::string& title, const std::string& body);

std::string render_report(const Report& report);
void write_report(const std::string& path, const Report& report);  // an atomic write

}  // namespace depthstill
