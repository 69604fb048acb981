// How well a prediction's edges lie on those of the truth.
#pragma once

#include "engine/io/map_file.h"

namespace depthstill {

// Depth Pro's scale-invariant boundary F1 (Bochkovskii et al. 2024): between neighbours lies an edge where the ratio of
// their inverse depths, 1 / max(depth, 1e-6), exceeds t; recall and precision of the prediction's edges are means over
// the four directions, and their F1 a mean over ten t from 1.05 to 1.25, weighted by t. It is made for dense truth: the
// rim of a hole (0) is an edge to it. Both in metres and of one size.
double boundary_f1(const DepthMap& prediction, const DepthMap& truth);

}  // namespace depthstill
