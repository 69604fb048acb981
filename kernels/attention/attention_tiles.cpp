// Driver of the forward pass. A task is a block of queries of one head, taken in groups of the tile kernel's pixels:
// for every block of keys, a group's scores (queries x keys^T), their exponentials as lines, and the product with v.
// Keys and values of a head are packed when a thread comes to it; tasks are ordered so that this happens once per head
// and thread.
#include "kernels/attention/attention_tiles.h"

#include <limits>

#include "kernels/core/parallel.h"

namespace depthstill::cpu {
namespace {

using namespace attention_detail;

constexpr int64_t kGroups = 8;      // groups of pixels in a task: what streams from the L2 cache is used this often
constexpr int64_t kBlockPairs = 8;  // 256 keys: a group's scores and probabilities stay in the L1 or L2 cache

template <class T>
struct Forward {
  const TileKernels& kernels;
  const AttentionKernels& rows;
  const AttentionShape& shape;
  const Packing packing;
  const int64_t group, queries;  // rows of a group, of a task
  const T* qkv;
  T* y;
  float* lse;

  // One thread's memory.
  struct Memory {
    std::byte *keys, *values;    // packed weights of a head
    std::byte *q_lines, *lines;  // lines of a task's queries; of a group's probabilities
    float *scores, *acc, *max, *sums, *floats;
    const void** table;
  };

  Memory carve(Carver& carver) const {
    Memory m{};
    m.keys = carver.take<std::byte>(packing.as_outputs_bytes());
    m.values = carver.take<std::byte>(packing.as_inputs_bytes());
    m.q_lines = carver.take<std::byte>(packing.d_lines * q_stride());
    m.lines = carver.take<std::byte>(kBlockPairs * packing.lines_per_pair() * group * kernels.line_bytes);
    m.scores = carver.take<float>(kBlockPairs * group * kPairOutputs);
    m.acc = carver.take<float>(packing.d_pairs * queries * kPairOutputs);
    m.max = carver.take<float>(queries);
    m.sums = carver.take<float>(queries * 16);
    m.floats = carver.take<float>(kPairOutputs * packing.d);
    m.table = carver.take<const void*>(queries);
    return m;
  }

  int64_t q_stride() const { return (queries | 1) * kernels.line_bytes; }
  int64_t tasks_per_head() const { return ceil_div(shape.T, queries); }

  Rows<T> head_rows(int64_t n, int64_t h, int64_t part) const {
    return {qkv + n * shape.T * 3 * shape.C + part * shape.C + h * shape.d(), 3 * shape.C, shape.T, shape.d()};
  }

  void pack_head(int64_t head, const Memory& m) const {
    const int64_t n = head / shape.heads, h = head % shape.heads;
    packing.pack(head_rows(n, h, 1), m.keys, nullptr, m.floats);
    packing.pack(head_rows(n, h, 2), nullptr, m.values, m.floats);
  }

  void run(int64_t head, int64_t task, const Memory& m) const {
    const int64_t n = head / shape.heads, h = head % shape.heads, first = task * queries;
    const int64_t count = std::min(queries, shape.T - first);
    packing.pack_lines(head_rows(n, h, 0), first, count, ceil_div(count, group) * group, q_stride(), m.table,
                       m.q_lines);
    std::fill(m.max, m.max + queries, -std::numeric_limits<float>::infinity());
    std::fill(m.sums, m.sums + queries * 16, 0.0f);
    for (int64_t pair = 0; pair < packing.row_pairs; pair += kBlockPairs) {
      const int64_t pairs = std::min(kBlockPairs, packing.row_pairs - pair);
      for (int64_t q = 0; q < count; q += group) multiply_group(q, std::min(group, count - q), pair, pairs, m);
    }
    for (int64_t q = 0; q < count; ++q) finish(n, h, first + q, q, m);
  }

  void multiply_group(int64_t q, int64_t count, int64_t first_pair, int64_t pairs, const Memory& m) const {
    for (int64_t i = 0; i < pairs; ++i) {
      multiply(kernels, m.q_lines + q * kernels.line_bytes, q_stride(), packing.d_lines, count,
               m.keys + (first_pair + i) * packing.d_lines * 2 * kernels.tile_bytes, 2,
               m.scores + i * group * kPairOutputs, true);
    }
    const int64_t left = shape.T - (first_pair + pairs - 1) * kPairOutputs;  // real keys of the last pair
    for (int64_t i = 0; i < count && left < kPairOutputs; ++i) {
      float* row = m.scores + ((pairs - 1) * group + i) * kPairOutputs;
      std::fill(row + left, row + kPairOutputs, -std::numeric_limits<float>::infinity());
    }
    float* acc = m.acc + q * packing.d_pairs * kPairOutputs;
    rows.softmax({m.scores, m.max + q, m.sums + q * 16, acc, m.lines, score_scale(shape) * kLog2E,
                  static_cast<int>(pairs), static_cast<int>(packing.d_pairs), static_cast<int>(count),
                  static_cast<int>(group)});
    for (int64_t i = 0; i < packing.d_pairs; ++i) {
      multiply(kernels, m.lines, group * kernels.line_bytes, pairs * packing.lines_per_pair(), count,
               m.values + (i * packing.row_lines + first_pair * packing.lines_per_pair()) * 2 * kernels.tile_bytes,
               packing.channel_tiles(i), acc + i * group * kPairOutputs, first_pair == 0);
    }
  }

  // Row q of the task to token t of y and lse.
  void finish(int64_t n, int64_t h, int64_t t, int64_t q, const Memory& m) const {
    float sum = 0.0f;
    for (int64_t i = 0; i < 16; ++i) sum += m.sums[q * 16 + i];
    lse[(n * shape.heads + h) * shape.T + t] = m.max[q] * score_scale(shape) + std::log(sum);
    const float inverse = 1.0f / sum;
    const int64_t d = shape.d();
    T* out = y + (n * shape.T + t) * shape.C + h * d;
    const float* acc = m.acc + (q / group * packing.d_pairs * group + q % group) * kPairOutputs;
    for (int64_t c = 0; c < d; c += kPairOutputs, acc += group * kPairOutputs) {
      store_scaled(std::min<int64_t>(kPairOutputs, d - c), inverse, acc, out + c);
    }
  }
};

}  // namespace

template <class T>
void tiled_attention(const TileKernels& kernels, Stream stream, const AttentionShape& shape, const T* qkv, T* y,
                     float* lse) {
  const int64_t group = kernels.block_pixels;
  const Forward<T> forward{
      kernels, attention_kernels(kernels), shape, Packing(kernels, shape.d(), shape.T), group, kGroups * group, qkv, y,
      lse};
  Carver counter(nullptr);
  forward.carve(counter);
  auto* memory = static_cast<std::byte*>(stream.scratch->get(static_cast<size_t>(counter.bytes() * num_threads())));
  const int64_t per_head = forward.tasks_per_head();
  parallel_ranges(shape.N * shape.heads * per_head, 1, [&](int64_t begin, int64_t end, int part) {
    Carver carver(memory + part * counter.bytes());
    const auto own = forward.carve(carver);
    kernels.begin();
    for (int64_t i = begin; i < end; ++i) {
      if (i == begin || i % per_head == 0) forward.pack_head(i / per_head, own);
      forward.run(i / per_head, i % per_head, own);
    }
    kernels.end();
  });
}

template void tiled_attention(const TileKernels&, Stream, const AttentionShape&, const float*, float*, float*);
template void tiled_attention(const TileKernels&, Stream, const AttentionShape&, const bf16*, bf16*, float*);

}  // namespace depthstill::cpu
