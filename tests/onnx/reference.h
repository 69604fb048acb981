// ONNX models by the letter of their operators' definitions: a check of the graph, and a slow evaluation in double.
#pragma once

#include <onnx/onnx_pb.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace depthstill::test {

onnx::ModelProto read_model(const std::string& path);

// Lists what is wrong with the graph. It is empty if every name is defined once and before its use, everything defined
// is used and the outputs exist.
std::vector<std::string> faults(const onnx::GraphProto& graph);

const onnx::AttributeProto* find_attribute(const onnx::NodeProto& node, const std::string& name);
int count_nodes(const onnx::GraphProto& graph, const std::string& op);
std::string metadata(const onnx::ModelProto& model, const std::string& key);  // text, empty if absent

struct Array {
  std::vector<int64_t> shape;
  std::vector<double> values;  // integers too
};

// The value of an output of the graph. Fails on an operator, or a use of one, that our exports do not make.
Array evaluate(const onnx::GraphProto& graph, const Array& input, int output = 0);

}  // namespace depthstill::test
