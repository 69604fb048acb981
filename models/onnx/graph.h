// An ONNX model under construction: values, constants and nodes over the classes of the ONNX protobuf schema. It knows
// nothing of networks; every value is called by name, and a node's inputs exist before it does.
#pragma once

#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "engine/nn.h"

namespace onnx {
class ModelProto;
}

namespace depthstill {

inline constexpr int64_t kOnnxOpset = 17;
inline constexpr int64_t kOnnxIrVersion = 8;  // the first that goes with opset 17
// protobuf refuses to write a message of 2 GiB; constants may take this much of it.
inline constexpr int64_t kOnnxMaxBytes = (int64_t{1} << 31) - (int64_t{16} << 20);

using OnnxValue = std::string;                       // name of a value
using OnnxDim = std::variant<int64_t, std::string>;  // a size, or the name of one that is known when the model runs
using OnnxInts = std::vector<int64_t>;

struct OnnxAttribute {
  std::string name;
  std::variant<int64_t, float, std::string, OnnxInts> value;
};

class OnnxGraph {
 public:
  explicit OnnxGraph(const std::string& name, int64_t max_bytes = kOnnxMaxBytes);
  ~OnnxGraph();
  OnnxGraph(const OnnxGraph&) = delete;
  OnnxGraph& operator=(const OnnxGraph&) = delete;

  // Inputs and outputs are fp32.
  OnnxValue input(const std::string& name, const std::vector<OnnxDim>& dims);
  void output(const OnnxValue& value, const std::string& name, const std::vector<OnnxDim>& dims);

  // Adds constants; equal integers, floats or scalars are one. Throws Error when all of them pass the limit.
  OnnxValue constant(const std::string& name, const Shape& shape, std::span<const float> values);
  OnnxValue integers(const OnnxInts& values);          // one dimension, int64
  OnnxValue floats(const std::vector<float>& values);  // one dimension
  OnnxValue scalar(float value);

  // A node with one output, which is returned. An empty input stands for an optional one that is left out.
  OnnxValue node(const std::string& op, const std::vector<OnnxValue>& inputs,
                 const std::vector<OnnxAttribute>& attributes = {});

  // Strings that travel with the model.
  void set_metadata(const std::string& key, const std::string& value);
  void set_producer(const std::string& name, const std::string& version);

  // Writes all or nothing.
  void write(const std::string& path) const;
  const onnx::ModelProto& model() const { return *model_; }

 private:
  std::string new_name(std::string_view op);
  void count(const std::string& name, size_t bytes);

  std::unique_ptr<onnx::ModelProto> model_;
  int64_t max_bytes_ = 0, constant_bytes_ = 0;
  int64_t names_ = 0;
  std::set<std::string> constants_;
};

}  // namespace depthstill
