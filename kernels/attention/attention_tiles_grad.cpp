// Driver of the gradient: five products per block of keys and queries, each block's p and ds made once. The blocks are
// transposed (keys are pixels): dv and dk of a block of keys stay put while all queries pass by, and dq^T of the head
// is added to in fp32. A task is one head; where there are few heads, a part of its keys with a dq of its own. That
// split depends on the shape alone and the parts are added in order, so results do not depend on the number of threads.
#include <limits>

#include "kernels/attention/attention_tiles.h"
#include "kernels/core/parallel.h"

namespace depthstill::cpu {
namespace {

using namespace attention_detail;

constexpr int64_t kMaxKeys = 128;   // keys of a block: its dk, dv and lines stay in the L2 cache
constexpr int64_t kBlockPairs = 2;  // 64 queries: what lies between the products stays close to the L1 cache
constexpr int64_t kMinTasks = 12;

template <class T>
float dot(const T* a, const T* b, int64_t n) {
  Lanes sums{};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) sums += load_lanes(a + i) * load_lanes(b + i);
  float sum = 0.0f;
  for (; i < n; ++i) sum += static_cast<float>(a[i]) * static_cast<float>(b[i]);
  for (int lane = 0; lane < kLanes; ++lane) sum += sums[lane];
  return sum;
}

struct Plan {
  int64_t keys, key_lines, blocks;  // keys of a block: whole groups of pixels, and whole lines where that is possible
  int64_t channels;                 // d, rounded up to whole groups of pixels
  int64_t splits;
  int64_t key_stride, channel_stride;  // bytes from a line to the next

  Plan(const TileKernels& kernels, const AttentionShape& shape) {
    const int64_t group = kernels.block_pixels;
    keys = kMaxKeys / group * group;
    const int64_t whole = keys / kernels.line_channels * kernels.line_channels;
    if (whole % group == 0) keys = whole;
    key_lines = ceil_div(keys, kernels.line_channels);
    blocks = ceil_div(shape.T, keys);
    channels = align_up(shape.d(), group);
    splits = std::clamp<int64_t>(ceil_div(kMinTasks, shape.N * shape.heads), 1, blocks);
    key_stride = (keys | 1) * kernels.line_bytes;
    channel_stride = (channels | 1) * kernels.line_bytes;
  }
};

template <class T>
struct Backward {
  const TileKernels& kernels;
  const AttentionKernels& rows;
  const AttentionShape& shape;
  const Plan plan;
  const Packing packing;
  const T *qkv, *y;
  const float* lse;
  const T* dy;
  T* dqkv;

  // One thread's memory.
  struct Memory {
    std::byte *q_outputs, *q_inputs, *dy_outputs, *dy_inputs;  // packed weights of a head
    float *lse_log2, *delta;                                   // statistics of its queries, padded
    std::byte *k_lines, *v_lines, *k_channel_lines;            // lines of a block of keys
    float *dk, *dv;                                            // [pair of channels][key][32]
    float *scores, *dp;
    std::byte *p_lines, *ds_lines, *ds_tiles;
    float* dq;  // transposed, [pair of queries][channel][32]; where a head is not split
    float* floats;
    T* k_channels;
    const void** table;
  };

  int64_t dq_floats() const { return packing.row_pairs * plan.channels * kPairOutputs; }
  int64_t tile_stride() const { return plan.key_lines * 2 * kernels.tile_bytes; }

  Memory carve(Carver& carver) const {
    Memory m{};
    for (auto* p : {&m.q_outputs, &m.dy_outputs}) *p = carver.take<std::byte>(packing.as_outputs_bytes());
    for (auto* p : {&m.q_inputs, &m.dy_inputs}) *p = carver.take<std::byte>(packing.as_inputs_bytes());
    for (auto* p : {&m.lse_log2, &m.delta}) *p = carver.take<float>(packing.row_pairs * kPairOutputs);
    for (auto* p : {&m.k_lines, &m.v_lines}) *p = carver.take<std::byte>(packing.d_lines * plan.key_stride);
    m.k_channel_lines = carver.take<std::byte>(plan.key_lines * plan.channel_stride);
    for (auto* p : {&m.dk, &m.dv}) *p = carver.take<float>(packing.d_pairs * plan.keys * kPairOutputs);
    for (auto* p : {&m.scores, &m.dp}) *p = carver.take<float>(kBlockPairs * plan.keys * kPairOutputs);
    for (auto* p : {&m.p_lines, &m.ds_lines}) {
      *p = carver.take<std::byte>(kBlockPairs * packing.lines_per_pair() * plan.key_stride);
    }
    m.ds_tiles = carver.take<std::byte>(kBlockPairs * tile_stride());
    m.dq = carver.take<float>(plan.splits == 1 ? dq_floats() : 0);
    m.floats = carver.take<float>(kPairOutputs * packing.d);
    m.k_channels = carver.take<T>(packing.d * plan.keys);
    m.table = carver.take<const void*>(std::max(plan.keys, plan.channels));
    return m;
  }

  int64_t head_offset(int64_t head, int64_t part) const {
    return head / shape.heads * shape.T * 3 * shape.C + part * shape.C + head % shape.heads * shape.d();
  }
  Rows<T> head_rows(int64_t head, int64_t part) const {
    return {qkv + head_offset(head, part), 3 * shape.C, shape.T, shape.d()};
  }

  void pack_head(int64_t head, const Memory& m) const {
    const int64_t n = head / shape.heads, h = head % shape.heads, d = shape.d();
    const int64_t at = n * shape.T * shape.C + h * d;
    packing.pack(head_rows(head, 0), m.q_outputs, m.q_inputs, m.floats);
    packing.pack(Rows<T>{dy + at, shape.C, shape.T, d}, m.dy_outputs, m.dy_inputs, m.floats);
    for (int64_t t = 0; t < shape.T; ++t) {
      m.lse_log2[t] = lse[head * shape.T + t] * kLog2E;
      m.delta[t] = dot(dy + at + t * shape.C, y + at + t * shape.C, d);
    }
    // Queries that pad the last pair: p = exp2(0 - infinity) = 0.
    for (int64_t t = shape.T; t < packing.row_pairs * kPairOutputs; ++t) {
      m.lse_log2[t] = std::numeric_limits<float>::infinity();
      m.delta[t] = 0.0f;
    }
  }

  // Keys and values as pixels, and for dq the channels of the keys as pixels, whose padding keys are zero.
  void pack_keys(int64_t head, int64_t first, int64_t count, int64_t padded, const Memory& m) const {
    const Rows<T> k = head_rows(head, 1);
    packing.pack_lines(k, first, count, padded, plan.key_stride, m.table, m.k_lines);
    packing.pack_lines(head_rows(head, 2), first, count, padded, plan.key_stride, m.table, m.v_lines);
    for (int64_t c = 0; c < packing.d; ++c) {
      T* row = m.k_channels + c * plan.keys;
      for (int64_t j = 0; j < count; ++j) row[j] = k.data[(first + j) * k.stride + c];
      std::fill(row + count, row + plan.keys, static_cast<T>(0.0f));
    }
    for (int64_t c = 0; c < plan.channels; ++c) m.table[c] = m.k_channels + std::min(c, packing.d - 1) * plan.keys;
    kernels.pack_lines(m.table, plan.channels, 0, static_cast<int>(plan.keys), plan.channel_stride, m.k_channel_lines);
    // The last tile may have rows that no key of this block writes.
    if (padded < plan.key_lines * kernels.line_channels)
      std::fill(m.ds_tiles, m.ds_tiles + kBlockPairs * tile_stride(), std::byte{0});
  }

  // All products of a block of keys.
  void run(int64_t head, int64_t block, bool first, float* dq, const Memory& m) const {
    const int64_t first_key = block * plan.keys, count = std::min(plan.keys, shape.T - first_key);
    const int64_t padded = align_up(count, kernels.block_pixels);
    pack_keys(head, first_key, count, padded, m);
    for (int64_t pair = 0; pair < packing.row_pairs; pair += kBlockPairs) {
      const int64_t pairs = std::min(kBlockPairs, packing.row_pairs - pair);
      multiply_scores(pair, pairs, padded, m);
      rows.softmax_grad({m.scores, m.dp, m.lse_log2 + pair * kPairOutputs, m.delta + pair * kPairOutputs, m.p_lines,
                         m.ds_lines, m.ds_tiles, score_scale(shape) * kLog2E, plan.key_stride, tile_stride(),
                         static_cast<int>(pairs), static_cast<int>(padded)});
      multiply_keys(m.p_lines, m.dy_inputs, pair, pairs, padded, m.dv);
      multiply_keys(m.ds_lines, m.q_inputs, pair, pairs, padded, m.dk);
      multiply_queries(pair, pairs, padded, first, dq, m);
    }
    store_keys(head, 1, first_key, count, score_scale(shape), m.dk);
    store_keys(head, 2, first_key, count, 1.0f, m.dv);
  }

  void multiply_scores(int64_t first_pair, int64_t pairs, int64_t keys, const Memory& m) const {
    for (int64_t i = 0; i < pairs; ++i) {
      const int64_t weights = (first_pair + i) * packing.d_lines * 2 * kernels.tile_bytes;
      for (int64_t key = 0; key < keys; key += kernels.block_pixels) {
        const int64_t at = (i * keys + key) * kPairOutputs, line = key * kernels.line_bytes;
        multiply(kernels, m.k_lines + line, plan.key_stride, packing.d_lines, kernels.block_pixels,
                 m.q_outputs + weights, 2, m.scores + at, true);
        multiply(kernels, m.v_lines + line, plan.key_stride, packing.d_lines, kernels.block_pixels,
                 m.dy_outputs + weights, 2, m.dp + at, true);
      }
    }
  }

  // acc[key] += lines of queries x their channels.
  void multiply_keys(const std::byte* lines, const std::byte* weights, int64_t first_pair, int64_t pairs, int64_t keys,
                     float* acc) const {
    const int64_t line_count = pairs * packing.lines_per_pair(), first_line = first_pair * packing.lines_per_pair();
    for (int64_t i = 0; i < packing.d_pairs; ++i) {
      for (int64_t key = 0; key < keys; key += kernels.block_pixels) {
        multiply(kernels, lines + key * kernels.line_bytes, plan.key_stride, line_count, kernels.block_pixels,
                 weights + (i * packing.row_lines + first_line) * 2 * kernels.tile_bytes, packing.channel_tiles(i),
                 acc + (i * plan.keys + key) * kPairOutputs, first_pair == 0);
      }
    }
  }

  // dq^T += k^T x ds^T.
  void multiply_queries(int64_t first_pair, int64_t pairs, int64_t keys, bool first, float* dq, const Memory& m) const {
    const int64_t line_count = ceil_div(keys, kernels.line_channels);
    for (int64_t i = 0; i < pairs; ++i) {
      for (int64_t c = 0; c < plan.channels; c += kernels.block_pixels) {
        multiply(kernels, m.k_channel_lines + c * kernels.line_bytes, plan.channel_stride, line_count,
                 std::min<int64_t>(kernels.block_pixels, packing.d - c), m.ds_tiles + i * tile_stride(), 2,
                 dq + ((first_pair + i) * plan.channels + c) * kPairOutputs, first);
      }
    }
  }

  void store_keys(int64_t head, int64_t part, int64_t first, int64_t count, float factor, const float* acc) const {
    for (int64_t j = 0; j < count; ++j) {
      T* out = dqkv + head_offset(head, part) + (first + j) * 3 * shape.C;
      for (int64_t pair = 0; pair < packing.d_pairs; ++pair) {
        const float* from = acc + (pair * plan.keys + j) * kPairOutputs;
        const int64_t c = pair * kPairOutputs;
        store_scaled(std::min<int64_t>(kPairOutputs, packing.d - c), factor, from, out + c);
      }
    }
  }

  // Adds the splits of a pair of query tiles in order, and stores it the right way round.
  void store_queries(int64_t head, int64_t pair, float* dq, float* floats) const {
    const int64_t d = packing.d, first = pair * kPairOutputs;
    const int64_t count = std::min<int64_t>(kPairOutputs, shape.T - first);
    float* sum = dq + pair * plan.channels * kPairOutputs;
    for (int64_t split = 1; split < plan.splits; ++split) {
      const float* term = sum + split * dq_floats();
      for (int64_t i = 0; i < d * kPairOutputs; ++i) sum[i] += term[i];
    }
    for (int64_t t = 0; t < count; t += 16) {
      rows.transpose(sum + t, d, static_cast<int>(std::min<int64_t>(16, count - t)), score_scale(shape), floats + t * d,
                     d);
    }
    for (int64_t t = 0; t < count; ++t) {
      store_scaled(d, 1.0f, floats + t * d, dqkv + head_offset(head, 0) + (first + t) * 3 * shape.C);
    }
  }
};

}  // namespace

template <class T>
void tiled_attention_grad(const TileKernels& kernels, Stream stream, const AttentionShape& shape, const T* qkv,
                          const T* y, const float* lse, const T* dy, T* dqkv) {
  const Backward<T> backward{kernels,
                             attention_kernels(kernels),
                             shape,
                             Plan(kernels, shape),
                             Packing(kernels, shape.d(), shape.T),
                             qkv,
                             y,
                             lse,
                             dy,
                             dqkv};
  const Plan& plan = backward.plan;
  const int64_t heads = shape.N * shape.heads, row_pairs = backward.packing.row_pairs, splits = plan.splits;
  Carver counter(nullptr);
  backward.carve(counter);
  const int64_t shared = splits == 1 ? 0 : align_up(heads * splits * backward.dq_floats(), 16);
  auto* memory = static_cast<std::byte*>(stream.scratch->get(
      static_cast<size_t>(counter.bytes() * num_threads() + shared * static_cast<int64_t>(sizeof(float)))));
  auto* shared_dq = reinterpret_cast<float*>(memory + counter.bytes() * num_threads());
  parallel_ranges(heads * splits, 1, [&](int64_t begin, int64_t end, int part) {
    Carver carver(memory + part * counter.bytes());
    const auto own = backward.carve(carver);
    kernels.begin();
    for (int64_t task = begin; task < end; ++task) {
      const int64_t head = task / splits, split = task % splits;
      if (task == begin || split == 0) backward.pack_head(head, own);
      float* dq = splits == 1 ? own.dq : shared_dq + task * backward.dq_floats();
      const int64_t first = plan.blocks * split / splits, last = plan.blocks * (split + 1) / splits;
      for (int64_t block = first; block < last; ++block) backward.run(head, block, block == first, dq, own);
      for (int64_t pair = 0; pair < row_pairs && splits == 1; ++pair) {
        backward.store_queries(head, pair, dq, own.floats);
      }
    }
    kernels.end();
  });
  if (splits == 1) return;
  parallel_ranges(heads * row_pairs, 1, [&](int64_t begin, int64_t end, int part) {
    Carver carver(memory + part * counter.bytes());
    float* floats = backward.carve(carver).floats;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t head = i / row_pairs;
      backward.store_queries(head, i % row_pairs, shared_dq + head * splits * backward.dq_floats(), floats);
    }
  });
}

template void tiled_attention_grad(const TileKernels&, Stream, const AttentionShape&, const float*, const float*,
                                   const float*, const float*, float*);
template void tiled_attention_grad(const TileKernels&, Stream, const AttentionShape&, const bf16*, const bf16*,
                                   const float*, const bf16*, bf16*);

}  // namespace depthstill::cpu
