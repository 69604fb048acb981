// A thin RAII wrapper of cuBLASLt: one planned matrix product of row-major matrices.
#pragma once

#include <cublasLt.h>

#include <cstdint>
#include <string>
#include <utility>

#include "kernels/core/stream.h"

namespace depthstill::cublaslt {

void check_status(cublasStatus_t status, const std::string& what);

// Owns one of cuBLASLt's opaque handles.
template <class Handle, cublasStatus_t (*destroy)(Handle)>
class Owned {
 public:
  Owned() = default;
  Owned(Owned&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Owned& operator=(Owned&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Owned() {
    if (handle_ != nullptr) destroy(handle_);
  }
  Handle get() const { return handle_; }
  Handle* out() { return &handle_; }

 private:
  Handle handle_ = nullptr;
};
using Layout = Owned<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;

// The epilogue is what happens to d besides, with a vector in memory.
enum class Epilogue : uint8_t {
  kNone,
  kBias,         // d += vector[column]; the vector is of d's type
  kReluBias,     // d = relu(d + vector[column])
  kBiasGradient  // vector[row] = sum of op(a)'s row: dbias, where d = dy^T x is the gradient of a weight
};

// d (rows, columns) = op(a) * op(b), summed over `inner`; a transposed matrix is stored as (inner, rows) or (columns,
// inner). Matrices are row-major and dense, a and b of `type`, d of `d_type`; products are accumulated in fp32.
struct MatmulShape {
  int64_t rows = 0, columns = 0, inner = 0;
  bool a_transposed = false, b_transposed = false;
  Epilogue epilogue = Epilogue::kNone;
  bool tf32 = false;  // tensor cores may round fp32 factors to TF32
  cudaDataType_t type = CUDA_R_32F, d_type = CUDA_R_32F;
  auto operator<=>(const MatmulShape&) const = default;
};

class Matmul {
 public:
  // The algorithm that the heuristic for this GPU ranks as number `rank`; throws Error if there is none. All pointers
  // that it is going to be called with must be aligned to 16 bytes.
  explicit Matmul(const MatmulShape& shape, int rank = 0);
  const MatmulShape& shape() const { return shape_; }
  size_t workspace_bytes() const { return algorithm_.workspaceSize; }
  // `vector` is the epilogue's: const for a bias, written for its gradient.
  void operator()(Stream stream, const void* a, const void* b, const void* vector, void* d, void* workspace) const;

 private:
  void set_vector(const void* vector) const;

  MatmulShape shape_;

  std::string name_;
  Owned<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy> operation_;
  Layout first_, second_, result_;
  cublasLtMatmulHeuristicResult_t algorithm_{};
};

}  // namespace depthstill::cublaslt
