// Driver of the weight gradient: dweight[o, tap, c] = sum over flat pixels f of dz[f, o] * x[f + shift(tap), c].
// The image is taken in bands of rows; for each, dz and x are packed once by all threads (dz is zero in the halo
// columns, x in the padding), then tasks of up to 128 x 64 weights run over the pixels in L1-sized stretches. Every
// task keeps its own sums, and a few tasks may share weights by splitting the pixels: the split depends on the shape
// alone and the sums are added in a fixed order, so results do not depend on the number of threads.
#include <algorithm>

#include "kernels/conv2d/conv2d_tiles.h"
#include "kernels/core/parallel.h"

namespace depthstill::cpu {
namespace {

constexpr int64_t kStretchSteps = 16;                 // 512 pixels: 32 KB of bf16 gradients for a pair of tiles
constexpr int64_t kOutputPairs = 4, kInputPairs = 2;  // pairs of tiles that a task covers
constexpr int64_t kMinTasks = 16;
// Packed bytes of a band, unless the weights are larger. With a halo, thin bands would repeat too many rows.
constexpr int64_t kBandBytes = 2 << 20, kHaloBandBytes = 16 << 20;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t align_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

struct Plan {
  int64_t taps, halo_rows, pitch, phases, phase_pixels, edge_windows;
  int64_t rows, bands;        // output rows of a band; bands of an image
  int64_t steps, x_steps;     // steps of 32 flat pixels, in a band: of dz; of x with its halo
  int64_t dy_tiles, x_tiles;  // tiles of 16 outputs, of 16 channels
  int64_t dy_pairs, x_pairs, dy_groups, x_groups, splits;
  int64_t dy_stride, x_stride, odd;  // bytes from tile to tile; from the even to the odd copy of x
  int64_t dy_bytes, x_bytes, sum_floats, table_size, zero_bytes, edges_bytes;
};

Plan make_plan(const TileKernels& kernels, const TileGeometry& g) {
  Plan plan{};
  plan.taps = g.taps();
  plan.phases = g.phases();
  plan.halo_rows = g.rows.halo();
  plan.pitch = g.Q + g.columns.halo();
  plan.dy_tiles = ceil_div(g.O, 16);
  plan.x_tiles = ceil_div(g.C, 16);
  plan.dy_pairs = ceil_div(plan.dy_tiles, 2);
  plan.x_pairs = ceil_div(plan.x_tiles, 2);
  plan.dy_groups = ceil_div(plan.dy_pairs, kOutputPairs);
  plan.x_groups = ceil_div(plan.x_pairs, kInputPairs);

  const int64_t dy_pixel_bytes = plan.dy_tiles * kernels.step_bytes / kStepPixels;
  const int64_t x_pixel_bytes = plan.x_tiles * kernels.line_bytes;
  const int64_t weight_bytes = plan.dy_pairs * plan.x_pairs * plan.taps * kBlockFloats * int64_t{sizeof(float)};
  const int64_t row_bytes = plan.pitch * (dy_pixel_bytes + plan.phases * x_pixel_bytes);
  const int64_t band_bytes = std::max(plan.halo_rows > 0 ? kHaloBandBytes : kBandBytes, weight_bytes);
  plan.rows = std::clamp<int64_t>(band_bytes / row_bytes - plan.halo_rows, 1, g.P);
  plan.bands = ceil_div(g.P, plan.rows);
  plan.rows = ceil_div(g.P, plan.bands);
  plan.bands = ceil_div(g.P, plan.rows);

  plan.steps = ceil_div(plan.rows * plan.pitch, kStepPixels);
  plan.phase_pixels = (plan.rows + plan.halo_rows) * plan.pitch;
  const int64_t last_shift = (plan.phases - 1) * plan.phase_pixels + plan.halo_rows * plan.pitch + g.columns.halo();
  plan.x_steps = ceil_div(plan.steps * kStepPixels + last_shift, kStepPixels);
  plan.splits =
      std::clamp<int64_t>(ceil_div(kMinTasks, plan.dy_groups * plan.x_groups), 1, ceil_div(plan.steps, kStretchSteps));

  // An odd number of lines between tiles keeps them from falling onto the same cache sets.
  plan.dy_stride = plan.steps * kernels.step_bytes + kernels.line_bytes;
  plan.odd = (plan.x_steps * kStepPixels / kernels.pixels_per_line + 1) * kernels.line_bytes;
  plan.x_stride = plan.odd * kernels.pixels_per_line + kernels.line_bytes;
  plan.dy_bytes = align_up(plan.dy_tiles * plan.dy_stride, 64);
  plan.x_bytes = align_up(plan.x_tiles * plan.x_stride, 64);
  plan.sum_floats = plan.dy_pairs * plan.x_pairs * plan.taps * kBlockFloats;
  plan.table_size = (plan.x_steps + plan.steps) * kStepPixels + 8;
  plan.edge_windows = g.edge_windows();
  plan.edges_bytes =
      plan.phases * (plan.rows + plan.halo_rows) * plan.edge_windows * align_up(g.C * kernels.element_bytes, 64);
  plan.zero_bytes = align_up(std::max(g.C, g.O) * kernels.element_bytes, 64);
  return plan;
}

struct WeightGradient {
  const TileKernels& kernels;
  const TileGeometry& g;
  const Plan& plan;
  const std::byte* x;
  const std::byte* dz;
  std::byte* packed_dy;
  std::byte* packed_x;
  float* sums;         // [split][dy pair][x pair][tap][32][32]
  const void** table;  // a pointer per flat pixel: x_steps * 32 + 1 of x, then steps * 32 of dz
  const std::byte* zeros;
  std::byte* edges;

  void pack_band(int64_t n, int64_t p, int64_t rows) const {
    const int64_t x_pixel = g.C / g.window * kernels.element_bytes, dz_pixel = g.O * kernels.element_bytes;
    const int64_t x_size = plan.x_steps * kStepPixels + 1, x_rows = rows + plan.halo_rows;
    const PixelRows x_image{x + n * g.H * g.W * x_pixel, g.H, g.W, x_pixel, g.window, zeros};
    const PixelRows dz_image{dz + n * g.P * g.Q * dz_pixel, p + rows, g.Q, dz_pixel, 1, zeros};
    const void **phase = table, **dz_table = table + x_size;
    std::byte* phase_edges = edges;
    for (int i = 0; i < g.rows.phases(); ++i) {
      for (int j = 0; j < g.columns.phases(); ++j, phase += plan.phase_pixels) {
        const int64_t first_row = p * g.rows.stride + g.rows.phase(i) - g.rows.pad;
        parallel_for(x_rows, 4, [&](int64_t row) {
          x_image.fill(first_row + row * g.rows.stride, g.columns.phase(j) - g.columns.pad, g.columns.stride,
                       plan.pitch, phase + row * plan.pitch,
                       phase_edges + row * plan.edge_windows * x_image.edge_bytes());
        });
        std::fill(phase + x_rows * plan.pitch, phase + plan.phase_pixels, zeros);
        phase_edges += x_rows * plan.edge_windows * x_image.edge_bytes();
      }
    }
    std::fill(phase, table + x_size, zeros);
    parallel_for(rows, 4,
                 [&](int64_t row) { dz_image.fill(p + row, 0, 1, plan.pitch, dz_table + row * plan.pitch, nullptr); });
    std::fill(dz_table + rows * plan.pitch, dz_table + plan.steps * kStepPixels, zeros);
    constexpr int64_t kGrain = 2;
    parallel_ranges(plan.x_steps, kGrain, [&](int64_t begin, int64_t end, int) {
      kernels.pack_x(table + begin * kStepPixels, end - begin, static_cast<int>(g.C), plan.x_stride,
                     plan.taps == 1 ? 0 : plan.odd,
                     packed_x + begin * kStepPixels / kernels.pixels_per_line * kernels.line_bytes);
    });
    parallel_ranges(plan.steps, kGrain, [&](int64_t begin, int64_t end, int) {
      kernels.pack_dy(dz_table + begin * kStepPixels, end - begin, static_cast<int>(g.O), plan.dy_stride,
                      packed_dy + begin * kernels.step_bytes);
    });
  }

  // All taps of a group of outputs and a group of channels over one part of the band's pixels.
  void multiply_group(int64_t task, bool first) const {
    const int64_t split = task % plan.splits, group = task / plan.splits;
    const int64_t dy_first = group % plan.dy_groups * kOutputPairs, x_first = group / plan.dy_groups * kInputPairs;
    const int64_t dy_last = std::min(dy_first + kOutputPairs, plan.dy_pairs);
    const int64_t x_last = std::min(x_first + kInputPairs, plan.x_pairs);
    const int64_t begin = plan.steps * split / plan.splits, end = plan.steps * (split + 1) / plan.splits;
    for (int64_t step = begin; step < end; step += kStretchSteps) {
      const int64_t steps = std::min(kStretchSteps, end - step);
      for (int64_t i = x_first; i < x_last; ++i) {
        for (int64_t o = dy_first; o < dy_last; ++o) {
          multiply_pair(split, o, i, step, steps, first && step == begin);
        }
      }
    }
  }

  void multiply_pair(int64_t split, int64_t dy_pair, int64_t x_pair, int64_t step, int64_t steps, bool first) const {
    WeightBlock b{};
    b.steps = steps;
    b.first = first;
    b.dy_tiles = static_cast<int>(std::min<int64_t>(2, plan.dy_tiles - dy_pair * 2));
    b.x_tiles = static_cast<int>(std::min<int64_t>(2, plan.x_tiles - x_pair * 2));
    b.dy[0] = packed_dy + dy_pair * 2 * plan.dy_stride + step * kernels.step_bytes;
    b.dy[1] = b.dy[0] + (b.dy_tiles - 1) * plan.dy_stride;
    b.acc = sums + split * plan.sum_floats + (dy_pair * plan.x_pairs + x_pair) * plan.taps * kBlockFloats;
    const std::byte* x_tile = packed_x + x_pair * 2 * plan.x_stride;
    for (int64_t tap = 0; tap < plan.taps; ++tap, b.acc += kBlockFloats) {
      const int64_t pixel = step * kStepPixels + g.tap_offset(tap, plan.phase_pixels, plan.pitch);
      const int64_t phase = pixel % kernels.pixels_per_line;
      b.x[0] = x_tile + phase * plan.odd + pixel / kernels.pixels_per_line * kernels.line_bytes;
      b.x[1] = b.x[0] + (b.x_tiles - 1) * plan.x_stride;
      kernels.multiply_weights(b);
    }
  }

  // Adds the splits in order and writes (O, R, S, C).
  void finish(float* dweight) const {
    parallel_for(plan.dy_pairs * plan.x_pairs, 1, [&](int64_t pair) {
      const int64_t first_output = pair / plan.x_pairs * 32, first_channel = pair % plan.x_pairs * 32;
      const int64_t outputs = std::min<int64_t>(32, g.O - first_output);
      const int64_t channels = std::min<int64_t>(32, g.C - first_channel);
      for (int64_t o = 0; o < outputs; ++o) {
        for (int64_t tap = 0; tap < plan.taps; ++tap) {
          float* out = dweight + ((first_output + o) * plan.taps + tap) * g.C + first_channel;
          const float* sum = sums + (pair * plan.taps + tap) * kBlockFloats + o * 32;
          std::copy(sum, sum + channels, out);
          for (int64_t split = 1; split < plan.splits; ++split) {
            sum += plan.sum_floats;
            for (int64_t c = 0; c < channels; ++c) out[c] += sum[c];
          }
        }
      }
    });
  }
};

}  // namespace

void tiled_grad_weight(const TileKernels& kernels, Stream stream, const Conv2dShape& shape, const void* x,
                       const void* dz, float* dweight) {
  TileGeometry g = forward_geometry(kernels, shape);
  if (g.is_product()) {
    g.H = g.P = g.N * g.H;
    g.N = 1;
  }
  if (g.N * g.P * g.Q == 0) {
    std::fill(dweight, dweight + g.O * g.taps() * g.C, 0.0f);
    return;
  }
  const Plan plan = make_plan(kernels, g);
  const int64_t sums_bytes = plan.splits * plan.sum_floats * int64_t{sizeof(float)};
  const int64_t bytes = plan.dy_bytes + plan.x_bytes + sums_bytes + plan.zero_bytes + plan.edges_bytes +
                        plan.table_size * int64_t{sizeof(void*)};
  auto* memory = static_cast<std::byte*>(stream.scratch->get(static_cast<size_t>(bytes)));
  std::byte* sums = memory + plan.dy_bytes + plan.x_bytes;
  std::byte* zeros = sums + sums_bytes;
  std::fill(zeros, zeros + plan.zero_bytes, std::byte{0});
  const WeightGradient gradient{kernels,
                                g,
                                plan,
                                static_cast<const std::byte*>(x),
                                static_cast<const std::byte*>(dz),
                                memory,
                                memory + plan.dy_bytes,
                                reinterpret_cast<float*>(sums),
                                reinterpret_cast<const void**>(zeros + plan.zero_bytes + plan.edges_bytes),
                                zeros,
                                zeros + plan.zero_bytes};
  bool first = true;
  for (int64_t n = 0; n < g.N; ++n) {
    for (int64_t p = 0; p < g.P; p += plan.rows, first = false) {
      gradient.pack_band(n, p, std::min(plan.rows, g.P - p));
      parallel_ranges(plan.dy_groups * plan.x_groups * plan.splits, 1, [&](int64_t begin, int64_t end, int) {
        kernels.begin();
        for (int64_t task = begin; task < end; ++task) gradient.multiply_group(task, first);
        kernels.end();
      });
    }
  }
  gradient.finish(dweight);
}

}  // namespace depthstill::cpu
