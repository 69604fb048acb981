#include "kernels/depthwise/depthwise_conv2d.h"

#include "engine/ops.h"
#include "engine/profile.h"
#include "kernels/batch_norm.h"

namespace depthstill {

namespace {

void check_channels(const char* name, const Tensor& t, const Tensor& x) {
  check(t.shape() == Shape{x.size(3)} && t.dtype() == DType::kFloat && t.device() == x.device(),
        "depthwise_conv2d: expected an fp32 ", name, " (", x.size(3), ") on ", x.device(), ", got ", t.dtype(), " ",
        t.shape(), " on ", t.device());
}

DepthwiseShape checked_shape(const Tensor& x, const Tensor& weight, const DepthwiseConv2dOptions& o) {
  check(x.shape().rank() == 4 && x.numel() > 0, "depthwise_conv2d: expected a non-empty x (N, H, W, C), got ",
        x.shape());
  const int kernel = weight.shape().rank() == 3 && weight.size(0) == 5 ? 5 : 3;
  check(weight.shape() == Shape{kernel, kernel, x.size(3)} && weight.dtype() == DType::kFloat &&
            weight.device() == x.device(),
        "depthwise_conv2d: expected an fp32 weight (K, K, ", x.size(3), "), K = 3 or 5, on ", x.device(), ", got ",
        weight.dtype(), " ", weight.shape(), " on ", weight.device());
  check((o.stride == 1 || o.stride == 2) && o.dilation >= 1,
        "depthwise_conv2d: expected stride 1 or 2 and dilation of at least 1, got ", o.stride, " and ", o.dilation);
  check(o.pad_top >= 0 && o.pad_left >= 0 && o.pad_top <= o.dilation * (kernel - 1) &&
            o.pad_left <= o.dilation * (kernel - 1),
        "depthwise_conv2d: expected a padding of 0 to ", o.dilation * (kernel - 1), ", got ", o.pad_top, " and ",
        o.pad_left);
  return {x.size(0), x.size(1), x.size(2), x.size(3), o.stride, o.dilation, o.pad_top, o.pad_left, kernel};
}

// The work of a pass that computes `products` of the three and moves `inputs` maps like x, `outputs` like y.
Work work_of(int products, int inputs, int outputs, const DepthwiseShape& s, const Tensor& x, const Tensor& filter) {
  const auto count = static_cast<double>(s.N * s.P() * s.Q() * s.C);
  return {products * 2.0 * count * s.kernel * s.kernel, inputs * bytes_of(x) + products * bytes_of(filter) +
                                                            outputs * count * static_cast<double>(size_of(x.dtype()))};
}

ConvolutionResult forward(const DepthwiseShape& shape, const BatchNormInput& norm, const Tensor& x,
                          const Tensor& filter, bool take_moments) {
  const OpRange range("depthwise_conv2d", [&] { return work_of(1, 1, 1, shape, x, filter); });
  Tensor y = empty({shape.N, shape.P(), shape.Q(), shape.C}, x.dtype(), x.device());
  Tensor moments = take_moments ? empty({2, shape.C}, DType::kFloat, x.device()) : Tensor();
  visit(x.dtype(), [&]<class T>() {
    run(x.device(), cpu::depthwise_conv2d<T>, cuda::depthwise_conv2d<T>)(shape, norm, x, filter, y, moments);
  });
  return {y, moments};
}

struct DepthwiseGradients {
  Tensor dx, dfilter, sums;  // sums: with a batch norm
};

DepthwiseGradients gradients(const DepthwiseShape& shape, const BatchNormInput& norm, const Tensor& x,
                             const Tensor& filter, const Tensor& dy, bool need_dx, bool need_dfilter) {
  const OpRange op("depthwise_conv2d",
                   [&] { return work_of(need_dx + need_dfilter, 1 + need_dx, 1, shape, x, filter); });
  const bool need_sums = need_dx && norm.mean != nullptr;
  DepthwiseGradients d{need_dx ? empty_like(x) : Tensor(), need_dfilter ? empty_like(filter) : Tensor(),
                       need_sums ? empty({2, shape.C}, DType::kFloat, x.device()) : Tensor()};
  visit(x.dtype(), [&]<class T>() {
    run(x.device(), cpu::depthwise_conv2d_grad<T>, cuda::depthwise_conv2d_grad<T>)(shape, norm, x, dy, filter, d.dx,
                                                                                   d.dfilter, d.sums);
  });
  return d;
}

}  // namespace

Tensor depthwise_conv2d(const Tensor& x, const Tensor& weight, int stride, int dilation) {
  check(weight.shape().rank() == 3, "depthwise_conv2d: expected a weight (K, K, C), got ", weight.shape());
  const int pad = dilation * static_cast<int>(weight.size(0) - 1) / 2;
  return depthwise_conv2d(x, weight, {stride, dilation, pad, pad});
}

Tensor depthwise_conv2d(const Tensor& x, const Tensor& weight, const DepthwiseConv2dOptions& options) {
  const DepthwiseShape shape = checked_shape(x, weight, options);
  const Tensor y = forward(shape, {}, x, weight, false).y;
  const bool need_dx = x.requires_grad(), need_dweight = weight.requires_grad();
  return record("depthwise_conv2d", {x, weight}, y, [=](const Tensor& dy) -> Gradients {
    const DepthwiseGradients d = gradients(shape, {}, x, weight, dy, need_dx, need_dweight);
    return {d.dx, d.dfilter};
  });
}

ConvolutionResult batch_norm_depthwise_conv2d(const Tensor& x, const BatchNormStatistics& statistics,
                                              const Tensor& weight, const Tensor& bias, Activation activation,
                                              const Tensor& filter, const DepthwiseConv2dOptions& options,
                                              bool take_moments) {
  const DepthwiseShape shape = checked_shape(x, filter, options);
  check_channels("mean", statistics.mean, x);
  check_channels("rstd", statistics.rstd, x);
  check_channels("batch norm weight", weight, x);
  check_channels("batch norm bias", bias, x);
  const Tensor mean = statistics.mean, rstd = statistics.rstd;
  const auto norm = [=] { return BatchNormInput{activation, mean, rstd, weight, bias}; };
  ConvolutionResult result = forward(shape, norm(), x, filter, take_moments);

  const Statistics kind = statistics.of_batch ? Statistics::kBatch : Statistics::kConstant;
  const std::string* norm_range = statistics.range;
  const bool need_dx = x.requires_grad(), need_dfilter = filter.requires_grad();
  const bool need_dz = need_dx || weight.requires_grad() || bias.requires_grad();
  result.y =
      record("batch_norm_depthwise_conv2d", {x, weight, bias, filter}, result.y, [=](const Tensor& dy) -> Gradients {
        const auto [dz, dfilter, sums] = gradients(shape, norm(), x, filter, dy, need_dz, need_dfilter);
        if (!need_dz) return {{}, {}, {}, dfilter};
        const ProfileRange range(norm_range);
        const OpRange op("batch_norm", [&] { return Work{0, 3 * bytes_of(x)}; });
        const Tensor dweight = empty_like(weight), dbias = empty_like(bias);
        visit(x.dtype(), [&]<class T>() {
          run(x.device(), cpu::batch_norm_grad_of_sums<T>, cuda::batch_norm_grad_of_sums<T>)(
              x.numel() / shape.C, static_cast<int>(shape.C), norm(), kind, x, sums, dz, {dz, dweight, dbias});
        });
        return {need_dx ? dz : Tensor(), dweight, dbias, dfilter};
      });
  return result;
}

}  // namespace depthstill
