// Functions of single elements, for losses that are composed of ops.
//   unary    y = f(x)                           dx = f'(x) dy
//     kAbs       |x|          f' = sign(x)
//     kExp       e^x          e^x
//     kLog       ln x         1 / x
//     kSquare    x^2          2 x
//     kClampMax  min(x, p)    1 where x <= p, else 0
//   binary   y = f(a, b)                        da = df/da dy, db = df/db dy
//     kSub       a - b        1, -1
//     kMul       a b          b, a
//     kDiv       a / b        1 / b, -a / b^2
// Where dy is 0 the gradient is 0, whatever the slope: a pixel that a mask leaves out of a sum may hold the logarithm
// of 0. Products are made in fp32 and rounded once. Bound: memory. Elements moved: unary 2, its gradient 3; binary 3,
// its gradient 3 and one for each of da and db.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/core/bf16.h"
#include "kernels/core/stream.h"

namespace depthstill {

enum class UnaryKind : uint8_t { kAbs, kExp, kLog, kSquare, kClampMax };
enum class BinaryKind : uint8_t { kSub, kMul, kDiv };

template <UnaryKind kind>
DS_HOST_DEVICE inline float unary_value(float x, float p) {
  if constexpr (kind == UnaryKind::kAbs) return std::fabs(x);
  if constexpr (kind == UnaryKind::kExp) return std::exp(x);
  if constexpr (kind == UnaryKind::kLog) return std::log(x);
  if constexpr (kind == UnaryKind::kSquare) return x * x;
  if constexpr (kind == UnaryKind::kClampMax) return x > p ? p : x;  // NaN stays
}

template <UnaryKind kind>
DS_HOST_DEVICE inline float unary_gradient(float x, float p, float dy) {
  if (dy == 0.0f) return 0.0f;
  if constexpr (kind == UnaryKind::kAbs) return x > 0.0f ? dy : x < 0.0f ? -dy : x * dy;  // NaN stays
  if constexpr (kind == UnaryKind::kExp) return std::exp(x) * dy;
  if constexpr (kind == UnaryKind::kLog) return dy / x;
  if constexpr (kind == UnaryKind::kSquare) return 2.0f * x * dy;
  if constexpr (kind == UnaryKind::kClampMax) return x > p ? 0.0f : dy;
}

template <BinaryKind kind>
DS_HOST_DEVICE inline float binary_value(float a, float b) {
  if constexpr (kind == BinaryKind::kSub) return a - b;
  if constexpr (kind == BinaryKind::kMul) return a * b;
  if constexpr (kind == BinaryKind::kDiv) return a / b;
}

struct BinaryGradient {
  float da, db;
};
template <BinaryKind kind>
DS_HOST_DEVICE inline BinaryGradient binary_gradient(float a, float b, float dy) {
  if (dy == 0.0f) return {0.0f, 0.0f};
  if constexpr (kind == BinaryKind::kSub) return {dy, -dy};
  if constexpr (kind == BinaryKind::kMul) return {b * dy, a * dy};
  if constexpr (kind == BinaryKind::kDiv) return {dy / b, -a / b * (dy / b)};
}

// Calls f.operator()<kind>().
template <class F>
void visit_unary(UnaryKind kind, F f) {
  switch (kind) {
    case UnaryKind::kAbs:
      return f.template operator()<UnaryKind::kAbs>();
    case UnaryKind::kExp:
      return f.template operator()<UnaryKind::kExp>();
    case UnaryKind::kLog:
      return f.template operator()<UnaryKind::kLog>();
    case UnaryKind::kSquare:
      return f.template operator()<UnaryKind::kSquare>();
    case UnaryKind::kClampMax:
      return f.template operator()<UnaryKind::kClampMax>();
  }
}

template <class F>
void visit_binary(BinaryKind kind, F f) {
  switch (kind) {
    case BinaryKind::kSub:
      return f.template operator()<BinaryKind::kSub>();
    case BinaryKind::kMul:
      return f.template operator()<BinaryKind::kMul>();
    case BinaryKind::kDiv:
      return f.template operator()<BinaryKind::kDiv>();
  }
}

// Arrays of n elements; p: of kClampMax. da or db may be null.
namespace cpu {
template <class T>
void unary(Stream stream, UnaryKind kind, float p, int64_t n, const T* x, T* y);
template <class T>
void unary_grad(Stream stream, UnaryKind kind, float p, int64_t n, const T* x, const T* dy, T* dx);
template <class T>
void binary(Stream stream, BinaryKind kind, int64_t n, const T* a, const T* b, T* y);
template <class T>
void binary_grad(Stream stream, BinaryKind kind, int64_t n, const T* a, const T* b, const T* dy, T* da, T* db);
}  // namespace cpu
namespace cuda {
template <class T>
void unary(Stream stream, UnaryKind kind, float p, int64_t n, const T* x, T* y);
template <class T>
void unary_grad(Stream stream, UnaryKind kind, float p, int64_t n, const T* x, const T* dy, T* dx);
template <class T>
void binary(Stream stream, BinaryKind kind, int64_t n, const T* a, const T* b, T* y);
template <class T>
void binary_grad(Stream stream, BinaryKind kind, int64_t n, const T* a, const T* b, const T* dy, T* da, T* db);
}  // namespace cuda
}  // namespace depthstill
