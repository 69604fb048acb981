// cuda::linear and its gradient: one cuBLASLt product per pass and shape, our own kernels for casts and column sums.
#include "kernels/linear.h"

#include <array>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels/activation.h"
#include "kernels/cast.h"
#include "kernels/core/error.h"
#include "kernels/core/library_options.h"
#include "kernels/cublaslt/matmul.h"
#include "kernels/plans/choice.h"
#include "kernels/plans/timer.h"

namespace depthstill::cuda {
namespace {

using cublaslt::Epilogue, cublaslt::Matmul, cublaslt::MatmulShape;

template <class T>
constexpr cudaDataType_t kCudaType = std::is_same_v<T, float> ? CUDA_R_32F : CUDA_R_16BF;

MatmulShape with_precision(MatmulShape shape) {
  shape.tf32 = !library_options().strict_fp32;
  return shape;
}

using RunProduct = std::function<void(const Matmul&)>;

// Calls `run` with the first of the heuristic's algorithms that runs: from its second call on, a shape has its plan.
void run_product(const MatmulShape& any_precision, const RunProduct& run) {
  static auto& chosen = *new std::map<MatmulShape, Matmul>();
  const MatmulShape shape = with_precision(any_precision);
  const auto found = chosen.find(shape);
  if (found != chosen.end()) return run(found->second);
  plans::Chooser<Matmul> by;
  by.run = run;
  const auto ranked = [&](plans::Wanted wanted) {
    constexpr int kMost = 8;
    std::vector<Matmul> algorithms;
    algorithms.emplace_back(shape);
    for (int rank = 1; wanted == plans::Wanted::kAll && rank < kMost; ++rank) {
      try {
        algorithms.emplace_back(shape, rank);
      } catch (const Error&) {  // not for this rank
      }
    }
    return algorithms;
  };
  const std::string name =
      concat_text("a linear layer's product ", shape.rows, " x ", shape.inner, " x ", shape.columns);
  chosen.emplace(shape, plans::first_that_runs<Matmul>(name, by, ranked));
}

size_t aligned(size_t bytes) { return (bytes + 255) / 256 * 256; }

// Scratch that a parameter takes as T.
template <class T>
size_t typed_bytes(int64_t n) {
  return std::is_same_v<T, float> ? 0 : aligned(static_cast<size_t>(n) * sizeof(T));
}

// A parameter as T: itself in fp32, rounded into `room` in bf16.
template <class T>
const void* typed(Stream stream, int64_t n, const float* parameter, void* room) {
  if constexpr (std::is_same_v<T, float>) {
    return parameter;
  } else {
    cast<float, T>(stream, n, parameter, static_cast<T*>(room));
    return room;
  }
}

template <class T>
MatmulShape weight_gradient_shape(const LinearShape& s, Epilogue epilogue) {
  return {
      .rows = s.O, .columns = s.I, .inner = s.rows, .a_transposed = true, .epilogue = epilogue, .type = kCudaType<T>};
}

template <class T>
void run_weight_gradient(Stream stream, const LinearShape& s, Epilogue epilogue, const T* x, const T* dy,
                         float* dweight, float* dbias) {
  run_product(weight_gradient_shape<T>(s, epilogue), [&](const Matmul& product) {
    void* workspace = stream.scratch->get(product.workspace_bytes() + 256);
    product(stream, dy, x, dbias, dweight, workspace);
  });
}

template <class T>
void run_bias_gradient(Stream stream, const LinearShape& s, const T* dy, float* dbias) {
  T* in_place = const_cast<T*>(dy);  // not written without an activation
  bias_activation_grad<T>(stream, s.rows, static_cast<int>(s.O), Activation::kNone, nullptr, dy, in_place, dbias);
}

// Where dbias comes from, when dweight is computed as well: a kernel of its own, or the product's epilogue.
enum class BiasGradient : uint8_t { kKernel, kEpilogue };

template <class T>
void run_parameter_gradients(Stream stream, const LinearShape& s, const T* x, const T* dy, float* dweight, float* dbias,
                             BiasGradient from) {
  if (from == BiasGradient::kEpilogue) {
    run_weight_gradient(stream, s, Epilogue::kBiasGradient, x, dy, dweight, dbias);
  } else {
    run_weight_gradient(stream, s, Epilogue::kNone, x, dy, dweight, nullptr);
    run_bias_gradient(stream, s, dy, dbias);
  }
}

// The faster, measured once per shape; the kernel where nothing can be measured.
template <class T>
void run_parameter_gradients(Stream stream, const LinearShape& s, const T* x, const T* dy, float* dweight,
                             float* dbias) {
  static auto& chosen = *new std::map<std::array<int64_t, 5>, BiasGradient>();
  const LibraryOptions& options = library_options();
  const std::array<int64_t, 5> key{s.rows, s.I, s.O, options.strict_fp32 ? 1 : 0, options.candidate};
  const auto run_by = [&](BiasGradient from) { run_parameter_gradients(stream, s, x, dy, dweight, dbias, from); };
  const auto found = chosen.find(key);
  if (found != chosen.end()) return run_by(found->second);

  plans::Chooser<BiasGradient> by;
  by.cache = plans::device_cache(stream);
  by.log = options.log;
  by.candidate = options.candidate;
  by.record = [](const BiasGradient& from) { return from == BiasGradient::kEpilogue ? "epilogue" : "kernel"; };
  by.rebuild = [](const std::string& record) -> std::optional<BiasGradient> {
    if (record == "epilogue") return BiasGradient::kEpilogue;
    if (record == "kernel") return BiasGradient::kKernel;
    return std::nullopt;
  };
  if (plans::may_measure(stream)) {
    by.milliseconds = [&](const BiasGradient& from, double best_ms) {
      return plans::median_ms(stream, best_ms, [&] { run_by(from); });
    };
  }
  bool has_run = false;
  by.run = [&](const BiasGradient& from) {
    run_by(from);
    has_run = true;
  };
  const std::string name = concat_text("linear parameter gradients ", std::is_same_v<T, float> ? "fp32" : "bf16", " ",
                                       s.rows, " x ", s.I, " x ", s.O, options.strict_fp32 ? " strict" : "");
  const auto offered = [&](plans::Wanted wanted) {
    std::vector<BiasGradient> ways{BiasGradient::kKernel};
    if (wanted == plans::Wanted::kFirst) return ways;
    try {
      const Matmul there_is_one(with_precision(weight_gradient_shape<T>(s, Epilogue::kBiasGradient)));
      ways.push_back(BiasGradient::kEpilogue);
    } catch (const Error&) {  // cuBLASLt has no algorithm with this epilogue for these types
    }
    return ways;
  };
  const BiasGradient from = plans::choose<BiasGradient>(name, by, offered);
  if (!has_run) run_by(from);
  chosen[key] = from;
}

}  // namespace

template <class T>
void linear(Stream stream, const LinearShape& s, const T* x, const float* weight, const float* bias, T* y) {
  const MatmulShape shape{.rows = s.rows,
                          .columns = s.O,
                          .inner = s.I,
                          .b_transposed = true,
                          .epilogue = bias != nullptr ? Epilogue::kBias : Epilogue::kNone,
                          .type = kCudaType<T>,
                          .d_type = kCudaType<T>};
  run_product(shape, [&](const Matmul& product) {
    const size_t weight_bytes = typed_bytes<T>(s.O * s.I), bias_bytes = typed_bytes<T>(s.O);
    auto* room = static_cast<char*>(stream.scratch->get(weight_bytes + bias_bytes + product.workspace_bytes() + 256));
    const void* w = typed<T>(stream, s.O * s.I, weight, room);
    const void* b = bias == nullptr ? nullptr : typed<T>(stream, s.O, bias, room + weight_bytes);
    product(stream, x, w, b, y, room + weight_bytes + bias_bytes);
  });
}

template <class T>
void linear_grad(Stream stream, const LinearShape& s, const T* x, const float* weight, const T* dy, T* dx,
                 float* dweight, float* dbias) {
  if (dx != nullptr) {
    const MatmulShape shape{.rows = s.rows, .columns = s.I, .inner = s.O, .type = kCudaType<T>, .d_type = kCudaType<T>};
    run_product(shape, [&](const Matmul& product) {
      const size_t weight_bytes = typed_bytes<T>(s.O * s.I);
      auto* room = static_cast<char*>(stream.scratch->get(weight_bytes + product.workspace_bytes() + 256));
      const void* w = typed<T>(stream, s.O * s.I, weight, room);
      product(stream, dy, w, nullptr, dx, room + weight_bytes);
    });
  }
  if (dweight != nullptr && dbias != nullptr) {
    run_parameter_gradients(stream, s, x, dy, dweight, dbias);
  } else if (dweight != nullptr) {
    run_weight_gradient(stream, s, Epilogue::kNone, x, dy, dweight, nullptr);
  } else if (dbias != nullptr) {
    run_bias_gradient(stream, s, dy, dbias);
  }
}

#define DS_INSTANTIATE(T)                                                                        \
  template void linear<T>(Stream, const LinearShape&, const T*, const float*, const float*, T*); \
  template void linear_grad<T>(Stream, const LinearShape&, const T*, const float*, const T*, T*, float*, float*);
DS_INSTANTIATE(float)
DS_INSTANTIATE(bf16)
#undef DS_INSTANTIATE

}  // namespace depthstill::cuda
