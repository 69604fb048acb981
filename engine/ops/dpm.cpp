#include "kernels/dpm/dpm.h"

#include <memory>
#include <mutex>
#include <vector>

#include "engine/allocator.h"
#include "engine/ops/dpm_table.h"
#include "engine/ops_loss.h"
#include "engine/profile.h"

namespace depthstill {
DpmTableView dpm_table_for(const DpmBins& bins, const DpmOptions& options, Device device) {
  struct Entry {
    DpmBins bins;
    DpmTarget target;
    float sigma, floor;
    Device device;
    DpmTable table;
    Tensor values;
  };
  static std::mutex mutex;
  static auto& entries = *new std::vector<std::unique_ptr<Entry>>;  // never freed: a GPU may be gone by then
  const std::lock_guard lock(mutex);
  for (const auto& e : entries) {
    if (e->bins == bins && e->target == options.target && e->sigma == options.sigma && e->floor == options.floor &&
        e->device == device) {
      return e->table.at(e->values);
    }
  }
  auto entry = std::make_unique<Entry>(Entry{bins, options.target, options.sigma, options.floor, device, {}, {}});
  entry->table = make_dpm_table(bins, options.target, options.sigma, options.floor);
  const auto& values = entry->table.values;
  entry->values = tensor<float>({static_cast<int64_t>(values.size())}, values, device);
  entries.push_back(std::move(entry));
  return entries.back()->table.at(entries.back()->values);
}

namespace {

DpmShape shape_of(const char* op, const Tensor& logits, const DpmBins& bins) {
  check(bins.bins >= 1 && bins.d_min < bins.d_max, op, ": expected at least one bin and d_min < d_max, got ", bins.bins,
        " bins over [", bins.d_min, ", ", bins.d_max, "]");
  check(logits.shape().rank() == 4 && logits.size(3) >= bins.bins && logits.numel() > 0, op,
        ": expected logits (N, H, W, channels) with at least ", bins.bins, " channels, got ", logits.shape());
  return {logits.size(0), logits.size(1), logits.size(2), logits.size(3)};
}

}  // namespace

DpmOutput dpm_loss(const Tensor& logits, const Tensor& teacher, const DpmBins& bins, const DpmOptions& options) {
  const DpmShape shape = shape_of("dpm_loss", logits, bins);
  const Shape map{shape.N, shape.H, shape.W};
  const Device device = logits.device();
  check(teacher.shape() == map && teacher.dtype() == DType::kFloat && teacher.device() == device,
        "dpm_loss: expected an fp32 teacher ", map, " on ", device, ", got ", teacher.dtype(), " ", teacher.shape(),
        " on ", teacher.device());
  check(options.first_row >= 0 && options.first_row < shape.H, "dpm_loss: expected first_row within the ", shape.H,
        " rows, got ", options.first_row);
  check(options.eps >= 0.0f, "dpm_loss: expected eps >= 0, got ", options.eps);
  const DpmProblem problem{shape, bins, options, dpm_table_for(bins, options, device)};
  Tensor depth = empty(map, DType::kFloat, device), lse = empty_like(depth), offset = empty_like(depth);
  const OpRange range("dpm_loss", [&] { return Work{0, bytes_of(logits, teacher, depth, lse, offset)}; });
  Tensor result = empty({2}, DType::kFloat, device), kl = empty({1}, DType::kFloat, device);
  visit(logits.dtype(), [&]<class T>() {
    run(device, cpu::dpm<T>, cuda::dpm<T>)(problem, logits, teacher, {depth, lse, offset, result});
  });
  copy_bytes(kl.raw(), device, result.raw(), device, sizeof(float));
  const auto outputs =
      record("dpm_loss", {logits}, {kl, depth},
             [=, x = logits.detach(), teacher = teacher.detach()](const Gradients& dys) mutable -> Gradients {
               const OpRange op("dpm_loss", [&] {
                 return Work{0, 2 * bytes_of(x) + bytes_of(teacher, depth, lse, offset, dys[1])};
               });
               visit(x.dtype(), [&]<class T>() {
                 run(device, cpu::dpm_grad<T>, cuda::dpm_grad<T>)(
                     problem, {teacher, depth, lse, offset, result, dys[0], dys[1]}, x);
               });
               return {std::move(x)};
             });
  return {outputs[0], outputs[1]};
}

Tensor dpm_depth(const Tensor& logits, const DpmBins& bins) {
  const DpmShape shape = shape_of("dpm_depth", logits, bins);
  const DpmProblem problem{shape, bins, {}, {}};
  const Device device = logits.device();
  Tensor depth = empty({shape.N, shape.H, shape.W}, DType::kFloat, device), lse = empty_like(depth);
  const OpRange range("dpm_depth", [&] { return Work{0, bytes_of(logits, depth, lse)}; });
  visit(logits.dtype(), [&]<class T>() {
    run(device, cpu::dpm<T>, cuda::dpm<T>)(problem, logits, nullptr, {.depth = depth, .lse = lse});
  });
  return record("dpm_depth", {logits}, depth, [=, x = logits.detach()](const Tensor& dy) mutable -> Gradients {
    const OpRange op("dpm_depth", [&] { return Work{0, 2 * bytes_of(x) + bytes_of(depth, lse, dy)}; });
    visit(x.dtype(), [&]<class T>() {
      run(device, cpu::dpm_grad<T>, cuda::dpm_grad<T>)(problem, {.depth = depth, .lse = lse, .ddepth = dy}, x);
    });
    return {std::move(x)};
  });
}

}  // namespace depthstill
