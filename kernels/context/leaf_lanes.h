// Contexts of kLanes pixels side by side, for the CPU's loops over maps. A context's values are picked by comparing,
// since a gather takes longer than the few contexts of a level.
#pragma once

#include "kernels/context/contexts.h"
#include "kernels/core/lanes.h"

namespace depthstill::cpu {

template <class Tree>
struct LeafLanes {
  LaneInts leaf;

  // The pixels' contexts of a level, counted from its first: none of its contexts where there is no leaf.
  LaneInts of_level(int level) const { return level == 0 ? leaf : leaf >> Tree::kFanBits; }
  // Mask of the pixels in context u, which is one of `level`.
  LaneInts in(int u, int level) const {
    return level == kContextLevels - 1 ? leaf < Tree::kLeaves : of_level(level) == u - Tree::first(level);
  }
  // by_context[u] (kContexts) of the pixels' contexts of a level; any one where a pixel has none.
  Lanes pick(const float* by_context, int level) const {
    Lanes picked = lanes_of(by_context[Tree::first(level)]);
    for (int u = Tree::first(level) + 1; u < Tree::end(level); ++u) {
      picked = in(u, level) ? lanes_of(by_context[u]) : picked;
    }
    return picked;
  }
};

}  // namespace depthstill::cpu
