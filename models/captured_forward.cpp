#include "models/captured_forward.h"

#include <utility>

namespace depthstill {

CapturedForward::CapturedForward(const DepthModel& model, Options options)
    : model_(model), options_(std::move(options)) {}

Tensor CapturedForward::operator()(const Tensor& image) {
  const NoGrad no_grad;
  if (!options_.graph) return depth_of(model_.forward(image), options_.head);
  if (!step_ || image.shape() != image_.shape() || image.dtype() != image_.dtype()) {
    step_.reset();
    depth_ = {};
    image_ = empty_like(image);
    step_.emplace(options_.device, true, std::vector<Tensor>{}, options_.note);
  }
  copy_(image_, image);
  step_->run([this] {
    const Tensor depth = depth_of(model_.forward(image_), options_.head);
    if (!depth_.defined()) depth_ = empty_like(depth);  // in the first run, which is not that of an arena
    copy_(depth_, depth);
  });
  return depth_;
}

}  // namespace depthstill
