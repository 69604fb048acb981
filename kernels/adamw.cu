#include "kernels/adamw.h"
#include "kernels/core/launch.h"
#include "kernels/core/pack.cuh"
#include "kernels/core/partials.cuh"

namespace depthstill::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPack = 4;
constexpr int64_t kPieceElements = 4096;  // elements of one tensor that a block takes

#if defined(CUDART_VERSION) && CUDART_VERSION < 12010
constexpr int kSlots = 48;  // tensors per launch, so that the table fits the 4 KB of kernel parameters
#else
constexpr int kSlots = 512;  // the same for 32 KB
#endif

// The tensors of one launch; block b works on the slot s with first_block[s] <= b < first_block[s + 1].
struct SlotTable {
  AdamWSlot slot[kSlots];
  unsigned first_block[kSlots + 1];
  int count;
};

struct Piece {
  const AdamWSlot& slot;
  int64_t begin, end;
};

__device__ inline Piece piece_of(const SlotTable& table, unsigned block) {
  int low = 0, high = table.count;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (table.first_block[middle] <= block ? low : high) = middle;
  }
  const AdamWSlot& slot = table.slot[low];
  const int64_t begin = static_cast<int64_t>(block - table.first_block[low]) * kPieceElements;
  return {slot, begin, begin + kPieceElements < slot.n ? begin + kPieceElements : slot.n};
}

// partial[block] = sum of grad^2 over the block's piece. Reads 4 bytes per element. Bound: DRAM.
__global__ void __launch_bounds__(kThreads)
    sum_of_squares_kernel(GRID_CONSTANT(SlotTable) table, double* __restrict__ partial) {
  const Piece piece = piece_of(table, blockIdx.x);
  double sum[1] = {};
  for (int64_t i = piece.begin + threadIdx.x; i < piece.end; i += kThreads) {
    const auto g = static_cast<double>(piece.slot.grad[i]);
    sum[0] += g * g;
  }
  store_partials<kThreads>(sum, blockIdx.x, partial);
}

struct StoreTotal {
  double* total;
  __device__ void operator()(const double (&sum)[1]) const { *total = sum[0]; }
};

__global__ void adamw_set_lr_kernel(float lr, AdamWState* state) { state->lr = lr; }

__global__ void adamw_prepare_kernel(AdamWParams params, float unscale, float max_norm, const double* sum,
                                     AdamWState* state) {
  adamw_prepare_state(params, unscale, max_norm, *sum, state);
}

// The update of kernels/adamw.h. A block takes a piece of one tensor. Reads grad, value, m, v and writes value, m, v:
// 28 bytes per element, 30 with a rounded copy, and `broken` where something is. Bound: DRAM.
__global__ void __launch_bounds__(kThreads)
    adamw_kernel(GRID_CONSTANT(SlotTable) table, AdamWParams params, const AdamWState* __restrict__ state,
                 int32_t* __restrict__ broken) {
  if (!state->finite) return;
  const Piece piece = piece_of(table, blockIdx.x);
  const AdamWSlot slot = piece.slot;
  const AdamWState s = adamw_state_for(*state, slot.lr_factor);
  const uint64_t addresses = reinterpret_cast<uint64_t>(slot.grad) | reinterpret_cast<uint64_t>(slot.value) |
                             reinterpret_cast<uint64_t>(slot.m) | reinterpret_cast<uint64_t>(slot.v) |
                             2 * reinterpret_cast<uint64_t>(slot.rounded);
  bool finite = true;
  const int64_t packs = addresses % (kPack * sizeof(float)) == 0 ? (piece.end - piece.begin) / kPack : 0;
  for (int64_t p = threadIdx.x; p < packs; p += kThreads) {
    const int64_t i = piece.begin + p * kPack;
    float grad[kPack], value[kPack], m[kPack], v[kPack];
    load_floats(slot.grad + i, grad);
    load_floats(slot.value + i, value);
    load_floats(slot.m + i, m);
    load_floats(slot.v + i, v);
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      adamw_update(params, s, grad[k], &value[k], &m[k], &v[k]);
      finite = finite && zero_if_finite(value[k], m[k], v[k]) == 0.0f;
    }
    store_floats(slot.value + i, value);
    store_floats(slot.m + i, m);
    store_floats(slot.v + i, v);
    if (slot.rounded != nullptr) store_floats(slot.rounded + i, value);
  }
  for (int64_t i = piece.begin + packs * kPack + threadIdx.x; i < piece.end; i += kThreads) {
    adamw_update(params, s, slot.grad[i], &slot.value[i], &slot.m[i], &slot.v[i]);
    if (slot.rounded != nullptr) slot.rounded[i] = bf16(slot.value[i]);
    finite = finite && zero_if_finite(slot.value[i], slot.m[i], slot.v[i]) == 0.0f;
  }
  if (!finite) atomicOr(broken, 1);
}

// Calls f(table, blocks) for every kSlots tensors.
template <class F>
void for_each_table(std::span<const AdamWSlot> slots, F f) {
  SlotTable table{};
  for (size_t i = 0; i < slots.size(); ++i) {
    table.slot[table.count] = slots[i];
    table.first_block[table.count + 1] = table.first_block[table.count] + blocks_for(slots[i].n, kPieceElements);
    ++table.count;
    if (table.count == kSlots || i + 1 == slots.size()) {
      f(table, table.first_block[table.count]);
      table.count = 0;
    }
  }
}

}  // namespace

void adamw_set_lr(Stream stream, float lr, AdamWState* state) {
  launch(adamw_set_lr_kernel, 1, 1, 0, stream, lr, state);
}

void sum_of_squares(Stream stream, std::span<const AdamWSlot> slots, double* sum) {
  int64_t pieces = 0;
  for (const AdamWSlot& slot : slots) pieces += blocks_for(slot.n, kPieceElements);
  auto* partial = static_cast<double*>(stream.scratch->get(static_cast<size_t>(pieces) * sizeof(double)));
  int64_t done = 0;
  for_each_table(slots, [&](const SlotTable& table, unsigned blocks) {
    launch(sum_of_squares_kernel, blocks, kThreads, 0, stream, table, partial + done);
    done += blocks;
  });
  finish_partials<1>(stream, pieces, partial, StoreTotal{sum});
}

void adamw_prepare(Stream stream, const AdamWParams& params, float unscale, float max_norm, const double* sum,
                   AdamWState* state) {
  launch(adamw_prepare_kernel, 1, 1, 0, stream, params, unscale, max_norm, sum, state);
}

void adamw(Stream stream, std::span<const AdamWSlot> slots, const AdamWParams& params, const AdamWState* state,
           int32_t* broken) {
  for_each_table(slots, [&](const SlotTable& table, unsigned blocks) {
    launch(adamw_kernel, blocks, kThreads, 0, stream, table, params, state, broken);
  });
}

}  // namespace depthstill::cuda
