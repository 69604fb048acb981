// A module's state in a file, in PyTorch's names, shapes and element order: written as safetensors, read from any kind
// of weights file.
#pragma once

#include <functional>
#include <limits>
#include <map>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include "engine/io/weights_file.h"
#include "engine/nn.h"

namespace depthstill {

// A tensor to store beside a module's state: optimiser moments, random state, ...
struct NamedTensor {
  std::string name;
  Tensor value;
  Layout layout = Layout::kPlain;
};

using Metadata = std::map<std::string, std::string>;

// Numbers are stored as text that gives every bit back. metadata_number() throws Error "PATH: ..." if there is no such
// entry or no number in it.
template <class T>
std::string metadata_text(T value) {
  std::ostringstream out;
  out.precision(std::numeric_limits<double>::max_digits10);
  out << value;
  return out.str();
}

template <class T>
T metadata_number(const Metadata& metadata, const std::string& key, const std::string& path) {
  const auto found = metadata.find(key);
  check(found != metadata.end(), path, ": expected the metadata entry '", key, "', found none");
  std::istringstream in(found->second);
  T value{};
  check(static_cast<bool>(in >> value), path, ": metadata entry '", key, "': expected a number, found '", found->second,
        "'");
  return value;
}

// Throws Error, naming the entry, if one that both have differs: a checkpoint of another network is refused by its
// name, not by the shape of some tensor.
void check_metadata(const WeightsFile& file, const Metadata& expected);

// The first tensor that holds NaN or infinity, as text: "NAME (SHAPE) holds nan"; empty: there is none. Waits for the
// device.
std::string first_non_finite(std::span<const NamedTensor> tensors);

// Writes parameters, buffers and `extra`, all or nothing; fp32 tensors as `floats`: kF32, kF16 or kBf16. Throws Error,
// naming the tensor, if one is not finite: nothing is written then.
void save_state(const Module& module, const std::string& path, const Metadata& metadata = {},
                std::span<const NamedTensor> extra = {}, StoredType floats = StoredType::kF32);

struct LoadOptions {
  std::string prefix = {};  // text that the file's keys have in front of the module's names
  // Keys in the file that belong to nothing here and may be passed over; others are an error.
  std::function<bool(const std::string& name)> may_ignore = {};
  std::function<bool(const std::string& name)> wanted = {};  // names of the module to read; empty: all
  bool allow_missing = false;  // num_batches_tracked is optional anyway: some exporters drop it
};

struct LoadReport {
  std::vector<std::string> ignored;  // keys of the file
  std::vector<std::string> missing;  // names of the module
};

// Reads every entry of module.state() by name. Throws Error naming the first entry that is missing or has another shape
// (with both shapes), or the first key of the file that the module does not know; the module is then unchanged.
LoadReport load_state(Module& module, const WeightsFile& file, const LoadOptions& options = {});
LoadReport load_state(Module& module, const std::string& path, const LoadOptions& options = {});

// One tensor in memory form: floating point becomes fp32, integers int64. Throws Error if it is absent or its shape is
// not the file form of `shape`.
Tensor load_tensor(const WeightsFile& file, const std::string& name, const Shape& shape,
                   Layout layout = Layout::kPlain);

}  // namespace depthstill
