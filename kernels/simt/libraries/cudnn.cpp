// The functions of cudnn.h that we call.
#include <cudnn.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "kernels/simt/libraries/cudnn_descriptor.h"
#include "kernels/simt/libraries/cudnn_interpreter.h"
#include "kernels/simt/libraries/cudnn_refusal.h"
#include "kernels/simt/libraries/simulation.h"
#include "kernels/simt/queue.h"

struct cudnnContext {
  cudaStream_t stream = nullptr;
};

namespace depthstill::simt {
namespace {

thread_local std::string last_error;

template <class F>
cudnnStatus_t guarded(F f) {
  try {
    f();
    return CUDNN_STATUS_SUCCESS;
  } catch (const Refusal& refusal) {
    last_error = "simulated cudnn: " + refusal.message;
    return refusal.status;
  }
}

template <class T>
T& not_null(T* pointer, const char* what) {
  require(pointer != nullptr, CUDNN_STATUS_BAD_PARAM_NULL_POINTER, what, " is null");
  return *pointer;
}

// ---- finalisation ---------------------------------------------------------------------------------------------------

void check_device(const Descriptor& d) {
  const std::vector<char> text = d.values<char>(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION);
  const std::string json(text.begin(), std::find(text.begin(), text.end(), '\0'));
  for (const char* key : {"\"deviceVer\":", "\"multiProcessorCount\":", "\"maxGridSize\":", "\"totalGlobalMem\":"}) {
    require(json.find(key) != std::string::npos, CUDNN_STATUS_BAD_PARAM, "device properties without ", key);
  }
}

Plan make_plan(const Descriptor& d) {
  const bool from_config = d.has(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG);
  const bool from_text = d.has(CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION);
  require(from_config != from_text, CUDNN_STATUS_BAD_PARAM, "a plan needs a configuration or a text");
  require(d.has(CUDNN_ATTR_EXECUTION_PLAN_HANDLE) || d.has(CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP),
          CUDNN_STATUS_BAD_PARAM, "a plan needs a handle or a described device");
  if (from_config) return {d.referred(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG).as<Engine>()};
  const std::vector<char> text = d.values<char>(CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION);
  const std::optional<Plan> plan = plan_of({text.begin(), text.end()});
  require(plan.has_value(), CUDNN_STATUS_BAD_PARAM, "no plan has this text");
  return *plan;
}

VariantPack make_variant_pack(const Descriptor& d) {
  const auto ids = d.values<int64_t>(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
  const auto pointers = d.values<void*>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
  require(ids.size() == pointers.size(), CUDNN_STATUS_BAD_PARAM, "variant pack: ", ids.size(), " ids and ",
          pointers.size(), " pointers");
  VariantPack pack;
  for (size_t i = 0; i < ids.size(); ++i) {
    require(pack.pointers.emplace(ids[i], pointers[i]).second, CUDNN_STATUS_BAD_PARAM_DUPLICATED_ENTRIES,
            "variant pack: tensor ", ids[i], " twice");
  }
  pack.workspace = d.value_or<void*>(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, nullptr);
  return pack;
}

Meaning meaning_of(const Descriptor& d) {
  switch (d.type) {
    case CUDNN_BACKEND_TENSOR_DESCRIPTOR:
      return make_tensor(d);
    case CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR:
      return make_convolution(d);
    case CUDNN_BACKEND_POINTWISE_DESCRIPTOR:
      return make_pointwise(d);
    case CUDNN_BACKEND_REDUCTION_DESCRIPTOR:
      return make_reduction(d);
    case CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR: {
      std::vector<Operation> operations;
      for (const SharedDescriptor& op : d.attributes.at(CUDNN_ATTR_OPERATIONGRAPH_OPS).descriptors)
        operations.push_back(op->as<Operation>());
      return make_graph(operations);
    }
    case CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR:
      check_device(d);
      return {};
    case CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR: {
      std::vector<Engine> engines = engines_of(d.referred(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH).as<SharedGraph>(),
                                               d.value<cudnnBackendHeurMode_t>(CUDNN_ATTR_ENGINEHEUR_MODE));
      require(!engines.empty(), CUDNN_STATUS_NOT_SUPPORTED_GRAPH_PATTERN, "no engine supports the graph in this mode");
      return engines;
    }
    case CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR:
      return make_plan(d);
    case CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR:
      return make_variant_pack(d);
    case CUDNN_BACKEND_ENGINE_DESCRIPTOR:
    case CUDNN_BACKEND_ENGINECFG_DESCRIPTOR:
      throw Refusal{CUDNN_STATUS_NOT_SUPPORTED, "engines come from the heuristic only"};
    default:
      return make_operation(d);
  }
}

// ---- reading --------------------------------------------------------------------------------------------------------

// Gives as many of `values` as there is room for; where there is none at all, their number is what is asked for.
template <class T>
void give(const std::vector<T>& values, int64_t room, int64_t* count, void* to) {
  const auto all = static_cast<int64_t>(values.size());
  const int64_t given = std::min(all, room);
  if (count != nullptr) *count = room == 0 ? all : given;
  if (given == 0) return;
  std::memcpy(&not_null(static_cast<char*>(to), "the room for an attribute"), values.data(),
              static_cast<size_t>(given) * sizeof(T));
}

// Puts the engines into descriptors that the caller has created for them.
void give_engines(const std::vector<Engine>& engines, cudnnBackendDescriptorType_t type, int64_t room, int64_t* count,
                  void* to) {
  const auto all = static_cast<int64_t>(engines.size());
  const int64_t given = std::min(all, room);
  if (count != nullptr) *count = room == 0 ? all : given;
  for (int64_t i = 0; i < given; ++i) {
    Descriptor& descriptor = descriptor_of(static_cast<cudnnBackendDescriptor_t*>(to)[i]);
    require(descriptor.type == type, CUDNN_STATUS_BAD_PARAM_DESCRIPTOR_TYPE, "results need descriptors of type ", type);
    descriptor.meaning = engines[static_cast<size_t>(i)];
    descriptor.finalized = true;
  }
}

void get_attribute(const Descriptor& d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                   int64_t room, int64_t* count, void* to) {
  require(d.finalized, CUDNN_STATUS_NOT_INITIALIZED, "attribute ", name, " is read before finalisation");
  const auto is_of_type = [&](cudnnBackendAttributeType_t expected) {
    require(type == expected, CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE, "attribute ", name, " is of type ", expected,
            ", not ", type);
  };
  switch (name) {
    case CUDNN_ATTR_ENGINEHEUR_RESULTS:
      is_of_type(CUDNN_TYPE_BACKEND_DESCRIPTOR);
      return give_engines(d.as<std::vector<Engine>>(), CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, room, count, to);
    case CUDNN_ATTR_ENGINECFG_ENGINE:
      is_of_type(CUDNN_TYPE_BACKEND_DESCRIPTOR);
      return give_engines({d.as<Engine>()}, CUDNN_BACKEND_ENGINE_DESCRIPTOR, room, count, to);
    case CUDNN_ATTR_ENGINE_GLOBAL_INDEX:
      is_of_type(CUDNN_TYPE_INT64);
      return give(std::vector<int64_t>{d.as<Engine>().index}, room, count, to);
    case CUDNN_ATTR_ENGINE_NUMERICAL_NOTE:
      is_of_type(CUDNN_TYPE_NUMERICAL_NOTE);
      return give(d.as<Engine>().notes, room, count, to);
    case CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE:
      is_of_type(CUDNN_TYPE_INT64);
      return give(std::vector<int64_t>{d.as<Plan>().engine.workspace_bytes}, room, count, to);
    case CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION: {
      is_of_type(CUDNN_TYPE_CHAR);
      const std::string text = text_of(d.as<Plan>());
      return give(std::vector<char>(text.begin(), text.end()), room, count, to);
    }
    default:
      throw Refusal{CUDNN_STATUS_NOT_SUPPORTED, concat_text("reading attribute ", name, " is not simulated")};
  }
}

// ---- execution ------------------------------------------------------------------------------------------------------

void check_variant_pack(const Engine& engine, const VariantPack& pack) {
  for (const auto& [id, tensor] : engine.graph->tensors) {
    const auto found = pack.pointers.find(id);
    if (tensor.is_virtual) {
      require(found == pack.pointers.end(), CUDNN_STATUS_BAD_PARAM, "variant pack: a pointer for the virtual tensor ",
              id);
      continue;
    }
    require(found != pack.pointers.end(), CUDNN_STATUS_BAD_PARAM, "variant pack: no pointer for tensor ", id);
    require(found->second != nullptr, CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "variant pack: tensor ", id, " is null");
    require(is_aligned(found->second, tensor.alignment), CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER,
            "variant pack: tensor ", id, " is not aligned to ", tensor.alignment, " bytes");
  }
  for (const auto& [id, pointer] : pack.pointers) {
    require(engine.graph->tensors.count(id) > 0, CUDNN_STATUS_BAD_PARAM, "variant pack: the graph has no tensor ", id);
  }
  if (engine.workspace_bytes == 0) return;
  require(pack.workspace != nullptr, CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "variant pack: the plan needs a workspace");
  require(is_aligned(pack.workspace, 16), CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER,
          "variant pack: the workspace is not aligned");
}

void execute(const cudnnContext& context, const Plan& plan, const VariantPack& pack) {
  check_variant_pack(plan.engine, pack);
  require(!plan.engine.fails && !execution_fails(), CUDNN_STATUS_EXECUTION_FAILED, "this engine does not run here");
  // The work holds them by value: a captured graph runs this again when plan and pack are gone.
  submit(context.stream, [engine = plan.engine, pack] { interpret(engine, pack.pointers, pack.workspace); });
}

const Descriptor& finalized(cudnnBackendDescriptor_t handle, cudnnBackendDescriptorType_t type) {
  const Descriptor& descriptor = descriptor_of(handle);
  require(descriptor.type == type, CUDNN_STATUS_BAD_PARAM_DESCRIPTOR_TYPE, "expected a descriptor of type ", type,
          ", got ", descriptor.type);
  require(descriptor.finalized, CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED, "a descriptor of type ", type,
          " is not finalised");
  return descriptor;
}

}  // namespace

void finalize(Descriptor& descriptor) {
  require(!descriptor.finalized, CUDNN_STATUS_BAD_PARAM, "a descriptor is finalised twice");
  check_required_attributes(descriptor);
  descriptor.meaning = meaning_of(descriptor);
  descriptor.finalized = true;
}

}  // namespace depthstill::simt

using namespace depthstill::simt;

size_t cudnnGetVersion() { return CUDNN_VERSION; }

const char* cudnnGetErrorString(cudnnStatus_t status) {
  switch (CUDNN_STATUS_CATEGORY(status)) {
    case CUDNN_STATUS_SUCCESS:
      return "CUDNN_STATUS_SUCCESS";
    case CUDNN_STATUS_BAD_PARAM:
      return "CUDNN_STATUS_BAD_PARAM";
    case CUDNN_STATUS_NOT_SUPPORTED:
      return "CUDNN_STATUS_NOT_SUPPORTED";
    case CUDNN_STATUS_EXECUTION_FAILED:
      return "CUDNN_STATUS_EXECUTION_FAILED";
    default:
      return "CUDNN_STATUS_INTERNAL_ERROR";
  }
}

void cudnnGetLastErrorString(char* message, size_t max_size) {
  if (message == nullptr || max_size == 0) return;
  const size_t length = std::min(last_error.size(), max_size - 1);
  std::memcpy(message, last_error.data(), length);
  message[length] = '\0';
  last_error.clear();
}

cudnnStatus_t cudnnCreate(cudnnHandle_t* handle) {
  return guarded([&] { not_null(handle, "the place for a handle") = new cudnnContext(); });
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
  return guarded([&] { not_null(handle, "the handle").stream = stream; });
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t* descriptor) {
  return guarded([&] {
    check_known(type);
    auto made = std::make_shared<Descriptor>();
    made->type = type;
    not_null(descriptor, "the place for a descriptor") = new Handle(std::move(made));
  });
}

cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor) {
  delete static_cast<Handle*>(descriptor);
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t count, const void* values) {
  return guarded([&] { set_attribute(descriptor_of(descriptor), name, type, count, values); });
}

cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t const descriptor, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t room, int64_t* count, void* values) {
  return guarded([&] { get_attribute(descriptor_of(descriptor), name, type, room, count, values); });
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor) {
  return guarded([&] { finalize(descriptor_of(descriptor)); });
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan, cudnnBackendDescriptor_t pack) {
  return guarded([&] {
    execute(not_null(handle, "the handle"), finalized(plan, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR).as<Plan>(),
            finalized(pack, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR).as<VariantPack>());
  });
}
