#include "kernels/cublaslt/matmul.h"

#include <vector>

#include "kernels/core/dry_run.h"
#include "kernels/core/error.h"

namespace depthstill::cublaslt {
namespace {

constexpr uint64_t kWorkspaceCap = uint64_t{32} << 20;  // the recommendation for split-k algorithms on an H100
constexpr uint32_t kAlignment = 16;

cublasLtHandle_t handle() {
  // One handle serves for the life of the process: by its end the driver may be gone.
  static const cublasLtHandle_t created = [] {
    cublasLtHandle_t h = nullptr;
    check_status(cublasLtCreate(&h), "creating a handle");
    return h;
  }();
  return created;
}

Layout column_major(cudaDataType_t type, int64_t rows, int64_t columns) {
  Layout layout;
  check_status(
      cublasLtMatrixLayoutCreate(layout.out(), type, static_cast<uint64_t>(rows), static_cast<uint64_t>(columns), rows),
      "describing a matrix");
  return layout;
}

cublasLtEpilogue_t name_in_cublaslt(Epilogue epilogue) {
  switch (epilogue) {
    case Epilogue::kNone:
      return CUBLASLT_EPILOGUE_DEFAULT;
    case Epilogue::kBias:
      return CUBLASLT_EPILOGUE_BIAS;
    case Epilogue::kReluBias:
      return CUBLASLT_EPILOGUE_RELU_BIAS;
    case Epilogue::kBiasGradient:
      return CUBLASLT_EPILOGUE_BGRADB;
  }
  fail("cublaslt: unknown epilogue");
}

}  // namespace

void check_status(cublasStatus_t status, const std::string& what) {
  check(status == CUBLAS_STATUS_SUCCESS, "cublaslt: ", what, ": ", cublasLtGetStatusString(status));
}

// cuBLASLt counts in column-major matrices, as which ours are transposed: it computes d^T = op(b)^T * op(a)^T. A bias
// then runs along the rows, as its epilogue wants, and the bias gradient is the sum of its second factor over `inner`.
Matmul::Matmul(const MatmulShape& s, int rank)
    : shape_(s),
      name_(concat_text("product (", s.rows, ", ", s.inner, ") x (", s.inner, ", ", s.columns, ")")),
      first_(column_major(s.type, s.b_transposed ? s.inner : s.columns, s.b_transposed ? s.columns : s.inner)),
      second_(column_major(s.type, s.a_transposed ? s.rows : s.inner, s.a_transposed ? s.inner : s.rows)),
      result_(column_major(s.d_type, s.columns, s.rows)) {
  const bool tf32 = s.tf32 && s.type == CUDA_R_32F;
  check_status(
      cublasLtMatmulDescCreate(operation_.out(), tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F),
      name_);
  const auto set = [&](cublasLtMatmulDescAttributes_t attribute, auto value) {
    check_status(cublasLtMatmulDescSetAttribute(operation_.get(), attribute, &value, sizeof(value)), name_);
  };
  set(CUBLASLT_MATMUL_DESC_TRANSA, s.b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(CUBLASLT_MATMUL_DESC_TRANSB, s.a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
  if (s.epilogue != Epilogue::kNone) {
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, name_in_cublaslt(s.epilogue));
    set_vector(reinterpret_cast<const void*>(uintptr_t{kAlignment}));  // the heuristic looks at the alignment only
  }

  if (cuda::dry_running()) return;  // algorithms are looked up for a GPU only

  Owned<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy> preference;
  check_status(cublasLtMatmulPreferenceCreate(preference.out()), name_);
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
    check_status(cublasLtMatmulPreferenceSetAttribute(preference.get(), attribute, &value, sizeof(value)), name_);
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspaceCap);
  for (const auto alignment :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    prefer(alignment, kAlignment);
  }
  int found = 0;
  std::vector<cublasLtMatmulHeuristicResult_t> ranked(static_cast<size_t>(rank) + 1);
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(handle(), operation_.get(), first_.get(), second_.get(), result_.get(),
                                     result_.get(), preference.get(), rank + 1, ranked.data(), &found);
  check_status(status, name_);
  check(found > rank, "cublaslt: expected more than ", rank, " algorithms for ", name_, ", found ", found);
  algorithm_ = ranked[static_cast<size_t>(rank)];
  check_status(algorithm_.state, name_);
}

void Matmul::set_vector(const void* vector) const {
  check_status(
      cublasLtMatmulDescSetAttribute(operation_.get(), CUBLASLT_MATMUL_DESC_BIAS_POINTER, &vector, sizeof(vector)),
      name_);
}

void Matmul::operator()(Stream stream, const void* a, const void* b, const void* vector, void* d,
                        void* workspace) const {
  if (cuda::dry_running()) return cuda::record_library_call("cublaslt: " + name_);
  const float alpha = 1.0f, beta = 0.0f;
  if (shape_.epilogue != Epilogue::kNone) set_vector(vector);
  check_status(cublasLtMatmul(handle(), operation_.get(), &alpha, b, first_.get(), a, second_.get(), &beta, d,
                              result_.get(), d, result_.get(), &algorithm_.algo, workspace, algorithm_.workspaceSize,
                              static_cast<cudaStream_t>(stream.handle)),
               name_);
}

}  // namespace depthstill::cublaslt
