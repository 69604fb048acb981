// A Prediction is what a depth network gives to a loss or to whoever wants its depth.
#pragma once

#include <optional>
#include <utility>

#include "engine/ops_loss.h"

namespace depthstill {

struct Prediction {
  Tensor map;                 // (N, rows, W) fp32: what the head says (depth_model.h); undefined if there are bins
  std::optional<DpmMap> dpm;  // depth bins over the same pixels, instead of the map
  Tensor features;            // (N, tokens, C) of the encoder, where they were asked for
  Tensor sky;  // (N, rows, W) fp32, >= 0, of networks that look for the sky (models/sky_rule.h); else undefined

  Prediction(Tensor depth) : map(std::move(depth)) {}  // implicit, as is the other: a network returns what it has
  Prediction(DpmMap bins) : dpm(std::move(bins)) {}

  // The shape of the depth map: (N, rows, W).
  Shape shape() const {
    const Shape& of = dpm ? dpm->shape() : map.shape();
    return {of[0], of[1], of[2]};
  }
};

// The depth map itself. Gradients flow through it.
inline Tensor depth_of(const Prediction& prediction, DpmHeadWay way = DpmHeadWay::kFused) {
  return prediction.dpm ? dpm_depth(*prediction.dpm, way) : prediction.map;
}

}  // namespace depthstill
