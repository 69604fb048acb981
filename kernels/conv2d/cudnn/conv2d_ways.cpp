#include "kernels/conv2d/cudnn/conv2d_ways.h"

#include <cmath>
#include <utility>

#include "kernels/core/dry_run.h"
#include "kernels/core/error.h"
#include "kernels/core/messages.h"

namespace depthstill::cudnn {
namespace {

using cublaslt::MatmulShape;

// Records hold these before the rank.
const char* const kMatmul = "matmul ";
const char* const kMatmulFused = "matmul with epilogue ";

// So many plans are taken of those that are compiled when they are made, each in half a second to a second, and in
// three where a data gradient goes on below: more would keep a first training step waiting for minutes.
constexpr int kRuntimeCompiledPlans = 1;
constexpr int kMatmuls = 3, kLinearMatmuls = 8;  // algorithms of cuBLASLt
constexpr int kPlans = 16, kAllPlans = 1000;     // of those that cuDNN brings along, by default and with all_plans
constexpr int64_t kChainBytes = 16 << 20;        // memory traffic saved: 5 us on an H100

bool is_matrix_product(const Conv2dShape& s) {
  return s.R == 1 && s.S == 1 && s.stride == 1 && s.pad_top == 0 && s.pad_bottom == 0 && s.pad_left == 0 &&
         s.pad_right == 0;
}

// cuBLASLt can take on this part of the problem besides the product.
cublaslt::Epilogue epilogue_of(const Problem& problem) {
  if (!problem.bias) return cublaslt::Epilogue::kNone;
  if (problem.pass == Pass::kDataGradient) return cublaslt::Epilogue::kNone;  // it wants relu's slope as a bit mask
  if (problem.pass == Pass::kWeightGradient) return cublaslt::Epilogue::kBiasGradient;
  if (problem.activation == Activation::kNone) return cublaslt::Epilogue::kBias;
  if (problem.activation == Activation::kRelu) return cublaslt::Epilogue::kReluBias;
  return cublaslt::Epilogue::kNone;
}

MatmulShape product_of(const Problem& problem, const LibraryOptions& options, bool fused) {
  const Conv2dShape& s = problem.shape;
  MatmulShape product;
  product.rows = s.N * s.H * s.W;
  product.type = product.d_type = problem.type == CUDNN_DATA_FLOAT ? CUDA_R_32F : CUDA_R_16BF;
  product.tf32 = !options.strict_fp32;
  if (fused) product.epilogue = epilogue_of(problem);
  switch (problem.pass) {
    case Pass::kForward:  // y = x * weight^T
      product.columns = s.O;
      product.inner = s.C;
      product.b_transposed = true;
      break;
    case Pass::kDataGradient:  // dx = dy * weight
      product.columns = s.C;
      product.inner = s.O;
      break;
    case Pass::kWeightGradient:  // dweight = dy^T * x
      product.inner = product.rows;
      product.rows = s.O;
      product.columns = s.C;
      product.a_transposed = true;
      product.d_type = CUDA_R_32F;
      break;
  }
  return product;
}

// Returns nothing where cuBLASLt does not offer it, as without a device.
std::optional<Way> matmul_way(const Problem& problem, const LibraryOptions& options, bool fused, int rank) {
  if (fused && epilogue_of(problem) == cublaslt::Epilogue::kNone) return std::nullopt;
  try {
    Way way;
    way.matmul.emplace(product_of(problem, options, fused), rank);
    way.matmul_rank = rank;
    way.fused = fused;
    return way;
  } catch (const Error&) {
    return std::nullopt;
  }
}

const char* bias_name(cudnnDataType_t type) { return type == CUDNN_DATA_FLOAT ? "fp32" : "bf16"; }

class WayList {
 public:
  WayList(const Target& target, const Problem& problem, const LibraryOptions& options, bool only_first)
      : target_(target), problem_(problem), options_(options), only_first_(only_first) {}

  bool done() const { return only_first_ && !ways.empty(); }

  // `kind` says what the graph includes.
  void add_plans(const Graph& graph, PlanRequest request, const Way& kind) {
    if (done()) return;
    request.options = &options_;
    if (only_first_) request.limit = 1;
    PlanOffer offer = find_plans(target_, graph, request);
    if (offer.plans.empty()) refusal = offer.refusal;
    for (Plan& plan : offer.plans) {
      Way& way = ways.emplace_back();
      way.plan = std::move(plan);
      way.fused = kind.fused;
      way.sums = kind.sums;
      way.bias_type = kind.bias_type;
    }
  }

  // The first `most` of cuBLASLt's list, with and without the epilogue. That of dbias stands behind: it is slow on some
  // GPUs, and where nothing is timed the first way is taken.
  void add_matmuls(int most) {
    if (target_.handle == nullptr && !cuda::dry_running()) return;
    const bool fused_first = problem_.pass != Pass::kWeightGradient;
    for (const bool fused : {fused_first, !fused_first}) {
      for (int rank = 0; rank < most && !done(); ++rank) {
        std::optional<Way> way = matmul_way(problem_, options_, fused, rank);
        if (!way) break;
        ways.push_back(std::move(*way));
      }
    }
  }

  std::vector<Way> ways;
  std::string refusal;

 private:
  const Target& target_;
  const Problem& problem_;
  const LibraryOptions& options_;
  bool only_first_;
};

}  // namespace

bool is_linear_layer(const Conv2dShape& shape) { return is_matrix_product(shape) && shape.N == 1 && shape.W == 1; }

bool fuses_below(const Problem& problem) {
  // In bf16 cuDNN refuses, for one, a single channel.
  const int64_t multiple = problem.type == CUDNN_DATA_FLOAT ? 1 : 8;
  return problem.pass == Pass::kDataGradient && problem.activation == Activation::kRelu &&
         problem.shape.O % multiple == 0 && problem.shape.C % multiple == 0;
}

std::vector<ChainLink> chain_fusions(const Problem& problem) {
  const Conv2dShape& s = problem.shape;
  const bool padded = s.pad_top + s.pad_bottom + s.pad_left + s.pad_right > 0;
  const bool norm = problem.norm && !padded;
  const int64_t maps_of_x = norm ? 2 * s.N * s.H * s.W * s.C : 0;
  const int64_t maps_of_y = problem.moments ? s.N * s.P() * s.Q() * s.O : 0;
  const int64_t saved = (maps_of_x + maps_of_y) * (problem.type == CUDNN_DATA_FLOAT ? 4 : 2);
  if (saved < kChainBytes || s.C % 8 != 0 || s.O % 8 != 0) return {};
  std::vector<ChainLink> links;
  if (norm) links.push_back({true, problem.activation, problem.moments});
  if (problem.moments) links.push_back({.sums = true});
  return links;
}

ProblemKey key_of(const Problem& problem, const LibraryOptions& options) {
  const Conv2dShape& s = problem.shape;
  return {s.N,
          s.H,
          s.W,
          s.C,
          s.O,
          s.R,
          s.S,
          s.stride,
          s.dilation,
          s.pad_top,
          s.pad_bottom,
          s.pad_left,
          s.pad_right,
          problem.type,
          static_cast<int64_t>(problem.pass),
          static_cast<int64_t>(problem.activation),
          problem.bias ? 1 : 0,
          problem.norm ? 1 : 0,
          problem.moments ? 1 : 0,
          options.deterministic ? 1 : 0,
          options.strict_fp32 ? 1 : 0,
          options.all_plans ? 1 : 0,
          options.workspace_cap_bytes.value_or(-1),
          options.candidate};
}

std::string describe(const Problem& problem, const LibraryOptions& options) {
  constexpr const char* activations[] = {"", " relu", " relu6", " sigmoid"};
  const Conv2dShape& s = problem.shape;
  return concat_text("conv2d ", name_of(problem.pass), " ", problem.type == CUDNN_DATA_FLOAT ? "fp32" : "bf16", " (",
                     s.N, ", ", s.H, ", ", s.W, ", ", s.C, ") filters ", s.O, " x ", s.R, " x ", s.S, " stride ",
                     s.stride, " dilation ", s.dilation, " padding ", s.pad_top, " ", s.pad_bottom, " ", s.pad_left,
                     " ", s.pad_right, problem.bias ? " bias" : "", problem.moments ? " moments" : "",
                     problem.norm ? " norm" : "", activations[static_cast<int>(problem.activation)],
                     options.deterministic ? " deterministic" : "", options.strict_fp32 ? " strict" : "",
                     options.all_plans ? " all plans" : "",
                     options.workspace_cap_bytes ? concat_text(" workspace ", *options.workspace_cap_bytes) : "");
}

std::vector<Way> ways_of(const Target& target, const Problem& problem, const LibraryOptions& options, bool only_first) {
  const PlanRequest compiled = {.limit = kRuntimeCompiledPlans, .fallback_engines = false};
  const PlanRequest listed = {.limit = options.all_plans ? kAllPlans : kPlans, .compiled_engines = false};
  const Conv2dShape& s = problem.shape;
  const bool linear = is_linear_layer(s);
  WayList list(target, problem, options, only_first);
  const bool fusable = problem.pass == Pass::kForward && problem.has_epilogue();
  const Way all{.fused = true}, sums{.sums = true};
  const auto add_fused = [&](cudnnDataType_t bias_type, PlanRequest request) {
    const Epilogue epilogue{.bias = problem.bias, .bias_type = bias_type, .activation = problem.activation};
    request.fallback_engines = false;
    const size_t before = list.ways.size();
    list.add_plans(conv2d_epilogue_graph(s, problem.type, epilogue), request, {.fused = true, .bias_type = bias_type});
    return list.ways.size() > before;
  };
  if (linear) list.add_matmuls(kLinearMatmuls);
  const Graph plain = conv2d_graph(s, problem.type, problem.pass);
  if (fusable && !add_fused(problem.type, listed)) add_fused(problem.type, compiled);
  list.add_plans(plain, listed, {});
  if (fusable && !linear && problem.bias && problem.type != CUDNN_DATA_FLOAT) add_fused(CUDNN_DATA_FLOAT, compiled);
  if (fuses_below(problem)) {
    list.add_plans(conv2d_gradient_below_graph(s, problem.type, problem.activation, problem.bias), compiled, all);
  }
  for (const ChainLink& link : chain_fusions(problem)) {
    const bool everything = link.norm == problem.norm;
    list.add_plans(conv2d_chain_graph(s, problem.type, link), compiled, everything ? all : sums);
  }
  if (is_matrix_product(s) && !linear) list.add_matmuls(kMatmuls);
  if (list.ways.empty()) {
    list.add_plans(plain, {.limit = listed.limit, .reduced_sums = true}, {});
    if (!list.ways.empty())
      send_message("cudnn: ", describe(problem, options), ": no engine adds up in fp32, so one that does not is taken");
  }
  check(!list.ways.empty(), "cudnn: no execution plan supports ", describe(problem, options), ": ", list.refusal,
        "; CUDNN_LOGLEVEL_DBG=2 says more");
  return std::move(list.ways);
}

std::string words_of(const Way& way) {
  const double megabytes = std::round(static_cast<double>(way.workspace_bytes()) / 1e5) / 10;
  const std::string room = concat_text(", workspace ", megabytes, " MB");
  if (way.matmul) return concat_text(way.fused ? kMatmulFused : kMatmul, way.matmul_rank, room);
  const std::string kind = way.fused ? concat_text("fused ", bias_name(way.bias_type)) : way.sums ? "sums" : "plain";
  return concat_text(kind, ", engine ", way.plan->engine(), room);
}

std::string record_of(const Way& way) {
  if (way.matmul) return concat_text(way.fused ? kMatmulFused : kMatmul, way.matmul_rank);
  if (way.sums) return "sums " + way.plan->json();
  if (way.fused) return concat_text("fused ", bias_name(way.bias_type), " ", way.plan->json());
  return "plain " + way.plan->json();
}

std::optional<Way> rebuild(const Target& target, const Problem& problem, const LibraryOptions& options,
                           const std::string& record) {
  for (const bool fused : {true, false}) {
    const std::string name = fused ? kMatmulFused : kMatmul;
    if (record.size() != name.size() + 1 || record.rfind(name, 0) != 0) continue;
    const int rank = record.back() - '0';
    return rank >= 0 && rank <= 9 ? matmul_way(problem, options, fused, rank) : std::nullopt;
  }
  Way way;
  std::string prefix = "plain ";
  for (const cudnnDataType_t type : {CUDNN_DATA_FLOAT, CUDNN_DATA_BFLOAT16}) {
    const std::string fused = concat_text("fused ", bias_name(type), " ");
    if (record.rfind(fused, 0) != 0) continue;
    prefix = fused;
    way.fused = true;
    way.bias_type = type;
  }
  if (record.rfind("sums ", 0) == 0) {
    prefix = "sums ";
    way.sums = true;
  }
  if (record.rfind(prefix, 0) != 0) return std::nullopt;
  way.plan = Plan::from_json(target, record.substr(prefix.size()));
  if (!way.plan || static_cast<int64_t>(way.plan->workspace_bytes()) > workspace_cap_bytes(target, options))
    return std::nullopt;
  return way;
}

}  // namespace depthstill::cudnn
