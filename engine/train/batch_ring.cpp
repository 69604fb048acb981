#include "engine/train/batch_ring.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/allocator.h"
#include "kernels/core/runtime.h"

namespace depthstill {
namespace {

constexpr size_t kAlignment = 256;

size_t aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

size_t pixels_of(ImageSize size) { return static_cast<size_t>(size.width) * static_cast<size_t>(size.height); }

// Parts say where a sample's decoded parts stand, counted from its first byte; `bytes` is where the next sample begins.
struct Parts {
  size_t teacher = 0, truth = 0, bytes = 0;
};

Parts parts_of(const Sample& sample, const Sample& first) {
  Parts parts;
  parts.teacher = aligned(sample.image.rgb.size_bytes());
  parts.truth = parts.teacher + (first.teacher.empty() ? 0 : aligned(pixels_of(sample.teacher.size()) * sizeof(float)));
  parts.bytes = parts.truth + (first.depth.empty() ? 0 : aligned(pixels_of(sample.depth.size()) * sizeof(float)));
  return parts;
}

Frame frame_of(ImageSize size) { return {size.height, size.width, size.width}; }

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

// Memory of the device changes hands between two streams here, which happens for the first batches only.
void BatchRing::reserve(Slot& slot, size_t batch_bytes, size_t pinned_bytes) {
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
    slot.pinned = static_cast<char*>(cuda::malloc_pinned(pinned_bytes));
    slot.pinned_bytes = pinned_bytes;
  }
}

size_t BatchRing::lay_out(const Batch& batch, Slot& slot) const {
  const Sample& first = *batch.items[0].sample;
  slot.views.clear();
  size_t at = 0;
  for (size_t v = 0; v < batch.items[0].views.size(); ++v) {
    const size_t count = batch.items.size() * static_cast<size_t>(crops_of(batch, v));
    const size_t pixels = count * pixels_of(crop_size(batch, v));
    const size_t map = aligned(pixels * sizeof(float));
    Planes planes;
    planes.image = at;
    planes.teacher = planes.image + aligned(pixels * 3 * size_of(dtype_));
    planes.truth = planes.teacher + (first.teacher.empty() ? 0 : map);
    at = planes.truth + (first.depth.empty() ? 0 : map);
    slot.views.push_back(planes);
  }
  return at;
}

void BatchRing::upload(const Batch& batch, Slot& slot) {
  check_crops(batch);
  const Sample& first = *batch.items[0].sample;
  const size_t batch_bytes = lay_out(batch, slot);
  size_t pinned_bytes = 0;
  for (const BatchItem& item : batch.items) pinned_bytes += parts_of(*item.sample, first).bytes;
  cuda::synchronize_event(slot.uploaded);
  reserve(slot, batch_bytes, pinned_bytes);
  char* to = slot.pinned;
  for (const BatchItem& item : batch.items) {
    const Sample& sample = *item.sample;
    const Parts parts = parts_of(sample, first);
    std::memcpy(to, sample.image.rgb.data(), sample.image.rgb.size_bytes());
    if (!first.teacher.empty()) sample.teacher.write_values(reinterpret_cast<float*>(to + parts.teacher));
    if (!first.depth.empty()) sample.depth.write_values(reinterpret_cast<float*>(to + parts.truth));
    to += parts.bytes;
  }
  cuda::copy(staging_.raw(), slot.pinned, pinned_bytes, cuda::Direction::kToDevice, stream());
  cuda::record_event(slot.uploaded, stream());
  cuda::wait_for_event(stream(), slot.taken);
  visit(dtype_, [&]<class T>() {
    for (size_t v = 0; v < slot.views.size(); ++v) preprocess<T>(batch, slot, v);
  });
  cuda::record_event(slot.ready, stream());
}

template <class T>
void BatchRing::preprocess(const Batch& batch, const Slot& slot, size_t view) const {
  const Sample& first = *batch.items[0].sample;
  const ImageSize crop = crop_size(batch, view);
  const size_t pixels = pixels_of(crop);
  const Planes& planes = slot.views[view];
  char* memory = static_cast<char*>(slot.memory.raw());
  const char* from = static_cast<const char*>(staging_.raw());
  size_t at = 0;  // index in the view's tensors
  for (const auto& [sample, views] : batch.items) {
    const Parts parts = parts_of(*sample, first);
    const auto metres = [&](size_t offset) { return reinterpret_cast<const float*>(from + offset); };
    for (const AugmentParams& params : views[view]) {
      const auto map = [&](size_t offset) { return reinterpret_cast<float*>(memory + offset) + at * pixels; };
      cuda::preprocess_image<T>(stream(), frame_of(sample->image.size()), reinterpret_cast<const uint8_t*>(from),
                                params.image, crop.height, crop.width,
                                reinterpret_cast<T*>(memory + planes.image) + at * pixels * 3);
      if (!first.teacher.empty()) {
        cuda::preprocess_depth(stream(), frame_of(sample->teacher.size()), metres(parts.teacher), params.teacher,
                               crop.height, crop.width, map(planes.teacher));
      }
      if (!first.depth.empty()) {
        cuda::preprocess_depth(stream(), frame_of(sample->depth.size()), metres(parts.truth), params.image, crop.height,
                               crop.width, map(planes.truth));
      }
      ++at;
    }
    from += parts.bytes;
  }
}

void BatchRing::pop(std::span<const BatchTensors> views) {
  check(!empty() && fits(front(), views), "batch ring: expected tensors that fit the next batch");
  if (device_ == Device::kCpu) {
    write_tensors(front(), views);
  } else {
    const Slot& slot = slots_[first_];
    const char* memory = static_cast<const char*>(slot.memory.raw());
    const auto take = [&](const Tensor& to, size_t offset) {
      if (to.defined()) copy_bytes(to.raw(), device_, memory + offset, device_, to.bytes());
    };
    cuda::wait_for_event(stream_of(device_), slot.ready);
    for (size_t v = 0; v < views.size(); ++v) {
      take(views[v].image, slot.views[v].image);
      take(views[v].teacher, slot.views[v].teacher);
      take(views[v].truth, slot.views[v].truth);
    }
    cuda::record_event(slot.taken, stream_of(device_));
  }
  waiting_.pop_front();
  first_ = (first_ + 1) % slots_.size();
}

}  // namespace depthstill
