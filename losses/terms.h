// The terms of losses between depth maps: a loss is a weighted sum of them. A new term is a row of the table in
// terms.cpp; the recipe's keys, the log and the choice of a head follow from it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "engine/ops_loss.h"
#include "models/prediction.h"

namespace depthstill {

// TermOptions are what single terms can be told.
struct TermOptions {
  DpmOptions dpm;  // its mask and first_row are not used
  SsimMode ssim_mode = SsimMode::kCentred;
  float huber_delta = 1.0f;  // metres, beyond which an error counts linearly
};

// A TermInput is what a term compares.
class TermInput {
 public:
  // target: (N, rows, W) fp32, metres, of the prediction's rows, as depth_target() leaves it. Rows above first_row are
  // left out, and with `mask` so are pixels whose target is 0.
  TermInput(const Prediction& prediction, Tensor target, bool mask, int64_t first_row, const TermOptions& options,
            DpmHeadWay way);

  const Tensor& target() const { return target_; }
  // Bytes (N, rows, W): 1 where a pixel counts.
  Tensor counted() const;
  bool mask() const { return mask_; }
  int64_t first_row() const { return first_row_; }
  const TermOptions& options() const { return options_; }
  // The predicted depth (N, rows, W), fp32 metres: that of the bins where there are some.
  const Tensor& depth();
  // Mean KL divergence between the target's and the predicted depth probability map (TIE-KD Eq. 5).
  Tensor kl();

 private:
  const Prediction& prediction_;
  Tensor target_;
  bool mask_;
  int64_t first_row_;
  const TermOptions& options_;
  DpmHeadWay way_;
  Tensor depth_;  // the depth, made when it is first asked for
};

struct Term {
  const char* name;                  // name in logs; the recipe's key is loss.<name>_weight
  const char* doc;                   // description of that key
  bool needs_bins, needs_depth;      // parts of the prediction that it reads
  Tensor (*loss)(TermInput& input);  // one fp32 element
};

// The terms stand in the order in which they are computed. One that gives the depth along with its loss stands before
// those that need it.
std::span<const Term> loss_terms();

// A weight per term, 0 at first: terms of weight 0 are not computed.
class TermWeights {
 public:
  // Throws Error for a name that no term has.
  float& operator[](std::string_view term) { return weights_[index_of(term)]; }
  float operator[](std::string_view term) const { return weights_[index_of(term)]; }
  // These tell whether a term that counts reads the bins, or the depth.
  bool needs_bins() const;
  bool needs_depth() const;

 private:
  static size_t index_of(std::string_view term);
  std::array<float, 16> weights_{};  // weights by row of the table
};

}  // namespace depthstill
