#include "kernels/space_to_depth.h"

#include "engine/ops.h"
#include "engine/profile.h"

namespace depthstill {
namespace {

Tensor run_space_to_depth(const SpaceToDepthShape& shape, const Tensor& wide) {
  Tensor deep = empty({shape.N, shape.P(), shape.Q(), shape.block * shape.run()}, wide.dtype(), wide.device());
  const OpRange range("space_to_depth", [&] { return Work{0, bytes_of(wide, deep)}; });
  visit(wide.dtype(),
        [&]<class T>() { run(wide.device(), cpu::space_to_depth<T>, cuda::space_to_depth<T>)(shape, wide, deep); });
  return deep;
}

Tensor run_depth_to_space(const SpaceToDepthShape& shape, const Tensor& deep, const Tensor& bias) {
  Tensor wide = empty({shape.N, shape.H, shape.W, shape.C}, deep.dtype(), deep.device());
  const OpRange range("depth_to_space", [&] { return Work{0, bytes_of(wide, deep)}; });
  visit(deep.dtype(), [&]<class T>() {
    run(deep.device(), cpu::depth_to_space<T>, cuda::depth_to_space<T>)(shape, deep, bias, wide);
  });
  return wide;
}

// The sums over n, h and w.
Tensor channel_sums(const Tensor& dy) {
  const int64_t C = dy.size(3);
  Tensor sums = empty({C}, DType::kFloat, dy.device());
  const OpRange range("channel_sums", [&] { return Work{0, bytes_of(dy)}; });
  visit(dy.dtype(), [&]<class T>() {
    run(dy.device(), cpu::bias_activation_grad<T>, cuda::bias_activation_grad<T>)(
        dy.numel() / C, static_cast<int>(C), Activation::kNone, Tensor(), dy, dy, sums);
  });
  return sums;
}

}  // namespace

Tensor space_to_depth(const Tensor& x, int block) {
  check(x.shape().rank() == 4 && x.numel() > 0 && block >= 1 && x.size(1) % block == 0 && x.size(2) % block == 0,
        "space_to_depth: expected a non-empty x (N, H, W, C) with H and W multiples of the block ", block, ", got ",
        x.shape());
  const SpaceToDepthShape shape{x.size(0), x.size(1), x.size(2), x.size(3), block};
  return record("space_to_depth", {x}, run_space_to_depth(shape, x),
                [shape](const Tensor& dy) -> Gradients { return {run_depth_to_space(shape, dy, Tensor())}; });
}

Tensor depth_to_space(const Tensor& x, int block, const Tensor& bias) {
  const int64_t area = int64_t{block} * block;
  check(x.shape().rank() == 4 && x.numel() > 0 && block >= 1 && x.size(3) % area == 0,
        "depth_to_space: expected a non-empty x (N, H, W, C) with C a multiple of ", area, ", got ", x.shape());
  const SpaceToDepthShape shape{x.size(0), x.size(1) * block, x.size(2) * block, x.size(3) / area, block};
  check(!bias.defined() ||
            (bias.shape() == Shape{shape.C} && bias.dtype() == DType::kFloat && bias.device() == x.device()),
        "depth_to_space: expected an fp32 bias (", shape.C, ") on ", x.device(), ", got ", bias.dtype(), " ",
        bias.shape(), " on ", bias.device());
  const bool need_dx = x.requires_grad(), need_dbias = bias.defined() && bias.requires_grad();
  return record("depth_to_space", {x, bias}, run_depth_to_space(shape, x, bias), [=](const Tensor& dy) -> Gradients {
    return {need_dx ? run_space_to_depth(shape, dy) : Tensor(), need_dbias ? channel_sums(dy) : Tensor()};
  });
}

}  // namespace depthstill
