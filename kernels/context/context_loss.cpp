#include "kernels/context/context_loss.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/context/select.h"
#include "kernels/core/parallel.h"

namespace depthstill::cpu {
namespace {

constexpr int64_t kBlock = 256;  // pixels between two additions in double
constexpr int64_t kChunk =
    16 * kBlock;  // pixels of a partial sum: fixed, so that no sum depends on the number of threads

struct Problem {
  MapShape shape;
  ContextLossOptions options;
  const float *x, *y;
  const uint8_t* leaves;
  const ContextStats* stats;

  int64_t chunks_of_image() const { return (shape.pixels() + kChunk - 1) / kChunk; }
};

// The contexts of an image by column; the last one is for pixels that have none.
template <class Tree>
struct PairTable {
  float tx[Tree::kContexts + 1], sx[Tree::kContexts + 1], ty[Tree::kContexts + 1], sy[Tree::kContexts + 1];

  PairTable(const Problem& p, int64_t n) {
    for (int u = 0; u <= Tree::kContexts; ++u) {
      ContextPair pair = no_context();
      if (u < Tree::kContexts && p.stats != nullptr) {
        const ContextStats& student = p.stats[n * Tree::kContexts + u];
        const ContextStats& teacher = p.stats[(p.shape.N + n) * Tree::kContexts + u];
        pair = {student.t, student.s, teacher.t, teacher.s};
      }
      tx[u] = pair.tx;
      sx[u] = pair.sx;
      ty[u] = pair.ty;
      sy[u] = pair.sy;
    }
  }
};

// Up to kBlock pixels and what both directions need of them. The loops run along the pixels.
template <class Tree, ContextNorm norm>
struct PixelBlock {
  static constexpr int kFirst = first_level(norm), kEnd = end_level(norm), kCount = level_count(norm);
  int64_t count;
  int32_t counted[kBlock], leaf[kBlock];
  float x[kBlock], y[kBlock], loss[kBlock];
  float sigma[kCount][kBlock], a[kCount][kBlock];  // sign(a - b) and a, by level

  void load(const Problem& p, int64_t at, int64_t n) {
    count = n;
    if constexpr (norm == ContextNorm::kNone) {
#pragma omp simd
      for (int64_t i = 0; i < count; ++i) {
        counted[i] = is_finite(p.y[at + i]) ? 1 : 0;
        leaf[i] = counted[i] != 0 ? 0 : Tree::kLeaves;
      }
    } else {
#pragma omp simd
      for (int64_t i = 0; i < count; ++i) {
        const int32_t byte = p.leaves[at + i];
        counted[i] = byte != kNotCounted ? 1 : 0;
        leaf[i] = byte < Tree::kLeaves ? byte : Tree::kLeaves;
      }
    }
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
      const bool in = leaf[i] < Tree::kLeaves;
      x[i] = in ? p.x[at + i] : 0.0f;
      y[i] = in ? p.y[at + i] : 0.0f;
    }
  }

  void compare(const PairTable<Tree>& pairs) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) loss[i] = 0.0f;
    for (int level = kFirst; level < kEnd; ++level) {
      float *sigmas = sigma[level - kFirst], *as = a[level - kFirst];
#pragma omp simd
      for (int64_t i = 0; i < count; ++i) {
        const int u = Tree::context(leaf[i], level);
        const float ai = (x[i] - pairs.tx[u]) / pairs.sx[u], difference = ai - (y[i] - pairs.ty[u]) / pairs.sy[u];
        loss[i] += std::fabs(difference);
        sigmas[i] = sign_of(difference);
        as[i] = ai;
      }
    }
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
      if constexpr (norm == ContextNorm::kNone) {
        loss[i] = std::fabs(x[i] - y[i]);
        sigma[0][i] = sign_of(x[i] - y[i]);
      } else {
        loss[i] = loss[i] / static_cast<float>(kCount);
      }
    }
  }

  // Multiplies losses and signs by what the trim keeps of them.
  void trim(const TrimBorder& border) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
      const float kept = border.kept(loss[i]);
      loss[i] *= kept;
      for (int level = 0; level < kCount; ++level) sigma[level][i] *= kept;
    }
  }

  // sums: {loss, counted pixels}, then {A, B} per context.
  void add_sums(double* sums) const {
    float total = 0.0f;
    int32_t pixels = 0;
#pragma omp simd reduction(+ : total, pixels)
    for (int64_t i = 0; i < count; ++i) {
      total += loss[i];
      pixels += counted[i];
    }
    sums[0] += static_cast<double>(total);
    sums[1] += pixels;
    for (int u = Tree::context(0, kFirst); kEnd > 0 && u < Tree::kContexts; ++u) {
      const int level = u < Tree::kLeaves ? 0 : u < Tree::kContexts - 1 ? 1 : 2;
      if (level >= kEnd) break;
      const int first = Tree::leaves(u).first, end = Tree::leaves(u).end;
      const float *sigmas = sigma[level - kFirst], *as = a[level - kFirst];
      float A = 0.0f, B = 0.0f;
#pragma omp simd reduction(+ : A, B)
      for (int64_t i = 0; i < count; ++i) {
        const float s = leaf[i] >= first && leaf[i] < end ? sigmas[i] : 0.0f;
        A += s * as[i];
        B += s;
      }
      sums[2 + 2 * u] += static_cast<double>(A);
      sums[3 + 2 * u] += static_cast<double>(B);
    }
  }
};

// body(block, n, chunk, at) for every block of the batch, compared; `at` is its first pixel. Blocks of a chunk come in
// order.
template <class Tree, ContextNorm norm, class Body>
void for_each_block(const Problem& p, const Body& body) {
  const int64_t pixels = p.shape.pixels(), chunks = p.chunks_of_image();
  parallel_for(p.shape.N * chunks, 2, [&](int64_t chunk) {
    const int64_t n = chunk / chunks, first = chunk % chunks * kChunk, end = std::min(pixels, first + kChunk);
    const PairTable<Tree> pairs(p, n);
    PixelBlock<Tree, norm> block;
    for (int64_t at = first; at < end; at += kBlock) {
      block.load(p, n * pixels + at, std::min(kBlock, end - at));
      block.compare(pairs);
      body(block, n, chunk, n * pixels + at);
    }
  });
}

// Losses of all pixels -> the border of each image. A pixel that does not count has the loss -1.
template <class Tree, ContextNorm norm>
void find_borders(const Problem& p, float* losses, uint32_t* counters, TrimBorder* borders) {
  for_each_block<Tree, norm>(p, [&](const PixelBlock<Tree, norm>& block, int64_t, int64_t, int64_t at) {
    for (int64_t i = 0; i < block.count; ++i) losses[at + i] = block.counted[i] != 0 ? block.loss[i] : -1.0f;
  });
  WantedBorder wanted;
  wanted.trim = p.options.trim;
  const int64_t pixels = p.shape.pixels();
  parallel_ranges(p.shape.N, 1, [&](int64_t begin, int64_t end, int part) {
    for (int64_t n = begin; n < end; ++n) {
      Selection found;
      select(wanted, pixels, losses + n * pixels, nullptr, {}, counters + part * select_counters<WantedBorder>(),
             &found);
      borders[n] = TrimBorder::of(found);
    }
  });
}

template <class Tree, ContextNorm norm>
void loss_of(Stream stream, const Problem& p, const ContextLossResult& result) {
  constexpr int kSums = 2 + 2 * Tree::kContexts;
  const bool trims = p.options.trim > 0;
  const int64_t chunks = p.chunks_of_image(), doubles = p.shape.N * chunks * kSums;
  const int64_t counters = trims ? num_threads() * select_counters<WantedBorder>() : 0;
  const int64_t losses = trims ? p.shape.N * p.shape.pixels() : 0;
  auto* sums = static_cast<double*>(stream.scratch->get(static_cast<size_t>(doubles) * sizeof(double) +
                                                        static_cast<size_t>(counters + losses) * sizeof(float)));
  if (trims) {
    auto* free = reinterpret_cast<float*>(sums + doubles);
    find_borders<Tree, norm>(p, free, reinterpret_cast<uint32_t*>(free + losses), result.borders);
  }
  std::fill_n(sums, doubles, 0.0);
  for_each_block<Tree, norm>(p, [&](PixelBlock<Tree, norm>& block, int64_t n, int64_t chunk, int64_t) {
    if (trims) block.trim(result.borders[n]);
    block.add_sums(sums + chunk * kSums);
  });
  double loss = 0, count = 0;
  for (int64_t n = 0; n < p.shape.N; ++n) {
    double total[kSums] = {};
    for (int64_t chunk = n * chunks; chunk < (n + 1) * chunks; ++chunk) {
      for (int k = 0; k < kSums; ++k) total[k] += sums[chunk * kSums + k];
    }
    loss += total[0];
    count += total[1];
    for (int u = 0; norm != ContextNorm::kNone && u < Tree::kContexts; ++u) {
      result.sums[n * Tree::kContexts + u] = {static_cast<float>(total[2 + 2 * u]),
                                              static_cast<float>(total[3 + 2 * u])};
    }
  }
  finish_context_loss(loss, count, result.loss);
}

// The slopes of an image by column; the last one is for pixels that have no context.
template <class Tree>
struct SlopeTable {
  float t[Tree::kContexts + 1], scale[Tree::kContexts + 1], deviation[Tree::kContexts + 1], median[Tree::kContexts + 1];

  SlopeTable(const Problem& p, int64_t n, double weight, const ContextSums* sums) {
    for (int u = 0; u <= Tree::kContexts; ++u) {
      ContextSlope slope{};
      if (u < Tree::kContexts) {
        const int64_t at = n * Tree::kContexts + u;
        slope = slope_of(p.stats[at], weight, static_cast<double>(sums[at].A), static_cast<double>(sums[at].B),
                         p.options.reference, p.options.detach);
      }
      t[u] = slope.t;
      scale[u] = slope.scale;
      deviation[u] = slope.deviation;
      median[u] = slope.median;
    }
  }
};

template <class Tree, ContextNorm norm>
void grad_of(const Problem& p, const ContextLossResult& result, float dloss, float* dx) {
  using Block = PixelBlock<Tree, norm>;
  const double weight = static_cast<double>(dloss) * static_cast<double>(result.loss[1]) / level_count(norm);
  std::vector<SlopeTable<Tree>> slopes;
  for (int64_t n = 0; norm != ContextNorm::kNone && n < p.shape.N; ++n) slopes.emplace_back(p, n, weight, result.sums);
  for_each_block<Tree, norm>(p, [&](Block& block, int64_t n, int64_t, int64_t at) {
    if (p.options.trim > 0) block.trim(result.borders[n]);
    float* out = dx + at;
    if constexpr (norm == ContextNorm::kNone) {
      const auto w = static_cast<float>(weight);
#pragma omp simd
      for (int64_t i = 0; i < block.count; ++i) out[i] = w * block.sigma[0][i];
      return;
    }
    const SlopeTable<Tree>& slope = slopes[static_cast<size_t>(n)];
    std::fill_n(out, block.count, 0.0f);
    for (int level = Block::kFirst; level < Block::kEnd; ++level) {
      const float* sigma = block.sigma[level - Block::kFirst];
#pragma omp simd
      for (int64_t i = 0; i < block.count; ++i) {
        const int u = Tree::context(block.leaf[i], level);
        const float v = block.x[i], t = slope.t[u];
        const float side = v > t ? 1.0f : v < t ? -1.0f : 0.0f, median = v == t ? slope.median[u] : 0.0f;
        out[i] += slope.scale[u] * (sigma[i] - slope.deviation[u] * side + median);
      }
    }
  });
}

}  // namespace

void context_loss(Stream stream, const MapShape& shape, ContextKind kind, const ContextLossOptions& options,
                  const ContextInput& in, const ContextLossResult& result) {
  const Problem problem{shape, options, in.x, in.y, in.leaves, in.stats};
  visit_tree(kind, [&]<class Tree>() {
    visit_norm(options.norm, [&]<ContextNorm norm>() { loss_of<Tree, norm>(stream, problem, result); });
  });
}

void context_loss_grad(Stream, const MapShape& shape, ContextKind kind, const ContextLossOptions& options,
                       const ContextInput& in, const ContextLossResult& result, const float* dloss, float* dx) {
  const Problem problem{shape, options, in.x, in.y, in.leaves, in.stats};
  visit_tree(kind, [&]<class Tree>() {
    visit_norm(options.norm, [&]<ContextNorm norm>() { grad_of<Tree, norm>(problem, result, *dloss, dx); });
  });
}

}  // namespace depthstill::cpu
