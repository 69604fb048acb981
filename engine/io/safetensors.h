// safetensors: 8 bytes of header length, a JSON header, then the tensors' bytes without gaps.
// Reading maps the file; every offset is checked against the file before a tensor can be asked for.
#pragma once

#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "engine/io/mapped_file.h"
#include "engine/io/weights_file.h"

namespace depthstill {

class SafetensorsFile final : public WeightsFile {
 public:
  explicit SafetensorsFile(const std::string& path);

  void read_bytes(const StoredTensor& tensor, std::span<std::byte> to) const override;
  std::span<const std::byte> bytes(const StoredTensor& tensor) const;  // bytes in the file; may be unaligned

 private:
  void parse();

  MappedFile file_;
  size_t data_begin_ = 0;
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

// The same, for more than should be in memory at once: the tensors' `data` are not used, bytes_of(i) gives those of the
// i-th, once and in order.
using TensorSource = std::function<std::span<const std::byte>(size_t i)>;
void write_safetensors(const std::string& path, std::span<const TensorToStore> tensors,
                       const std::map<std::string, std::string>& metadata, const TensorSource& bytes_of);

}  // namespace depthstill
