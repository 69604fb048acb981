// Predictions that any system has stored, one map per image of a list.
#pragma once

#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/eval/evaluate.h"
#include "engine/io/map_file.h"

namespace depthstill {

enum class PredictionNames : uint8_t {
  kFlat,      // the image's path with '/' as '_': a_b_0.npy for a/b/0.png
  kMarigold,  // a/b/pred_0.npy for a/b/0.png, and for NYU's a/b/rgb_0.png
  kImage,     // a/b/0.npy for a/b/0.png
};

class StoredPredictions {
 public:
  // `place`: their folder, or one file, a stack of maps in the order of the list (stack_size()): of all lines, or of
  // those with truth. `quantity`: what the maps hold, which a file that says otherwise of itself contradicts; nothing:
  // what it says, else what the protocol's alignment fits. units: of integers (PNG) per unit of depth or inverse depth;
  // 0: not stated, which only a PNG that says it itself can do without.
  StoredPredictions(std::string place, PredictionNames names, std::optional<Quantity> quantity, double units,
                    const Protocol& protocol);

  // The first of .npy, .png and .pfm that exists, else .npy.
  std::string path(const EvalItem& item) const;
  // Throws Error that names the first item with truth whose prediction is missing, or is that of another image, too;
  // for a stack, if it has another number of maps.
  void check_exist(const std::vector<EvalItem>& items);
  // Of an item that was checked. NaN and infinity are kept.
  MapReader open(const EvalItem& item) const;

 private:
  void check_stack(const std::vector<EvalItem>& items);

  std::string place_;
  std::unordered_map<std::string, int64_t> in_stack_;  // the map of each item, by EvalItem::where
  PredictionNames names_;
  std::optional<Quantity> quantity_;
  MapFormat format_;
};

}  // namespace depthstill
