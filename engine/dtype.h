#pragma once

#include <cstddef>
#include <cstdint>
#include <ostream>

#include "kernels/core/bf16.h"
#include "kernels/core/error.h"

namespace depthstill {

enum class DType : uint8_t { kFloat, kBf16, kInt32, kInt64, kUint8, kUint16 };

constexpr size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat:
    case DType::kInt32:
      return 4;
    case DType::kInt64:
      return 8;
    case DType::kBf16:
    case DType::kUint16:
      return 2;
    case DType::kUint8:
      return 1;
  }
  return 0;
}

constexpr const char* name_of(DType dtype) {
  constexpr const char* names[] = {"fp32", "bf16", "int32", "int64", "uint8", "uint16"};
  return names[static_cast<int>(dtype)];
}
inline std::ostream& operator<<(std::ostream& out, DType dtype) { return out << name_of(dtype); }

template <class T>
inline constexpr DType dtype_of = DType::kFloat;
template <>
inline constexpr DType dtype_of<bf16> = DType::kBf16;
template <>
inline constexpr DType dtype_of<int32_t> = DType::kInt32;
template <>
inline constexpr DType dtype_of<int64_t> = DType::kInt64;
template <>
inline constexpr DType dtype_of<uint8_t> = DType::kUint8;
template <>
inline constexpr DType dtype_of<uint16_t> = DType::kUint16;

// Calls f.operator()<T>() with the activation type that `dtype` names.
template <class F>
void visit(DType dtype, F f) {
  switch (dtype) {
    case DType::kFloat:
      return f.template operator()<float>();
    case DType::kBf16:
      return f.template operator()<bf16>();
    default:
      fail("expected fp32 or bf16, got ", dtype);
  }
}

}  // namespace depthstill
