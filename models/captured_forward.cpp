#include "models/captured_forward.h"

#include <utility>

namespace depthstill {

CapturedForward::CapturedForward(const DepthModel& model, Options options)
    : model_(model), options_(std::move(options)) {}

Prediction CapturedForward::maps(const Tensor& image) const {
  const Prediction prediction = model_.forward(image);
  Prediction result = depth_of(prediction, options_.head);
  result.sky = prediction.sky;
  return result;
}

Prediction CapturedForward::operator()(const Tensor& image) {
  const NoGrad no_grad;
  if (!options_.graph) return maps(image);
  if (!step_ || image.shape() != image_.shape() || image.dtype() != image_.dtype()) {
    step_.reset();
    depth_ = {};
    sky_ = {};
    image_ = empty_like(image);
    step_.emplace(options_.device, true, std::vector<Tensor>{}, options_.note);
  }
  copy_(image_, image);
  step_->run([this] {
    const Prediction found = maps(image_);
    const auto keep = [](const Tensor& from, Tensor& to) {
      if (!from.defined()) return;
      if (!to.defined()) to = empty_like(from);  // in the first run, which is not that of an arena
      copy_(to, from);
    };
    keep(found.map, depth_);
    keep(found.sky, sky_);
  });
  Prediction result = depth_;
  result.sky = sky_;
  return result;
}

}  // namespace depthstill
