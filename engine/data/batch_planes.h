// The tensors of a batch as a list: what of each sample is brought to the device, and what is made of it there. Those
// that fill tensors directly (batch_tensors.h) and those that do it ahead (train/batch_ring.h) go by the same list.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/data/batch_tensors.h"
#include "kernels/core/stream.h"
#include "kernels/preprocess.h"

namespace depthstill {

// What an item brings: pixels of its image (3 bytes each), or the numbers of a map (fp32). Of an item with a region it
// is the region alone, and there may be maps of patches of it and their windows (int32).
enum class BatchSource : uint8_t { kImage, kTeacher, kTruth, kPatches, kWindows };

struct SourceData {
  const void* data = nullptr;
  Frame frame;
};
// The source where it lies in the sample; data is null where the sample has it in another form only.
SourceData source_in_place(const BatchItem& item, BatchSource source);
// The source written row by row to where there is room for source_bytes().
size_t source_bytes(const BatchItem& item, BatchSource source);
SourceData write_source(const BatchItem& item, BatchSource source, void* to);

// A Plane is one tensor of a view.
struct Plane {
  Tensor BatchTensors::*tensor = nullptr;
  BatchSource source = BatchSource::kImage;
  Shape shape;
  DType dtype = DType::kFloat;
  bool filled = true;  // false: this batch leaves the tensor as it is, because its labels come from elsewhere

  size_t bytes() const { return static_cast<size_t>(shape.numel()) * size_of(dtype); }
  size_t part_bytes() const { return bytes() / static_cast<size_t>(shape[0]); }  // of one crop
};

size_t view_count(const Batch& batch);
// Images come out as `dtype`.
std::vector<Plane> planes_of(const Batch& batch, size_t view, DType dtype);

// Makes the item's parts of a plane, as many as it has crops, side by side from `to` on. Both lie on `device`. Returns
// how many there are.
int64_t make_parts(Device device, Stream stream, const Plane& plane, const BatchItem& item, size_t view,
                   const SourceData& from, void* to);

}  // namespace depthstill
