#include "kernels/dpm/dpm_head.h"

#include <algorithm>
#include <cstddef>
#include <cstdlib>

#include "kernels/conv2d/conv2d.h"
#include "kernels/core/error.h"
#include "kernels/core/parallel.h"
#include "kernels/dpm/dpm_rows.h"

// The kernels of the head and of the loss, for a few image rows at a time, whose logits stay in a core's L2 cache. The
// rows are dealt into groups; a thread does one group after another and runs every kernel by itself, so that threads
// wait for each other once. Sums are kept per group and added in order, the same for any number of threads.
namespace depthstill::cpu {
namespace {

constexpr int64_t kLogitBytes = 3 << 19;  // logits of the rows at hand
constexpr int64_t kGroups = 64;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }

// One thread has this for itself, and nothing remembers it: the kernels' own scratch is shared.
class ThreadScratch final : public Scratch {
 public:
  ~ThreadScratch() override { std::free(memory_); }
  void* get(size_t bytes) override {
    if (bytes > bytes_) {
      std::free(memory_);
      bytes_ = static_cast<size_t>(aligned(static_cast<int64_t>(bytes)));
      memory_ = std::aligned_alloc(64, bytes_);
      check(memory_ != nullptr, "dpm_head: cannot allocate ", bytes_, " bytes");
    }
    return memory_;
  }

 private:
  void* memory_ = nullptr;
  size_t bytes_ = 0;
};

struct Rows {
  int64_t all, groups, block;  // rows of all images; groups that they are dealt into; rows at a time, at most

  template <class T>
  static Rows of(const DpmShape& shape, const DpmBins& bins) {
    const int64_t all = shape.N * shape.H, row_bytes = shape.W * bins.bins * int64_t{sizeof(T)};
    const int64_t groups = std::min(all, kGroups);
    const int64_t most = std::max<int64_t>(kLogitBytes / std::max<int64_t>(row_bytes, 1), 1);
    return {all, groups, std::min(most, ceil_div(all, std::max<int64_t>(groups, 1)))};
  }
  RowRange group(int64_t g) const { return {all * g / groups, all * (g + 1) / groups}; }
};

// Gradients that are summed over the pixels.
struct Sums {
  float *dweight, *dbias, *dbias_below;

  static int64_t bytes(const DpmShape& shape, const DpmBins& bins) {
    return aligned((shape.channels * bins.bins + bins.bins + shape.channels) * int64_t{sizeof(float)});
  }
  Sums(const DpmShape& shape, const DpmBins& bins, std::byte* at)
      : dweight(reinterpret_cast<float*>(at)),
        dbias(dweight + shape.channels * bins.bins),
        dbias_below(dbias + bins.bins) {}
};

// `workspace` holds these parts.
template <class T>
struct Parts {
  double* row_sums;   // (N * H, 2)
  std::byte* groups;  // Sums of each group
  std::byte* threads;
  int64_t sum_bytes, thread_bytes;
  size_t bytes;

  Parts(const DpmShape& shape, const DpmBins& bins, const Rows& rows, float* workspace)
      : sum_bytes(Sums::bytes(shape, bins)),
        thread_bytes(sum_bytes + aligned(rows.block * shape.W * bins.bins * int64_t{sizeof(T)})) {
    const int64_t row_bytes = aligned(2 * rows.all * int64_t{sizeof(double)});
    auto* at = reinterpret_cast<std::byte*>(workspace);
    row_sums = reinterpret_cast<double*>(at);
    groups = at + row_bytes;
    threads = groups + rows.groups * sum_bytes;
    bytes = static_cast<size_t>(row_bytes + rows.groups * sum_bytes + num_threads() * thread_bytes);
  }
  T* logits(int part) const { return reinterpret_cast<T*>(threads + part * thread_bytes + sum_bytes); }
  std::byte* sums_of_group(int64_t g) const { return groups + g * sum_bytes; }
  std::byte* sums_of_block(int part) const { return threads + part * thread_bytes; }
};

// body(group, rows, head, part, stream): a block of rows of a group, and the head's convolution for it. Where that may
// not be called within a parallel loop, threads share every block.
template <class T, class Body>
void for_each_block(const DpmShape& shape, const DpmBins& bins, const Rows& rows, const Body& body) {
  const auto run_groups = [&](int64_t first, int64_t last, int part) {
    ThreadScratch scratch;
    for (int64_t g = first; g < last; ++g) {
      const RowRange group = rows.group(g);
      for (int64_t begin = group.begin; begin < group.end; begin += rows.block) {
        const RowRange block{begin, std::min(begin + rows.block, group.end)};
        body(g, block, Conv2dShape{.N = 1, .H = block.count(), .W = shape.W, .C = shape.channels, .O = bins.bins}, part,
             Stream{nullptr, &scratch});
      }
    }
  };
  if (conv2d_may_nest<T>({.N = 1, .H = 1, .W = shape.W, .C = shape.channels, .O = bins.bins}))
    parallel_ranges(rows.groups, 1, run_groups);
  else
    run_groups(0, rows.groups, 0);
}

// The loss of the head's logits, of which there are as many as bins.
DpmProblem of_logits(const DpmProblem& problem) {
  DpmProblem loss = problem;
  loss.shape.channels = problem.bins.bins;
  return loss;
}

// sum (+)= values
void add_to(float* sum, const float* values, int64_t n, bool first) {
  for (int64_t i = 0; i < n; ++i) sum[i] = first ? values[i] : sum[i] + values[i];
}

}  // namespace

template <class T>
bool dpm_head_supported(const DpmShape&, const DpmBins&) {
  return true;
}

template <class T>
size_t dpm_head_workspace(const DpmShape& shape, const DpmBins& bins) {
  return Parts<T>(shape, bins, Rows::of<T>(shape, bins), nullptr).bytes;
}

template <class T>
void dpm_head(Stream, const DpmProblem& problem, const DpmHeadInput<T>& head, const float* teacher, const DpmMaps& maps,
              float* workspace) {
  const DpmShape& shape = problem.shape;
  const Rows rows = Rows::of<T>(shape, problem.bins);
  const Parts<T> parts(shape, problem.bins, rows, workspace);
  const DpmProblem loss = of_logits(problem);
  for_each_block<T>(
      shape, problem.bins, rows, [&](int64_t, RowRange block, const Conv2dShape& conv, int part, Stream stream) {
        T* logits = parts.logits(part);
        const T* x = head.x + block.begin * shape.W * shape.channels;
        conv2d(stream, conv, Activation::kNone, x, head.weight, head.bias, logits);
        dpm_rows(stream, loss, block, logits, teacher, maps, teacher != nullptr ? parts.row_sums : nullptr);
      });
  if (teacher != nullptr) dpm_finish(rows.all, parts.row_sums, maps.result);
}

template <class T>
void dpm_head_grad(Stream, const DpmProblem& problem, const DpmHeadInput<T>& head, const DpmGradientMaps& maps,
                   const Conv2dGradients<T>& to, float* workspace) {
  const DpmShape& shape = problem.shape;
  const DpmBins& bins = problem.bins;
  const Rows rows = Rows::of<T>(shape, bins);
  const Parts<T> parts(shape, bins, rows, workspace);
  const DpmProblem loss = of_logits(problem);
  const int64_t weights = bins.bins * shape.channels;
  // sum (+)= term, for those gradients that are wanted.
  const auto add_sums = [&](const Sums& sum, const Sums& term, bool first) {
    if (to.dweight != nullptr) add_to(sum.dweight, term.dweight, weights, first);
    if (to.dbias != nullptr) add_to(sum.dbias, term.dbias, bins.bins, first);
    if (to.dbias_below != nullptr) add_to(sum.dbias_below, term.dbias_below, shape.channels, first);
  };
  for_each_block<T>(shape, bins, rows,
                    [&](int64_t g, RowRange block, const Conv2dShape& conv, int part, Stream stream) {
                      const int64_t first = block.begin * shape.W * shape.channels;
                      const Sums sums(shape, bins, parts.sums_of_block(part));
                      T* logits = parts.logits(part);
                      conv2d(stream, conv, Activation::kNone, head.x + first, head.weight, head.bias, logits);
                      dpm_grad_rows(stream, loss, block, maps, logits);
                      conv2d_grad<T>(stream, conv, Activation::kNone, head.x + first, head.weight, nullptr, logits,
                                     {.dx = to.dx != nullptr ? to.dx + first : nullptr,
                                      .dweight = to.dweight != nullptr ? sums.dweight : nullptr,
                                      .dbias = to.dbias != nullptr ? sums.dbias : nullptr,
                                      .below = to.below,
                                      .dbias_below = to.dbias_below != nullptr ? sums.dbias_below : nullptr});
                      add_sums(Sums(shape, bins, parts.sums_of_group(g)), sums, block.begin == rows.group(g).begin);
                    });
  Sums total(shape, bins, parts.sums_of_group(0));
  total.dweight = to.dweight;
  total.dbias = to.dbias;
  total.dbias_below = to.dbias_below;
  for (int64_t g = 0; g < rows.groups; ++g) add_sums(total, Sums(shape, bins, parts.sums_of_group(g)), g == 0);
}

#define DS_INSTANTIATE(T)                                                                                          \
  template bool dpm_head_supported<T>(const DpmShape&, const DpmBins&);                                            \
  template size_t dpm_head_workspace<T>(const DpmShape&, const DpmBins&);                                          \
  template void dpm_head(Stream, const DpmProblem&, const DpmHeadInput<T>&, const float*, const DpmMaps&, float*); \
  template void dpm_head_grad(Stream, const DpmProblem&, const DpmHeadInput<T>&, const DpmGradientMaps&,           \
                              const Conv2dGradients<T>&, float*);
DS_INSTANTIATE(float)
DS_INSTANTIATE(bf16)
#undef DS_INSTANTIATE

}  // namespace depthstill::cpu
