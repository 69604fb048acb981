// Files of named tensors, whatever their format: safetensors, or a PyTorch checkpoint.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iosfwd>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace depthstill {

enum class StoredType : uint8_t { kBool, kU8, kI8, kU16, kI16, kF16, kBf16, kU32, kI32, kF32, kU64, kI64, kF64 };

size_t size_of(StoredType type);
const char* name_of(StoredType type);  // as in safetensors: "F32", "BF16", ...
bool is_floating(StoredType type);
// Stores floats as F16 or BF16, rounded to nearest even; `to` may be unaligned. Throws Error, beginning with `where`,
// for another type and for a value that becomes infinite (65520 and more as F16) or is not finite.
void narrow_floats(std::span<const float> from, StoredType type, void* to, const std::string& where);
std::ostream& operator<<(std::ostream& out, StoredType type);

// Whether a path ends as files of weights do: .safetensors, .pth, .pt, .bin.
bool names_weights(const std::string& path);

std::string shape_text(std::span<const int64_t> shape);  // "(64, 3, 7, 7)"

struct StoredTensor {
  std::string name;
  StoredType type = StoredType::kF32;
  std::vector<int64_t> shape;
  size_t bytes = 0;   // size of all elements
  size_t handle = 0;  // handle by which its file finds it
  int64_t numel() const { return static_cast<int64_t>(bytes / size_of(type)); }
};

class WeightsFile {
 public:
  explicit WeightsFile(std::string path) : path_(std::move(path)) {}
  virtual ~WeightsFile() = default;
  WeightsFile(const WeightsFile&) = delete;
  WeightsFile& operator=(const WeightsFile&) = delete;

  const std::string& path() const { return path_; }
  const std::vector<StoredTensor>& tensors() const { return tensors_; }  // tensors in the file's order
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  const StoredTensor* find(const std::string& name) const;  // null if absent
  const StoredTensor& at(const std::string& name) const;    // throws Error if absent

  // The elements in row-major order; `to` has tensor.bytes bytes.
  virtual void read_bytes(const StoredTensor& tensor, std::span<std::byte> to) const = 0;
  // Reads F32, F16, BF16 or F64 as float. Throws Error that names the tensor if a value is NaN or infinite: a damaged
  // download or a training that diverged, of which nothing good can come.
  void read_floats(const StoredTensor& tensor, std::span<float> values) const;
  std::vector<float> read_floats(const std::string& name) const;

 protected:
  // Names must differ.
  void set_tensors(std::vector<StoredTensor> tensors);

  std::map<std::string, std::string> metadata_;

 private:
  void read_any_floats(const StoredTensor& tensor, std::span<float> values) const;

  std::string path_;
  std::vector<StoredTensor> tensors_;
  std::map<std::string, size_t> by_name_;
};

// Bytes of a tensor of this shape, held below 2^62 so that later sums cannot wrap; throws Error if it is more.
uint64_t checked_bytes(std::span<const int64_t> shape, StoredType type, const std::string& where);

// The kind is recognised by the file's contents, not by its name.
std::unique_ptr<WeightsFile> open_weights(const std::string& path);

}  // namespace depthstill
