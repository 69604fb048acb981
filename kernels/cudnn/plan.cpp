#include "kernels/cudnn/plan.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <string_view>

#include "kernels/core/dry_run.h"
#include "kernels/core/error.h"
#include "kernels/core/runtime.h"
#include "kernels/cudnn/h100.h"

namespace depthstill::cudnn {
namespace {

// cuDNN's message when a kernel that it has compiled cannot be loaded: CUDA_ERROR_STUB_LIBRARY, from the toolkit's
// stand-in for the driver.
const char* const kStubLibrary = "(34)";

Descriptor describe_device(const std::string& json) {
  Descriptor device(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
  device
      .set(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, static_cast<int64_t>(json.size()) + 1,
           json.c_str())
      .finalize();
  return device;
}

// The handle or the described device that a plan is for.
void set_target(Descriptor& plan, const Target& target, const std::optional<Descriptor>& device) {
  if (device)
    plan.set(CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, *device);
  else
    plan.set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &target.handle);
}

// The configurations of one of the heuristic's modes, best first. There are none where it refuses the graph, and
// `refusal` says why.
std::vector<Descriptor> engine_configs(const Descriptor& graph, cudnnBackendHeurMode_t mode,
                                       const std::optional<Descriptor>& device, std::string& refusal) {
  std::vector<Descriptor> configs;
  Descriptor heuristic(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  heuristic.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph)
      .set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
  if (device) heuristic.set(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, *device);
  if (!heuristic.try_finalize()) {
    if (refusal.empty()) refusal = last_message();
    return configs;
  }
  int64_t count = 0;
  check_status(cudnnBackendGetAttribute(heuristic.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                        0, &count, nullptr),
               "counting plans");
  std::vector<cudnnBackendDescriptor_t> raw;
  for (int64_t i = 0; i < count; ++i) {
    configs.emplace_back(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    raw.push_back(configs.back().get());
  }
  if (count == 0) return configs;
  check_status(cudnnBackendGetAttribute(heuristic.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                        count, &count, raw.data()),
               "listing plans");
  while (configs.size() > static_cast<size_t>(count)) configs.pop_back();
  return configs;
}

// What cuDNN says of the engine behind a configuration.
struct EngineFacts {
  int64_t number = -1;
  bool compiles = false;  // a kernel, when the plan is made
  std::vector<cudnnBackendNumericalNote_t> notes;

  bool has(cudnnBackendNumericalNote_t note) const {
    return std::find(notes.begin(), notes.end(), note) != notes.end();
  }
};

// What cannot be read stays as it is above.
EngineFacts facts_of(const Descriptor& config) {
  EngineFacts facts;
  Descriptor engine(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
  cudnnBackendDescriptor_t raw = engine.get();
  const auto read = [](const auto& from, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                       int64_t room, void* to) {
    int64_t count = 0;
    const cudnnStatus_t status = cudnnBackendGetAttribute(from, name, type, room, &count, to);
    return status == CUDNN_STATUS_SUCCESS ? count : 0;
  };
  if (read(config.get(), CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &raw) == 0) return facts;
  read(raw, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &facts.number);
  std::vector<cudnnBackendBehaviorNote_t> behavior(CUDNN_BEHAVIOR_NOTE_TYPE_COUNT);
  behavior.resize(static_cast<size_t>(read(raw, CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE,
                                           CUDNN_BEHAVIOR_NOTE_TYPE_COUNT, behavior.data())));
  facts.compiles =
      std::find(behavior.begin(), behavior.end(), CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION) != behavior.end();
  facts.notes.resize(CUDNN_NUMERICAL_NOTE_TYPE_COUNT);
  facts.notes.resize(static_cast<size_t>(read(raw, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                              CUDNN_NUMERICAL_NOTE_TYPE_COUNT, facts.notes.data())));
  return facts;
}

}  // namespace

Target current_target(Stream stream) {
  if (cuda::dry_running()) return h100_target();
  // There is one handle per stream, for the life of the process.
  static std::map<void*, cudnnHandle_t>& handles = *new std::map<void*, cudnnHandle_t>();
  cudnnHandle_t& handle = handles[stream.handle];
  if (handle == nullptr) {
    // Newer minor versions run what was built for older ones, by NVIDIA's promise.
    const size_t loaded = cudnnGetVersion(), built = CUDNN_VERSION;
    check(loaded / 10000 == built / 10000 && loaded / 100 >= built / 100, "cudnn: built with ", built, ", but ", loaded,
          " was loaded; make one cuDNN visible only");
    check_status(cudnnCreate(&handle), "creating a handle");
    check_status(cudnnSetStream(handle, static_cast<cudaStream_t>(stream.handle)), "setting the stream");
  }
  static const auto memory_bytes = static_cast<int64_t>(cuda::device_info().total_bytes);
  return {handle, "", memory_bytes};
}

Target h100_target() { return {nullptr, kH100, cuda::kH100Bytes}; }

int64_t workspace_cap_bytes(const Target& target, const LibraryOptions& options) {
  return options.workspace_cap_bytes.value_or(target.memory_bytes / 50);
}

std::vector<size_t> spread_over_engines(const std::vector<int64_t>& engines) {
  constexpr size_t kFirst = 10;
  constexpr int kMostOfOne = 6;
  std::vector<size_t> order, others, rest;
  std::map<int64_t, int> seen;
  for (size_t i = 0; i < engines.size(); ++i) {
    const int before = seen[engines[i]]++;
    std::vector<size_t>& list = order.size() < kFirst && before < kMostOfOne ? order : before == 0 ? others : rest;
    list.push_back(i);
  }
  order.insert(order.end(), others.begin(), others.end());
  order.insert(order.end(), rest.begin(), rest.end());
  return order;
}

Plan::Plan(Descriptor plan, std::string name) : plan_(std::move(plan)), name_(std::move(name)) {
  int64_t workspace = 0, count = 0;
  check_status(cudnnBackendGetAttribute(plan_.get(), CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1,
                                        &count, &workspace),
               "reading a workspace size");
  workspace_bytes_ = static_cast<size_t>(workspace);
}

std::optional<Plan> Plan::from_json(const Target& target, const std::string& json) {
  std::optional<Descriptor> device;
  if (target.handle == nullptr) device = describe_device(target.device_json);
  Descriptor plan(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
  set_target(plan, target, device);
  if (cudnnBackendSetAttribute(plan.get(), CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                               static_cast<int64_t>(json.size()), json.c_str()) != CUDNN_STATUS_SUCCESS ||
      !plan.try_finalize()) {
    return std::nullopt;
  }
  return Plan(std::move(plan), "from the cache");
}

std::string Plan::json() const {
  int64_t length = 0;
  check_status(cudnnBackendGetAttribute(plan_.get(), CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, 0,
                                        &length, nullptr),
               "measuring a plan's text");
  std::string text(static_cast<size_t>(length), '\0');
  check_status(cudnnBackendGetAttribute(plan_.get(), CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                                        length, &length, text.data()),
               "reading a plan's text");
  text.resize(text.find_last_not_of('\0') + 1);
  for (char& c : text) {
    if (c == '\n' || c == '\t' || c == '\r') c = ' ';
  }
  return text;
}

int Plan::engine() const {
  constexpr std::string_view kKey = "\"engineId\":";
  const std::string text = json();
  const size_t at = text.find(kKey);
  int number = -1;
  if (at != std::string::npos) std::from_chars(text.data() + at + kKey.size(), text.data() + text.size(), number);
  return number;
}

void Plan::execute(Stream stream, const TensorPointers& tensors, void* workspace) const {
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

// Goes through the heuristic's list until enough plans are found.
class PlanSearch {
 public:
  PlanSearch(const Target& target, const Graph& graph, const PlanRequest& request)
      : target_(target),
        graph_(graph),
        limit_(static_cast<size_t>(request.limit)),
        reduced_sums_(request.reduced_sums),
        compiled_engines_(request.compiled_engines),
        options_(request.options != nullptr ? *request.options : library_options()),
        cap_bytes_(workspace_cap_bytes(target, options_)) {
    if (target.handle == nullptr) device_ = describe_device(target.device_json);
  }

  void add_from(const Descriptor& finalized_graph, cudnnBackendHeurMode_t mode) {
    if (full()) return;
    std::vector<Descriptor> allowed;
    std::vector<int64_t> engines;
    for (Descriptor& config : engine_configs(finalized_graph, mode, device_, offer.refusal)) {
      const EngineFacts facts = facts_of(config);
      if (excluded(facts)) continue;
      allowed.push_back(std::move(config));
      engines.push_back(facts.number);
    }
    for (const size_t i : spread_over_engines(engines)) {
      if (full()) return;
      try_config(allowed[i]);
    }
  }

  PlanOffer offer;

 private:
  bool full() const { return offer.plans.size() + static_cast<size_t>(offer.need_driver) >= limit_; }

  // Every graph is to be computed in fp32.
  bool excluded(const EngineFacts& engine) const {
    const bool strict = options_.strict_fp32 && graph_.all_fp32();
    return (strict && engine.has(CUDNN_NUMERICAL_NOTE_TENSOR_CORE)) || (!compiled_engines_ && engine.compiles) ||
           (!reduced_sums_ && engine.has(CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION)) ||
           (options_.deterministic && engine.has(CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC));
  }

  void try_config(const Descriptor& config) {
    Descriptor plan(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    plan.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
    set_target(plan, target_, device_);
    const cudnnStatus_t status = cudnnBackendFinalize(plan.get());
    if (status != CUDNN_STATUS_SUCCESS) {
      offer.refusal = last_message();
      if (status == CUDNN_STATUS_EXECUTION_FAILED_CUDA_DRIVER && device_ &&
          offer.refusal.find(kStubLibrary) != std::string::npos) {
        ++offer.need_driver;
      }
      return;
    }
    Plan found(std::move(plan), graph_.name());
    if (static_cast<int64_t>(found.workspace_bytes()) <= cap_bytes_)
      offer.plans.push_back(std::move(found));
    else
      offer.refusal = concat_text("a workspace of ", found.workspace_bytes(), " bytes");
  }

  const Target& target_;
  const Graph& graph_;
  size_t limit_;
  bool reduced_sums_, compiled_engines_;
  const LibraryOptions& options_;
  int64_t cap_bytes_;
  std::optional<Descriptor> device_;
};

PlanOffer find_plans(const Target& target, const Graph& graph, const PlanRequest& request) {
  PlanSearch search(target, graph, request);
  try {
    const Descriptor finalized = graph.finalized(target.handle);
    search.add_from(finalized, CUDNN_HEUR_MODE_A);
    if (request.fallback_engines) search.add_from(finalized, CUDNN_HEUR_MODE_FALLBACK);
  } catch (const Error& error) {
    search.offer.refusal = error.what();
  }
  return std::move(search.offer);
}

}  // namespace depthstill::cudnn
