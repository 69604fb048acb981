#include "engine/train/batch_ring.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/allocator.h"
#include "kernels/runtime.h"

namespace depthstill {
namespace {

constexpr size_t kAlignment = 256;

size_t aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

size_t pixels_of(ImageSize size) { return static_cast<size_t>(size.width) * static_cast<size_t>(size.height); }

// Where a sample's decoded parts stand, counted from its first byte; `bytes` is where the next sample begins.
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
void BatchRing::reserve(Slot& slot, size_t pinned_bytes) {
  const bool memory = !slot.memory.defined() || slot.memory.bytes() < slot.layout.bytes;
  const bool staging = !staging_.defined() || staging_.bytes() < pinned_bytes;
  if (memory || staging) {
    cuda::synchronize(stream());
    synchronize(device_);
  }
  if (memory) slot.memory = Tensor();
  if (staging) staging_ = Tensor();
  if (memory) slot.memory = depthstill::empty({static_cast<int64_t>(slot.layout.bytes)}, DType::kUint8, device_);
  if (staging) staging_ = depthstill::empty({static_cast<int64_t>(pinned_bytes)}, DType::kUint8, device_);
  if (slot.pinned_bytes < pinned_bytes) {
    cuda::free_pinned(std::exchange(slot.pinned, nullptr));
    slot.pinned = static_cast<char*>(cuda::malloc_pinned(pinned_bytes));
    slot.pinned_bytes = pinned_bytes;
  }
}

void BatchRing::upload(const Batch& batch, Slot& slot) {
  check_crops(batch);
  const Sample& first = *batch.items[0].sample;
  const size_t count = batch.items.size(), crop_pixels = pixels_of(batch.items[0].params.crop);
  Layout& layout = slot.layout;
  layout.image_bytes = count * crop_pixels * 3 * size_of(dtype_);
  layout.map_bytes = count * crop_pixels * sizeof(float);
  layout.teacher = aligned(layout.image_bytes);
  layout.truth = layout.teacher + (first.teacher.empty() ? 0 : aligned(layout.map_bytes));
  layout.bytes = layout.truth + (first.depth.empty() ? 0 : aligned(layout.map_bytes));

  size_t pinned_bytes = 0;
  for (const BatchItem& item : batch.items) pinned_bytes += parts_of(*item.sample, first).bytes;
  cuda::synchronize_event(slot.uploaded);
  reserve(slot, pinned_bytes);
  char* to = slot.pinned;
  for (const BatchItem& item : batch.items) {
    const Sample& sample = *item.sample;
    const Parts parts = parts_of(sample, first);
    std::memcpy(to, sample.image.rgb.data(), sample.image.rgb.size_bytes());
    if (!first.teacher.empty()) sample.teacher.write_metres(reinterpret_cast<float*>(to + parts.teacher));
    if (!first.depth.empty()) sample.depth.write_metres(reinterpret_cast<float*>(to + parts.truth));
    to += parts.bytes;
  }
  cuda::copy(staging_.raw(), slot.pinned, pinned_bytes, cuda::Direction::kToDevice, stream());
  cuda::record_event(slot.uploaded, stream());
  cuda::wait_for_event(stream(), slot.taken);
  visit(dtype_, [&]<class T>() { preprocess<T>(batch, slot); });
  cuda::record_event(slot.ready, stream());
}

template <class T>
void BatchRing::preprocess(const Batch& batch, const Slot& slot) const {
  const Sample& first = *batch.items[0].sample;
  const ImageSize crop = batch.items[0].params.crop;
  const size_t pixels = pixels_of(crop);
  char* memory = static_cast<char*>(slot.memory.raw());
  const char* from = static_cast<const char*>(staging_.raw());
  for (size_t i = 0; i < batch.items.size(); ++i) {
    const auto& [sample, params] = batch.items[i];
    const Parts parts = parts_of(*sample, first);
    const auto map = [&](size_t offset) { return reinterpret_cast<float*>(memory + offset) + i * pixels; };
    const auto metres = [&](size_t offset) { return reinterpret_cast<const float*>(from + offset); };
    cuda::preprocess_image<T>(stream(), frame_of(sample->image.size()), reinterpret_cast<const uint8_t*>(from),
                              params.image, crop.height, crop.width, reinterpret_cast<T*>(memory) + i * pixels * 3);
    if (!first.teacher.empty()) {
      cuda::preprocess_depth(stream(), frame_of(sample->teacher.size()), metres(parts.teacher), params.teacher,
                             crop.height, crop.width, map(slot.layout.teacher));
    }
    if (!first.depth.empty()) {
      cuda::preprocess_depth(stream(), frame_of(sample->depth.size()), metres(parts.truth), params.image, crop.height,
                             crop.width, map(slot.layout.truth));
    }
    from += parts.bytes;
  }
}

void BatchRing::pop(const BatchTensors& tensors) {
  check(!empty() && fits(front(), tensors), "batch ring: expected tensors that fit the next batch");
  if (device_ == Device::kCpu) {
    write_tensors(front(), tensors);
  } else {
    const Slot& slot = slots_[first_];
    const char* memory = static_cast<const char*>(slot.memory.raw());
    const auto take = [&](const Tensor& to, size_t offset) {
      if (to.defined()) copy_bytes(to.raw(), device_, memory + offset, device_, to.bytes());
    };
    cuda::wait_for_event(stream_of(device_), slot.ready);
    take(tensors.image, slot.layout.image);
    take(tensors.teacher, slot.layout.teacher);
    take(tensors.truth, slot.layout.truth);
    cuda::record_event(slot.taken, stream_of(device_));
  }
  waiting_.pop_front();
  first_ = (first_ + 1) % slots_.size();
}

}  // namespace depthstill
