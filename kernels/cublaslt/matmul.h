// A thin RAII wrapper of cuBLASLt: one planned matrix product of row-major matrices.
#pragma once

#include <cublasLt.h>

#include <cstdint>
#include <string>
#include <utility>

#include "kernels/stream.h"

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

// d (rows, columns) = op(a) * op(b) + bias[column], summed over `inner`; a transposed matrix is stored as (inner, rows)
// or (columns, inner). Row-major and dense; a and b of `type`, d of `d_type`, bias of `type`; accumulated in fp32 (for
// fp32 in strict fp32, not TF32).
struct MatmulShape {
  int64_t rows = 0, columns = 0, inner = 0;
  bool a_transposed = false, b_transposed = false, has_bias = false;
  cudaDataType_t type = CUDA_R_32F, d_type = CUDA_R_32F;
  auto operator<=>(const MatmulShape&) const = default;
};

class Matmul {
 public:
  // The first algorithm of the heuristic for this GPU; throws Error if there is none. `bias` only shows its alignment.
  Matmul(const MatmulShape& shape, const void* bias);
  size_t workspace_bytes() const { return algorithm_.workspaceSize; }
  void operator()(Stream stream, const void* a, const void* b, const void* bias, void* d, void* workspace) const;

 private:
  void set_bias(const void* bias) const;

  std::string name_;
  Owned<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy> operation_;
  Layout first_, second_, result_;
  cublasLtMatmulHeuristicResult_t algorithm_{};
};

}  // namespace depthstill::cublaslt
