// Teachers that run beside the student: frozen networks that write what they say of a batch's regions, and of patches
// of them at their own size, over the labels that a step's losses read (He et al. 2025, Sec. 3.2 and 4.1).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/ops_loss.h"
#include "engine/train/objective.h"
#include "models/depth_model.h"

namespace depthstill {

// Runs `network` over the N images (N, ...), at most `most` at a time, and writes its results (n, ...) over those of
// `to` (N, ...). Outside of the tape.
void run_in_parts(const Tensor& images, int64_t most, const std::function<Tensor(const Tensor&)>& network,
                  const Tensor& to);

// Bytes of a network's weights and statistics.
size_t state_bytes(const Module& network);
// The most bytes that run() takes on the device beside what is in use; counts its peak anew. Outside of the tape.
size_t bytes_taken(Device device, const std::function<void()>& run);

class OnlineTeachers {
 public:
  // networks: one for each teacher of a run, in eval mode and on the device; null where its labels are stored. most:
  // images that one sees at a time, at least 1.
  OnlineTeachers(std::vector<std::shared_ptr<const DepthModel>> networks, int64_t most);

  // Runs each network once on as many images as a pass has at most, so that what it takes is there before the first
  // step. Returns a line of each for a log. Throws OutOfMemory that says which one it was.
  std::string prepare(const BatchTensors& batch);

  // Where this teacher is online, assigns the maps `teacher` and `patches` of the batch: inverse depth, NaN where
  // nothing is known, throughout where a map teaches nothing (screen_labels). Regions are resized from the network's
  // side to the student's.
  void label(const BatchTensors& batch, int64_t teacher);

  // Both wait for the device: all labels so far, and the fault of each image of the last batch.
  LabelTally tally() const;
  std::vector<LabelFault> faults() const;

  LabelMemory memory() const { return memory_; }

 private:
  // What a network says of images (n, P, P, 3): inverse depth (n, P, P).
  Tensor maps_of(const DepthModel& network, const Tensor& images) const;

  std::vector<std::shared_ptr<const DepthModel>> networks_;
  int64_t most_;
  Tensor tally_, faults_;
  LabelMemory memory_;
};

}  // namespace depthstill
