// The schema says which attributes a descriptor has, of which type, how many values, and whether it can do without: it
// holds the tables of NVIDIA's documentation of the backend's descriptor types, for those that we use.
#include <algorithm>

#include "kernels/simt/libraries/cudnn_descriptor.h"
#include "kernels/simt/libraries/cudnn_refusal.h"

namespace depthstill::simt {
namespace {

constexpr int64_t kMany = int64_t{1} << 24;

enum class Need : uint8_t { kRequired, kOptional };

struct Rule {
  cudnnBackendAttributeName_t name;
  cudnnBackendAttributeType_t type;
  Need need = Need::kRequired;
  int64_t most = 1;  // values
  // Type of a descriptor that it refers to; empty: any operation.
  std::optional<cudnnBackendDescriptorType_t> refers_to = std::nullopt;
};
using Rules = std::vector<Rule>;

Rule refers(cudnnBackendAttributeName_t name, cudnnBackendDescriptorType_t to, Need need = Need::kRequired) {
  return {name, CUDNN_TYPE_BACKEND_DESCRIPTOR, need, 1, to};
}
Rule refers_to_tensor(cudnnBackendAttributeName_t name, Need need = Need::kRequired) {
  return refers(name, CUDNN_BACKEND_TENSOR_DESCRIPTOR, need);
}

Rules convolution_operation(cudnnBackendAttributeName_t x, cudnnBackendAttributeName_t w, cudnnBackendAttributeName_t y,
                            cudnnBackendAttributeName_t convolution, cudnnBackendAttributeName_t alpha,
                            cudnnBackendAttributeName_t beta) {
  return {refers_to_tensor(x),       refers_to_tensor(w),
          refers_to_tensor(y),       refers(convolution, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR),
          {alpha, CUDNN_TYPE_FLOAT}, {beta, CUDNN_TYPE_FLOAT}};
}

using RulesOfTypes = std::map<cudnnBackendDescriptorType_t, Rules>;

void add_operations(RulesOfTypes& rules) {
  rules[CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR] = convolution_operation(
      CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
      CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
      CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA);
  rules[CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR] = convolution_operation(
      CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
      CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
      CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA);
  rules[CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR] = convolution_operation(
      CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
      CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
      CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA);
  // Which tensors a pointwise operation needs depends on its mode.
  rules[CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR] = {
      refers(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, CUDNN_BACKEND_POINTWISE_DESCRIPTOR),
      refers_to_tensor(CUDNN_ATTR_OPERATION_POINTWISE_XDESC),
      refers_to_tensor(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, Need::kOptional),
      refers_to_tensor(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, Need::kOptional),
      refers_to_tensor(CUDNN_ATTR_OPERATION_POINTWISE_DYDESC, Need::kOptional),
      refers_to_tensor(CUDNN_ATTR_OPERATION_POINTWISE_DXDESC, Need::kOptional),
      {CUDNN_ATTR_OPERATION_POINTWISE_ALPHA1, CUDNN_TYPE_FLOAT, Need::kOptional},
      {CUDNN_ATTR_OPERATION_POINTWISE_ALPHA2, CUDNN_TYPE_FLOAT, Need::kOptional}};
  rules[CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR] = {
      refers(CUDNN_ATTR_OPERATION_REDUCTION_DESC, CUDNN_BACKEND_REDUCTION_DESCRIPTOR),
      refers_to_tensor(CUDNN_ATTR_OPERATION_REDUCTION_XDESC), refers_to_tensor(CUDNN_ATTR_OPERATION_REDUCTION_YDESC)};
}

RulesOfTypes make_rules() {
  RulesOfTypes rules;
  rules[CUDNN_BACKEND_TENSOR_DESCRIPTOR] = {{CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE},
                                            {CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, Need::kRequired, 8},
                                            {CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, Need::kRequired, 8},
                                            {CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64},
                                            {CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64},
                                            {CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, Need::kOptional}};
  rules[CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR] = {
      {CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE},
      {CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE},
      {CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64},
      {CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, Need::kRequired, 3},
      {CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, Need::kRequired, 3},
      {CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, Need::kRequired, 3},
      {CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, Need::kRequired, 3}};
  rules[CUDNN_BACKEND_POINTWISE_DESCRIPTOR] = {
      {CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE},
      {CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE},
      {CUDNN_ATTR_POINTWISE_RELU_LOWER_CLIP, CUDNN_TYPE_DOUBLE, Need::kOptional},
      {CUDNN_ATTR_POINTWISE_RELU_UPPER_CLIP, CUDNN_TYPE_DOUBLE, Need::kOptional},
      {CUDNN_ATTR_POINTWISE_RELU_LOWER_CLIP_SLOPE, CUDNN_TYPE_DOUBLE, Need::kOptional}};
  rules[CUDNN_BACKEND_REDUCTION_DESCRIPTOR] = {{CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE},
                                               {CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE}};
  add_operations(rules);
  rules[CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR] = {
      {CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, Need::kRequired, kMany},
      {CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, Need::kOptional}};
  rules[CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR] = {
      {CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, Need::kRequired, kMany}};
  rules[CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR] = {
      refers(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR),
      {CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE},
      refers(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, Need::kOptional)};
  rules[CUDNN_BACKEND_ENGINECFG_DESCRIPTOR] = {};  // filled by the heuristic only
  rules[CUDNN_BACKEND_ENGINE_DESCRIPTOR] = {};
  // A plan is made from a configuration or from a text, for a handle or for a described device.
  rules[CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR] = {
      refers(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, Need::kOptional),
      {CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, Need::kOptional, kMany},
      {CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, Need::kOptional},
      refers(CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, Need::kOptional)};
  rules[CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR] = {
      {CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, Need::kRequired, kMany},
      {CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, Need::kRequired, kMany},
      {CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, Need::kOptional}};
  return rules;
}

const Rules& rules_of(cudnnBackendDescriptorType_t type) {
  static const RulesOfTypes rules = make_rules();
  const auto found = rules.find(type);
  require(found != rules.end(), CUDNN_STATUS_NOT_SUPPORTED, "descriptors of type ", type, " are not simulated");
  return found->second;
}

size_t bytes_of(cudnnBackendAttributeType_t type) {
  switch (type) {
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_DOUBLE:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_HANDLE:
      return 8;
    case CUDNN_TYPE_BOOLEAN:
    case CUDNN_TYPE_CHAR:
      return 1;
    default:
      return 4;  // float and the enumerations
  }
}

// The documentation lets a scaling factor be of either.
bool is_of_type(cudnnBackendAttributeType_t type, const Rule& rule) {
  return type == rule.type || (rule.type == CUDNN_TYPE_FLOAT && type == CUDNN_TYPE_DOUBLE);
}

std::vector<SharedDescriptor> referred_descriptors(const Rule& rule, int64_t count, const void* values) {
  std::vector<SharedDescriptor> list;
  const auto* handles = static_cast<const cudnnBackendDescriptor_t*>(values);
  for (int64_t i = 0; i < count; ++i) {
    require(handles[i] != nullptr, CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "attribute ", rule.name, " refers to null");
    const Descriptor& referred = descriptor_of(handles[i]);
    require(referred.finalized, CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED, "attribute ", rule.name,
            " refers to a descriptor that is not finalised");
    const bool fits =
        rule.refers_to ? referred.type == *rule.refers_to : std::holds_alternative<Operation>(referred.meaning);
    require(fits, CUDNN_STATUS_BAD_PARAM_DESCRIPTOR_TYPE, "attribute ", rule.name, " refers to a descriptor of type ",
            referred.type);
    list.push_back(*static_cast<const Handle*>(handles[i]));
  }
  return list;
}

}  // namespace

void check_known(cudnnBackendDescriptorType_t type) { rules_of(type); }

void set_attribute(Descriptor& descriptor, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                   int64_t count, const void* values) {
  require(!descriptor.finalized, CUDNN_STATUS_BAD_PARAM, "attribute ", name, " is set after finalisation");
  const Rules& rules = rules_of(descriptor.type);
  const auto rule = std::find_if(rules.begin(), rules.end(), [&](const Rule& r) { return r.name == name; });
  require(rule != rules.end(), CUDNN_STATUS_BAD_PARAM, "descriptors of type ", descriptor.type, " have no attribute ",
          name, " to be set");
  require(is_of_type(type, *rule), CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE, "attribute ", name, " is of type ",
          rule->type, ", not ", type);
  require(values != nullptr, CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "attribute ", name, " is set to null");
  require(count >= 1 && count <= rule->most, CUDNN_STATUS_BAD_PARAM, "attribute ", name, " takes 1 to ", rule->most,
          " values, not ", count);
  Attribute attribute{type, count, {}, {}};
  if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR) {
    attribute.descriptors = referred_descriptors(*rule, count, values);
  } else {
    const auto* bytes = static_cast<const std::byte*>(values);
    attribute.bytes.assign(bytes, bytes + static_cast<size_t>(count) * bytes_of(type));
  }
  descriptor.attributes[name] = std::move(attribute);
}

void check_required_attributes(const Descriptor& descriptor) {
  for (const Rule& rule : rules_of(descriptor.type)) {
    require(rule.need == Need::kOptional || descriptor.has(rule.name), CUDNN_STATUS_BAD_PARAM, "attribute ", rule.name,
            " is missing");
  }
}

double Descriptor::number_or(cudnnBackendAttributeName_t name, double otherwise) const {
  if (!has(name)) return otherwise;
  return attributes.at(name).type == CUDNN_TYPE_DOUBLE ? value<double>(name) : static_cast<double>(value<float>(name));
}

Descriptor& descriptor_of(cudnnBackendDescriptor_t handle) {
  require(handle != nullptr, CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "a descriptor is null");
  return **static_cast<Handle*>(handle);
}

}  // namespace depthstill::simt
