#include "kernels/context/context_loss.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/context/leaf_lanes.h"
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

// The contexts of an image by column.
template <class Tree>
struct PairTable {
  float tx[Tree::kContexts], sx[Tree::kContexts], ty[Tree::kContexts], sy[Tree::kContexts];

  PairTable(const Problem& p, int64_t n) {
    for (int u = 0; p.stats != nullptr && u < Tree::kContexts; ++u) {
      const ContextStats& student = p.stats[n * Tree::kContexts + u];
      const ContextStats& teacher = p.stats[(p.shape.N + n) * Tree::kContexts + u];
      tx[u] = student.t;
      sx[u] = student.s;
      ty[u] = teacher.t;
      sy[u] = teacher.s;
    }
  }
};

// kLanes pixels side by side and what both directions need of them.
template <class Tree, ContextNorm norm>
struct PixelLanes {
  static constexpr int kFirst = first_level(norm), kEnd = end_level(norm), kCount = level_count(norm);
  LaneInts counted, in;  // masks: pixels that count, those that have contexts
  LeafLanes<Tree> contexts;
  Lanes x, y;  // 0 without contexts
  Lanes loss;
  Lanes sigma[kCount], a[kCount];  // sign(a - b) and a, by level

  // The first `count` of the pixels from `at` on; others do not count.
  PixelLanes(const Problem& p, int64_t at, int64_t count) {
    const Lanes xs = load_first(p.x + at, count), ys = load_first(p.y + at, count);
    if constexpr (norm == ContextNorm::kNone) {
      in = counted = finite_lanes(ys) & first_lanes(count);
    } else {
      contexts.leaf = load_first(p.leaves + at, count, kNotCounted);
      counted = contexts.leaf != kNotCounted;
      in = contexts.leaf < Tree::kLeaves;
    }
    x = where(in, xs);
    y = where(in, ys);
  }

  void compare(const PairTable<Tree>& pairs) {
    if constexpr (norm == ContextNorm::kNone) {
      loss = magnitude(x - y);
      sigma[0] = sign_of(x - y);
      return;
    }
    loss = Lanes{};
    for (int level = kFirst; level < kEnd; ++level) {
      const Lanes ai = (x - contexts.pick(pairs.tx, level)) / contexts.pick(pairs.sx, level);
      const Lanes bi = (y - contexts.pick(pairs.ty, level)) / contexts.pick(pairs.sy, level);
      const Lanes difference = where(in, ai - bi);
      loss += magnitude(difference);
      sigma[level - kFirst] = sign_of(difference);
      a[level - kFirst] = ai;
    }
    if (kCount > 1) loss /= static_cast<float>(kCount);
  }

  // Multiplies losses and signs by TrimBorder::kept() of each lane.
  void trim(const TrimBorder& border) {
    const Lanes kept = loss > border.border ? Lanes{} : loss == border.border ? lanes_of(border.share) : lanes_of(1.0f);
    loss *= kept;
    for (Lanes& sign : sigma) sign *= kept;
  }
};

// Sums over a block of pixels, added up in double.
template <class Tree, ContextNorm norm>
struct BlockSums {
  Lanes loss{}, A[Tree::kContexts]{}, B[Tree::kContexts]{};
  LaneInts counted{};

  void add(const PixelLanes<Tree, norm>& pixels) {
    loss += pixels.loss;
    counted -= pixels.counted;
    for (int level = pixels.kFirst; level < pixels.kEnd; ++level) {
      const Lanes sigma = pixels.sigma[level - pixels.kFirst], product = sigma * pixels.a[level - pixels.kFirst];
      for (int u = Tree::first(level); u < Tree::end(level); ++u) {
        const LaneInts in = pixels.contexts.in(u, level);
        A[u] += where(in, product);
        B[u] += where(in, sigma);
      }
    }
  }
  // sums: {loss, counted pixels}, then {A, B} per context.
  void add_to(double* sums) const {
    sums[0] += sum_of(loss);
    for (int i = 0; i < kLanes; ++i) sums[1] += counted[i];
    for (int level = first_level(norm); level < end_level(norm); ++level) {
      for (int u = Tree::first(level); u < Tree::end(level); ++u) {
        sums[2 + 2 * u] += sum_of(A[u]);
        sums[3 + 2 * u] += sum_of(B[u]);
      }
    }
  }
};

// body(pixels, at, count) for the `count` pixels from `first` on of image n, compared.
template <class Tree, ContextNorm norm, class Body>
void for_each_lanes(const Problem& p, const PairTable<Tree>& pairs, int64_t first, int64_t count, const Body& body) {
  for (int64_t i = 0; i < count; i += kLanes) {
    const int64_t lanes = std::min<int64_t>(kLanes, count - i);
    PixelLanes<Tree, norm> pixels(p, first + i, lanes);
    pixels.compare(pairs);
    body(pixels, first + i, lanes);
  }
}

// body(n, chunk, pairs, at, count) for every block of the batch; `at` is its first pixel. Blocks of a chunk come in
// order.
template <class Tree, class Body>
void for_each_block(const Problem& p, const Body& body) {
  const int64_t pixels = p.shape.pixels(), chunks = p.chunks_of_image();
  parallel_for(p.shape.N * chunks, 2, [&](int64_t chunk) {
    const int64_t n = chunk / chunks, first = chunk % chunks * kChunk, end = std::min(pixels, first + kChunk);
    const PairTable<Tree> pairs(p, n);
    for (int64_t at = first; at < end; at += kBlock) {
      body(n, chunk, pairs, n * pixels + at, std::min(kBlock, end - at));
    }
  });
}

// Losses of all pixels -> the border of each image. A pixel that does not count has the loss -1.
template <class Tree, ContextNorm norm>
void find_borders(const Problem& p, float* losses, uint32_t* counters, TrimBorder* borders) {
  for_each_block<Tree>(p, [&](int64_t, int64_t, const PairTable<Tree>& pairs, int64_t begin, int64_t count) {
    for_each_lanes<Tree, norm>(p, pairs, begin, count, [&](const PixelLanes<Tree, norm>& of, int64_t at, int64_t n) {
      store_first(losses + at, n, of.counted ? of.loss : lanes_of(-1.0f));
    });
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
  for_each_block<Tree>(p, [&](int64_t n, int64_t chunk, const PairTable<Tree>& pairs, int64_t begin, int64_t pixels) {
    BlockSums<Tree, norm> block;
    for_each_lanes<Tree, norm>(p, pairs, begin, pixels, [&](PixelLanes<Tree, norm>& of, int64_t, int64_t) {
      if (trims) of.trim(result.borders[n]);
      block.add(of);
    });
    block.add_to(sums + chunk * kSums);
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

// The slopes of an image by column.
template <class Tree>
struct SlopeTable {
  float t[Tree::kContexts], scale[Tree::kContexts], deviation[Tree::kContexts], median[Tree::kContexts];

  SlopeTable(const Problem& p, int64_t n, double weight, const ContextSums* sums) {
    for (int u = 0; u < Tree::kContexts; ++u) {
      const int64_t at = n * Tree::kContexts + u;
      const ContextSlope slope = slope_of(p.stats[at], weight, static_cast<double>(sums[at].A),
                                          static_cast<double>(sums[at].B), p.options.reference, p.options.detach);
      t[u] = slope.t;
      scale[u] = slope.scale;
      deviation[u] = slope.deviation;
      median[u] = slope.median;
    }
  }

  // dx of pixels with contexts.
  template <ContextNorm norm>
  Lanes at(const PixelLanes<Tree, norm>& of) const {
    Lanes sum{};
    for (int level = of.kFirst; level < of.kEnd; ++level) {
      const Lanes border = of.contexts.pick(t, level), one = lanes_of(1.0f);
      const Lanes side = where(of.x > border, one) - where(of.x < border, one);
      const Lanes at_median = where(of.x == border, of.contexts.pick(median, level));
      sum += of.contexts.pick(scale, level) *
             (of.sigma[level - of.kFirst] - of.contexts.pick(deviation, level) * side + at_median);
    }
    return sum;
  }
};

template <class Tree, ContextNorm norm>
void grad_of(const Problem& p, const ContextLossResult& result, float dloss, float* dx) {
  const double weight = static_cast<double>(dloss) * static_cast<double>(result.loss[1]) / level_count(norm);
  std::vector<SlopeTable<Tree>> slopes;
  for (int64_t n = 0; norm != ContextNorm::kNone && n < p.shape.N; ++n) slopes.emplace_back(p, n, weight, result.sums);
  for_each_block<Tree>(p, [&](int64_t n, int64_t, const PairTable<Tree>& pairs, int64_t begin, int64_t pixels) {
    for_each_lanes<Tree, norm>(p, pairs, begin, pixels, [&](PixelLanes<Tree, norm>& of, int64_t at, int64_t count) {
      if (p.options.trim > 0) of.trim(result.borders[n]);
      if constexpr (norm == ContextNorm::kNone) {
        store_first(dx + at, count, static_cast<float>(weight) * of.sigma[0]);
      } else {
        store_first(dx + at, count, where(of.in, slopes[static_cast<size_t>(n)].at(of)));
      }
    });
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
