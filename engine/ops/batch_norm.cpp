#include "kernels/batch_norm.h"

#include "engine/ops.h"
#include "engine/profile.h"

namespace depthstill {
namespace {

void check_channels(const char* name, const Tensor& t, const Tensor& x) {
  const int64_t C = x.size(x.shape().rank() - 1);
  check(t.shape() == Shape{C} && t.dtype() == DType::kFloat && t.device() == x.device(),
        "batch_norm: expected an fp32 ", name, " (", C, ") on ", x.device(), ", got ", t.dtype(), " ", t.shape(),
        " on ", t.device());
}

}  // namespace

BatchNormStatistics batch_norm_statistics(const Tensor& x, const Tensor& running_mean, const Tensor& running_var,
                                          const BatchNormOptions& options, const Tensor& moments) {
  check(x.shape().rank() >= 1 && x.numel() > 0, "batch_norm: expected a non-empty x (..., C), got ", x.shape());
  check_channels("running_mean", running_mean, x);
  check_channels("running_var", running_var, x);
  const auto C = static_cast<int>(running_mean.size(0));
  const int64_t rows = x.numel() / C;
  check(rows > 1 || !options.training, "batch_norm: expected more than one value per channel in training, got ",
        x.shape());
  check(!moments.defined() || (moments.shape() == Shape{2, C} && moments.dtype() == DType::kFloat),
        "batch_norm: expected fp32 moments (2, ", C, "), got ", moments.dtype(), " ", moments.shape());

  const Device device = x.device();
  const Tensor mean = empty_like(running_mean), rstd = empty_like(running_var);
  const bool read = options.training && !moments.defined();
  const OpRange range("batch_norm", [&] { return Work{0, read ? bytes_of(x) : bytes_of(mean, rstd)}; });
  if (read) {
    visit(x.dtype(), [&]<class T>() {
      run(device, cpu::batch_norm_batch_stats<T>, cuda::batch_norm_batch_stats<T>)(
          rows, C, options.eps, options.momentum, x, running_mean, running_var, mean, rstd);
    });
  } else if (options.training) {
    run(device, cpu::batch_norm_ready_stats, cuda::batch_norm_ready_stats)(
        rows, C, options.eps, options.momentum, moments, running_mean, running_var, mean, rstd);
  } else {
    run(device, cpu::batch_norm_running_stats, cuda::batch_norm_running_stats)(C, options.eps, running_mean,
                                                                               running_var, mean, rstd);
  }
  return {mean, rstd, options.training, open_range()};
}

Tensor batch_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& running_mean,
                  const Tensor& running_var, const BatchNormOptions& options, const Tensor& moments) {
  const int maps = options.training && !moments.defined() ? 3 : 2;  // kernels/batch_norm.h
  const OpRange range("batch_norm", [&] { return Work{0, maps * bytes_of(x)}; });
  const BatchNormStatistics of_x = batch_norm_statistics(x, running_mean, running_var, options, moments);
  check_channels("weight", weight, x);
  check_channels("bias", bias, x);
  const auto C = static_cast<int>(weight.size(0));
  const int64_t rows = x.numel() / C;
  const Activation act = options.activation;
  const Device device = x.device();
  const Tensor mean = of_x.mean, rstd = of_x.rstd, y = empty_like(x);
  const auto norm = [=] { return BatchNormInput{act, mean, rstd, weight, bias}; };
  visit(x.dtype(), [&]<class T>() { run(device, cpu::batch_norm<T>, cuda::batch_norm<T>)(rows, C, norm(), x, y); });

  const Statistics statistics = options.training ? Statistics::kBatch : Statistics::kConstant;
  const bool need_dx = x.requires_grad();
  return record("batch_norm", {x, weight, bias}, y, [=](const Tensor& dy) -> Gradients {
    const OpRange op("batch_norm", [&] { return Work{0, (need_dx ? 5 : 2) * bytes_of(x)}; });
    Tensor dx;
    if (need_dx) dx = dy.sole_owner() ? dy.detach() : empty_like(x);
    Tensor dweight = empty_like(weight), dbias = empty_like(bias);
    visit(x.dtype(), [&]<class T>() {
      run(device, cpu::batch_norm_grad<T>, cuda::batch_norm_grad<T>)(rows, C, norm(), statistics, x, dy,
                                                                     {dx, dweight, dbias});
    });
    return {dx, dweight, dbias};
  });
}

}  // namespace depthstill
