#include "kernels/conv2d/cudnn/conv2d_ways.h"

#include <utility>

#include "kernels/core/error.h"

namespace depthstill::cudnn {
namespace {

using cublaslt::Matmul, cublaslt::MatmulShape;

// Records hold these before the rank.
const char* const kMatmul = "matmul ";
const char* const kMatmulFused = "matmul with epilogue ";

// So many plans are taken of those that are compiled when they are made, each in half a second to a second, and in
// three where a data gradient goes on below: more would keep a first training step waiting for minutes.
constexpr int kRuntimeCompiledPlans = 1;
constexpr int64_t kChainBytes = 16 << 20;  // memory traffic saved: 5 us on an H100

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
  WayList(const Target& target, const LibraryOptions& options, bool only_first)
      : target_(target), options_(options), only_first_(only_first) {}

  bool done() const { return only_first_ && !ways.empty(); }

  // `kind` says what the graph includes.
  void add_plans(const Graph& graph, int limit, bool fallback_engines, const Way& kind) {
    if (done()) return;
    PlanOffer offer = find_plans(
        target_, graph, {.options = &options_, .limit = only_first_ ? 1 : limit, .fallback_engines = fallback_engines});
    if (offer.plans.empty()) refusal = offer.refusal;
    for (Plan& plan : offer.plans) {
      Way& way = ways.emplace_back();
      way.plan = std::move(plan);
      way.fused = kind.fused;
      way.sums = kind.sums;
      way.bias_type = kind.bias_type;
    }
  }

  std::vector<Way> ways;
  std::string refusal;

 private:
  const Target& target_;
  const LibraryOptions& options_;
  bool only_first_;
};

}  // namespace

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
          options.workspace_cap_bytes,
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
                     options.deterministic ? " deterministic" : "", options.strict_fp32 ? " strict" : "", " workspace ",
                     options.workspace_cap_bytes);
}

std::vector<Way> ways_of(const Target& target, const Problem& problem, const LibraryOptions& options, bool only_first) {
  constexpr int kPlans = 10, kMatmuls = 3;
  const Conv2dShape& s = problem.shape;
  WayList list(target, options, only_first);
  const bool fusable = problem.pass == Pass::kForward && problem.has_epilogue();
  const Way all{.fused = true}, sums{.sums = true};
  const auto add_fused = [&](cudnnDataType_t bias_type, int limit) {
    const Epilogue epilogue{.bias = problem.bias, .bias_type = bias_type, .activation = problem.activation};
    list.add_plans(conv2d_epilogue_graph(s, problem.type, epilogue), limit, false,
                   {.fused = true, .bias_type = bias_type});
  };
  if (fusable) add_fused(problem.type, kPlans);
  list.add_plans(conv2d_graph(s, problem.type, problem.pass), kPlans, true, {});
  if (fusable && problem.bias && problem.type != CUDNN_DATA_FLOAT) add_fused(CUDNN_DATA_FLOAT, kRuntimeCompiledPlans);
  if (fuses_below(problem)) {
    list.add_plans(conv2d_gradient_below_graph(s, problem.type, problem.activation, problem.bias),
                   kRuntimeCompiledPlans, false, all);
  }
  for (const ChainLink& link : chain_fusions(problem)) {
    const bool everything = link.norm == problem.norm;
    list.add_plans(conv2d_chain_graph(s, problem.type, link), kRuntimeCompiledPlans, false, everything ? all : sums);
  }
  if (is_matrix_product(s) && target.handle != nullptr) {
    for (const bool fused : {true, false}) {
      for (int rank = 0; rank < kMatmuls && !list.done(); ++rank) {
        std::optional<Way> way = matmul_way(problem, options, fused, rank);
        if (!way) break;
        list.ways.push_back(std::move(*way));
      }
    }
  }
  check(!list.ways.empty(), "cudnn: no execution plan supports ", describe(problem, options), ": ", list.refusal,
        "; CUDNN_LOGLEVEL_DBG=2 says more");
  return std::move(list.ways);
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
  if (!way.plan || static_cast<int64_t>(way.plan->workspace_bytes()) > options.workspace_cap_bytes) return std::nullopt;
  return way;
}

}  // namespace depthstill::cudnn
