// safetensors: 8 bytes of header length, a JSON header, then the tensors' bytes without gaps.
// Reading maps the file; every offset is checked against the file before a tensor can be asked for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iosfwd>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace depthstill {

enum class StoredType : uint8_t { kBool, kU8, kI8, kU16, kI16, kF16, kBf16, kU32, kI32, kF32, kU64, kI64, kF64 };

size_t size_of(StoredType type);
const char* name_of(StoredType type);  // as in the file: "F32", "BF16", ...
std::ostream& operator<<(std::ostream& out, StoredType type);

struct StoredTensor {
  std::string name;
  StoredType type = StoredType::kF32;
  std::vector<int64_t> shape;
  size_t offset = 0, bytes = 0;  // within the data part
  int64_t numel() const { return static_cast<int64_t>(bytes / size_of(type)); }
};

class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::string& path);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const std::string& path() const { return path_; }
  const std::vector<StoredTensor>& tensors() const { return tensors_; }  // by offset
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  const StoredTensor* find(const std::string& name) const;             // null if absent
  const StoredTensor& at(const std::string& name) const;               // throws Error if absent
  std::span<const std::byte> bytes(const StoredTensor& tensor) const;  // may be unaligned

  // F32, F16, BF16 or F64 as float.
  void read_floats(const StoredTensor& tensor, std::span<float> values) const;
  std::vector<float> read_floats(const std::string& name) const;

 private:
  void parse();

  std::string path_;
  const std::byte* map_ = nullptr;
  size_t map_bytes_ = 0, data_begin_ = 0;
  std::vector<StoredTensor> tensors_;
  std::map<std::string, size_t> by_name_;
  std::map<std::string, std::string> metadata_;
};

struct TensorToStore {
  std::string name;
  StoredType type = StoredType::kF32;
  std::vector<int64_t> shape;
  const void* data = nullptr;
};

// Writes all or nothing (see atomic_file.h). Tensors keep their order; their data begin at a multiple of 64 bytes.
void write_safetensors(const std::string& path, std::span<const TensorToStore> tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace depthstill
