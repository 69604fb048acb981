#include "kernels/dpm/dpm_head.h"

#include "engine/allocator.h"
#include "engine/ops/dpm_table.h"
#include "engine/ops_loss.h"
#include "engine/profile.h"

namespace depthstill {
namespace {

DpmShape shape_of(const char* op, const Tensor& x, const Tensor& weight, const Tensor& bias, const DpmBins& bins) {
  check(bins.bins >= 1 && bins.d_min < bins.d_max, op, ": expected at least one bin and d_min < d_max, got ", bins.bins,
        " bins over [", bins.d_min, ", ", bins.d_max, "]");
  check(x.shape().rank() == 4 && x.numel() > 0, op, ": expected a non-empty x (N, H, W, C), got ", x.shape());
  const int64_t C = x.size(3);
  check(weight.shape() == Shape{bins.bins, 1, 1, C} && weight.dtype() == DType::kFloat && weight.device() == x.device(),
        op, ": expected an fp32 weight (", bins.bins, ", 1, 1, ", C, ") on ", x.device(), ", got ", weight.dtype(), " ",
        weight.shape(), " on ", weight.device());
  check(bias.shape() == Shape{bins.bins} && bias.dtype() == DType::kFloat && bias.device() == x.device(), op,
        ": expected an fp32 bias (", bins.bins, ") on ", x.device(), ", got ", bias.dtype(), " ", bias.shape(), " on ",
        bias.device());
  return {x.size(0), x.size(1), x.size(2), C};
}

double product_flops(const DpmShape& s, const DpmBins& bins) {
  return 2.0 * static_cast<double>(s.N * s.H * s.W) * static_cast<double>(s.channels * bins.bins);
}

Tensor workspace_for(const Tensor& x, const DpmShape& shape, const DpmBins& bins) {
  size_t bytes = 0;
  visit(x.dtype(), [&]<class T>() {
    bytes =
        x.device() == Device::kCpu ? cpu::dpm_head_workspace<T>(shape, bins) : cuda::dpm_head_workspace<T>(shape, bins);
  });
  return empty({static_cast<int64_t>(bytes / sizeof(float)) + 1}, DType::kFloat, x.device());
}

// Both ops give these; without a teacher there is no KL and `options` do not matter.
struct Outputs {
  Tensor kl, depth;
};
Outputs dpm_head(const char* name, const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& teacher,
                 const DpmBins& bins, const DpmOptions& options) {
  const DpmShape shape = shape_of(name, x, weight, bias, bins);
  const Device device = x.device();
  const bool with_kl = teacher.defined();
  const DpmProblem problem{shape, bins, options, with_kl ? dpm_table_for(bins, options, device) : DpmTableView{}};
  Tensor depth = empty({shape.N, shape.H, shape.W}, DType::kFloat, device), lse = empty_like(depth);
  Tensor offset = with_kl ? empty_like(depth) : Tensor(), result, kl;
  if (with_kl) result = empty({2}, DType::kFloat, device);
  if (with_kl) kl = empty({1}, DType::kFloat, device);
  const double flops = product_flops(shape, bins);
  {
    const OpRange range(name, [&] { return Work{flops, bytes_of(x, weight, teacher, depth, lse, offset)}; });
    const Tensor workspace = workspace_for(x, shape, bins);
    visit(x.dtype(), [&]<class T>() {
      run(device, cpu::dpm_head<T>, cuda::dpm_head<T>)(problem, {x, weight, bias}, teacher,
                                                       {depth, lse, offset, result}, workspace);
    });
    if (with_kl) copy_bytes(kl.raw(), device, result.raw(), device, sizeof(float));
  }
  const bool need_dx = x.requires_grad(), need_dweight = weight.requires_grad(), need_dbias = bias.requires_grad();
  // Where x is the output of an activation, the kernel that makes dx goes on through that one.
  const ActivationBelow below_x = activation_below(x);
  const Activation below = below_x.kind;
  const bool need_sums = below_x.sums.requires_grad();
  const auto gradient = [=, x = x.detach(), teacher = with_kl ? teacher.detach() : Tensor()](
                            const Tensor& dkl, const Tensor& ddepth) -> Gradients {
    const OpRange range(name, [&] {
      return Work{(1.0 + need_dx + need_dweight) * flops,
                  (1 + need_dx) * bytes_of(x) + 2 * bytes_of(weight) + bytes_of(teacher, depth, lse, offset, ddepth)};
    });
    Tensor dx = need_dx ? empty_like(x) : Tensor(), dweight = need_dweight ? empty_like(weight) : Tensor();
    Tensor dbias = need_dbias ? empty_like(bias) : Tensor();
    Tensor sums = need_sums ? empty({shape.channels}, DType::kFloat, device) : Tensor();
    const Tensor workspace = workspace_for(x, shape, bins);
    visit(x.dtype(), [&]<class T>() {
      run(device, cpu::dpm_head_grad<T>, cuda::dpm_head_grad<T>)(problem, {x, weight, bias},
                                                                 {teacher, depth, lse, offset, result, dkl, ddepth},
                                                                 {dx, dweight, dbias, below, sums}, workspace);
    });
    return {dx, dweight, dbias, sums};
  };
  const std::vector<Tensor> inputs = {below == Activation::kNone ? x : below_x.dz, weight, bias, below_x.sums};
  if (!with_kl) return {{}, record(name, inputs, depth, [=](const Tensor& dy) { return gradient({}, dy); })};
  const auto outputs =
      record(name, inputs, {kl, depth}, [=](const Gradients& dys) { return gradient(dys[0], dys[1]); });
  return {outputs[0], outputs[1]};
}

}  // namespace

bool dpm_head_supported(Device device, DType dtype, int64_t C, const DpmBins& bins) {
  const DpmShape shape{1, 1, 1, C};
  bool supported = false;
  visit(dtype, [&]<class T>() {
    supported =
        device == Device::kCpu ? cpu::dpm_head_supported<T>(shape, bins) : cuda::dpm_head_supported<T>(shape, bins);
  });
  return supported;
}

DpmOutput dpm_head_loss(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& teacher,
                        const DpmBins& bins, const DpmOptions& options) {
  const DpmShape shape = shape_of("dpm_head_loss", x, weight, bias, bins);
  const Shape map{shape.N, shape.H, shape.W};
  check(
      teacher.defined() && teacher.shape() == map && teacher.dtype() == DType::kFloat && teacher.device() == x.device(),
      "dpm_head_loss: expected an fp32 teacher ", map, " on ", x.device(), ", got ", teacher.dtype(), " ",
      teacher.shape(), " on ", teacher.device());
  check(options.first_row >= 0 && options.first_row < shape.H, "dpm_head_loss: expected first_row within the ", shape.H,
        " rows, got ", options.first_row);
  check(options.eps >= 0.0f, "dpm_head_loss: expected eps >= 0, got ", options.eps);
  const Outputs y = dpm_head("dpm_head_loss", x, weight, bias, teacher, bins, options);
  return {y.kl, y.depth};
}

Tensor dpm_head_depth(const Tensor& x, const Tensor& weight, const Tensor& bias, const DpmBins& bins) {
  return dpm_head("dpm_head_depth", x, weight, bias, {}, bins, {}).depth;
}

}  // namespace depthstill
