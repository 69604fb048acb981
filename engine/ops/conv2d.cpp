#include "kernels/conv2d/conv2d.h"

#include "engine/ops.h"
#include "engine/profile.h"
#include "kernels/add.h"

namespace depthstill {
namespace {

Conv2dShape shape_of(const Tensor& x, const Tensor& weight, const Tensor& bias, const Conv2dOptions& o) {
  check(x.shape().rank() == 4 && weight.shape().rank() == 4 && weight.size(3) == x.size(3),
        "conv2d: expected x (N, H, W, C) and weight (O, R, S, C), got ", x.shape(), " and ", weight.shape());
  check(weight.dtype() == DType::kFloat && weight.device() == x.device(), "conv2d: expected an fp32 weight on ",
        x.device(), ", got ", weight.dtype(), " on ", weight.device());
  check(!bias.defined() ||
            (bias.shape() == Shape{weight.size(0)} && bias.dtype() == DType::kFloat && bias.device() == x.device()),
        "conv2d: expected an fp32 bias (", weight.size(0), ") on ", x.device(), ", got ", bias.dtype(), " ",
        bias.shape(), " on ", bias.device());
  check(o.stride >= 1 && o.dilation >= 1 && o.pad_top >= 0 && o.pad_bottom >= 0 && o.pad_left >= 0 && o.pad_right >= 0,
        "conv2d: expected stride and dilation of at least 1 and no negative padding, got stride ", o.stride,
        ", dilation ", o.dilation, ", padding ", o.pad_top, ", ", o.pad_bottom, ", ", o.pad_left, ", ", o.pad_right);
  const Conv2dShape shape{x.size(0),      x.size(1),      x.size(2),  x.size(3),  weight.size(0),
                          weight.size(1), weight.size(2), o.stride,   o.dilation, o.pad_top,
                          o.pad_bottom,   o.pad_left,     o.pad_right};
  check(shape.H + o.pad_top + o.pad_bottom > o.dilation * (shape.R - 1) &&
            shape.W + o.pad_left + o.pad_right > o.dilation * (shape.S - 1),
        "conv2d: the filter ", weight.shape(), " with dilation ", o.dilation, " does not fit the padded image ",
        x.shape());
  return shape;
}

double flops_of(const Conv2dShape& s) {
  return 2.0 * static_cast<double>(s.N * s.P() * s.Q()) * static_cast<double>(s.O * s.R * s.S * s.C);
}

// An OutputGradient is what a convolution's gradient starts from.
struct OutputGradient {
  Tensor dz, dbias;                        // dbias only where it came along with dz
  Activation missing = Activation::kNone;  // dz is still dy, to be multiplied by this one's slope
};

// Joins what arrived at the three slots of record_activated(), the output being y.
OutputGradient join(const Gradients& dys, Activation act, const Tensor& y, bool need_dbias) {
  const Tensor &dy = dys[0], &dz = dys[1], &sums = dys[2];
  if (!dz.defined()) return {act == Activation::kNone ? dy : writable(dy), Tensor(), act};
  check(sums.defined() == need_dbias, "conv2d: expected the gradient of z ", need_dbias ? "with" : "without", " sums");
  if (!dy.defined()) return {dz, sums};
  const int64_t channels = y.size(3);
  const Tensor all = writable(dy);
  const Tensor dbias = need_dbias ? empty({channels}, DType::kFloat, y.device()) : Tensor();
  visit(y.dtype(), [&]<class T>() {
    run(y.device(), cpu::bias_activation_grad<T>, cuda::bias_activation_grad<T>)(
        y.numel() / channels, static_cast<int>(channels), act, y, all, all, dbias);
    run(y.device(), cpu::add<T>, cuda::add<T>)(y.numel(), all, dz, all);
  });
  if (need_dbias) run(y.device(), cpu::add<float>, cuda::add<float>)(channels, dbias, sums, dbias);
  return {all, dbias};
}

// Attaches the gradient to y.
Tensor record_conv2d(const Conv2dShape& shape, const Tensor& x, const Tensor& weight, const Tensor& bias,
                     Activation act, const Tensor& y) {
  const double flops = flops_of(shape);
  const bool need_dx = x.requires_grad(), need_dweight = weight.requires_grad();
  const bool need_dbias = bias.defined() && bias.requires_grad();
  const Tensor saved_y = act == Activation::kNone ? Tensor() : y;
  // Where x is the output of an activation, the kernel that makes dx may go on through that one.
  const ActivationBelow below_x = activation_below(x);
  const auto gradient = [=, x = x.detach()](const Gradients& dys) -> Gradients {
    const bool through = below_x.wants_dz(), need_sums = through && below_x.sums.requires_grad();
    const Activation below = through ? below_x.kind : Activation::kNone;
    // Each product is a pass of its own over dz; the activation's slope is one more, in place, unless it is done.
    const OpRange op("conv2d", [&] {
      const Tensor& any = dys[1].defined() ? dys[1] : dys[0];
      const int slope_passes = saved_y.defined() && dys[0].defined() ? (dys[1].defined() ? 6 : 3) : 0;
      return Work{(need_dx + need_dweight) * flops,
                  slope_passes * bytes_of(any) + (need_dx ? bytes_of(any, weight, x) : 0) +
                      (below != Activation::kNone ? bytes_of(x) : 0) + (need_dweight ? bytes_of(any, weight, x) : 0)};
    });
    const OutputGradient from = join(dys, act, saved_y, need_dbias);
    const bool dbias_missing = need_dbias && !from.dbias.defined();
    Tensor dx = need_dx ? empty_like(x) : Tensor();
    Tensor dweight = need_dweight ? empty_like(weight) : Tensor();
    Tensor dbias = dbias_missing ? empty({shape.O}, DType::kFloat, x.device()) : from.dbias;
    Tensor sums = need_sums ? empty({shape.C}, DType::kFloat, x.device()) : Tensor();
    visit(x.dtype(), [&]<class T>() {
      run(x.device(), cpu::conv2d_grad<T>, cuda::conv2d_grad<T>)(
          shape, from.missing, x, weight, saved_y, from.dz,
          {dx, dweight, dbias_missing ? dbias : Tensor(), below, sums});
    });
    return {through ? Tensor() : dx, dweight, dbias, through ? dx : Tensor(), sums};
  };
  return record_activated("conv2d", {x, weight, bias, below_x.dz, below_x.sums}, y, act, need_dbias, gradient);
}

void check_channels(const char* name, const Tensor& t, int64_t channels, const Tensor& x) {
  check(t.shape() == Shape{channels} && t.dtype() == DType::kFloat && t.device() == x.device(),
        "conv2d: expected an fp32 ", name, " (", channels, ") on ", x.device(), ", got ", t.dtype(), " ", t.shape(),
        " on ", t.device());
}

// The forward pass between batch norms. z exists while it runs.
ConvolutionResult forward_in_chain(const Conv2dShape& shape, const BatchNormInput& norm, const Tensor& x,
                                   const Tensor& filter, const Tensor& mean_guess) {
  if (mean_guess.defined()) check_channels("mean_guess", mean_guess, shape.O, x);
  const Tensor z = norm.mean != nullptr ? empty_like(x) : Tensor();
  const ConvolutionResult result = {empty({shape.N, shape.P(), shape.Q(), shape.O}, x.dtype(), x.device()),
                                    mean_guess.defined() ? empty({2, shape.O}, DType::kFloat, x.device()) : Tensor()};
  const OpRange range("conv2d", [&] { return Work{flops_of(shape), bytes_of(x, filter, result.y)}; });
  visit(x.dtype(), [&]<class T>() {
    run(x.device(), cpu::batch_norm_conv2d<T>, cuda::batch_norm_conv2d<T>)(shape, norm, x, filter, mean_guess, z,
                                                                           result.y, result.moments);
  });
  return result;
}

}  // namespace

Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias, const Conv2dOptions& options) {
  const Conv2dShape shape = shape_of(x, weight, bias, options);
  const Activation act = options.activation;
  const Tensor y = empty({shape.N, shape.P(), shape.Q(), shape.O}, x.dtype(), x.device());
  const OpRange range("conv2d", [&] { return Work{flops_of(shape), bytes_of(x, weight, y)}; });
  visit(x.dtype(),
        [&]<class T>() { run(x.device(), cpu::conv2d<T>, cuda::conv2d<T>)(shape, act, x, weight, bias, y); });
  return record_conv2d(shape, x, weight, bias, act, y);
}

ConvolutionResult conv2d_moments(const Tensor& x, const Tensor& weight, const Tensor& mean_guess,
                                 const Conv2dOptions& options) {
  const Conv2dShape shape = shape_of(x, weight, {}, options);
  ConvolutionResult result = forward_in_chain(shape, {}, x, weight, mean_guess);
  result.y = record_conv2d(shape, x, weight, {}, Activation::kNone, result.y);
  return result;
}

ConvolutionResult batch_norm_conv2d(const Tensor& x, const BatchNormStatistics& statistics, const Tensor& weight,
                                    const Tensor& bias, Activation activation, const Tensor& filter,
                                    const Conv2dOptions& options, const Tensor& mean_guess) {
  const Conv2dShape shape = shape_of(x, filter, {}, options);
  check_channels("mean", statistics.mean, shape.C, x);
  check_channels("rstd", statistics.rstd, shape.C, x);
  check_channels("batch norm weight", weight, shape.C, x);
  check_channels("batch norm bias", bias, shape.C, x);
  const Tensor mean = statistics.mean, rstd = statistics.rstd;
  const auto norm = [=] { return BatchNormInput{activation, mean, rstd, weight, bias}; };
  ConvolutionResult result = forward_in_chain(shape, norm(), x, filter, mean_guess);

  const Statistics kind = statistics.of_batch ? Statistics::kBatch : Statistics::kConstant;
  const std::string* norm_range = statistics.range;
  const bool need_dx = x.requires_grad(), need_dfilter = filter.requires_grad();
  const bool need_dz = need_dx || weight.requires_grad() || bias.requires_grad();
  result.y = record("batch_norm_conv2d", {x, weight, bias, filter}, result.y, [=](const Tensor& dy) -> Gradients {
    const auto channels = static_cast<int>(shape.C);
    const int64_t rows = x.numel() / channels;
    const Tensor dz = need_dz ? empty_like(x) : Tensor(), dfilter = need_dfilter ? empty_like(filter) : Tensor();
    const auto product = [&](const Tensor& z, const Tensor& to_z, const Tensor& to_filter) {
      const OpRange op("conv2d", [&] { return Work{flops_of(shape), bytes_of(dy, filter, x)}; });
      visit(x.dtype(), [&]<class T>() {
        run(x.device(), cpu::conv2d_grad<T>, cuda::conv2d_grad<T>)(shape, Activation::kNone, z, filter, Tensor(), dy,
                                                                   {.dx = to_z, .dweight = to_filter});
      });
    };
    if (need_dz) product({}, dz, {});

    // Between the products z is made again, in the same pass as dx.
    const Tensor z = need_dfilter ? empty_like(x) : Tensor();
    const Tensor dx = need_dx ? dz : Tensor();  // in place
    const Tensor dweight = need_dz ? empty_like(weight) : Tensor(), dbias = need_dz ? empty_like(bias) : Tensor();
    {
      const ProfileRange range(norm_range);
      const int maps = (need_dx ? 5 : need_dz ? 2 : 0) + (need_dfilter ? (need_dx ? 1 : 2) : 0);
      const OpRange op("batch_norm", [&] { return Work{0, maps * bytes_of(x)}; });
      visit(x.dtype(), [&]<class T>() {
        if (need_dz) {
          run(x.device(), cpu::batch_norm_grad<T>, cuda::batch_norm_grad<T>)(rows, channels, norm(), kind, x, dz,
                                                                             {dx, dweight, dbias, z});
        } else if (need_dfilter) {
          run(x.device(), cpu::batch_norm<T>, cuda::batch_norm<T>)(rows, channels, norm(), x, z);
        }
      });
    }
    if (need_dfilter) product(z, {}, dfilter);
    return {dx, dweight, dbias, dfilter};
  });
  return result;
}

}  // namespace depthstill
