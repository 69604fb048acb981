#include "engine/optim.h"

#include <utility>

#include "engine/allocator.h"
#include "engine/profile.h"
#include "kernels/cast.h"

namespace depthstill {

AdamW::AdamW(std::vector<Tensor> parameters, const AdamWOptions& options, std::vector<float> lr_factors)
    : parameters_(std::move(parameters)), lr_factors_(std::move(lr_factors)), options_(options) {
  check(!parameters_.empty(), "adamw: no parameters");
  if (lr_factors_.empty()) lr_factors_.assign(parameters_.size(), 1.0f);
  check(lr_factors_.size() == parameters_.size(), "adamw: expected a learning-rate factor for each of ",
        parameters_.size(), " parameters, got ", lr_factors_.size());
  device_ = parameters_.front().device();
  for (const Tensor& p : parameters_) {
    check(p.dtype() == DType::kFloat && p.device() == device_ && p.requires_grad(),
          "adamw: expected fp32 leaves on one device, got ", p.shape(), " ", p.dtype(), " on ", p.device(),
          p.requires_grad() ? "" : " that needs no gradient");
    m_.push_back(zeros_like(p));
    v_.push_back(zeros_like(p));
  }
  slots_.reserve(parameters_.size());
  state_ = empty({static_cast<int64_t>(sizeof(AdamWState))}, DType::kUint8, device_);
  sum_of_squares_ = zeros({1}, DType::kInt64, device_);
  broken_ = zeros({1}, DType::kInt32, device_);
  lr_ = static_cast<float>(options_.lr);
  AdamWState initial;
  initial.lr = lr_;
  copy_bytes(state_.raw(), device_, &initial, Device::kCpu, sizeof(initial));
  synchronize(device_);
}

AdamW::~AdamW() {
  for (size_t i = 0; i < copies_.size(); ++i) cuda::set_rounded_copy(parameters_[i], parameters_[i].numel(), nullptr);
}

void AdamW::keep_bf16_copies() {
  if (device_ != Device::kCuda || !copies_.empty()) return;
  for (const Tensor& p : parameters_) {
    const Tensor copy = empty(p.shape(), DType::kBf16, device_);
    cuda::cast<float, bf16>(stream_of(device_), p.numel(), p, copy);
    cuda::set_rounded_copy(p, p.numel(), copy);
    copies_.push_back(copy);
  }
}

AdamWState* AdamW::state() const { return static_cast<AdamWState*>(state_.raw()); }

void AdamW::set_lr(double lr) {
  if (static_cast<float>(lr) == lr_) return;
  lr_ = static_cast<float>(lr);
  run(device_, cpu::adamw_set_lr, cuda::adamw_set_lr)(lr_, state());
}

void AdamW::step(float unscale) {
  slots_.clear();
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const Tensor& p = parameters_[i];
    const Tensor grad = p.grad();
    if (!grad.defined()) continue;
    check(grad.shape() == p.shape() && grad.dtype() == DType::kFloat && grad.device() == device_,
          "adamw: the gradient of a ", p.shape(), " parameter is ", grad.shape(), " ", grad.dtype(), " on ",
          grad.device());
    slots_.push_back({p.numel(), grad, p, m_[i], v_[i], lr_factors_[i],
                      copies_.empty() ? nullptr : static_cast<bf16*>(copies_[i].raw())});
  }
  const ProfileRange range("update", "adamw");
  // The norm reads the gradients; the update reads four arrays and writes three, and copies of two bytes.
  const OpRange op("adamw", [&] {
    double elements = 0;
    for (const AdamWSlot& slot : slots_) elements += static_cast<double>(slot.n);
    return Work{0, (copies_.empty() ? 32 : 34) * elements};
  });
  auto* sum = static_cast<double*>(sum_of_squares_.raw());
  run(device_, cpu::sum_of_squares, cuda::sum_of_squares)(slots_, sum);
  run(device_, cpu::adamw_prepare, cuda::adamw_prepare)(options_.params, unscale, options_.clip_norm, sum, state());
  run(device_, cpu::adamw, cuda::adamw)(slots_, options_.params, state(), broken_);
}

void AdamW::clear_grads() {
  for (Tensor& p : parameters_) p.clear_grad();
}

AdamWState AdamW::read_state() const {
  AdamWState host;
  copy_bytes(&host, Device::kCpu, state_.raw(), device_, sizeof(host));
  synchronize(device_);
  return host;
}

AdamW::StepReport AdamW::last_step() const {
  const AdamWState now = read_state();
  return {now.norm, now.finite != 0, now.dropped, to_vector<int32_t>(broken_).at(0) != 0};
}

int64_t AdamW::updates() const { return read_state().step; }

void AdamW::set_updates(int64_t updates) {
  AdamWState now = read_state();
  now.step = updates;
  copy_bytes(state_.raw(), device_, &now, Device::kCpu, sizeof(now));
  synchronize(device_);
}

}  // namespace depthstill
