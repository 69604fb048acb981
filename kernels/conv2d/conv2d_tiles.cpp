// Driver of the forward convolution and of the data gradient, which is the forward convolution of dz with the filter
// flipped and its channels exchanged; with a stride, one for each phase of dx, with the taps that reach it. One task is
// a block of rows and columns of one image: it packs the block a few channel lines at a time (so that a pixel block's
// lines stay in the L1 cache) and multiplies them with all outputs, or with a group of outputs whose accumulators fit
// the L2 cache when the channels need several passes.
#include "kernels/conv2d/conv2d_tiles.h"

#include <algorithm>
#include <cstring>

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

// A WeightView says how weights are addressed: the data gradient exchanges the channels and walks the taps backwards.
struct WeightView {
  const float* data;  // at tap (0, 0)
  int64_t output_stride, input_stride, row_stride, column_stride;
};

// Where output (p, q) of an image lies in y, in pixels: every `stride`-th of a map of height x width, from (row,
// column).
struct OutputView {
  int64_t height, width, row = 0, column = 0, row_stride = 1, column_stride = 1;

  int64_t at(int64_t n, int64_t p, int64_t q) const {
    return (n * height + row + p * row_stride) * width + column + q * column_stride;
  }
};

struct Plan {
  int64_t lines, passes, pass_lines;      // channel lines, and how many a pass takes
  int64_t pairs, groups, group_pairs;     // pairs of output tiles; a group's weights for one pass fit the L2 cache
  int64_t task_groups;                    // all of them if there is one pass, else 1
  int64_t rows, row_blocks, row_unit;     // output rows of a block, at most; in whole units, of which the last is cut
  int64_t columns, column_blocks, pitch;  // output columns of a block; with the halo
  int64_t halo_rows, plane;               // plane: flat pixels of a packed line, all phases and some slack
  int64_t phase_rows, edge_windows;       // rows of a phase; windows of a row that are copied
  bool stream_weights;                    // pixels outside, weights inside
  int64_t packed_bytes, acc_bytes, table_bytes, edges_bytes, weight_bytes;

  int64_t first_row(int64_t row_block, int64_t P) const {
    return std::min(ceil_div(P, row_unit) * row_block / row_blocks * row_unit, P);
  }
  int64_t flat_pixels(int64_t block_rows) const { return (block_rows - 1) * pitch + columns; }
  int64_t task_bytes() const { return packed_bytes + acc_bytes + table_bytes + edges_bytes; }
  int64_t lines_of(int64_t pass) const { return std::min(pass_lines, lines - pass * pass_lines); }
};

Plan make_plan(const TileKernels& kernels, const TileGeometry& g) {
  Plan plan{};
  const int64_t halo_columns = g.columns.halo(), phases = g.phases();
  plan.lines = ceil_div(g.C, kernels.line_channels);
  plan.pairs = ceil_div(g.O, kPairOutputs);
  const int64_t block_lines = (kernels.block_pixels + halo_columns) * g.rows.taps * g.columns.phases();
  const int64_t tile_pair_bytes = g.taps() * 2 * kernels.tile_bytes;
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
  plan.halo_rows = g.rows.halo();
  const int64_t by_packed =
      kPackedBytes / (plan.pass_lines * kernels.line_bytes * plan.pitch * phases) - plan.halo_rows;
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
  plan.phase_rows = plan.rows + plan.halo_rows;
  plan.plane = (phases * plan.phase_rows * plan.pitch + kernels.block_pixels + halo_columns) | 1;
  plan.packed_bytes = align_up(plan.pass_lines * plan.plane * kernels.line_bytes, 4096);
  const int64_t blocks = ceil_div(plan.flat_pixels(plan.rows), kernels.block_pixels);
  plan.acc_bytes = (plan.passes == 1 ? 1 : blocks * plan.group_pairs) * kBlockFloats * int64_t{sizeof(float)};
  plan.table_bytes = align_up((plan.plane + blocks * kernels.block_pixels) * int64_t{sizeof(void*)}, 64);
  plan.edge_windows = g.edge_windows();
  plan.edges_bytes = phases * plan.phase_rows * plan.edge_windows * align_up(g.C * kernels.element_bytes, 64);
  plan.weight_bytes = plan.pairs * g.taps() * plan.lines * 2 * kernels.tile_bytes;
  return plan;
}

// Weights are packed as [pair][pass][tap][line][2 tiles]: the order in which DataBlocks read them.
void pack_all_weights(const TileKernels& kernels, const TileGeometry& g, const Plan& plan, const WeightView& weights,
                      std::byte* packed) {
  const int64_t taps = g.taps();
  parallel_for(plan.pairs * plan.passes, 1, [&](int64_t item) {
    const int64_t pair = item / plan.passes, pass = item % plan.passes;
    std::byte* tile = packed + (pair * plan.lines + pass * plan.pass_lines) * taps * 2 * kernels.tile_bytes;
    for (int64_t tap = 0; tap < taps; ++tap) {
      const float* tap_weights =
          weights.data + tap / g.columns.taps * weights.row_stride + tap % g.columns.taps * weights.column_stride;
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
  const OutputView& view;
  const std::byte* zeros;      // a pixel of zeros
  const int64_t* tap_offsets;  // bytes
  const int64_t image_pixel = g.C / g.window * kernels.element_bytes;

  Task task(int64_t index) const {
    const int64_t group_steps = plan.groups / plan.task_groups;
    const int64_t first_group = index % group_steps, block = index / group_steps;
    const int64_t column_block = block % plan.column_blocks, row_block = block / plan.column_blocks;
    const int64_t p = plan.first_row(row_block % plan.row_blocks, g.P), q = column_block * plan.columns;
    const int64_t end = plan.first_row(row_block % plan.row_blocks + 1, g.P);
    return {row_block / plan.row_blocks, p, q, end - p, std::min(plan.columns, g.Q - q), first_group};
  }

  // Pointers to the input pixel of every flat pixel, and to the output pixel of those that have one.
  void fill_tables(const Task& t, const void** in, void** out, int64_t out_count, std::byte* edges) const {
    const PixelRows rows{x + t.n * g.H * g.W * image_pixel, g.H, g.W, image_pixel, g.window, zeros};
    const void** phase = in;
    for (int i = 0; i < g.rows.phases(); ++i) {
      for (int j = 0; j < g.columns.phases(); ++j, phase += plan.phase_rows * plan.pitch) {
        const int64_t first_row = t.p * g.rows.stride + g.rows.phase(i) - g.rows.pad;
        const int64_t first_column = t.q * g.columns.stride + g.columns.phase(j) - g.columns.pad;
        const int64_t count = t.rows + plan.halo_rows, columns = t.columns + g.columns.halo();
        for (int64_t row = 0; row < count; ++row, edges += plan.edge_windows * rows.edge_bytes()) {
          const void** to = phase + row * plan.pitch;
          rows.fill(first_row + row * g.rows.stride, first_column, g.columns.stride, columns, to, edges);
          std::fill(to + columns, to + plan.pitch, zeros);
        }
        std::fill(phase + count * plan.pitch, phase + plan.phase_rows * plan.pitch, zeros);
      }
    }
    std::fill(phase, in + plan.plane, zeros);
    const int64_t pixel_bytes = g.O * kernels.element_bytes;
    int64_t f = 0;
    for (int64_t row = 0; row < t.rows; ++row) {
      std::byte* pixel = y + view.at(t.n, t.p + row, t.q) * pixel_bytes;
      for (int64_t column = 0; column < plan.pitch && f < out_count; ++column, ++f) {
        out[f] = column < t.columns ? pixel + column * view.column_stride * pixel_bytes : nullptr;
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
    fill_tables(t, in, out, blocks * kernels.block_pixels, memory + plan.task_bytes() - plan.edges_bytes);
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
    const int64_t f = block * kernels.block_pixels, o = pair * kPairOutputs;
    const bool last = pass + 1 == plan.passes;
    DataBlock b{};
    b.lines = packed + f * kernels.line_bytes;
    b.tap_offsets = tap_offsets;
    b.line_stride = plan.plane * kernels.line_bytes;
    b.taps = static_cast<int>(g.taps());
    b.line_count = static_cast<int>(plan.lines_of(pass));
    b.pixels = static_cast<int>(std::min<int64_t>(kernels.block_pixels, plan.flat_pixels(t.rows) - f));
    b.first = pass == 0;
    b.weights = weights + (pair * plan.lines + pass * plan.pass_lines) * g.taps() * 2 * kernels.tile_bytes;
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
              const WeightView& weights, const float* bias, OutputView view, void* y) {
  if (g.is_product() && view.row_stride == 1 && view.column_stride == 1) {
    g.H = g.P = view.height = g.N * g.H;
    g.N = 1;
  }
  if (g.N * g.P * g.Q * g.O == 0) return;
  const Plan plan = make_plan(kernels, g);
  const int64_t zero_bytes = align_up(g.C * kernels.element_bytes, 64), threads = num_threads();
  const int64_t offset_bytes = align_up(g.taps() * int64_t{sizeof(int64_t)}, 64);
  auto* memory = static_cast<std::byte*>(stream.scratch->get(
      static_cast<size_t>(plan.weight_bytes + zero_bytes + offset_bytes + threads * plan.task_bytes())));
  std::byte* zeros = memory + plan.weight_bytes;
  std::fill(zeros, zeros + zero_bytes, std::byte{0});
  auto* tap_offsets = reinterpret_cast<int64_t*>(zeros + zero_bytes);
  for (int64_t tap = 0; tap < g.taps(); ++tap) {
    tap_offsets[tap] = g.tap_offset(tap, plan.phase_rows * plan.pitch, plan.pitch) * kernels.line_bytes;
  }
  std::byte* tasks_memory = zeros + zero_bytes + offset_bytes;
  pack_all_weights(kernels, g, plan, weights, memory);
  const Convolution convolution{
      kernels, g,     plan,       act, static_cast<const std::byte*>(x), memory, bias, static_cast<std::byte*>(y),
      view,    zeros, tap_offsets};
  const int64_t tasks = g.N * plan.row_blocks * plan.column_blocks * (plan.groups / plan.task_groups);
  parallel_ranges(tasks, 1, [&](int64_t begin, int64_t end, int part) {
    kernels.begin();
    for (int64_t i = begin; i < end; ++i) {
      convolution.run(convolution.task(i), tasks_memory + part * plan.task_bytes());
    }
    kernels.end();
  });
}

TileGeometry plain_geometry(const Conv2dShape& s) {
  const TapAxis rows{static_cast<int>(s.R), s.stride, s.dilation, s.pad_top};
  const TapAxis columns{static_cast<int>(s.S), s.stride, s.dilation, s.pad_left};
  return {s.N, s.H, s.W, s.C, s.P(), s.Q(), s.O, rows, columns};
}

// One axis of the data gradient. Input h is in the phase (h + pad) % stride; the taps r with r * dilation in the same
// phase reach it, from output p = (h + pad - r * dilation) / stride. For the inputs of a phase, one after the other,
// that is a convolution of stride 1 over these taps, the last one first.
struct PhaseOfInputs {
  int64_t first, count;  // inputs first, first + stride, ...
  int last_tap, tap_step;
  TapAxis taps;  // without taps, the gradient is 0

  PhaseOfInputs(const TapAxis& axis, int64_t inputs, int phase) {
    const int64_t stride = axis.stride, pad = axis.pad;
    const int64_t u = std::max<int64_t>(ceil_div(pad - phase, stride), 0);  // h = phase - pad + u * stride
    first = phase - pad + u * stride;
    count = first < inputs ? ceil_div(inputs - first, stride) : 0;
    tap_step = axis.period();
    int taps_here = 0;
    last_tap = 0;
    for (int r = 0; r < axis.taps; ++r) {
      if (r * axis.dilation % axis.stride != phase) continue;
      last_tap = r;
      ++taps_here;
    }
    const int step = axis.dilation / std::gcd(axis.stride, axis.dilation);
    taps = {taps_here, 1, step, axis.shift(last_tap) - u};
  }
};

}  // namespace

void PixelRows::fill(int64_t h, int64_t first, int64_t step, int64_t count, const void** out, std::byte* edges) const {
  if (h < 0 || h >= height) {
    std::fill(out, out + count, zeros);
    return;
  }
  const std::byte* row = image + h * width * pixel_bytes;
  const int64_t begin = std::clamp<int64_t>(ceil_div(-first, step), 0, count);
  const int64_t end = std::clamp<int64_t>(ceil_div(width - window + 1 - first, step), begin, count);
  for (int64_t i = begin; i < end; ++i) out[i] = row + (first + i * step) * pixel_bytes;
  const auto beyond = [&](int64_t i) -> const void* {
    const int64_t w = first + i * step;
    const int64_t left = std::max<int64_t>(w, 0), right = std::min<int64_t>(w + window, width);
    if (left >= right) return zeros;
    std::byte* copy = edges;
    edges += edge_bytes();
    std::memset(copy, 0, static_cast<size_t>(window * pixel_bytes));
    std::memcpy(copy + (left - w) * pixel_bytes, row + left * pixel_bytes,
                static_cast<size_t>((right - left) * pixel_bytes));
    return copy;
  };
  for (int64_t i = 0; i < begin; ++i) out[i] = beyond(i);
  for (int64_t i = end; i < count; ++i) out[i] = beyond(i);
}

TileGeometry forward_geometry(const TileKernels& kernels, const Conv2dShape& s) {
  TileGeometry g = plain_geometry(s);
  const bool fewer_lines = ceil_div(s.S * s.C, kernels.line_channels) < s.S * ceil_div(s.C, kernels.line_channels);
  const bool few_copies =
      s.S * s.C <= kernels.line_channels || s.stride >= s.S;  // windows overlap in one line, at most
  if (s.stride > 1 && s.dilation == 1 && fewer_lines && few_copies) {
    g.window = static_cast<int>(s.S);
    g.C *= s.S;
    g.columns.taps = 1;
  }
  return g;
}

void tiled_forward(const TileKernels& kernels, Stream stream, const Conv2dShape& s, Activation act, const void* x,
                   const float* weight, const float* bias, void* y) {
  const TileGeometry g = forward_geometry(kernels, s);
  convolve(kernels, stream, g, act, x, {weight, s.R * s.S * s.C, 1, s.S * s.C, s.C}, bias, {g.P, g.Q}, y);
}

void tiled_grad_data(const TileKernels& kernels, Stream stream, const Conv2dShape& s, const void* dz,
                     const float* weight, void* dx) {
  const TileGeometry forward = plain_geometry(s);
  if (forward.phases() < int64_t{s.stride} * s.stride) {  // no tap reaches some inputs
    std::memset(dx, 0, static_cast<size_t>(s.N * s.H * s.W * s.C * kernels.element_bytes));
  }
  for (int i = 0; i < s.stride; ++i) {
    const PhaseOfInputs rows(forward.rows, s.H, i);
    for (int j = 0; j < s.stride; ++j) {
      const PhaseOfInputs columns(forward.columns, s.W, j);
      const TileGeometry g{s.N, s.P(), s.Q(), s.O, rows.count, columns.count, s.C, rows.taps, columns.taps};
      if (g.taps() == 0) continue;
      const WeightView weights{weight + (rows.last_tap * s.S + columns.last_tap) * s.C, 1, s.R * s.S * s.C,
                               -rows.tap_step * s.S * s.C, -columns.tap_step * s.C};
      convolve(kernels, stream, g, Activation::kNone, dz, weights, nullptr,
               {s.H, s.W, rows.first, columns.first, s.stride, s.stride}, dx);
    }
  }
}

}  // namespace depthstill::cpu
