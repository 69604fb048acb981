#include "kernels/cudnn/graph.h"

#include <map>

#include "kernels/cudnn/h100.h"
#include "kernels/dry_run.h"
#include "kernels/error.h"

namespace depthstill::cudnn {
namespace {

// All configurations that the heuristics offer, best first; `device` replaces the GPU of the graph's handle.
std::vector<Descriptor> engine_configs(const Descriptor& graph, const Descriptor* device) {
  std::vector<Descriptor> configs;
  for (const cudnnBackendHeurMode_t mode : {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK}) {
    Descriptor heuristic(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    heuristic.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph)
        .set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    if (device != nullptr) heuristic.set(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, *device);
    if (!heuristic.try_finalize()) continue;
    int64_t count = 0;
    check_status(cudnnBackendGetAttribute(heuristic.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                          0, &count, nullptr),
                 "counting plans");
    const size_t first = configs.size();
    std::vector<cudnnBackendDescriptor_t> raw;
    for (int64_t i = 0; i < count; ++i) {
      configs.emplace_back(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
      raw.push_back(configs.back().get());
    }
    if (count > 0) {
      check_status(cudnnBackendGetAttribute(heuristic.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                            CUDNN_TYPE_BACKEND_DESCRIPTOR, count, &count, raw.data()),
                   "listing plans");
    }
    while (configs.size() > first + static_cast<size_t>(count)) configs.pop_back();
  }
  return configs;
}

// Whether the engine behind `config` carries `note`, e.g. tensor cores.
bool has_note(const Descriptor& config, cudnnBackendNumericalNote_t note) {
  Descriptor engine(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
  cudnnBackendDescriptor_t raw = engine.get();
  int64_t count = 0;
  if (cudnnBackendGetAttribute(config.get(), CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count,
                               &raw) != CUDNN_STATUS_SUCCESS) {
    return false;
  }
  cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
  if (cudnnBackendGetAttribute(raw, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                               CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &count, notes) != CUDNN_STATUS_SUCCESS) {
    return false;
  }
  for (int64_t i = 0; i < count; ++i) {
    if (notes[i] == note) return true;
  }
  return false;
}

}  // namespace

void check_status(cudnnStatus_t status, const char* what) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  char message[512] = "";
  cudnnGetLastErrorString(message, sizeof(message));
  fail("cudnn: ", what, ": ", cudnnGetErrorString(status), message[0] != '\0' ? ": " : "", message);
}

Descriptor::Descriptor(cudnnBackendDescriptorType_t type) {
  check_status(cudnnBackendCreateDescriptor(type, &handle_), "creating a descriptor");
}

Descriptor::~Descriptor() {
  if (handle_ != nullptr) cudnnBackendDestroyDescriptor(handle_);
}

Descriptor& Descriptor::set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count,
                            const void* values) {
  check_status(cudnnBackendSetAttribute(handle_, name, type, count, values), "setting an attribute");
  return *this;
}

Descriptor& Descriptor::finalize() {
  check_status(cudnnBackendFinalize(handle_), "finalising a descriptor");
  return *this;
}

Descriptor nhwc_tensor(int64_t id, cudnnDataType_t type, int64_t n, int64_t c, int64_t h, int64_t w) {
  Descriptor tensor(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  tensor.set(CUDNN_ATTR_TENSOR_DATA_TYPE, type)
      .set(CUDNN_ATTR_TENSOR_DIMENSIONS, {n, c, h, w})
      .set(CUDNN_ATTR_TENSOR_STRIDES, {h * w * c, 1, w * c, c})
      .set(CUDNN_ATTR_TENSOR_UNIQUE_ID, id)
      .set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, int64_t{16})
      .finalize();
  return tensor;
}

Target current_target(Stream stream) {
  if (cuda::dry_running()) return {nullptr, kH100};
  // One handle per stream, for the life of the process.
  static std::map<void*, cudnnHandle_t>& handles = *new std::map<void*, cudnnHandle_t>();
  cudnnHandle_t& handle = handles[stream.handle];
  if (handle == nullptr) {
    check(cudnnGetVersion() / 100 == CUDNN_VERSION / 100, "cudnn: built with ", CUDNN_VERSION, ", but ",
          cudnnGetVersion(), " was loaded; make one cuDNN visible only");
    check_status(cudnnCreate(&handle), "creating a handle");
    check_status(cudnnSetStream(handle, static_cast<cudaStream_t>(stream.handle)), "setting the stream");
  }
  return {handle, ""};
}

Plan::Plan(const Target& target, const Descriptor& operation, const std::string& name, const PlanOptions& options)
    : plan_(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR), name_(name) {
  Descriptor device(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
  Descriptor graph(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  graph.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, operation);
  if (target.handle != nullptr) {
    graph.set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &target.handle);
  } else {
    device
        .set(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
             static_cast<int64_t>(target.device_json.size()) + 1, target.device_json.c_str())
        .finalize();
  }
  graph.finalize();

  const bool deviceless = target.handle == nullptr;
  bool found = false;
  for (const Descriptor& config : engine_configs(graph, deviceless ? &device : nullptr)) {
    if (!options.tensor_cores_for_fp32 && has_note(config, CUDNN_NUMERICAL_NOTE_TENSOR_CORE)) continue;
    Descriptor plan(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    plan.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
    if (deviceless) {
      plan.set(CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, device);
    } else {
      plan.set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &target.handle);
    }
    if (!plan.try_finalize()) continue;
    int64_t workspace = 0, count = 0;
    check_status(cudnnBackendGetAttribute(plan.get(), CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1,
                                          &count, &workspace),
                 "reading a workspace size");
    if (workspace > options.workspace_cap_bytes) continue;
    ++offered_;
    if (found) continue;
    found = true;
    plan_ = std::move(plan);
    workspace_bytes_ = static_cast<size_t>(workspace);
    if (!deviceless || cuda::dry_running()) break;  // only a check of the plans counts them all
  }
  check(found, "cudnn: no execution plan supports ", name, " within ", options.workspace_cap_bytes,
        " bytes of workspace; CUDNN_LOGLEVEL_DBG=2 says why");
}

void Plan::execute(Stream stream, std::initializer_list<std::pair<int64_t, const void*>> tensors,
                   void* workspace) const {
  if (cuda::dry_running()) return cuda::record_library_call("cudnn: " + name_);
  std::vector<int64_t> ids;
  std::vector<void*> pointers;
  for (const auto& [id, pointer] : tensors) {
    ids.push_back(id);
    pointers.push_back(const_cast<void*>(pointer));
  }
  Descriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, ids)
      .set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, static_cast<int64_t>(pointers.size()),
           pointers.data())
      .set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace)
      .finalize();
  check_status(cudnnBackendExecute(current_target(stream).handle, plan_.get(), pack.get()), "executing a plan");
}

}  // namespace depthstill::cudnn
