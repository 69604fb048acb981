// cuda::conv2d and its gradient: per pass and shape the way that was chosen for it (conv2d_ways.h), and our own kernels
// for what that way leaves over of bias and activation.
#include "kernels/conv2d/conv2d.h"

#include <map>
#include <type_traits>
#include <vector>

#include "kernels/batch_norm.h"
#include "kernels/bias_activation.h"
#include "kernels/cast.h"
#include "kernels/conv2d/cudnn/conv2d_registry.h"
#include "kernels/conv2d/cudnn/conv2d_ways.h"
#include "kernels/core/runtime.h"
#include "kernels/plans/ways.h"

namespace depthstill::cuda {
namespace {

using cudnn::kActivated, cudnn::kBias, cudnn::kSum, cudnn::kWeight, cudnn::kX, cudnn::kY;
using cudnn::kMean, cudnn::kRstd, cudnn::kNormWeight, cudnn::kNormBias, cudnn::kMeanGuess, cudnn::kSquareSum;
using cudnn::Pass, cudnn::Problem, cudnn::TensorPointers, cudnn::Way;

template <class T>
constexpr cudnnDataType_t kCudnnType = std::is_same_v<T, float> ? CUDNN_DATA_FLOAT : CUDNN_DATA_BFLOAT16;

int64_t weight_count(const Conv2dShape& s) { return s.O * s.R * s.S * s.C; }

// One pass with its operands.
class Call {
 public:
  virtual ~Call() = default;
  virtual Problem problem() const = 0;
  virtual size_t scratch_bytes() const = 0;  // bytes besides the way's workspace, a multiple of 256
  // Assigns its outputs and nothing else, so that it can be repeated. It is done with scratch and workspace before it
  // calls a kernel that asks for scratch itself.
  virtual void run(const Way& way, char* scratch, void* workspace) const = 0;
};

void run(Stream stream, const Call& call, const Way& way) {
  auto* scratch = static_cast<char*>(stream.scratch->get(call.scratch_bytes() + way.workspace_bytes() + 256));
  call.run(way, scratch, scratch + call.scratch_bytes());
}

struct Chosen {
  Problem problem;
  LibraryOptions options;
  Way way;
};

std::map<cudnn::ProblemKey, Chosen>& registry() {
  static auto& chosen = *new std::map<cudnn::ProblemKey, Chosen>();
  return chosen;
}

// Chooses a way at the first call for a problem.
void run(Stream stream, const Call& call) {
  auto& chosen = registry();
  const LibraryOptions& options = library_options();
  const Problem problem = call.problem();
  const cudnn::ProblemKey key = cudnn::key_of(problem, options);
  const auto found = chosen.find(key);
  if (found != chosen.end()) return run(stream, call, found->second.way);

  const cudnn::Target target = cudnn::current_target(stream);
  plans::Ways<Way> ways;
  ways.name = cudnn::describe(problem, options);
  ways.candidates = [&](plans::Wanted wanted) {
    return cudnn::ways_of(target, problem, options, wanted == plans::Wanted::kFirst);
  };
  ways.run = [&](const Way& way) { run(stream, call, way); };
  ways.record = cudnn::record_of;
  ways.describe = cudnn::words_of;
  ways.rebuild = [&](const std::string& record) { return cudnn::rebuild(target, problem, options, record); };
  chosen.emplace(key, Chosen{problem, options, plans::choose_and_run(stream, ways)});
}

template <class T>
class Forward final : public Call {
 public:
  Forward(Stream stream, const Conv2dShape& s, Activation act, const T* x, const float* weight, const float* bias, T* y)
      : stream_(stream), s_(s), act_(act), x_(x), weight_(weight), bias_(bias), y_(y) {}

  Problem problem() const override { return {s_, kCudnnType<T>, Pass::kForward, act_, bias_ != nullptr}; }
  size_t scratch_bytes() const override { return rounded_bytes<T>(weight_count(s_)) + rounded_bytes<T>(s_.O); }
  void run(const Way& way, char* scratch, void* workspace) const override {
    const void* weight = rounded<T>(stream_, weight_count(s_), weight_, scratch);
    const void* bias = bias_;
    if (bias_ != nullptr && way.fused && (way.matmul || way.bias_type != CUDNN_DATA_FLOAT))
      bias = rounded<T>(stream_, s_.O, bias_, scratch + rounded_bytes<T>(weight_count(s_)));
    if (way.matmul)
      (*way.matmul)(stream_, x_, weight, bias, y_, workspace);
    else if (way.fused && bias_ != nullptr)
      way.plan->execute(stream_, {{kX, x_}, {kWeight, weight}, {kBias, bias}, {kY, y_}}, workspace);
    else
      way.plan->execute(stream_, {{kX, x_}, {kWeight, weight}, {kY, y_}}, workspace);
    if (!way.fused && problem().has_epilogue())
      bias_activation(stream_, s_.N * s_.P() * s_.Q(), static_cast<int>(s_.O), act_, bias_, y_);
  }

 private:
  Stream stream_;
  const Conv2dShape& s_;
  Activation act_;
  const T* x_;
  const float *weight_, *bias_;
  T* y_;
};

// This forward pass lies between two batch norms.
template <class T>
class ForwardInChain final : public Call {
 public:
  ForwardInChain(Stream stream, const Conv2dShape& s, const BatchNormInput& norm, const T* x, const float* weight,
                 const float* mean_guess, T* z, T* y, float* moments)
      : stream_(stream),
        s_(s),
        norm_(norm),
        x_(x),
        weight_(weight),
        mean_guess_(mean_guess),
        z_(z),
        y_(y),
        moments_(moments) {}

  Problem problem() const override {
    return {.shape = s_,
            .type = kCudnnType<T>,
            .activation = normed() ? norm_.act : Activation::kNone,
            .norm = normed(),
            .moments = moments_ != nullptr};
  }
  size_t scratch_bytes() const override { return rounded_bytes<T>(weight_count(s_)); }
  void run(const Way& way, char* scratch, void* workspace) const override {
    const void* weight = rounded<T>(stream_, weight_count(s_), weight_, scratch);
    const T* from = x_;
    if (normed() && !way.fused) {
      batch_norm(stream_, s_.N * s_.H * s_.W, static_cast<int>(s_.C), norm_, x_, z_);
      from = z_;
    }
    if (way.matmul)
      (*way.matmul)(stream_, from, weight, nullptr, y_, workspace);
    else if (way.fused || way.sums)
      run_fused(way, from, weight, workspace);
    else
      way.plan->execute(stream_, {{kX, from}, {kWeight, weight}, {kY, y_}}, workspace);
    const int64_t rows = s_.N * s_.P() * s_.Q();
    const auto channels = static_cast<int>(s_.O);
    if (moments_ != nullptr && (way.fused || way.sums))
      batch_norm_moments_of_sums(stream_, rows, channels, y_, mean_guess_, moments_);
    else if (moments_ != nullptr)
      batch_norm_moments(stream_, rows, channels, y_, moments_);
  }

 private:
  bool normed() const { return norm_.mean != nullptr; }
  void run_fused(const Way& way, const T* from, const void* weight, void* workspace) const {
    TensorPointers tensors = {{kX, from}, {kWeight, weight}, {kY, y_}};
    if (normed() && way.fused) {
      tensors.insert(tensors.end(),
                     {{kMean, norm_.mean}, {kRstd, norm_.rstd}, {kNormWeight, norm_.weight}, {kNormBias, norm_.bias}});
    }
    if (moments_ != nullptr) {
      zero(moments_, 2 * static_cast<size_t>(s_.O) * sizeof(float), stream_);  // as in DataGradient
      tensors.insert(tensors.end(), {{kMeanGuess, mean_guess_}, {kSum, moments_}, {kSquareSum, moments_ + s_.O}});
    }
    way.plan->execute(stream_, tensors, workspace);
  }

  Stream stream_;
  const Conv2dShape& s_;
  const BatchNormInput& norm_;
  const T* x_;
  const float *weight_, *mean_guess_;
  T *z_, *y_;
  float* moments_;
};

// dx or, with an activation below, du and perhaps dbias_below.
template <class T>
class DataGradient final : public Call {
 public:
  DataGradient(Stream stream, const Conv2dShape& s, Activation below, const T* x, const T* dy, const float* weight,
               T* dx, float* dbias_below)
      : stream_(stream), s_(s), below_(below), x_(x), dy_(dy), weight_(weight), dx_(dx), dbias_below_(dbias_below) {}

  Problem problem() const override { return {s_, kCudnnType<T>, Pass::kDataGradient, below_, dbias_below_ != nullptr}; }
  size_t scratch_bytes() const override { return rounded_bytes<T>(weight_count(s_)); }
  void run(const Way& way, char* scratch, void* workspace) const override {
    const void* weight = rounded<T>(stream_, weight_count(s_), weight_, scratch);
    if (way.matmul)
      (*way.matmul)(stream_, dy_, weight, nullptr, dx_, workspace);
    else if (way.fused)
      run_fused(way, weight, workspace);
    else
      way.plan->execute(stream_, {{kX, dx_}, {kWeight, weight}, {kY, dy_}}, workspace);
    if (!way.fused && below_ != Activation::kNone)
      bias_activation_grad(stream_, s_.N * s_.H * s_.W, static_cast<int>(s_.C), below_, x_, dx_, dx_, dbias_below_);
  }

 private:
  void run_fused(const Way& way, const void* weight, void* workspace) const {
    if (dbias_below_ == nullptr) {
      way.plan->execute(stream_, {{kX, dx_}, {kWeight, weight}, {kY, dy_}, {kActivated, x_}}, workspace);
      return;
    }
    // cuDNN does not say whether its sums start from what lies there.
    zero(dbias_below_, static_cast<size_t>(s_.C) * sizeof(float), stream_);
    way.plan->execute(stream_, {{kX, dx_}, {kWeight, weight}, {kY, dy_}, {kActivated, x_}, {kSum, dbias_below_}},
                      workspace);
  }

  Stream stream_;
  const Conv2dShape& s_;
  Activation below_;
  const T *x_, *dy_;
  const float* weight_;
  T* dx_;
  float* dbias_below_;
};

// dweight and, if it is not null, dbias.
template <class T>
class WeightGradient final : public Call {
 public:
  WeightGradient(Stream stream, const Conv2dShape& s, const T* x, const T* dy, float* dweight, float* dbias)
      : stream_(stream), s_(s), x_(x), dy_(dy), dweight_(dweight), dbias_(dbias) {}

  Problem problem() const override {
    return {s_, kCudnnType<T>, Pass::kWeightGradient, Activation::kNone, dbias_ != nullptr};
  }
  size_t scratch_bytes() const override { return rounded_bytes<T>(weight_count(s_)); }
  void run(const Way& way, char* scratch, void* workspace) const override {
    if (way.matmul)  // cuBLASLt writes fp32 from factors in bf16, cuDNN does not
      (*way.matmul)(stream_, dy_, x_, dbias_, dweight_, workspace);
    else
      run_plan(way, scratch, workspace);
    if (dbias_ != nullptr && !way.fused) {
      T* dy = const_cast<T*>(dy_);  // not written without an activation
      bias_activation_grad<T>(stream_, s_.N * s_.P() * s_.Q(), static_cast<int>(s_.O), Activation::kNone, nullptr, dy,
                              dy, dbias_);
    }
  }

 private:
  void run_plan(const Way& way, char* scratch, void* workspace) const {
    if constexpr (std::is_same_v<T, float>) {
      way.plan->execute(stream_, {{kX, x_}, {kWeight, dweight_}, {kY, dy_}}, workspace);
    } else {
      T* dweight = reinterpret_cast<T*>(scratch);
      way.plan->execute(stream_, {{kX, x_}, {kWeight, dweight}, {kY, dy_}}, workspace);
      cast<T, float>(stream_, weight_count(s_), dweight, dweight_);
    }
  }

  Stream stream_;
  const Conv2dShape& s_;
  const T *x_, *dy_;
  float *dweight_, *dbias_;
};

}  // namespace

template <class T>
void conv2d(Stream stream, const Conv2dShape& s, Activation act, const T* x, const float* weight, const float* bias,
            T* y) {
  Forward<T> call(stream, s, act, x, weight, bias, y);
  run(stream, call);
}

template <class T>
void batch_norm_conv2d(Stream stream, const Conv2dShape& s, const BatchNormInput& norm, const T* x, const float* weight,
                       const float* mean_guess, T* z, T* y, float* moments) {
  ForwardInChain<T> call(stream, s, norm, x, weight, mean_guess, z, y, moments);
  run(stream, call);
}

template <class T>
void conv2d_grad(Stream stream, const Conv2dShape& s, Activation act, const T* x, const float* weight, const T* y,
                 T* dy, const Conv2dGradients<T>& to) {
  const bool dbias_with_dweight = act == Activation::kNone && to.dweight != nullptr;
  if (act != Activation::kNone || (to.dbias != nullptr && !dbias_with_dweight)) {
    bias_activation_grad(stream, s.N * s.P() * s.Q(), static_cast<int>(s.O), act, y, dy, dy, to.dbias);
  }
  if (to.dx != nullptr) {
    DataGradient<T> call(stream, s, to.below, x, dy, weight, to.dx, to.dbias_below);
    run(stream, call);
  }
  if (to.dweight != nullptr) {
    WeightGradient<T> call(stream, s, x, dy, to.dweight, dbias_with_dweight ? to.dbias : nullptr);
    run(stream, call);
  }
}

#define DS_INSTANTIATE(T)                                                                                       \
  template void conv2d<T>(Stream, const Conv2dShape&, Activation, const T*, const float*, const float*, T*);    \
  template void batch_norm_conv2d<T>(Stream, const Conv2dShape&, const BatchNormInput&, const T*, const float*, \
                                     const float*, T*, T*, float*);                                             \
  template void conv2d_grad<T>(Stream, const Conv2dShape&, Activation, const T*, const float*, const T*, T*,    \
                               const Conv2dGradients<T>&);
DS_INSTANTIATE(float)
DS_INSTANTIATE(bf16)
#undef DS_INSTANTIATE

}  // namespace depthstill::cuda

namespace depthstill::cudnn {

std::vector<ChosenConvolution> chosen_convolutions() {
  std::vector<ChosenConvolution> list;
  for (const auto& [key, chosen] : cuda::registry()) {
    const Way& way = chosen.way;
    list.push_back({chosen.problem, chosen.options,
                    (way.matmul ? "matmul" : "plan") + std::string(way.fused  ? ", fused"
                                                                   : way.sums ? ", sums"
                                                                              : ""),
                    way.workspace_bytes()});
  }
  return list;
}

}  // namespace depthstill::cudnn
