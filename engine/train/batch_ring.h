// Brings batches onto the device ahead of the steps that read them. Decoded pixels go through page-locked memory; a
// stream of its own copies them to the device and crops, turns and normalises them there, while the device works on an
// earlier step. On the CPU a batch is only kept until it is asked for.
#pragma once

#include <cstddef>
#include <deque>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "engine/data/batch_planes.h"
#include "engine/data/batch_tensors.h"
#include "engine/data/loader.h"

namespace depthstill {

class BatchRing {
 public:
  // Images come out as `dtype`. slots: batches on their way at most (one on the CPU).
  BatchRing(DType dtype, Device device, int slots = 3);
  ~BatchRing();  // waits for the device
  BatchRing(const BatchRing&) = delete;
  BatchRing& operator=(const BatchRing&) = delete;

  bool empty() const { return waiting_.empty(); }
  bool full() const { return waiting_.size() == slots_.size(); }

  // Begins to bring `batch` onto the device.
  void push(Batch batch);
  // The batch that was pushed first.
  const Batch& front() const { return waiting_.front(); }
  // Writes it to `views`, which it fits(), before whatever the device is given from now on, and lets go of it.
  Batch pop(std::span<const BatchTensors> views);

 private:
  struct PlacedPlane {
    Plane plane;
    size_t view, offset;  // offset in a slot's memory, in bytes
  };
  struct Slot {
    char* pinned = nullptr;  // the decoded samples
    size_t pinned_bytes = 0;
    Tensor memory;  // the batch, kUint8
    std::vector<PlacedPlane> planes;
    std::map<std::pair<BatchSource, size_t>, size_t> sources;  // offsets in `pinned`, by source and item
    size_t bytes = 0, source_bytes = 0;                        // of the batch, and of its sources
    size_t spare_bytes = 0;                                    // of sources that another batch may have
    void* uploaded = nullptr;                                  // event: `pinned` may be written again
    void* ready = nullptr;                                     // event: `memory` holds the batch
    void* taken = nullptr;                                     // event: `memory` may be written again
  };

  void upload(const Batch& batch, Slot& slot);
  void lay_out(const Batch& batch, Slot& slot) const;
  void reserve(Slot& slot, size_t batch_bytes, size_t pinned_bytes);
  Stream stream() const { return {stream_, nullptr}; }

  DType dtype_;
  Device device_;
  void* stream_ = nullptr;
  Tensor staging_;  // decoded samples on the device: of one batch at a time, as `stream_` does one after the other
  std::vector<Slot> slots_;
  std::deque<Batch> waiting_;  // batches in slots first_, first_ + 1, ...
  size_t first_ = 0;
};

}  // namespace depthstill
