#include "kernels/pointwise.h"

#include "engine/ops.h"
#include "engine/profile.h"

namespace depthstill {
namespace {

Tensor unary(const char* op, UnaryKind kind, const Tensor& x, float p = 0.0f) {
  const OpRange range(op, [&] { return Work{0, 2 * bytes_of(x)}; });
  Tensor y = empty_like(x);
  visit(x.dtype(), [&]<class T>() { run(x.device(), cpu::unary<T>, cuda::unary<T>)(kind, p, x.numel(), x, y); });
  return record(op, {x}, y, [=, x = x.detach()](const Tensor& dy) -> Gradients {
    const OpRange backward(op, [&] { return Work{0, 3 * bytes_of(x)}; });
    Tensor dx = empty_like(x);
    visit(x.dtype(),
          [&]<class T>() { run(x.device(), cpu::unary_grad<T>, cuda::unary_grad<T>)(kind, p, x.numel(), x, dy, dx); });
    return {dx};
  });
}

Tensor binary(const char* op, BinaryKind kind, const Tensor& a, const Tensor& b) {
  check(a.shape() == b.shape() && a.dtype() == b.dtype() && a.device() == b.device(), op,
        ": expected two tensors of one shape, type and device, got ", a.shape(), " ", a.dtype(), " on ", a.device(),
        " and ", b.shape(), " ", b.dtype(), " on ", b.device());
  const OpRange range(op, [&] { return Work{0, 3 * bytes_of(a)}; });
  Tensor y = empty_like(a);
  visit(a.dtype(), [&]<class T>() { run(a.device(), cpu::binary<T>, cuda::binary<T>)(kind, a.numel(), a, b, y); });
  const bool need_da = a.requires_grad(), need_db = b.requires_grad();
  return record(op, {a, b}, y, [=, a = a.detach(), b = b.detach()](const Tensor& dy) -> Gradients {
    const OpRange backward(op, [&] { return Work{0, (3 + need_da + need_db) * bytes_of(a)}; });
    Tensor da = need_da ? empty_like(a) : Tensor(), db = need_db ? empty_like(b) : Tensor();
    visit(a.dtype(), [&]<class T>() {
      run(a.device(), cpu::binary_grad<T>, cuda::binary_grad<T>)(kind, a.numel(), a, b, dy, da, db);
    });
    return {da, db};
  });
}

}  // namespace

Tensor abs(const Tensor& x) { return unary("abs", UnaryKind::kAbs, x); }
Tensor exp(const Tensor& x) { return unary("exp", UnaryKind::kExp, x); }
Tensor log(const Tensor& x) { return unary("log", UnaryKind::kLog, x); }
Tensor square(const Tensor& x) { return unary("square", UnaryKind::kSquare, x); }
Tensor clamp_max(const Tensor& x, float max) { return unary("clamp_max", UnaryKind::kClampMax, x, max); }
Tensor sub(const Tensor& a, const Tensor& b) { return binary("sub", BinaryKind::kSub, a, b); }
Tensor mul(const Tensor& a, const Tensor& b) { return binary("mul", BinaryKind::kMul, a, b); }
Tensor div(const Tensor& a, const Tensor& b) { return binary("div", BinaryKind::kDiv, a, b); }

}  // namespace depthstill
