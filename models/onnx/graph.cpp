#include "models/onnx/graph.h"

#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <onnx/onnx_pb.h>

#include <exception>
#include <limits>
#include <sstream>

#include "engine/io/atomic_file.h"

namespace depthstill {
namespace {

// AtomicFile reports a full disk by throwing, which must not pass through protobuf: its stream writes once more when it
// is destroyed.
class FileStream final : public google::protobuf::io::CopyingOutputStream {
 public:
  explicit FileStream(AtomicFile& file) : file_(file) {}
  bool Write(const void* data, int bytes) override {
    if (error_) return false;
    try {
      file_.write(data, static_cast<size_t>(bytes));
    } catch (...) {
      error_ = std::current_exception();
    }
    return !error_;
  }
  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  AtomicFile& file_;
  std::exception_ptr error_;
};

void describe(onnx::ValueInfoProto& info, const std::string& name, const std::vector<OnnxDim>& dims) {
  info.set_name(name);
  onnx::TypeProto_Tensor& type = *info.mutable_type()->mutable_tensor_type();
  type.set_elem_type(onnx::TensorProto::FLOAT);
  for (const OnnxDim& dim : dims) {
    onnx::TensorShapeProto_Dimension& out = *type.mutable_shape()->add_dim();
    if (const auto* size = std::get_if<int64_t>(&dim))
      out.set_dim_value(*size);
    else
      out.set_dim_param(std::get<std::string>(dim));
  }
}

void set_value(onnx::AttributeProto& out, int64_t value) {
  out.set_type(onnx::AttributeProto::INT);
  out.set_i(value);
}

void set_value(onnx::AttributeProto& out, float value) {
  out.set_type(onnx::AttributeProto::FLOAT);
  out.set_f(value);
}

void set_value(onnx::AttributeProto& out, const std::string& value) {
  out.set_type(onnx::AttributeProto::STRING);
  out.set_s(value);
}

void set_value(onnx::AttributeProto& out, const OnnxInts& values) {
  out.set_type(onnx::AttributeProto::INTS);
  for (const int64_t value : values) out.add_ints(value);
}

// Different values have different texts.
std::string exact(float value) {
  std::ostringstream text;
  text.precision(std::numeric_limits<float>::max_digits10);
  text << value;
  return text.str();
}

}  // namespace

OnnxGraph::OnnxGraph(const std::string& name, int64_t max_bytes)
    : model_(std::make_unique<onnx::ModelProto>()), max_bytes_(max_bytes) {
  model_->set_ir_version(kOnnxIrVersion);
  onnx::OperatorSetIdProto& opset = *model_->add_opset_import();
  opset.set_domain("");
  opset.set_version(kOnnxOpset);
  model_->mutable_graph()->set_name(name);
}

OnnxGraph::~OnnxGraph() = default;

OnnxValue OnnxGraph::input(const std::string& name, const std::vector<OnnxDim>& dims) {
  describe(*model_->mutable_graph()->add_input(), name, dims);
  return name;
}

void OnnxGraph::output(const OnnxValue& value, const std::string& name, const std::vector<OnnxDim>& dims) {
  onnx::NodeProto& node = *model_->mutable_graph()->add_node();
  node.set_name(new_name("Identity"));
  node.set_op_type("Identity");
  node.add_input(value);
  node.add_output(name);
  describe(*model_->mutable_graph()->add_output(), name, dims);
}

void OnnxGraph::count(const std::string& name, size_t bytes) {
  check(constants_.insert(name).second, "onnx: two constants are called ", name);
  constant_bytes_ += static_cast<int64_t>(bytes);
  check(constant_bytes_ <= max_bytes_, "onnx: expected weights of at most ", max_bytes_ >> 20,
        " MiB, which is what one ONNX file can hold; this model has more (from ", name,
        " on): export it as safetensors");
}

OnnxValue OnnxGraph::constant(const std::string& name, const Shape& shape, std::span<const float> values) {
  check(static_cast<int64_t>(values.size()) == shape.numel(), "onnx: constant ", name, ": expected ", shape.numel(),
        " values, got ", values.size());
  count(name, values.size_bytes());
  onnx::TensorProto& out = *model_->mutable_graph()->add_initializer();
  out.set_name(name);
  out.set_data_type(onnx::TensorProto::FLOAT);
  for (int d = 0; d < shape.rank(); ++d) out.add_dims(shape[d]);
  out.set_raw_data(values.data(), values.size_bytes());  // little-endian, as the schema asks
  return name;
}

OnnxValue OnnxGraph::integers(const OnnxInts& values) {
  std::string name = "ints";
  for (const int64_t value : values) name += "_" + std::to_string(value);
  if (constants_.contains(name)) return name;
  count(name, values.size() * sizeof(int64_t));
  onnx::TensorProto& out = *model_->mutable_graph()->add_initializer();
  out.set_name(name);
  out.set_data_type(onnx::TensorProto::INT64);
  out.add_dims(static_cast<int64_t>(values.size()));
  out.set_raw_data(values.data(), values.size() * sizeof(int64_t));
  return name;
}

OnnxValue OnnxGraph::floats(const std::vector<float>& values) {
  std::string name = "floats";
  for (const float value : values) name += "_" + exact(value);
  return constants_.contains(name) ? name : constant(name, {static_cast<int64_t>(values.size())}, values);
}

OnnxValue OnnxGraph::scalar(float value) {
  const std::string name = "scalar_" + exact(value);
  return constants_.contains(name) ? name : constant(name, {}, {&value, 1});
}

OnnxValue OnnxGraph::node(const std::string& op, const std::vector<OnnxValue>& inputs,
                          const std::vector<OnnxAttribute>& attributes) {
  onnx::NodeProto& node = *model_->mutable_graph()->add_node();
  node.set_name(new_name(op));
  node.set_op_type(op);
  for (const OnnxValue& input : inputs) node.add_input(input);
  node.add_output(node.name() + "_out");
  for (const OnnxAttribute& attribute : attributes) {
    onnx::AttributeProto& out = *node.add_attribute();
    out.set_name(attribute.name);
    std::visit([&](const auto& value) { set_value(out, value); }, attribute.value);
  }
  return node.output(0);
}

void OnnxGraph::set_metadata(const std::string& key, const std::string& value) {
  onnx::StringStringEntryProto& entry = *model_->add_metadata_props();
  entry.set_key(key);
  entry.set_value(value);
}

void OnnxGraph::set_producer(const std::string& name, const std::string& version) {
  model_->set_producer_name(name);
  model_->set_producer_version(version);
}

void OnnxGraph::write(const std::string& path) const {
  AtomicFile file(path);
  FileStream stream(file);
  google::protobuf::io::CopyingOutputStreamAdaptor out(&stream);
  const bool whole = model_->SerializeToZeroCopyStream(&out) && out.Flush();
  stream.rethrow();
  check(whole, path, ": the ONNX model could not be serialised");
  file.commit();
}

std::string OnnxGraph::new_name(std::string_view op) { return concat_text(op, "_", names_++); }

}  // namespace depthstill
