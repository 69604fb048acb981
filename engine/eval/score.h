// Scores the prediction for one image under a protocol: valid pixels, alignment, limits, metrics.
#pragma once

#include <optional>
#include <string>

#include "engine/eval/metrics.h"
#include "engine/eval/protocol.h"
#include "engine/io/map_file.h"

namespace depthstill {

// Whether the protocol's alignment sees 1 / p of a prediction of this kind: of one that is of the other quantity and
// known up to scale. One that has a shift, too, has no inverse of use and is fitted as it is.
bool is_inverted(const Protocol& protocol, const MapKind& prediction);
// Throws Error "WHERE is ..., expected ..." for a kind of prediction that the protocol's alignment cannot make metres
// of.
void check_kind(const Protocol& protocol, const MapKind& prediction, const std::string& where);

struct ScoreOptions {
  bool local_fit = false;  // compare with a fit to the centre of the image
  bool boundary = false;   // find boundary_f1() of what was scored, over the whole frame
};

// The same figures for the centre of an image, rows [h/4, h/4 + h/2) and columns likewise, by the fit to the whole
// image and by one to the centre alone (Distill Any Depth, Fig. 2).
struct GlobalLocal {
  Metrics global, local;
};

struct ImageScore {
  ImageMetrics metrics;
  std::optional<GlobalLocal> centre;  // nothing: not asked for, or the centre has no pixel to fit
};

// truth: metres, 0 where nothing is known. The prediction has its size and becomes what was scored: depth in metres,
// aligned and limited; pixels that are NaN or infinite and not used become 0. Throws Error that begins with `name`: at
// a valid pixel that is NaN or infinite (unless the protocol limits it), if there is none to fit, and if a protocol
// without limits is left with a depth <= 0 whose logarithm it takes.
ImageScore score(const Protocol& protocol, const std::string& name, const DepthMap& truth, DepthMap& prediction,
                 const ScoreOptions& options = {});

// What score() throws: for a number at a valid pixel that is not finite, and for valid pixels with a depth <= 0 under a
// protocol that takes their logarithm.
[[noreturn]] void fail_nonfinite(const std::string& name, ImageSize frame, size_t pixel, float value);
void check_negative(const Protocol& protocol, const std::string& name, int64_t pixels);

}  // namespace depthstill
