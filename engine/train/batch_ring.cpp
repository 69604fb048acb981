#include "engine/train/batch_ring.h"

#include <algorithm>
#include <set>
#include <utility>

#include "engine/allocator.h"
#include "kernels/core/runtime.h"

namespace depthstill {
namespace {

constexpr size_t kAlignment = 256;

size_t aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

BatchRing::BatchRing(DType dtype, Device device, int slots) : dtype_(dtype), device_(device) {
  check(slots >= 1, "batch ring: expected at least one slot, got ", slots);
  slots_.resize(device == Device::kCpu ? 1 : static_cast<size_t>(slots));
  if (device == Device::kCpu) return;
  stream_ = cuda::create_stream();
  for (Slot& slot : slots_) {
    for (void** event : {&slot.uploaded, &slot.ready, &slot.taken}) *event = cuda::create_event();
  }
}

BatchRing::~BatchRing() {
  if (device_ == Device::kCpu) return;
  try {
    cuda::synchronize(stream());
    synchronize(device_);
  } catch (const Error&) {  // the device has failed, and somebody has been told
  }
  for (const Slot& slot : slots_) {
    cuda::free_pinned(slot.pinned);
    for (void* event : {slot.uploaded, slot.ready, slot.taken}) cuda::destroy_event(event);
  }
  cuda::destroy_stream(stream_);
}

void BatchRing::push(Batch batch) {
  check(!full(), "batch ring: expected a free slot, found ", waiting_.size(), " batches");
  if (device_ == Device::kCuda) upload(batch, slots_[(first_ + waiting_.size()) % slots_.size()]);
  waiting_.push_back(std::move(batch));
}

// Memory of the device changes hands between two streams here, which happens for the first batches, and when regions
// are drawn that are larger than all before: then it grows by half at least.
void BatchRing::reserve(Slot& slot, size_t batch_bytes, size_t pinned_bytes) {
  if (staging_.defined() && staging_.bytes() < pinned_bytes) {
    pinned_bytes = std::max(pinned_bytes, staging_.bytes() + staging_.bytes() / 2);
  }
  const bool memory = !slot.memory.defined() || slot.memory.bytes() < batch_bytes;
  const bool staging = !staging_.defined() || staging_.bytes() < pinned_bytes;
  if (memory || staging) {
    cuda::synchronize(stream());
    synchronize(device_);
  }
  if (memory) slot.memory = Tensor();
  if (staging) staging_ = Tensor();
  if (memory) slot.memory = depthstill::empty({static_cast<int64_t>(batch_bytes)}, DType::kUint8, device_);
  if (staging) staging_ = depthstill::empty({static_cast<int64_t>(pinned_bytes)}, DType::kUint8, device_);
  if (slot.pinned_bytes < pinned_bytes) {
    cuda::free_pinned(std::exchange(slot.pinned, nullptr));
    slot.pinned = static_cast<char*>(cuda::malloc_pinned(staging_.bytes()));
    slot.pinned_bytes = staging_.bytes();
  }
}

void BatchRing::lay_out(const Batch& batch, Slot& slot) const {
  slot.planes.clear();
  slot.sources.clear();
  slot.bytes = slot.source_bytes = slot.spare_bytes = 0;
  std::set<BatchSource> wanted;
  for (size_t v = 0; v < view_count(batch); ++v) {
    for (const Plane& plane : planes_of(batch, v, dtype_)) {
      const size_t at = std::exchange(slot.bytes, slot.bytes + aligned(plane.bytes()));
      if (plane.filled) {
        slot.planes.push_back({plane, v, at});
        wanted.insert(plane.source);
      } else if (plane.source != BatchSource::kImage) {  // room for the next batch whose labels are stored
        slot.spare_bytes += batch.items.size() * kAlignment + plane.bytes();
      }
    }
  }
  for (const BatchSource source : wanted) {
    for (size_t i = 0; i < batch.items.size(); ++i) {
      slot.sources[{source, i}] = slot.source_bytes;
      slot.source_bytes += aligned(source_bytes(batch.items[i], source));
    }
  }
}

void BatchRing::upload(const Batch& batch, Slot& slot) {
  check_crops(batch);
  lay_out(batch, slot);
  cuda::synchronize_event(slot.uploaded);
  reserve(slot, slot.bytes, slot.source_bytes + slot.spare_bytes);
  std::map<std::pair<BatchSource, size_t>, SourceData> sources;  // on the device
  for (const auto& [key, offset] : slot.sources) {
    SourceData& source = sources[key];
    source = write_source(batch.items[key.second], key.first, slot.pinned + offset);
    source.data = static_cast<const char*>(staging_.raw()) + offset;
  }
  cuda::copy(staging_.raw(), slot.pinned, slot.source_bytes, cuda::Direction::kToDevice, stream());
  cuda::record_event(slot.uploaded, stream());
  cuda::wait_for_event(stream(), slot.taken);
  for (const PlacedPlane& placed : slot.planes) {
    char* to = static_cast<char*>(slot.memory.raw()) + placed.offset;
    for (size_t i = 0; i < batch.items.size(); ++i) {
      const SourceData& from = sources.at({placed.plane.source, i});
      const int64_t parts = make_parts(device_, stream(), placed.plane, batch.items[i], placed.view, from, to);
      to += static_cast<size_t>(parts) * placed.plane.part_bytes();
    }
  }
  cuda::record_event(slot.ready, stream());
}

Batch BatchRing::pop(std::span<const BatchTensors> views) {
  check(!empty() && fits(front(), views), "batch ring: expected tensors that fit the next batch");
  if (device_ == Device::kCpu) {
    write_tensors(front(), views);
  } else {
    const Slot& slot = slots_[first_];
    const char* memory = static_cast<const char*>(slot.memory.raw());
    cuda::wait_for_event(stream_of(device_), slot.ready);
    for (const PlacedPlane& placed : slot.planes) {
      const Tensor& to = views[placed.view].*placed.plane.tensor;
      copy_bytes(to.raw(), device_, memory + placed.offset, device_, to.bytes());
    }
    cuda::record_event(slot.taken, stream_of(device_));
  }
  Batch popped = std::move(waiting_.front());
  waiting_.pop_front();
  first_ = (first_ + 1) % slots_.size();
  return popped;
}

}  // namespace depthstill
