#include "engine/checkpoint.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>
#include <utility>

#include "engine/io/safetensors.h"

namespace depthstill {
namespace {

StoredType stored_type(DType dtype) {
  switch (dtype) {
    case DType::kFloat:
      return StoredType::kF32;
    case DType::kBf16:
      return StoredType::kBf16;
    case DType::kInt32:
      return StoredType::kI32;
    case DType::kInt64:
      return StoredType::kI64;
    case DType::kUint8:
      return StoredType::kU8;
    case DType::kUint16:
      return StoredType::kU16;
  }
  fail("checkpoint: unknown element type");
}

std::vector<int64_t> sizes_of(const Shape& shape) {
  std::vector<int64_t> sizes;
  for (int d = 0; d < shape.rank(); ++d) sizes.push_back(shape[d]);
  return sizes;
}

// A value of an fp32 tensor on the host that is not finite.
std::optional<float> non_finite_value(const Tensor& x) {
  if (x.dtype() != DType::kFloat) return std::nullopt;
  const std::span values(x.data<float>(), static_cast<size_t>(x.numel()));
  const auto bad = std::find_if(values.begin(), values.end(), [](float value) { return !std::isfinite(value); });
  return bad == values.end() ? std::nullopt : std::optional(*bad);
}

bool is_batch_counter(const std::string& name) { return name.ends_with("num_batches_tracked"); }

void check_shape(const WeightsFile& file, const StoredTensor& stored, const Shape& expected) {
  check(stored.shape == sizes_of(expected), file.path(), ": ", stored.name, ": expected shape ", expected, ", found ",
        shape_text(stored.shape));
}

}  // namespace

void check_metadata(const WeightsFile& file, const Metadata& expected) {
  for (const auto& [key, value] : expected) {
    const auto found = file.metadata().find(key);
    check(found == file.metadata().end() || found->second == value, file.path(), ": expected a checkpoint with ", key,
          " ", value, ", found ", found == file.metadata().end() ? "" : found->second);
  }
}

std::string first_non_finite(std::span<const NamedTensor> tensors) {
  for (const NamedTensor& tensor : tensors) {
    const Tensor& x = tensor.value;
    const std::optional<float> bad = non_finite_value(to_device(x.detach(), Device::kCpu));
    if (bad) return concat_text(tensor.name, ' ', to_file_shape(x.shape(), tensor.layout), " holds ", *bad);
  }
  return "";
}

void save_state(const Module& module, const std::string& path, const Metadata& metadata,
                std::span<const NamedTensor> extra, StoredType floats) {
  std::vector<NamedTensor> entries;
  for (const StateEntry& entry : module.state()) entries.push_back({entry.name, *entry.tensor, entry.layout});
  entries.insert(entries.end(), extra.begin(), extra.end());

  std::vector<TensorToStore> stored;
  std::vector<std::vector<uint16_t>> narrow(entries.size());
  for (NamedTensor& entry : entries) {
    // Keeps the converted copy alive in `entries` until the file is written.
    entry.value = to_file_layout(to_device(entry.value.detach(), Device::kCpu), entry.layout);
    const std::optional<float> bad = non_finite_value(entry.value);
    if (bad) fail(path, ": not written: expected finite tensors, found ", *bad, " in '", entry.name, "'");
    stored.push_back({entry.name, stored_type(entry.value.dtype()), sizes_of(entry.value.shape()), entry.value.raw()});
    if (floats == StoredType::kF32 || entry.value.dtype() != DType::kFloat) continue;
    std::vector<uint16_t>& values = narrow[stored.size() - 1];
    values.resize(static_cast<size_t>(entry.value.numel()));
    narrow_floats(std::span(entry.value.data<float>(), values.size()), floats, values.data(),
                  concat_text(path, ": tensor '", entry.name, "'"));
    entry.value = {};
    stored.back().type = floats;
    stored.back().data = values.data();
  }
  write_safetensors(path, stored, metadata);
}

Tensor load_tensor(const WeightsFile& file, const std::string& name, const Shape& shape, Layout layout) {
  const StoredTensor& stored = file.at(name);
  const Shape file_shape = to_file_shape(shape, layout);
  check_shape(file, stored, file_shape);
  const size_t count = static_cast<size_t>(shape.numel());
  if (is_floating(stored.type)) {
    Tensor values = empty(file_shape);
    file.read_floats(stored, {values.data<float>(), count});
    return from_file_layout(values, layout);
  }
  check(stored.type == StoredType::kI64, file.path(), ": ", name, ": expected floating point or I64, found ",
        stored.type);
  Tensor values = empty(file_shape, DType::kInt64);
  file.read_bytes(stored, std::as_writable_bytes(std::span(values.data<int64_t>(), count)));
  return values;
}

LoadReport load_state(Module& module, const WeightsFile& file, const LoadOptions& options) {
  LoadReport report;
  std::vector<std::pair<StateEntry, Tensor>> loaded;
  std::set<std::string> known;
  for (const StateEntry& entry : module.state()) {
    const std::string key = options.prefix + entry.name;
    known.insert(key);
    if (options.wanted && !options.wanted(entry.name)) continue;
    if (!file.find(key)) {
      check(options.allow_missing || is_batch_counter(entry.name), file.path(), ": expected ", key, " of shape ",
            to_file_shape(entry.tensor->shape(), entry.layout), ", found no such tensor");
      report.missing.push_back(entry.name);
      continue;
    }
    Tensor value = load_tensor(file, key, entry.tensor->shape(), entry.layout);
    check(value.dtype() == entry.tensor->dtype(), file.path(), ": ", key, ": expected ", entry.tensor->dtype(),
          " elements, found ", value.dtype());
    loaded.emplace_back(entry, std::move(value));
  }
  for (const StoredTensor& stored : file.tensors()) {
    if (known.contains(stored.name)) continue;
    check(options.may_ignore && options.may_ignore(stored.name), file.path(), ": ", stored.name, " of shape ",
          shape_text(stored.shape), " belongs to no layer of this model");
    report.ignored.push_back(stored.name);
  }
  for (const auto& [entry, value] : loaded) copy_(*entry.tensor, value);
  return report;
}

LoadReport load_state(Module& module, const std::string& path, const LoadOptions& options) {
  return load_state(module, *open_weights(path), options);
}

}  // namespace depthstill
