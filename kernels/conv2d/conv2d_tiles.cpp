// Driver of the forward convolution and of the data gradient, which is the forward convolution of dz with the filter
// flipped and its channels exchanged. One task is a block of rows and columns of one image: it packs the block a few
// channel lines at a time (so that a pixel block's lines stay in the L1 cache) and multiplies them with all outputs,
// or with a group of outputs whose accumulators fit the L2 cache when the channels need several passes.
#include "kernels/conv2d/conv2d_tiles.h"

#include <algorithm>
#include <vector>

#include "kernels/core/parallel.h"

namespace depthstill::cpu {
namespace {

constexpr int64_t kPackedBytes = 384 * 1024;  // packed lines of a task: with the weights, within 2 MB of L2
constexpr int64_t kAccBytes = 512 * 1024;
constexpr int64_t kMaxColumns = 192;
constexpr int64_t kGroupWeightBytes = 832 * 1024;
constexpr int64_t kStreamedBytes = 256 * 1024;  // weights so few that writing whole pixels matters more
constexpr int64_t kMaxGroupPairs = 9;           // 257 outputs are one group
constexpr int64_t kMaxPassGroupPairs = 12;      // pairs with several passes, when every group packs the lines again
constexpr int64_t kMaxPassLines = 24;           // 384 float channels
constexpr int64_t kTasksPerThread = 4;          // no sum depends on how rows are grouped

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t align_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// A WeightView says how weights are addressed: the data gradient exchanges the channels and flips the taps.
struct WeightView {
  const float* data;
  int64_t output_stride, input_stride, tap_stride;
  bool flipped;
};

struct Plan {
  int64_t lines, passes, pass_lines;      // channel lines, and how many a pass takes
  int64_t pairs, groups, group_pairs;     // pairs of output tiles; a group's weights for one pass fit the L2 cache
  int64_t task_groups;                    // all of them if there is one pass, else 1
  int64_t rows, row_blocks, row_unit;     // output rows of a block, at most; in whole units, of which the last is cut
  int64_t columns, column_blocks, pitch;  // output columns of a block; with the halo
  int64_t halo_rows, plane;               // plane: flat pixels of a packed line, with slack
  bool stream_weights;                    // pixels outside, weights inside
  int64_t packed_bytes, acc_bytes, table_bytes, weight_bytes;

  int64_t first_row(int64_t row_block, int64_t P) const {
    return std::min(ceil_div(P, row_unit) * row_block / row_blocks * row_unit, P);
  }
  int64_t flat_pixels(int64_t block_rows) const { return (block_rows - 1) * pitch + columns; }
  int64_t task_bytes() const { return packed_bytes + acc_bytes + table_bytes; }
  int64_t lines_of(int64_t pass) const { return std::min(pass_lines, lines - pass * pass_lines); }
};

Plan make_plan(const TileKernels& kernels, const TileGeometry& g) {
  Plan plan{};
  const int64_t halo_columns = int64_t{g.S - 1} * g.dilation;
  plan.lines = ceil_div(g.C, kernels.line_channels);
  plan.pairs = ceil_div(g.O, kPairOutputs);
  const int64_t block_lines = (kernels.block_pixels + halo_columns) * g.R;
  const int64_t tile_pair_bytes = int64_t{g.R} * g.S * 2 * kernels.tile_bytes;
  for (const int64_t max_pairs : {kMaxGroupPairs, kMaxPassGroupPairs}) {
    plan.groups = ceil_div(plan.pairs, max_pairs);
    plan.group_pairs = ceil_div(plan.pairs, plan.groups);
    plan.groups = ceil_div(plan.pairs, plan.group_pairs);
    const int64_t max_lines = std::min(kernels.block_bytes / (block_lines * kernels.line_bytes),
                                       kGroupWeightBytes / (plan.group_pairs * tile_pair_bytes));
    plan.passes = ceil_div(plan.lines, std::clamp<int64_t>(max_lines, 1, kMaxPassLines));
    plan.pass_lines = ceil_div(plan.lines, plan.passes);
    plan.passes = ceil_div(plan.lines, plan.pass_lines);
    if (plan.passes == 1) break;
  }
  plan.task_groups = plan.passes == 1 ? plan.groups : 1;
  plan.stream_weights =
      kernels.stream_weights || plan.pass_lines * plan.group_pairs * tile_pair_bytes <= kStreamedBytes;

  plan.columns = ceil_div(g.Q, ceil_div(g.Q, kMaxColumns));
  plan.column_blocks = ceil_div(g.Q, plan.columns);
  plan.pitch = plan.columns + halo_columns;
  plan.halo_rows = int64_t{g.R - 1} * g.dilation;
  const int64_t by_packed = kPackedBytes / (plan.pass_lines * kernels.line_bytes * plan.pitch) - plan.halo_rows;
  const int64_t by_acc =
      plan.passes == 1 ? g.P : kAccBytes / (plan.group_pairs * kPairOutputs * int64_t{sizeof(float)} * plan.pitch);
  const int64_t by_tasks =
      ceil_div(g.N * g.P * plan.column_blocks * plan.groups / plan.task_groups, kTasksPerThread * num_threads());
  plan.rows = std::clamp<int64_t>(std::min({by_packed, by_acc, by_tasks}), 1, g.P);
  plan.row_blocks = ceil_div(g.P, plan.rows);
  plan.rows = ceil_div(g.P, plan.row_blocks);
  plan.row_unit = plan.pitch == 1 ? kernels.block_pixels : 1;
  plan.rows = std::min(g.P, align_up(plan.rows, plan.row_unit));
  plan.row_blocks = ceil_div(g.P, plan.rows);
  if (plan.row_blocks > 1)
    plan.row_blocks = std::min(align_up(plan.row_blocks, num_threads()), ceil_div(g.P, plan.row_unit));

  // A block of pixels may begin at the last flat pixel and reaches the halo to its right. The odd number of lines
  // keeps the planes from falling onto the same cache sets.
  plan.plane = ((plan.rows + plan.halo_rows) * plan.pitch + kernels.block_pixels + halo_columns) | 1;
  plan.packed_bytes = align_up(plan.pass_lines * plan.plane * kernels.line_bytes, 4096);
  const int64_t blocks = ceil_div(plan.flat_pixels(plan.rows), kernels.block_pixels);
  plan.acc_bytes = (plan.passes == 1 ? 1 : blocks * plan.group_pairs) * kBlockFloats * int64_t{sizeof(float)};
  plan.table_bytes = align_up((plan.plane + blocks * kernels.block_pixels) * int64_t{sizeof(void*)}, 64);
  plan.weight_bytes = plan.pairs * g.R * g.S * plan.lines * 2 * kernels.tile_bytes;
  return plan;
}

// Weights are packed as [pair][pass][tap][line][2 tiles]: the order in which DataBlocks read them.
void pack_all_weights(const TileKernels& kernels, const TileGeometry& g, const Plan& plan, const WeightView& weights,
                      std::byte* packed) {
  const int64_t taps = int64_t{g.R} * g.S;
  parallel_for(plan.pairs * plan.passes, 1, [&](int64_t item) {
    const int64_t pair = item / plan.passes, pass = item % plan.passes;
    std::byte* tile = packed + (pair * plan.lines + pass * plan.pass_lines) * taps * 2 * kernels.tile_bytes;
    for (int64_t tap = 0; tap < taps; ++tap) {
      const float* tap_weights = weights.data + (weights.flipped ? taps - 1 - tap : tap) * weights.tap_stride;
      for (int64_t line = 0; line < plan.lines_of(pass); ++line) {
        const int64_t c = (pass * plan.pass_lines + line) * kernels.line_channels;
        const int inputs = static_cast<int>(std::min<int64_t>(kernels.line_channels, g.C - c));
        for (int half = 0; half < 2; ++half, tile += kernels.tile_bytes) {
          const int64_t o = pair * kPairOutputs + half * kTileOutputs;
          if (o >= g.O) continue;
          kernels.pack_weights(tap_weights + o * weights.output_stride + c * weights.input_stride,
                               weights.output_stride, weights.input_stride,
                               static_cast<int>(std::min<int64_t>(kTileOutputs, g.O - o)), inputs, tile);
        }
      }
    }
  });
}

// One task works on this block.
struct Task {
  int64_t n, p, q, rows, columns, first_group;
};

struct Convolution {
  const TileKernels& kernels;
  const TileGeometry& g;
  const Plan& plan;
  Activation act;
  const std::byte* x;
  const std::byte* weights;  // packed
  const float* bias;
  std::byte* y;
  const std::byte* zeros;  // a pixel of zeros

  Task task(int64_t index) const {
    const int64_t group_steps = plan.groups / plan.task_groups;
    const int64_t first_group = index % group_steps, block = index / group_steps;
    const int64_t column_block = block % plan.column_blocks, row_block = block / plan.column_blocks;
    const int64_t p = plan.first_row(row_block % plan.row_blocks, g.P), q = column_block * plan.columns;
    const int64_t end = plan.first_row(row_block % plan.row_blocks + 1, g.P);
    return {row_block / plan.row_blocks, p, q, end - p, std::min(plan.columns, g.Q - q), first_group};
  }

  // Pointers to the input pixel of every flat pixel, and to the output pixel of those that have one.
  void fill_tables(const Task& t, const void** in, void** out, int64_t out_count) const {
    const int64_t pixel_bytes = g.C * kernels.element_bytes;
    const int64_t first_inside = std::clamp<int64_t>(g.pad_left - t.q, 0, plan.pitch);
    const int64_t last_inside = std::clamp<int64_t>(g.W + g.pad_left - t.q, first_inside, plan.pitch);
    for (int64_t row = 0; row < t.rows + plan.halo_rows; ++row) {
      const int64_t h = t.p + row - g.pad_top;
      const bool inside = h >= 0 && h < g.H;
      const void** row_in = in + row * plan.pitch;
      const std::byte* first_pixel = x + ((t.n * g.H + h) * g.W + t.q - g.pad_left) * pixel_bytes;
      for (int64_t column = 0; column < plan.pitch; ++column) {
        const bool pixel = inside && column >= first_inside && column < last_inside;
        row_in[column] = pixel ? first_pixel + column * pixel_bytes : zeros;
      }
    }
    std::fill(in + (t.rows + plan.halo_rows) * plan.pitch, in + plan.plane, zeros);
    int64_t f = 0;
    for (int64_t row = 0; row < t.rows; ++row) {
      std::byte* pixel = y + ((t.n * g.P + t.p + row) * g.Q + t.q) * g.O * kernels.element_bytes;
      for (int64_t column = 0; column < plan.pitch && f < out_count; ++column, ++f) {
        out[f] = column < t.columns ? pixel + column * g.O * kernels.element_bytes : nullptr;
      }
    }
    std::fill(out + f, out + std::max(f, out_count), nullptr);
  }

  // Fetches the lines that store() will write while multiply() computes.
  static void prefetch(void* const* out, int count, int64_t offset) {
    for (int i = 0; i < count; ++i) {
      if (out[i]) __builtin_prefetch(static_cast<std::byte*>(out[i]) + offset, 1);
    }
  }

  void run(const Task& t, std::byte* memory) const {
    std::byte* packed = memory;
    auto* acc = reinterpret_cast<float*>(packed + plan.packed_bytes);
    auto** in = reinterpret_cast<const void**>(packed + plan.packed_bytes + plan.acc_bytes);
    auto** out = const_cast<void**>(in + plan.plane);
    const int64_t blocks = ceil_div(plan.flat_pixels(t.rows), kernels.block_pixels);
    fill_tables(t, in, out, blocks * kernels.block_pixels);
    const int64_t plane_bytes = plan.plane * kernels.line_bytes;
    for (int64_t pass = 0; pass < plan.passes; ++pass) {
      const int64_t c = pass * plan.pass_lines * kernels.line_channels;
      const int64_t channels = std::min(plan.pass_lines * kernels.line_channels, g.C - c);
      kernels.pack_lines(in, plan.plane, c, static_cast<int>(channels), plane_bytes, packed);
      for (int64_t i = 0; i < plan.task_groups; ++i) multiply_group(t, t.first_group + i, pass, packed, acc, out);
    }
  }

  // The inner of the two loops runs over what streams from the L2 cache while the operand of the outer one is reused.
  void multiply_group(const Task& t, int64_t group, int64_t pass, const std::byte* packed, float* acc,
                      void* const* out) const {
    const int64_t blocks = ceil_div(plan.flat_pixels(t.rows), kernels.block_pixels);
    const int64_t first_pair = group * plan.group_pairs;
    const int64_t pairs = std::min(plan.group_pairs, plan.pairs - first_pair);
    for (int64_t i = 0; i < blocks * pairs; ++i) {
      const int64_t block = plan.stream_weights ? i / pairs : i % blocks;
      const int64_t pair = plan.stream_weights ? i % pairs : i / blocks;
      float* block_acc = acc + (plan.passes == 1 ? 0 : (block * plan.group_pairs + pair) * kBlockFloats);
      multiply_block(t, first_pair + pair, pass, block, packed, block_acc, out);
    }
  }

  void multiply_block(const Task& t, int64_t pair, int64_t pass, int64_t block, const std::byte* packed, float* acc,
                      void* const* out) const {
    const int64_t f = block * kernels.block_pixels, o = pair * kPairOutputs, taps = int64_t{g.R} * g.S;
    const bool last = pass + 1 == plan.passes;
    DataBlock b{};
    b.lines = packed + f * kernels.line_bytes;
    b.line_stride = plan.plane * kernels.line_bytes;
    b.column_stride = g.dilation * kernels.line_bytes;
    b.row_stride = plan.pitch * b.column_stride;
    b.R = g.R;
    b.S = g.S;
    b.line_count = static_cast<int>(plan.lines_of(pass));
    b.pixels = static_cast<int>(std::min<int64_t>(kernels.block_pixels, plan.flat_pixels(t.rows) - f));
    b.first = pass == 0;
    b.weights = weights + (pair * plan.lines + pass * plan.pass_lines) * taps * 2 * kernels.tile_bytes;
    b.acc = acc;
    b.tiles = g.O - o > kTileOutputs ? 2 : 1;
    if (last) prefetch(out + f, b.pixels, o * kernels.element_bytes);
    kernels.multiply(b);
    if (!last) return;
    kernels.store({acc, out + f, bias ? bias + o : nullptr, o, b.pixels,
                   static_cast<int>(std::min<int64_t>(kPairOutputs, g.O - o)), act});
  }
};

void convolve(const TileKernels& kernels, Stream stream, TileGeometry g, Activation act, const void* x,
              const WeightView& weights, const float* bias, void* y) {
  if (g.R == 1 && g.S == 1 && g.pad_top == 0 && g.pad_left == 0 && g.P == g.H && g.Q == g.W) {
    g.H = g.P = g.N * g.H;  // a plain matrix product: rows of all images alike
    g.N = 1;
  }
  if (g.N * g.P * g.Q * g.O == 0) return;
  const Plan plan = make_plan(kernels, g);
  const int64_t zero_bytes = align_up(g.C * kernels.element_bytes, 64), threads = num_threads();
  auto* memory = static_cast<std::byte*>(
      stream.scratch->get(static_cast<size_t>(plan.weight_bytes + zero_bytes + threads * plan.task_bytes())));
  std::byte* zeros = memory + plan.weight_bytes;
  std::fill(zeros, zeros + zero_bytes, std::byte{0});
  pack_all_weights(kernels, g, plan, weights, memory);
  const Convolution convolution{
      kernels, g, plan, act, static_cast<const std::byte*>(x), memory, bias, static_cast<std::byte*>(y), zeros};
  const int64_t tasks = g.N * plan.row_blocks * plan.column_blocks * (plan.groups / plan.task_groups);
  parallel_ranges(tasks, 1, [&](int64_t begin, int64_t end, int part) {
    kernels.begin();
    for (int64_t i = begin; i < end; ++i) {
      convolution.run(convolution.task(i), zeros + zero_bytes + part * plan.task_bytes());
    }
    kernels.end();
  });
}

}  // namespace

TileGeometry forward_geometry(const Conv2dShape& s) {
  return {s.N,        s.H,       s.W,       s.C, s.P(), s.Q(), s.O, static_cast<int>(s.R), static_cast<int>(s.S),
          s.dilation, s.pad_top, s.pad_left};
}

void tiled_forward(const TileKernels& kernels, Stream stream, const Conv2dShape& s, Activation act, const void* x,
                   const float* weight, const float* bias, void* y) {
  convolve(kernels, stream, forward_geometry(s), act, x, {weight, s.R * s.S * s.C, 1, s.C, false}, bias, y);
}

void tiled_grad_data(const TileKernels& kernels, Stream stream, const Conv2dShape& s, const void* dz,
                     const float* weight, void* dx) {
  const TileGeometry g{s.N,
                       s.P(),
                       s.Q(),
                       s.O,
                       s.H,
                       s.W,
                       s.C,
                       static_cast<int>(s.R),
                       static_cast<int>(s.S),
                       s.dilation,
                       s.dilation * (s.R - 1) - s.pad_top,
                       s.dilation * (s.S - 1) - s.pad_left};
  convolve(kernels, stream, g, Activation::kNone, dz, {weight, 1, s.R * s.S * s.C, s.C, true}, nullptr, dx);
}

}  // namespace depthstill::cpu
