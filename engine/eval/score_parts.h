// Scores an image part by part, so that a large one is never in memory whole: its files are read once for the fit
// (for medians three times) and once for the metrics. The figures have the same bits as those of score().
#pragma once

#include <span>
#include <string>
#include <vector>

#include "engine/eval/metrics.h"
#include "engine/eval/protocol.h"
#include "engine/eval/score.h"
#include "engine/eval/truth_file.h"
#include "engine/io/map_file.h"

namespace depthstill {

// Whether a part of an image is enough to score that part, given sums and counts over all: without L1 fits, quantiles,
// and what ScoreOptions asks for.
bool scores_by_parts(const Protocol& protocol, const ScoreOptions& options);

// The open truth and prediction of one image.
class FramePair {
 public:
  // The prediction has the size of the protocol's frame.
  FramePair(const Protocol& protocol, const TruthReader& truth, const MapReader& prediction);

  struct Part {
    std::span<const float> truth, prediction;
    std::vector<float> memory{};  // of what is not held
  };
  ImageSize size() const { return frame_.size(); }
  const MapKind& kind() const { return prediction_.kind(); }
  // Pixels [begin, end) of the frame, in row-major order. Safe from several threads.
  Part read(size_t begin, size_t end) const;

 private:
  void read_rows(int first, int last, float* truth, float* prediction) const;

  const TruthReader& truth_;
  const MapReader& prediction_;
  Rect frame_;
  std::vector<float> held_truth_, held_prediction_;  // of a small image, which is read once
};

// score()'s metrics, for a protocol that scores_by_parts().
ImageMetrics score_parts(const Protocol& protocol, const std::string& name, const FramePair& pair);

}  // namespace depthstill
