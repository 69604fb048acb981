#include "kernels/concat.h"

#include "engine/ops.h"
#include "engine/profile.h"

namespace depthstill {

Tensor concat(const Tensor& a, const Tensor& b) {
  const Shape &sa = a.shape(), &sb = b.shape();
  check(sa.rank() == 4 && sb.rank() == 4 && sa[0] == sb[0] && sa[1] == sb[1] && sa[2] == sb[2],
        "concat: expected two (N, H, W, C) maps that differ in C alone, got ", sa, " and ", sb);
  check(a.dtype() == b.dtype() && a.device() == b.device(), "concat: expected one type and device, got ", a.dtype(),
        " on ", a.device(), " and ", b.dtype(), " on ", b.device());
  const int64_t rows = sa[0] * sa[1] * sa[2];
  Tensor y = empty({sa[0], sa[1], sa[2], sa[3] + sb[3]}, a.dtype(), a.device());
  const OpRange range("concat", [&] { return Work{0, 2 * bytes_of(y)}; });
  visit(a.dtype(), [&]<class T>() { run(a.device(), cpu::concat<T>, cuda::concat<T>)(rows, sa[3], sb[3], a, b, y); });
  const bool a_needed = a.requires_grad(), b_needed = b.requires_grad();
  return record("concat", {a, b}, y, [sa, sb, rows, a_needed, b_needed](const Tensor& dy) -> Gradients {
    Tensor da = a_needed ? empty(sa, dy.dtype(), dy.device()) : Tensor();
    Tensor db = b_needed ? empty(sb, dy.dtype(), dy.device()) : Tensor();
    const OpRange op("concat", [&] { return Work{0, 2 * bytes_of(da, db)}; });
    visit(dy.dtype(), [&]<class T>() {
      run(dy.device(), cpu::concat_grad<T>, cuda::concat_grad<T>)(rows, sa[3], sb[3], dy, da, db);
    });
    return {da, db};
  });
}

}  // namespace depthstill
