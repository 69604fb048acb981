#include "engine/io/weights_file.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <ostream>
#include <set>
#include <utility>

#include "engine/io/half.h"
#include "engine/io/safetensors.h"
#include "engine/io/text_file.h"
#include "engine/io/torch_file.h"
#include "kernels/core/bf16.h"
#include "kernels/core/error.h"

namespace depthstill {
namespace {

struct TypeEntry {
  const char* name;
  size_t bytes;
};
constexpr TypeEntry kTypes[] = {{"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"U16", 2}, {"I16", 2}, {"F16", 2}, {"BF16", 2},
                                {"U32", 4},  {"I32", 4}, {"F32", 4}, {"U64", 8}, {"I64", 8}, {"F64", 8}};

template <class Stored, class Convert>
void convert(std::span<const std::byte> from, std::span<float> to, Convert convert_one) {
  for (size_t i = 0; i < to.size(); ++i) {
    Stored value;
    std::memcpy(&value, from.data() + i * sizeof(Stored), sizeof(Stored));
    to[i] = convert_one(value);
  }
}

// The weights that a user most likely means: a run's best, else the first by name.
[[noreturn]] void fail_folder(const std::string& path) {
  namespace fs = std::filesystem;
  std::set<std::string> names;
  std::error_code unreadable;
  for (fs::directory_iterator entry(path, unreadable), end; !unreadable && entry != end; entry.increment(unreadable)) {
    if (names_weights(entry->path().string())) names.insert(entry->path().filename().string());
  }
  const std::string likely = names.contains("best.safetensors") ? "best.safetensors"
                             : names.empty()                    ? ""
                                                                : *names.begin();
  fail(path, ": expected a file of weights, found a folder",
       likely.empty() ? "" : concat_text("; try ", printable(likely), " in it"));
}

}  // namespace

bool names_weights(const std::string& path) {
  const std::string extension = std::filesystem::path(path).extension().string();
  return extension == ".safetensors" || extension == ".pth" || extension == ".pt" || extension == ".bin";
}

size_t size_of(StoredType type) { return kTypes[static_cast<size_t>(type)].bytes; }
const char* name_of(StoredType type) { return kTypes[static_cast<size_t>(type)].name; }
std::ostream& operator<<(std::ostream& out, StoredType type) { return out << name_of(type); }

bool is_floating(StoredType type) {
  return type == StoredType::kF32 || type == StoredType::kF16 || type == StoredType::kBf16 || type == StoredType::kF64;
}

void narrow_floats(std::span<const float> from, StoredType type, void* to, const std::string& where) {
  check(type == StoredType::kF16 || type == StoredType::kBf16, where, ": expected F16 or BF16 to store, got ", type);
  const uint16_t exponent = type == StoredType::kF16 ? 0x7c00 : 0x7f80;  // all ones: infinite or NaN
  auto* out = static_cast<std::byte*>(to);
  for (size_t i = 0; i < from.size(); ++i) {
    const uint16_t bits = type == StoredType::kF16 ? float_to_half(from[i]) : bf16(from[i]).bits;
    check((bits & exponent) != exponent, where, ": expected values that ", type, " can hold, found ", from[i]);
    std::memcpy(out + i * sizeof(bits), &bits, sizeof(bits));
  }
}

std::string shape_text(std::span<const int64_t> shape) {
  std::string text = "(";
  for (size_t d = 0; d < shape.size(); ++d) text += (d ? ", " : "") + std::to_string(shape[d]);
  return text + ")";
}

uint64_t checked_bytes(std::span<const int64_t> shape, StoredType type, const std::string& where) {
  constexpr uint64_t kLimit = uint64_t{1} << 62;
  uint64_t product = size_of(type);
  for (const int64_t size : shape) {
    const auto n = static_cast<uint64_t>(size);
    check(n == 0 || product <= kLimit / n, where, ": expected a shape that fits in memory, found more");
    product *= n;
  }
  return product;
}

const StoredTensor* WeightsFile::find(const std::string& name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &tensors_[found->second];
}

const StoredTensor& WeightsFile::at(const std::string& name) const {
  const StoredTensor* tensor = find(name);
  check(tensor != nullptr, path_, ": expected a tensor '", printable(name), "', found none among ", tensors_.size());
  return *tensor;
}

void WeightsFile::read_floats(const StoredTensor& tensor, std::span<float> values) const {
  read_any_floats(tensor, values);
  const auto bad = std::find_if(values.begin(), values.end(), [](float value) { return !std::isfinite(value); });
  if (bad == values.end()) return;
  fail(path_, ": tensor '", printable(tensor.name), "' ", shape_text(tensor.shape), ": expected finite weights, found ",
       *bad, " as element ", bad - values.begin());
}

void WeightsFile::read_any_floats(const StoredTensor& tensor, std::span<float> values) const {
  check(values.size() == static_cast<size_t>(tensor.numel()), path_, ": tensor '", printable(tensor.name),
        "': expected ", values.size(), " values, found ", tensor.numel());
  check(is_floating(tensor.type), path_, ": tensor '", printable(tensor.name),
        "': expected F32, F16, BF16 or F64, found ", tensor.type);
  if (tensor.type == StoredType::kF32) return read_bytes(tensor, std::as_writable_bytes(values));
  std::vector<std::byte> stored(tensor.bytes);
  read_bytes(tensor, stored);
  if (tensor.type == StoredType::kF64)
    convert<double>(stored, values, [](double v) { return static_cast<float>(v); });
  else if (tensor.type == StoredType::kF16)
    convert<uint16_t>(stored, values, half_to_float);
  else
    convert<bf16>(stored, values, [](bf16 v) { return static_cast<float>(v); });
}

std::vector<float> WeightsFile::read_floats(const std::string& name) const {
  const StoredTensor& tensor = at(name);
  std::vector<float> values(static_cast<size_t>(tensor.numel()));
  read_floats(tensor, values);
  return values;
}

void WeightsFile::set_tensors(std::vector<StoredTensor> tensors) {
  tensors_ = std::move(tensors);
  for (size_t i = 0; i < tensors_.size(); ++i) {
    check(by_name_.emplace(tensors_[i].name, i).second, path_, ": expected each tensor name once, found '",
          printable(tensors_[i].name), "' twice");
  }
}

std::unique_ptr<WeightsFile> open_weights(const std::string& path) {
  if (std::filesystem::is_directory(path)) fail_folder(path);
  if (TorchFile::recognises(path)) return std::make_unique<TorchFile>(path);
  return std::make_unique<SafetensorsFile>(path);
}

}  // namespace depthstill
