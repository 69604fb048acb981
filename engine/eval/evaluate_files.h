// Scores predictions that lie in files, on all threads: images side by side, and a large image by its parts. The result
// has the same bits for any number of threads.
#pragma once

#include <functional>
#include <span>

#include "engine/eval/evaluate.h"
#include "engine/io/map_file.h"

namespace depthstill {

// The open map of an item's prediction. It is called from several threads at once.
using OpenPrediction = std::function<MapReader(const EvalItem&)>;

// As evaluate(), which has the same results; options.truth_size is called from several threads, `observe` never. Of
// several errors the one of the first item is thrown. Images are read part by part where scores_by_parts() and no
// baselines are asked for; a thread then holds less than 20 MB beside what a PNG decodes to. Otherwise it holds an
// image with its masks.
Evaluation evaluate_files(const Protocol& protocol, std::span<const EvalItem> items, const OpenPrediction& open,
                          const EvaluateOptions& options);

}  // namespace depthstill
