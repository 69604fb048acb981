#include "kernels/context/context_loss.h"
#include "kernels/context/selection.cuh"
#include "kernels/core/partials.cuh"
#include "kernels/core/runtime.h"

namespace depthstill::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kImageBlocks =
    64;  // partial sums of an image: fixed, so that the order of addition is the same everywhere

struct Problem {
  MapShape shape;
  ContextLossOptions options;
  const float *x, *y;         // (N, H, W)
  const uint8_t* leaves;      // (N, H, W); null with kNone
  const ContextStats* stats;  // (2, N, contexts)
};

// A pixel's loss and, by level, sign(a - b) and a.
template <class Tree, ContextNorm norm>
struct Pixel {
  bool counts;
  int leaf;
  float x, loss, sigma[level_count(norm)], a[level_count(norm)];

  // pairs (kContexts), in shared memory
  __device__ Pixel(const Problem& p, int64_t i, const ContextPair* pairs) {
    float y = p.y[i];
    x = p.x[i];
    if constexpr (norm == ContextNorm::kNone) {
      counts = is_finite(y);
      leaf = counts ? 0 : Tree::kLeaves;
    } else {
      const int byte = p.leaves[i];
      counts = byte != kNotCounted;
      leaf = byte < Tree::kLeaves ? byte : Tree::kLeaves;
    }
    if (leaf == Tree::kLeaves) x = y = 0.0f;
    loss = 0.0f;
    if constexpr (norm == ContextNorm::kNone) {
      loss = fabsf(x - y);
      sigma[0] = sign_of(x - y);
      a[0] = 0.0f;
    } else {
#pragma unroll
      for (int level = first_level(norm); level < end_level(norm); ++level) {
        const int u = Tree::context(leaf, level), k = level - first_level(norm);
        const ContextPair pair = u < Tree::kContexts ? pairs[u] : no_context();
        const float difference = pair.student(x) - pair.teacher(y);
        loss += fabsf(difference);
        sigma[k] = sign_of(difference);
        a[k] = pair.student(x);
      }
      loss = loss / static_cast<float>(level_count(norm));
    }
  }
};

// pairs (kContexts) of image n, in shared memory. A barrier has to follow.
template <class Tree>
__device__ static void load_pairs(const Problem& p, int64_t n, ContextPair* pairs) {
  const int u = static_cast<int>(threadIdx.x);
  if (p.stats == nullptr || u >= Tree::kContexts) return;
  const ContextStats &x = p.stats[n * Tree::kContexts + u], &y = p.stats[(p.shape.N + n) * Tree::kContexts + u];
  pairs[u] = {x.t, x.s, y.t, y.s};
}

// losses (N, H, W) for the trim; -1 where nothing counts. Grid (blocks, N). Reads 9 B and writes 4 B per pixel. Bound:
// memory.
template <class Tree, ContextNorm norm>
__global__ void __launch_bounds__(kThreads) context_losses_kernel(Problem p, float* losses) {
  __shared__ ContextPair pairs[Tree::kContexts];
  const int64_t n = blockIdx.y, pixels = p.shape.pixels();
  load_pairs<Tree>(p, n, pairs);
  __syncthreads();
  for (const int64_t i : grid_stride(pixels)) {
    const Pixel<Tree, norm> pixel(p, n * pixels + i, pairs);
    losses[n * pixels + i] = pixel.counts ? pixel.loss : -1.0f;
  }
}

// Each block leaves {sum of losses, counted pixels} and {A, B} of all contexts in partials (N, blocks, 2 + 2 contexts).
// Grid (blocks, N). Reads 9 B per pixel. Bound: memory. Where the trim is at work, `border` has been selected from.
template <class Tree, ContextNorm norm>
__global__ void __launch_bounds__(kThreads, 2)
    context_sums_kernel(Problem p, WantedBorder wanted, SelectionSpace<WantedBorder> border, TrimBorder* borders,
                        double* partials) {
  constexpr int kSums = 2 + 2 * Tree::kContexts;
  __shared__ ContextPair pairs[Tree::kContexts];
  __shared__ Selection found[1];
  const int64_t n = blockIdx.y, pixels = p.shape.pixels();
  const bool trims = wanted.trim > 0;
  load_pairs<Tree>(p, n, pairs);
  if (trims) choose_digits(wanted, border, n, kSelectionPasses, found);
  __syncthreads();
  TrimBorder trim{};
  if (trims) trim = TrimBorder::of(found[0]);
  if (trims && blockIdx.x == 0 && threadIdx.x == 0) borders[n] = trim;
  double sums[kSums] = {};
  for (const int64_t i : grid_stride(pixels)) {
    const Pixel<Tree, norm> pixel(p, n * pixels + i, pairs);
    const float kept = trims ? trim.kept(pixel.loss) : 1.0f;
    sums[0] += static_cast<double>(pixel.loss * kept);
    sums[1] += pixel.counts ? 1.0 : 0.0;
#pragma unroll
    for (int level = first_level(norm); level < end_level(norm); ++level) {
      const int u = Tree::context(pixel.leaf, level), k = level - first_level(norm);
      const float sigma = pixel.sigma[k] * kept;
      const auto A = static_cast<double>(sigma * pixel.a[k]), B = static_cast<double>(sigma);
#pragma unroll
      for (int c = 0; c < Tree::kContexts; ++c) {  // registers have no index
        sums[2 + 2 * c] += c == u ? A : 0.0;
        sums[3 + 2 * c] += c == u ? B : 0.0;
      }
    }
  }
  store_partials<kThreads>(sums, n * gridDim.x + blockIdx.x, partials);
}

// One block: adds the partial sums up in order, those of A and B by image. Bound: the launch.
__global__ void __launch_bounds__(kThreads)
    finish_context_loss_kernel(int64_t N, int64_t blocks, int contexts, const double* partials,
                               ContextLossResult result) {
  const int width = 2 + 2 * contexts;
  for (int64_t i = threadIdx.x; result.sums != nullptr && i < N * contexts; i += kThreads) {
    const double* from = partials + i / contexts * blocks * width + 2 + 2 * (i % contexts);
    double A = 0, B = 0;
    for (int64_t b = 0; b < blocks; ++b) {
      A += from[b * width];
      B += from[b * width + 1];
    }
    result.sums[i] = {static_cast<float>(A), static_cast<float>(B)};
  }
  double totals[2] = {0, 0};
  for (int64_t b = threadIdx.x; b < N * blocks; b += kThreads) {
    totals[0] += partials[b * width];
    totals[1] += partials[b * width + 1];
  }
  block_sum<kThreads>(totals);
  if (threadIdx.x == 0) finish_context_loss(totals[0], totals[1], result.loss);
}

// dx of each pixel. Grid (blocks, N). Reads 9 B and writes 4 B per pixel. Bound: memory.
template <class Tree, ContextNorm norm>
__global__ void __launch_bounds__(kThreads, 4)
    context_loss_grad_kernel(Problem p, ContextLossResult result, const float* dloss, float* dx) {
  __shared__ ContextPair pairs[Tree::kContexts];
  __shared__ ContextSlope slopes[Tree::kContexts];
  const int64_t n = blockIdx.y, pixels = p.shape.pixels();
  const double weight = static_cast<double>(*dloss) * static_cast<double>(result.loss[1]) / level_count(norm);
  load_pairs<Tree>(p, n, pairs);
  if (norm != ContextNorm::kNone && threadIdx.x < Tree::kContexts) {
    const int64_t at = n * Tree::kContexts + threadIdx.x;
    slopes[threadIdx.x] = slope_of(p.stats[at], weight, static_cast<double>(result.sums[at].A),
                                   static_cast<double>(result.sums[at].B), p.options.reference, p.options.detach);
  }
  __syncthreads();
  for (const int64_t i : grid_stride(pixels)) {
    const Pixel<Tree, norm> pixel(p, n * pixels + i, pairs);
    const float kept = p.options.trim > 0 ? result.borders[n].kept(pixel.loss) : 1.0f;
    float d = 0.0f;
    if constexpr (norm == ContextNorm::kNone) d = static_cast<float>(weight) * (pixel.sigma[0] * kept);
#pragma unroll
    for (int level = first_level(norm); level < end_level(norm); ++level) {
      const int u = Tree::context(pixel.leaf, level);
      if (u >= Tree::kContexts) continue;
      const ContextSlope slope = slopes[u];
      const float side = pixel.x > slope.t ? 1.0f : pixel.x < slope.t ? -1.0f : 0.0f;
      const float median = pixel.x == slope.t ? slope.median : 0.0f;
      d += slope.scale * (pixel.sigma[level - first_level(norm)] * kept - slope.deviation * side + median);
    }
    dx[n * pixels + i] = d;
  }
}

template <class Tree, ContextNorm norm>
void loss_of(Stream stream, const Problem& p, const ContextLossResult& result) {
  using Space = SelectionSpace<WantedBorder>;
  const int64_t N = p.shape.N, pixels = p.shape.pixels();
  const dim3 grid(blocks_for(pixels, kThreads, kImageBlocks), static_cast<unsigned>(N));
  constexpr int kSums = 2 + 2 * Tree::kContexts;
  WantedBorder wanted;
  wanted.trim = p.options.trim;
  const bool trims = wanted.trim > 0;
  const int64_t partial_bytes = N * grid.x * kSums * static_cast<int64_t>(sizeof(double));
  const int64_t space_bytes = trims ? Space::bytes(N) : 0, loss_bytes = trims ? N * pixels * 4 : 0;
  auto* memory = static_cast<char*>(stream.scratch->get(static_cast<size_t>(partial_bytes + space_bytes + loss_bytes)));
  auto* partials = reinterpret_cast<double*>(memory);
  const Space space = Space::at(memory + partial_bytes, trims ? N : 0);
  if (trims) {
    auto* losses = reinterpret_cast<float*>(memory + partial_bytes + space_bytes);
    zero(memory + partial_bytes, static_cast<size_t>(Space::zeroed_bytes(N)), stream);
    launch(context_losses_kernel<Tree, norm>, grid, kThreads, 0, stream, p, losses);
    select<WantedBorder, 1>(stream, wanted, {losses, losses, nullptr, pixels}, space, N);
  }
  launch(context_sums_kernel<Tree, norm>, grid, kThreads, 0, stream, p, wanted, space, result.borders, partials);
  launch(finish_context_loss_kernel, 1, kThreads, 0, stream, N, static_cast<int64_t>(grid.x), Tree::kContexts, partials,
         result);
}

}  // namespace

void context_loss(Stream stream, const MapShape& shape, ContextKind kind, const ContextLossOptions& options,
                  const ContextInput& in, const ContextLossResult& result) {
  const Problem problem{shape, options, in.x, in.y, in.leaves, in.stats};
  visit_tree(kind, [&]<class Tree>() {
    visit_norm(options.norm, [&]<ContextNorm norm>() { loss_of<Tree, norm>(stream, problem, result); });
  });
}

void context_loss_grad(Stream stream, const MapShape& shape, ContextKind kind, const ContextLossOptions& options,
                       const ContextInput& in, const ContextLossResult& result, const float* dloss, float* dx) {
  const Problem problem{shape, options, in.x, in.y, in.leaves, in.stats};
  const dim3 grid(blocks_for(shape.pixels(), kThreads), static_cast<unsigned>(shape.N));
  visit_tree(kind, [&]<class Tree>() {
    visit_norm(options.norm, [&]<ContextNorm norm>() {
      launch(context_loss_grad_kernel<Tree, norm>, grid, kThreads, 0, stream, problem, result, dloss, dx);
    });
  });
}

}  // namespace depthstill::cuda
