// How the depth of Depth Anything 3's monocular networks is used together with their map of the sky. Rules for one
// image, at the network's own resolution.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "models/depth_model.h"

namespace depthstill {

inline constexpr float kSkyThreshold = 0.3f;  // a pixel is sky from here on
inline constexpr size_t kFewPixels = 10;      // that decide nothing

// Sky gets the depth below which 99 % of the other pixels lie (the quantile between two of them is linear), as in the
// published da3.py, but exact and for each image by itself. Nothing changes where at most 10 pixels are sky, or at most
// 10 are not.
void fill_sky(std::span<float> depth, std::span<const float> sky);

// Turns depth (e^o, > 0) into a label for students of inverse depth: e^-o, and 0, the farthest that there is, in the
// sky; depth that is not finite is not known: NaN. Where at most 10 pixels are no sky nothing is known, and all are
// NaN.
void to_sky_label(std::span<float> depth, std::span<const float> sky);

// The teacher's maps of images (N, H, W, 3) as labels on the host, (N, H, W): by to_sky_label() where it looks for the
// sky, else as they are. Waits for the device.
std::vector<float> labels_of(const DepthModel& teacher, const Tensor& images);

// What labels are: depth with an unknown shift has no inverse that is known up to scale.
MapKind label_kind(Head head);

}  // namespace depthstill
