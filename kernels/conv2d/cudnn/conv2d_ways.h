// The ways in which the libraries can compute one pass of a convolution: cuDNN's plans, with or without the epilogue
// fused, and for a convolution of 1 x 1 a matrix product of cuBLASLt.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kernels/conv2d/cudnn/conv2d_graphs.h"
#include "kernels/cublaslt/matmul.h"
#include "kernels/cudnn/plan.h"

namespace depthstill::cudnn {

struct Problem {
  Conv2dShape shape;
  cudnnDataType_t type = CUDNN_DATA_FLOAT;
  Pass pass = Pass::kForward;
  Activation activation = Activation::kNone;  // forward: of y. Data gradient: the one below, whose output x is
  bool bias = false;     // forward: added to y. Weight gradient: dbias is wanted as well. Data gradient: dbias_below is
  bool norm = false;     // forward in a chain: x is normalised first, and `activation` belongs to that
  bool moments = false;  // forward in a chain: those of y are wanted

  bool in_chain() const { return norm || moments; }
  bool has_epilogue() const { return !in_chain() && (bias || activation != Activation::kNone); }
};

// Returns whether this is how a linear layer comes (kernels/linear.h): its products are first of all cuBLASLt's.
bool is_linear_layer(const Conv2dShape& shape);

// Returns whether cuDNN is asked for a data gradient that includes what lies below.
bool fuses_below(const Problem& problem);

// In a chain cuDNN is asked for these fusions besides the convolution, most first. There are none for small maps, where
// the microseconds that they save in a step are not worth the seconds that it takes to compile the plans, and there is
// no norm where there is padding: zeros of z, which are none of x.
std::vector<ChainLink> chain_fusions(const Problem& problem);

// All that the choice among the ways depends on, besides the device and the libraries' versions.
using ProblemKey = std::array<int64_t, 24>;
ProblemKey key_of(const Problem& problem, const LibraryOptions& options);
std::string describe(const Problem& problem, const LibraryOptions& options);  // the same as one line

struct Way {
  std::optional<Plan> plan = std::nullopt;  // plan of one of the graphs in conv2d_graphs.h, or
  std::optional<cublaslt::Matmul> matmul = std::nullopt;
  int matmul_rank = 0;                           // place in cuBLASLt's list
  bool fused = false;                            // all that the problem asks for besides the product is included
  bool sums = false;                             // only the sums for the moments are included
  cudnnDataType_t bias_type = CUDNN_DATA_FLOAT;  // type that a fused plan expects

  size_t workspace_bytes() const { return matmul ? matmul->workspace_bytes() : plan->workspace_bytes(); }
};

// The best guess comes first; with `only_first`, that one alone. Engines that add up in less than fp32 are among them
// only where there is nothing else, which a message says. Throws Error if nothing supports the problem within the
// options.
std::vector<Way> ways_of(const Target& target, const Problem& problem, const LibraryOptions& options, bool only_first);

// A way in a few words, such as "fused fp32, engine 65, workspace 2.3 MB".
std::string words_of(const Way& way);

// record_of gives one line for the cache, from which rebuild makes the way again; it gives nothing where a text is of
// something else or not accepted any more.
std::string record_of(const Way& way);
std::optional<Way> rebuild(const Target& target, const Problem& problem, const LibraryOptions& options,
                           const std::string& record);

}  // namespace depthstill::cudnn
