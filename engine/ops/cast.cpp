#include "kernels/cast.h"

#include "engine/ops.h"
#include "engine/profile.h"

namespace depthstill {
namespace {

Tensor converted(const Tensor& x, DType dtype) {
  Tensor y = empty(x.shape(), dtype, x.device());
  const OpRange range("cast", [&] { return Work{0, bytes_of(x, y)}; });
  if (dtype == DType::kBf16) {
    run(x.device(), cpu::cast<float, bf16>, cuda::cast<float, bf16>)(x.numel(), x, y);
  } else {
    run(x.device(), cpu::cast<bf16, float>, cuda::cast<bf16, float>)(x.numel(), x, y);
  }
  return y;
}

bool is_floating(DType dtype) { return dtype == DType::kFloat || dtype == DType::kBf16; }

}  // namespace

Tensor cast(const Tensor& x, DType dtype) {
  check(is_floating(x.dtype()) && is_floating(dtype), "cast: expected fp32 or bf16, got ", x.dtype(), " to ", dtype);
  if (x.dtype() == dtype) return x;
  return record("cast", {x}, converted(x, dtype),
                [before = x.dtype()](const Tensor& dy) -> Gradients { return {converted(dy, before)}; });
}

}  // namespace depthstill
