// The engines of the simulated cuDNN, and plans made with them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kernels/simt/libraries/cudnn_graph.h"

namespace depthstill::simt {

// A way to execute a graph.
struct Engine {
  SharedGraph graph;
  int index = 0;
  std::vector<cudnnBackendNumericalNote_t> notes;
  int64_t workspace_bytes = 0;  // all of which it overwrites
  bool adds_to_sums = false;    // reductions start from what lies in memory, which cuDNN leaves open
  bool fails = false;           // failure when executed

  bool has(cudnnBackendNumericalNote_t note) const;
};

// The best engine comes first, as the heuristic of this mode ranks them; there is none where no engine supports the
// graph.
std::vector<Engine> engines_of(const SharedGraph& graph, cudnnBackendHeurMode_t mode);

struct Plan {
  Engine engine;
};
// text_of gives one line, plan_of makes the plan again for graphs that this process has seen.
std::string text_of(const Plan& plan);
std::optional<Plan> plan_of(const std::string& text);

}  // namespace depthstill::simt
