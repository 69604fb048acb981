// An evaluation in words and in JSON.
#pragma once

#include <string>

#include "engine/eval/evaluate.h"

namespace depthstill {

// How alignments went, over the images that were scored.
struct FitSummary {
  int64_t images = 0, negative_scale = 0;
  double limited_share = 0;  // mean over images of the share of valid pixels whose depth a limit has changed
};
FitSummary summarize_fits(const Evaluation& evaluation);

// "list test.txt, 697 lines; truth in 1/256 m": what describe(Evaluation) says of the data.
std::string describe_data(const Dataset& data, const Protocol& protocol);

// describe(protocol), and how predictions were made.
std::string describe(const Evaluation& evaluation);

// Protocol, counts, the protocol's metrics and those of the baselines: what `eval` prints, and the JSON of its
// contract, which has the key "baselines" only where there are some.
std::string format_evaluation(const Evaluation& evaluation);
std::string evaluation_json(const Evaluation& evaluation);

}  // namespace depthstill
