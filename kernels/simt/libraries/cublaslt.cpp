// The functions of cublasLt.h that we call.
#include <cublasLt.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/core/parallel.h"
#include "kernels/simt/libraries/numbers.h"
#include "kernels/simt/libraries/product.h"
#include "kernels/simt/libraries/simulation.h"
#include "kernels/simt/queue.h"

struct cublasLtContext {};

namespace depthstill::simt {
namespace {

struct Refusal {
  cublasStatus_t status;
};
void require(bool ok, cublasStatus_t otherwise = CUBLAS_STATUS_INVALID_VALUE) {
  if (!ok) throw Refusal{otherwise};
}

template <class F>
cublasStatus_t guarded(F f) {
  try {
    f();
    return CUBLAS_STATUS_SUCCESS;
  } catch (const Refusal& refusal) {
    return refusal.status;
  }
}

// ---- descriptors, of which users hold opaque pointers ---------------------------------------------------------------

// Column-major: element (row, column) lies at row + column * leading.
struct Layout {
  cudaDataType_t type;
  int64_t rows, columns, leading;

  bool operator==(const Layout&) const = default;
};

struct Description {
  cublasComputeType_t compute;
  cudaDataType_t scale_type;
  int32_t transpose_a = CUBLAS_OP_N, transpose_b = CUBLAS_OP_N;
  uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  void* bias = nullptr;
};

struct Preference {
  uint64_t most_workspace = 0;
  uint32_t alignment_a = 256, alignment_b = 256, alignment_c = 256, alignment_d = 256;
};

template <class T, class Opaque>
T& from(Opaque* opaque) {
  require(opaque != nullptr);
  return *reinterpret_cast<T*>(opaque);
}
template <class T, class Opaque>
void make(Opaque** opaque, const T& value) {
  require(opaque != nullptr);
  *opaque = reinterpret_cast<Opaque*>(new T(value));
}
template <class T, class Opaque>
cublasStatus_t destroy(Opaque* opaque) {
  delete reinterpret_cast<T*>(opaque);
  return CUBLAS_STATUS_SUCCESS;
}

template <class T>
void assign(T& attribute, const void* value, size_t bytes) {
  require(value != nullptr && bytes == sizeof(T));
  std::memcpy(&attribute, value, bytes);
}

// ---- problems -------------------------------------------------------------------------------------------------------

Format format_of(cudaDataType_t type) {
  require(type == CUDA_R_32F || type == CUDA_R_16BF, CUBLAS_STATUS_NOT_SUPPORTED);
  return type == CUDA_R_32F ? Format::kFloat : Format::kBf16;
}

// d (m, n) = alpha * op(a) (m, k) * op(b) (k, n) + beta * c, by values only.
struct Problem {
  Layout a, b, c, d;
  bool a_transposed = false, b_transposed = false, tf32 = false;
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  int64_t m = 0, n = 0, k = 0;

  bool adds_bias() const { return epilogue == CUBLASLT_EPILOGUE_BIAS || epilogue == CUBLASLT_EPILOGUE_RELU_BIAS; }
  bool sums_b() const { return epilogue == CUBLASLT_EPILOGUE_BGRADB; }
  bool operator==(const Problem&) const = default;
};

bool is_transposed(int32_t operation) {
  require(operation == CUBLAS_OP_N || operation == CUBLAS_OP_T);
  return operation == CUBLAS_OP_T;
}

// The rows of the documentation's table of types that we use: all fp32, or factors in bf16 with a result in either.
void check_types(const Description& description, const Problem& p) {
  const bool fast = description.compute == CUBLAS_COMPUTE_32F_FAST_TF32;
  require(fast || description.compute == CUBLAS_COMPUTE_32F, CUBLAS_STATUS_NOT_SUPPORTED);
  require(description.scale_type == CUDA_R_32F, CUBLAS_STATUS_NOT_SUPPORTED);
  const Format factor = format_of(p.a.type);
  require(format_of(p.b.type) == factor && p.c.type == p.d.type, CUBLAS_STATUS_NOT_SUPPORTED);
  require(factor == Format::kBf16 || format_of(p.d.type) == Format::kFloat, CUBLAS_STATUS_NOT_SUPPORTED);
  require(!fast || factor == Format::kFloat, CUBLAS_STATUS_NOT_SUPPORTED);
}

Problem make_problem(const Description& description, const Layout& a, const Layout& b, const Layout& c,
                     const Layout& d) {
  Problem p{.a = a, .b = b, .c = c, .d = d};
  p.a_transposed = is_transposed(description.transpose_a);
  p.b_transposed = is_transposed(description.transpose_b);
  p.tf32 = description.compute == CUBLAS_COMPUTE_32F_FAST_TF32;
  p.m = d.rows;
  p.n = d.columns;
  p.k = p.a_transposed ? a.rows : a.columns;
  require((p.a_transposed ? a.columns : a.rows) == p.m);
  require((p.b_transposed ? b.columns : b.rows) == p.k && (p.b_transposed ? b.rows : b.columns) == p.n);
  require(c.rows == p.m && c.columns == p.n);
  for (const Layout* layout : {&a, &b, &c, &d})
    require(layout->rows > 0 && layout->columns > 0 && layout->leading >= layout->rows);
  check_types(description, p);
  p.epilogue = static_cast<cublasLtEpilogue_t>(description.epilogue);
  require(p.epilogue == CUBLASLT_EPILOGUE_DEFAULT || p.adds_bias() || p.sums_b(), CUBLAS_STATUS_NOT_SUPPORTED);
  return p;
}

// ---- algorithms -----------------------------------------------------------------------------------------------------

uint32_t alignment_of(const void* pointer) {
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  return address == 0 ? 256 : static_cast<uint32_t>(std::min<uintptr_t>(256, address & (~address + 1)));
}

// The opaque cublasLtMatmulAlgo_t holds this: an algorithm is for one problem and for pointers as aligned as asked.
struct Algorithm {
  const Problem* problem;
  size_t workspace_bytes;
  uint32_t alignment_a, alignment_b, alignment_c, alignment_d, alignment_bias;
  bool fails;
};
static_assert(sizeof(Algorithm) <= sizeof(cublasLtMatmulAlgo_t));

struct Offer {
  size_t workspace_bytes;
  bool fails = false;
};
constexpr Offer kOffers[] = {{1 << 16}, {0}, {1 << 20}, {0, true}};

// Keeps one copy per problem, for the life of the process.
const Problem* keep(const Problem& problem) {
  static auto& kept = *new std::vector<const Problem*>();
  for (const Problem* known : kept) {
    if (*known == problem) return known;
  }
  kept.push_back(new Problem(problem));
  return kept.back();
}

int rank_algorithms(const Problem& problem, const Description& description, const Preference& preference, int most,
                    cublasLtMatmulHeuristicResult_t* results) {
  int count = 0;
  for (const Offer& offer : kOffers) {
    if (count == most) break;
    if (offer.workspace_bytes > preference.most_workspace) continue;
    const Algorithm algorithm{
        keep(problem),          offer.workspace_bytes,  preference.alignment_a,         preference.alignment_b,
        preference.alignment_c, preference.alignment_d, alignment_of(description.bias), offer.fails};
    cublasLtMatmulHeuristicResult_t result{};
    std::memcpy(&result.algo, &algorithm, sizeof(algorithm));
    result.workspaceSize = offer.workspace_bytes;
    result.state = CUBLAS_STATUS_SUCCESS;
    result.wavesCount = 1.0f;
    results[count++] = result;
  }
  return count;
}

// ---- execution ------------------------------------------------------------------------------------------------------

struct Operands {
  const void *a, *b, *c;
  void *d, *bias, *workspace;
  float alpha, beta;
};

// op(matrix) as (rows, columns) with neighbours in memory along the rows, unless it is `by_columns`.
Values read(const Layout& layout, bool transposed, bool tf32, bool by_columns, const void* matrix) {
  const Format format = format_of(layout.type);
  const int64_t rows = transposed ? layout.columns : layout.rows, columns = transposed ? layout.rows : layout.columns;
  Values values(static_cast<size_t>(rows * columns));
  parallel_for(columns, 16, [&](int64_t column) {
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t at = transposed ? column + row * layout.leading : row + column * layout.leading;
      const float value = load(format, matrix, at);
      values[static_cast<size_t>(by_columns ? row + column * rows : row * columns + column)] =
          tf32 ? rounded_to_tf32(value) : value;
    }
  });
  return values;
}

void forget_outputs(const Problem& p, const Operands& x) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const Format format = format_of(p.d.type);
  if (x.beta == 0.0f) {
    for (int64_t i = 0; i < p.m * p.n; ++i) store(format, x.d, i % p.m + i / p.m * p.d.leading, kNan);
  }
  if (p.sums_b()) fill_with_nan(x.bias, static_cast<size_t>(p.n * bytes_of(format)));
}

// The bias has a value per row of d; the gradient of a bias one per column, the sum of b's over k. Both are of d's
// type.
void compute(const Problem& p, const Operands& x) {
  forget_outputs(p, x);
  const Format format = format_of(p.d.type);
  const Values a = read(p.a, p.a_transposed, p.tf32, true, x.a);  // (k, m), m innermost
  const Values b = read(p.b, p.b_transposed, p.tf32, true, x.b);  // (n, k), k innermost
  Values product(static_cast<size_t>(p.m * p.n));                 // (n, m), m innermost
  parallel_for((p.n + 15) / 16, 1, [&](int64_t part) {
    const int64_t begin = part * 16;
    multiply_add({.rows = std::min<int64_t>(16, p.n - begin),
                  .columns = p.m,
                  .inner = p.k,
                  .a = b.data() + begin * p.k,
                  .a_row = p.k,
                  .a_inner = 1,
                  .b = a.data(),
                  .b_inner = p.m,
                  .c = product.data() + begin * p.m,
                  .c_row = p.m});
  });
  for (int64_t j = 0; j < p.n; ++j) {
    for (int64_t i = 0; i < p.m; ++i) {
      float value = x.alpha * product[static_cast<size_t>(j * p.m + i)];
      if (x.beta != 0.0f) value += x.beta * load(format_of(p.c.type), x.c, i + j * p.c.leading);
      if (p.adds_bias()) value += load(format, x.bias, i);
      if (p.epilogue == CUBLASLT_EPILOGUE_RELU_BIAS && value < 0.0f) value = 0.0f;
      store(format, x.d, i + j * p.d.leading, value);
    }
  }
  for (int64_t j = 0; p.sums_b() && j < p.n; ++j) {
    double sum = 0.0;
    for (int64_t l = 0; l < p.k; ++l) sum += static_cast<double>(b[static_cast<size_t>(j * p.k + l)]);
    store(format, x.bias, j, static_cast<float>(sum));
  }
}

void check_operands(const Problem& p, const Algorithm& algorithm, const Operands& x, size_t workspace_bytes) {
  require(x.a != nullptr && x.b != nullptr && x.d != nullptr && (x.c != nullptr || x.beta == 0.0f));
  require(is_aligned(x.a, algorithm.alignment_a) && is_aligned(x.b, algorithm.alignment_b));
  require(is_aligned(x.c, algorithm.alignment_c) && is_aligned(x.d, algorithm.alignment_d));
  if (p.adds_bias() || p.sums_b()) require(x.bias != nullptr && is_aligned(x.bias, algorithm.alignment_bias));
  require(workspace_bytes >= algorithm.workspace_bytes);
  require(algorithm.workspace_bytes == 0 || (x.workspace != nullptr && is_aligned(x.workspace, 16)));
}

}  // namespace
}  // namespace depthstill::simt

using namespace depthstill::simt;

size_t cublasLtGetVersion() { return CUBLAS_VERSION; }

const char* cublasLtGetStatusString(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "success";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "an invalid value";
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "not supported";
    case CUBLAS_STATUS_EXECUTION_FAILED:
      return "the execution failed";
    default:
      return "an internal error";
  }
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  return guarded([&] { make(handle, cublasLtContext{}); });
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type, uint64_t rows,
                                          uint64_t columns, int64_t leading) {
  return guarded([&] {
    make(layout, Layout{type, static_cast<int64_t>(rows), static_cast<int64_t>(columns), leading});
  });
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) { return destroy<Layout>(layout); }

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* description, cublasComputeType_t compute,
                                        cudaDataType_t scale_type) {
  return guarded([&] { make(description, Description{compute, scale_type}); });
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t description) { return destroy<Description>(description); }

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t opaque, cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, size_t bytes) {
  return guarded([&] {
    auto& description = from<Description>(opaque);
    switch (attribute) {
      case CUBLASLT_MATMUL_DESC_TRANSA:
        return assign(description.transpose_a, value, bytes);
      case CUBLASLT_MATMUL_DESC_TRANSB:
        return assign(description.transpose_b, value, bytes);
      case CUBLASLT_MATMUL_DESC_EPILOGUE:
        return assign(description.epilogue, value, bytes);
      case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
        return assign(description.bias, value, bytes);
      default:
        throw Refusal{CUBLAS_STATUS_NOT_SUPPORTED};
    }
  });
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  return guarded([&] { make(preference, Preference{}); });
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  return destroy<Preference>(preference);
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t opaque,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void* value,
                                                    size_t bytes) {
  return guarded([&] {
    auto& preference = from<Preference>(opaque);
    switch (attribute) {
      case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
        return assign(preference.most_workspace, value, bytes);
      case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
        return assign(preference.alignment_a, value, bytes);
      case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
        return assign(preference.alignment_b, value, bytes);
      case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
        return assign(preference.alignment_c, value, bytes);
      case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
        return assign(preference.alignment_d, value, bytes);
      default:
        throw Refusal{CUBLAS_STATUS_NOT_SUPPORTED};
    }
  });
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t description,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int most,
                                              cublasLtMatmulHeuristicResult_t results[], int* count) {
  return guarded([&] {
    require(handle != nullptr && most > 0 && results != nullptr && count != nullptr);
    const auto& described = from<Description>(description);
    const Problem problem = make_problem(described, from<Layout>(a), from<Layout>(b), from<Layout>(c), from<Layout>(d));
    *count = rank_algorithms(problem, described, from<Preference>(preference), most, results);
  });
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t description, const void* alpha,
                              const void* A, cublasLtMatrixLayout_t a, const void* B, cublasLtMatrixLayout_t b,
                              const void* beta, const void* C, cublasLtMatrixLayout_t c, void* D,
                              cublasLtMatrixLayout_t d, const cublasLtMatmulAlgo_t* algo, void* workspace,
                              size_t workspace_bytes, cudaStream_t stream) {
  return guarded([&] {
    require(handle != nullptr && alpha != nullptr && beta != nullptr && algo != nullptr);
    const auto& described = from<Description>(description);
    const Problem problem = make_problem(described, from<Layout>(a), from<Layout>(b), from<Layout>(c), from<Layout>(d));
    Algorithm algorithm;
    std::memcpy(&algorithm, algo, sizeof(algorithm));
    require(algorithm.problem == keep(problem));
    const Operands operands{
        A, B, C, D, described.bias, workspace, *static_cast<const float*>(alpha), *static_cast<const float*>(beta)};
    check_operands(problem, algorithm, operands, workspace_bytes);
    require(!algorithm.fails && !execution_fails(), CUBLAS_STATUS_EXECUTION_FAILED);
    submit(stream, [problem, operands, bytes = algorithm.workspace_bytes] {
      if (bytes > 0) fill_with_nan(operands.workspace, bytes);
      compute(problem, operands);
    });
  });
}
