#include "kernels/simt/libraries/cudnn_engines.h"

#include <algorithm>
#include <limits>
#include <map>

#include "kernels/core/error.h"

namespace depthstill::simt {
namespace {

constexpr auto kReduced = CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION;
constexpr int64_t kSomeWorkspace = 4096, kMuchWorkspace = 1 << 20;

struct Offer {
  cudnnBackendHeurMode_t mode;
  std::vector<cudnnBackendNumericalNote_t> notes;
  int64_t workspace_bytes;
  bool adds_to_sums = false, fails = false;
};

// The index of an engine is its place here. Whatever options leave, it is not only the most harmless.
const std::vector<Offer>& offers() {
  static const std::vector<Offer> list = {
      {CUDNN_HEUR_MODE_A, {CUDNN_NUMERICAL_NOTE_TENSOR_CORE, kReduced}, 0},
      {CUDNN_HEUR_MODE_A, {CUDNN_NUMERICAL_NOTE_TENSOR_CORE}, kSomeWorkspace, true},
      {CUDNN_HEUR_MODE_A, {}, kMuchWorkspace, true},
      {CUDNN_HEUR_MODE_A, {CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC}, kSomeWorkspace},
      {CUDNN_HEUR_MODE_A, {CUDNN_NUMERICAL_NOTE_TENSOR_CORE, CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC}, 0},
      {CUDNN_HEUR_MODE_A, {}, 0},
      {CUDNN_HEUR_MODE_FALLBACK, {}, 0, false, true},
      {CUDNN_HEUR_MODE_FALLBACK, {}, kSomeWorkspace},
  };
  return list;
}

// cuDNN 9.19 adds up weight gradients of so large maps in less than fp32, whatever the engine.
bool is_always_reduced(const OperationGraph& graph) {
  return std::any_of(graph.operations.begin(), graph.operations.end(), [](const Operation& op) {
    return op.kind == Kind::kWeightGradient && op.inputs[1].count() > std::numeric_limits<int32_t>::max();
  });
}

Engine engine_of(const SharedGraph& graph, int index) {
  const Offer& offer = offers()[static_cast<size_t>(index)];
  Engine engine = {graph, index, offer.notes, offer.workspace_bytes, offer.adds_to_sums, offer.fails};
  if (is_always_reduced(*graph) && !engine.has(kReduced)) engine.notes.push_back(kReduced);
  return engine;
}

// One convolution, with pointwise operations before it, and pointwise operations and reductions behind it. A lone one
// has factors and result of one type. A data gradient with more behind it takes 16 bytes of channels at once in bf16.
bool is_supported(const OperationGraph& graph) {
  const auto& ops = graph.operations;
  const auto is_convolution = [](const Operation& op) { return op.is_convolution(); };
  if (std::count_if(ops.begin(), ops.end(), is_convolution) != 1) return false;
  const Operation& convolution = *std::find_if(ops.begin(), ops.end(), is_convolution);
  const Format format = convolution.inputs[0].format;
  if (convolution.inputs[1].format != format) return false;
  if (ops.size() == 1) return convolution.output.format == format;
  const auto before = [&](const Operation& op) { return &op < &convolution; };
  const auto reduces_first = [&](const Operation& op) { return op.kind == Kind::kReduction && before(op); };
  if (std::any_of(ops.begin(), ops.end(), reduces_first) || convolution.kind == Kind::kWeightGradient) return false;
  const auto fills_vectors = [](const Tensor& tensor) { return tensor.dims[1] % 8 == 0; };
  return convolution.kind != Kind::kDataGradient || format == Format::kFloat ||
         (fills_vectors(convolution.inputs[1]) && fills_vectors(convolution.output));
}

std::map<std::string, SharedGraph>& known_graphs() {
  static auto& graphs = *new std::map<std::string, SharedGraph>();
  return graphs;
}

constexpr char kBegin[] = R"({"simulated":true,"engineId":)", kMiddle[] = R"(,"graph":")", kEnd[] = R"("})";

}  // namespace

bool Engine::has(cudnnBackendNumericalNote_t note) const {
  return std::find(notes.begin(), notes.end(), note) != notes.end();
}

std::vector<Engine> engines_of(const SharedGraph& graph, cudnnBackendHeurMode_t mode) {
  std::vector<Engine> engines;
  if (!is_supported(*graph)) return engines;
  const bool fused = graph->operations.size() > 1;
  for (int index = 0; index < static_cast<int>(offers().size()); ++index) {
    const Offer& offer = offers()[static_cast<size_t>(index)];
    if (offer.mode == mode && !(fused && mode == CUDNN_HEUR_MODE_FALLBACK)) engines.push_back(engine_of(graph, index));
  }
  return engines;
}

std::string text_of(const Plan& plan) {
  const SharedGraph& graph = plan.engine.graph;
  known_graphs().emplace(graph->text, graph);
  return concat_text(kBegin, plan.engine.index, kMiddle, graph->text, kEnd);
}

std::optional<Plan> plan_of(const std::string& text) {
  for (int index = 0; index < static_cast<int>(offers().size()); ++index) {
    const std::string begin = concat_text(kBegin, index, kMiddle), end = kEnd;
    if (text.rfind(begin, 0) != 0 || text.size() < begin.size() + end.size()) continue;
    if (text.substr(text.size() - end.size()) != end) continue;
    const auto known = known_graphs().find(text.substr(begin.size(), text.size() - begin.size() - end.size()));
    if (known != known_graphs().end()) return Plan{engine_of(known->second, index)};
  }
  return std::nullopt;
}

}  // namespace depthstill::simt
