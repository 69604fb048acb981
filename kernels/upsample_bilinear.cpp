#include "kernels/upsample_bilinear.h"

#include <algorithm>
#include <vector>

#include "kernels/core/lanes.h"
#include "kernels/core/parallel.h"

namespace depthstill::cpu {
namespace {

// Tiles of this many columns are taken vertically first: the float rows in between stay in the L1 cache, and a bf16
// element is converted once per row that it is used for.
constexpr int kTileColumns = 32;

// Readers are, for each input position of one axis, the outputs that read it and how much: those of input i are the
// entries [begin[i], begin[i + 1]), in rising order.
struct Readers {
  std::vector<int> begin, output;
  std::vector<float> weight;

  Readers(const UpsampleAxis& axis, int first_output) {
    for (int i = 0; i < axis.in; ++i) {
      begin.push_back(static_cast<int>(output.size()));
      const UpsampleAxis::Range range = axis.readers(i);
      for (int o = std::max(range.first, first_output); o <= range.last; ++o) {
        output.push_back(o - first_output);
        weight.push_back(axis.weight(o, i));
      }
    }
    begin.push_back(static_cast<int>(output.size()));
  }
};

// y[k] = sum over m < count of weight[m] * x[offset[m] + k], k < n. It is inlined so that a constant count unrolls.
template <class From, class To>
[[gnu::always_inline]] inline void weighted_sum(int64_t n, int count, const float* weight, const int64_t* offset,
                                                const From* x, To* y) {
  int64_t k = 0;
  for (; k + 4 * kLanes <= n; k += 4 * kLanes) {
    Lanes sum0 = {}, sum1 = {}, sum2 = {}, sum3 = {};
    for (int m = 0; m < count; ++m) {
      const From* from = x + offset[m] + k;
      sum0 += weight[m] * load_lanes(from);
      sum1 += weight[m] * load_lanes(from + kLanes);
      sum2 += weight[m] * load_lanes(from + 2 * kLanes);
      sum3 += weight[m] * load_lanes(from + 3 * kLanes);
    }
    store_lanes(y + k, sum0);
    store_lanes(y + k + kLanes, sum1);
    store_lanes(y + k + 2 * kLanes, sum2);
    store_lanes(y + k + 3 * kLanes, sum3);
  }
  for (; k + kLanes <= n; k += kLanes) {
    Lanes sum = {};
    for (int m = 0; m < count; ++m) sum += weight[m] * load_lanes(x + offset[m] + k);
    store_lanes(y + k, sum);
  }
  for (; k < n; ++k) {
    float sum = 0.0f;
    for (int m = 0; m < count; ++m) sum += weight[m] * static_cast<float>(x[offset[m] + k]);
    y[k] = static_cast<To>(sum);
  }
}

// Input columns [j_begin, j_end) and the outputs [q_begin, q_end) that read them.
struct Tile {
  int j_begin, j_end, q_begin, q_end;
};

std::vector<Tile> column_tiles(const Readers& cols, int in_width) {
  std::vector<Tile> tiles;
  for (int j = 0; j < in_width; j += kTileColumns) {
    Tile tile{j, std::min(j + kTileColumns, in_width), 0, 0};
    const auto begin = cols.output.begin() + cols.begin[static_cast<size_t>(j)];
    const auto end = cols.output.begin() + cols.begin[static_cast<size_t>(tile.j_end)];
    if (begin != end) {
      tile.q_begin = *std::min_element(begin, end);
      tile.q_end = *std::max_element(begin, end) + 1;
    }
    tiles.push_back(tile);
  }
  return tiles;
}

// The two rows of x that one row of y reads.
template <class T>
struct RowPair {
  const T *top, *bottom;
  float w1;  // weight of bottom
};
using Taps = std::vector<UpsampleAxis::Tap>;

// One row of y, whose pixels are y_channels apart. Four reads per element, but nothing between the stores: the faster
// way while memory is the bound.
void blend_row(const RowPair<float>& x, const Taps& taps, int64_t C, int64_t y_channels, float* y,
               std::vector<float>&) {
  for (const UpsampleAxis::Tap& tap : taps) {
    const float r = tap.w1, l = 1.0f - r, b = x.w1, t = 1.0f - b;
    const float w[4] = {t * l, t * r, b * l, b * r};
    const float *top = x.top, *bottom = x.bottom;
    const int64_t left = tap.i0 * C, right = tap.i1 * C;
    for (int64_t c = 0; c < C; ++c) {
      y[c] = w[0] * top[left + c] + w[1] * top[right + c] + w[2] * bottom[left + c] + w[3] * bottom[right + c];
    }
    y += y_channels;
  }
}

// The same for bf16, where the conversions are the bound: vertically into floats, then horizontally.
void blend_row(const RowPair<bf16>& x, const Taps& taps, int64_t C, int64_t y_channels, bf16* y,
               std::vector<float>& blended) {
  const float wy[2] = {1.0f - x.w1, x.w1};
  for (size_t begin = 0; begin < taps.size(); begin += kTileColumns) {
    const size_t end = std::min(begin + kTileColumns, taps.size());
    const int64_t first = taps[begin].i0 * C, length = (taps[end - 1].i1 + 1) * C - first;
    blended.resize(static_cast<size_t>(length));
    const int64_t rows[2] = {first, x.bottom - x.top + first};
    weighted_sum(length, 2, wy, rows, x.top, blended.data());
    for (size_t q = begin; q < end; ++q) {
      const float wx[2] = {1.0f - taps[q].w1, taps[q].w1};
      const int64_t cols[2] = {taps[q].i0 * C - first, taps[q].i1 * C - first};
      weighted_sum(C, 2, wx, cols, blended.data(), y + static_cast<int64_t>(q) * y_channels);
    }
  }
}

}  // namespace

template <class T>
void upsample_bilinear(Stream, const UpsampleShape& s, const T* x, T* y) {
  const UpsampleAxis rows(s.in_height, s.out_height, s.align_corners), cols(s.in_width, s.out_width, s.align_corners);
  Taps taps;
  for (int q = 0; q < s.out_width; ++q) taps.push_back(cols.tap(q));
  const int64_t in_row = s.in_width * s.C, out_row = s.out_width * s.y_channels;

  parallel_ranges(s.N * s.out_rows(), 1, [&](int64_t begin, int64_t end, int) {
    std::vector<float> blended;
    for (int64_t row = begin; row < end; ++row) {
      const UpsampleAxis::Tap tap = rows.tap(static_cast<int>(row % s.out_rows()) + s.out_first_row);
      const int64_t first = row / s.out_rows() * s.in_rows() - s.in_first_row;
      const RowPair<T> pair = {x + (first + tap.i0) * in_row, x + (first + tap.i1) * in_row, tap.w1};
      blend_row(pair, taps, s.C, s.y_channels, y + row * out_row, blended);
    }
  });
}

template <class T>
void upsample_bilinear_grad(Stream, const UpsampleShape& s, const T* dy, T* dx) {
  const Readers rows(UpsampleAxis(s.in_height, s.out_height, s.align_corners), s.out_first_row);
  const Readers cols(UpsampleAxis(s.in_width, s.out_width, s.align_corners), 0);
  std::vector<int64_t> row_offset;
  for (const int p : rows.output) row_offset.push_back(int64_t{p} * s.out_width * s.y_channels);
  const std::vector<Tile> tiles = column_tiles(cols, s.in_width);
  std::vector<int64_t> col_offset;  // within the tile
  for (const Tile& tile : tiles) {
    for (int k = cols.begin[static_cast<size_t>(tile.j_begin)]; k < cols.begin[static_cast<size_t>(tile.j_end)]; ++k) {
      col_offset.push_back((cols.output[static_cast<size_t>(k)] - tile.q_begin) * s.C);
    }
  }

  parallel_ranges(s.N * s.in_rows(), 1, [&](int64_t begin, int64_t end, int) {
    std::vector<float> gathered;
    for (int64_t row = begin; row < end; ++row) {
      const auto i = static_cast<size_t>(row % s.in_rows() + s.in_first_row);
      const T* dy_n = dy + row / s.in_rows() * s.out_rows() * s.out_width * s.y_channels;
      const auto p = static_cast<size_t>(rows.begin[i]);
      for (const Tile& tile : tiles) {
        const int64_t length = (tile.q_end - tile.q_begin) * s.C;
        gathered.resize(static_cast<size_t>(length));
        const int64_t piece = s.y_channels == s.C ? length : s.C;  // length that lies together in dy
        const T* from = dy_n + tile.q_begin * s.y_channels;
        for (int64_t k = 0; k < length; k += piece, from += s.y_channels) {
          weighted_sum(piece, rows.begin[i + 1] - rows.begin[i], rows.weight.data() + p, row_offset.data() + p, from,
                       gathered.data() + k);
        }
        for (int j = tile.j_begin; j < tile.j_end; ++j) {
          const int k = cols.begin[static_cast<size_t>(j)], count = cols.begin[static_cast<size_t>(j) + 1] - k;
          weighted_sum(s.C, count, cols.weight.data() + k, col_offset.data() + k, gathered.data(),
                       dx + (row * s.in_width + j) * s.C);
        }
      }
    }
  });
}

template void upsample_bilinear(Stream, const UpsampleShape&, const float*, float*);
template void upsample_bilinear(Stream, const UpsampleShape&, const bf16*, bf16*);
template void upsample_bilinear_grad(Stream, const UpsampleShape&, const float*, float*);
template void upsample_bilinear_grad(Stream, const UpsampleShape&, const bf16*, bf16*);

}  // namespace depthstill::cpu
