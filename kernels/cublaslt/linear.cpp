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
#include "kernels/plans/ways.h"

namespace depthstill::cuda {
namespace {

using cublaslt::Epilogue, cublaslt::Matmul, cublaslt::MatmulShape;

template <class T>
constexpr cudaDataType_t kCudaType = std::is_same_v<T, float> ? CUDA_R_32F : CUDA_R_16BF;

MatmulShape with_precision(MatmulShape shape) {
  shape.tf32 = !library_options().strict_fp32;
  return shape;
}

// Calls run(product) with the first of the heuristic's algorithms that runs: from its second call on, a shape has its
// plan.
void run_product(Stream stream, const MatmulShape& any_precision, const std::function<void(const Matmul&)>& run) {
  static auto& chosen = *new std::map<MatmulShape, Matmul>();
  const MatmulShape shape = with_precision(any_precision);
  plans::run_chosen(chosen, shape, stream, run, [&] {
    plans::Ways<Matmul> ways;
    ways.name = concat_text("a linear layer's product ", shape.rows, " x ", shape.inner, " x ", shape.columns);
    ways.candidates = [&](plans::Wanted wanted) {
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
    return ways;
  });
}

template <class T>
MatmulShape weight_gradient_shape(const LinearShape& s, Epilogue epilogue) {
  return {
      .rows = s.O, .columns = s.I, .inner = s.rows, .a_transposed = true, .epilogue = epilogue, .type = kCudaType<T>};
}

template <class T>
void run_weight_gradient(Stream stream, const LinearShape& s, Epilogue epilogue, const T* x, const T* dy,
                         float* dweight, float* dbias) {
  run_product(stream, weight_gradient_shape<T>(s, epilogue), [&](const Matmul& product) {
    void* workspace = stream.scratch->get(product.workspace_bytes() + 256);
    product(stream, dy, x, dbias, dweight, workspace);
  });
}

template <class T>
void run_bias_gradient(Stream stream, const LinearShape& s, const T* dy, float* dbias) {
  T* in_place = const_cast<T*>(dy);  // not written without an activation
  bias_activation_grad<T>(stream, s.rows, static_cast<int>(s.O), Activation::kNone, nullptr, dy, in_place, dbias);
}

// When dweight is computed as well, dbias comes from a kernel of its own or from the product's epilogue.
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

// Takes the faster one, measured once per shape; the kernel where nothing can be measured.
template <class T>
void run_parameter_gradients(Stream stream, const LinearShape& s, const T* x, const T* dy, float* dweight,
                             float* dbias) {
  static auto& chosen = *new std::map<std::array<int64_t, 5>, BiasGradient>();
  const LibraryOptions& options = library_options();
  const std::array<int64_t, 5> key{s.rows, s.I, s.O, options.strict_fp32 ? 1 : 0, options.candidate};
  const auto run = [&](BiasGradient from) { run_parameter_gradients(stream, s, x, dy, dweight, dbias, from); };
  plans::run_chosen(chosen, key, stream, run, [&] {
    plans::Ways<BiasGradient> ways;
    ways.name = concat_text("linear parameter gradients ", std::is_same_v<T, float> ? "fp32" : "bf16", " ", s.rows,
                            " x ", s.I, " x ", s.O, options.strict_fp32 ? " strict" : "");
    ways.record = [](const BiasGradient& from) { return from == BiasGradient::kEpilogue ? "epilogue" : "kernel"; };
    ways.rebuild = [](const std::string& record) -> std::optional<BiasGradient> {
      if (record == "epilogue") return BiasGradient::kEpilogue;
      if (record == "kernel") return BiasGradient::kKernel;
      return std::nullopt;
    };
    ways.candidates = [&](plans::Wanted wanted) {
      std::vector<BiasGradient> from{BiasGradient::kKernel};
      if (wanted == plans::Wanted::kFirst) return from;
      try {
        const Matmul there_is_one(with_precision(weight_gradient_shape<T>(s, Epilogue::kBiasGradient)));
        from.push_back(BiasGradient::kEpilogue);
      } catch (const Error&) {  // cuBLASLt has no algorithm with this epilogue for these types
      }
      return from;
    };
    return ways;
  });
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
  run_product(stream, shape, [&](const Matmul& product) {
    const size_t weight_bytes = rounded_bytes<T>(s.O * s.I), bias_bytes = rounded_bytes<T>(s.O);
    auto* room = static_cast<char*>(stream.scratch->get(weight_bytes + bias_bytes + product.workspace_bytes() + 256));
    const void* w = rounded<T>(stream, s.O * s.I, weight, room);
    const void* b = bias == nullptr ? nullptr : rounded<T>(stream, s.O, bias, room + weight_bytes);
    product(stream, x, w, b, y, room + weight_bytes + bias_bytes);
  });
}

template <class T>
void linear_grad(Stream stream, const LinearShape& s, const T* x, const float* weight, const T* dy, T* dx,
                 float* dweight, float* dbias) {
  if (dx != nullptr) {
    const MatmulShape shape{.rows = s.rows, .columns = s.I, .inner = s.O, .type = kCudaType<T>, .d_type = kCudaType<T>};
    run_product(stream, shape, [&](const Matmul& product) {
      const size_t weight_bytes = rounded_bytes<T>(s.O * s.I);
      auto* room = static_cast<char*>(stream.scratch->get(weight_bytes + product.workspace_bytes() + 256));
      const void* w = rounded<T>(stream, s.O * s.I, weight, room);
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
