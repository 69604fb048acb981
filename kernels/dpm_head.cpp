#include "kernels/dpm_head.h"

#include <algorithm>
#include <cstddef>

#include "kernels/conv2d.h"
#include "kernels/dpm_rows.h"
#include "kernels/parallel.h"

// The kernels of the head and of the loss, for a few image rows at a time: their logits stay in the L2 caches.
namespace depthstill::cpu {
namespace {

constexpr int64_t kLogitBytesPerThread = 3 << 19;

template <class T>
int64_t rows_at_a_time(const DpmHeadShape& shape, const DpmBins& bins) {
  const int64_t row_bytes = std::max<int64_t>(shape.W * bins.bins * int64_t{sizeof(T)}, 1);
  const int64_t per_thread = std::max<int64_t>(kLogitBytesPerThread / row_bytes, 1);
  return std::min(shape.N * shape.H, num_threads() * per_thread);
}

// What `workspace` holds.
template <class T>
struct Parts {
  double* row_sums;                      // (N * H, 2)
  float *dweight, *dbias, *dbias_below;  // of the rows at hand
  T* logits;
  size_t bytes;

  Parts(const DpmHeadShape& shape, const DpmBins& bins, float* workspace) {
    const auto aligned = [](int64_t n) { return (n + 63) / 64 * 64; };
    const int64_t sums = aligned(2 * shape.N * shape.H * int64_t{sizeof(double)});
    const int64_t weight_bytes = aligned(shape.C * bins.bins * int64_t{sizeof(float)});
    const int64_t bias_bytes = aligned(bins.bins * int64_t{sizeof(float)});
    const int64_t below_bytes = aligned(shape.C * int64_t{sizeof(float)});
    auto* at = reinterpret_cast<std::byte*>(workspace);
    row_sums = reinterpret_cast<double*>(at);
    dweight = reinterpret_cast<float*>(at + sums);
    dbias = reinterpret_cast<float*>(at + sums + weight_bytes);
    dbias_below = reinterpret_cast<float*>(at + sums + weight_bytes + bias_bytes);
    logits = reinterpret_cast<T*>(at + sums + weight_bytes + bias_bytes + below_bytes);
    bytes = static_cast<size_t>(sums + weight_bytes + bias_bytes + below_bytes +
                                rows_at_a_time<T>(shape, bins) * shape.W * bins.bins * int64_t{sizeof(T)});
  }
};

// body(rows, convolution): a block of rows, and the shape of the head for it.
template <class T, class Body>
void for_each_block(const DpmHeadShape& shape, const DpmBins& bins, const Body& body) {
  const int64_t all = shape.N * shape.H, step = rows_at_a_time<T>(shape, bins);
  for (int64_t begin = 0; begin < all; begin += step) {
    const RowRange rows{begin, std::min(begin + step, all)};
    body(rows, Conv2dShape{.N = 1, .H = rows.count(), .W = shape.W, .C = shape.C, .O = bins.bins});
  }
}

void add_to(float* sum, const float* values, int64_t n) {
  for (int64_t i = 0; i < n; ++i) sum[i] += values[i];
}

}  // namespace

template <class T>
bool dpm_head_supported(const DpmHeadShape&, const DpmBins&) {
  return true;
}

template <class T>
size_t dpm_head_workspace(const DpmHeadShape& shape, const DpmBins& bins) {
  return Parts<T>(shape, bins, nullptr).bytes;
}

template <class T>
void dpm_head(Stream stream, const DpmHeadShape& shape, const DpmBins& bins, const DpmOptions& options,
              const DpmTableView& table, const T* x, const float* weight, const float* bias, const float* teacher,
              float* depth, float* lse, float* offset, float* result, float* workspace) {
  const Parts<T> parts(shape, bins, workspace);
  const DpmShape map{shape.N, shape.H, shape.W, bins.bins};
  for_each_block<T>(shape, bins, [&](RowRange rows, const Conv2dShape& head) {
    conv2d(stream, head, Activation::kNone, x + rows.begin * shape.W * shape.C, weight, bias, parts.logits);
    dpm_rows(stream, map, bins, options, table, rows, parts.logits, teacher, depth, lse, offset,
             teacher != nullptr ? parts.row_sums : nullptr);
  });
  if (teacher != nullptr) dpm_finish(shape.N * shape.H, parts.row_sums, result);
}

template <class T>
void dpm_head_grad(Stream stream, const DpmHeadShape& shape, const DpmBins& bins, const DpmOptions& options,
                   const DpmTableView& table, const T* x, const float* weight, const float* bias, const float* teacher,
                   const float* depth, const float* lse, const float* offset, const float* result, const float* dkl,
                   const float* ddepth, T* dx, float* dweight, float* dbias, Activation below, float* dbias_below,
                   float* workspace) {
  const Parts<T> parts(shape, bins, workspace);
  const DpmShape map{shape.N, shape.H, shape.W, bins.bins};
  if (dweight != nullptr) std::fill(dweight, dweight + bins.bins * shape.C, 0.0f);
  if (dbias != nullptr) std::fill(dbias, dbias + bins.bins, 0.0f);
  if (dbias_below != nullptr) std::fill(dbias_below, dbias_below + shape.C, 0.0f);
  for_each_block<T>(shape, bins, [&](RowRange rows, const Conv2dShape& head) {
    const int64_t first = rows.begin * shape.W * shape.C;
    conv2d(stream, head, Activation::kNone, x + first, weight, bias, parts.logits);
    dpm_grad_rows(stream, map, bins, options, table, rows, teacher, depth, lse, offset, result, dkl, ddepth,
                  parts.logits);
    conv2d_grad<T>(stream, head, Activation::kNone, x + first, weight, nullptr, parts.logits,
                   dx != nullptr ? dx + first : nullptr, dweight != nullptr ? parts.dweight : nullptr,
                   dbias != nullptr ? parts.dbias : nullptr, below,
                   dbias_below != nullptr ? parts.dbias_below : nullptr);
    if (dweight != nullptr) add_to(dweight, parts.dweight, bins.bins * shape.C);
    if (dbias != nullptr) add_to(dbias, parts.dbias, bins.bins);
    if (dbias_below != nullptr) add_to(dbias_below, parts.dbias_below, shape.C);
  });
}

template bool dpm_head_supported<float>(const DpmHeadShape&, const DpmBins&);
template bool dpm_head_supported<bf16>(const DpmHeadShape&, const DpmBins&);
template size_t dpm_head_workspace<float>(const DpmHeadShape&, const DpmBins&);
template size_t dpm_head_workspace<bf16>(const DpmHeadShape&, const DpmBins&);
template void dpm_head(Stream, const DpmHeadShape&, const DpmBins&, const DpmOptions&, const DpmTableView&,
                       const float*, const float*, const float*, const float*, float*, float*, float*, float*, float*);
template void dpm_head(Stream, const DpmHeadShape&, const DpmBins&, const DpmOptions&, const DpmTableView&, const bf16*,
                       const float*, const float*, const float*, float*, float*, float*, float*, float*);
template void dpm_head_grad(Stream, const DpmHeadShape&, const DpmBins&, const DpmOptions&, const DpmTableView&,
                            const float*, const float*, const float*, const float*, const float*, const float*,
                            const float*, const float*, const float*, const float*, float*, float*, float*, Activation,
                            float*, float*);
template void dpm_head_grad(Stream, const DpmHeadShape&, const DpmBins&, const DpmOptions&, const DpmTableView&,
                            const bf16*, const float*, const float*, const float*, const float*, const float*,
                            const float*, const float*, const float*, const float*, bf16*, float*, float*, Activation,
                            float*, float*);

}  // namespace depthstill::cpu
