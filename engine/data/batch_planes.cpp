#include "engine/data/batch_planes.h"

#include <cstring>

#include "kernels/core/runtime.h"
#include "kernels/preprocess_region.h"

namespace depthstill {
namespace {

Frame whole(ImageSize size) { return {size.height, size.width, size.width}; }

const SampleDepth& depth_of(const BatchItem& item, BatchSource source) {
  return source == BatchSource::kTeacher ? item.sample->teacher : item.sample->depth;
}

static_assert(sizeof(float) == sizeof(int32_t));
size_t pixel_bytes(BatchSource source) { return source == BatchSource::kImage ? 3 : sizeof(float); }

int patch_count(const BatchItem& item) {
  return item.region ? static_cast<int>(item.region->region.patches.size()) : 0;
}

SourceData label_in_place(const BatchItem& item, BatchSource source) {
  const LabelledRegion& drawn = *item.region;
  const int count = patch_count(item);
  switch (source) {
    case BatchSource::kPatches: {
      return {drawn.label.patches.data(), {int64_t{count} * drawn.patch, drawn.patch, drawn.patch}};
    }
    case BatchSource::kWindows:
      return {drawn.windows.data(), {count, 4, 4}};
    default:
      return {drawn.label.region.data(), whole({drawn.size, drawn.size})};
  }
}

template <class T>
void make_image(Device device, Stream stream, const Frame& frame, const uint8_t* from, const AugmentParams& crop,
                void* to) {
  auto* make = device == Device::kCpu ? cpu::preprocess_image<T> : cuda::preprocess_image<T>;
  make(stream, frame, from, crop.image, crop.crop.height, crop.crop.width, static_cast<T*>(to));
}

// Images of a region whose pixels source_in_place() has cut: it, or its patches side by side.
int64_t make_windows(Device device, Stream stream, const Plane& plane, const LabelledRegion& drawn,
                     const SourceData& from, void* to) {
  Region region = drawn.region;
  region.top = region.left = 0;
  const int size = static_cast<int>(plane.shape[1]);
  const auto write = [&](const RegionParams& params, size_t part) {
    write_window(device, stream, from.frame, static_cast<const uint8_t*>(from.data), params, size, plane.dtype,
                 static_cast<char*>(to) + part * plane.part_bytes());
  };
  if (plane.tensor != &BatchTensors::patch_images) {
    write(region_params(region, size), 0);
    return 1;
  }
  for (size_t k = 0; k < region.patches.size(); ++k) write(patch_params(region, region.patches[k]), k);
  return std::ssize(region.patches);
}

// Planes of regions, of `count` items. Maps are labels; an online teacher makes them from the images behind them.
std::vector<Plane> region_planes(const BatchItem& first, int64_t count, DType dtype) {
  const LabelledRegion& drawn = *first.region;
  const int64_t S = drawn.size, P = drawn.patch, patches = count * patch_count(first);
  std::vector<Plane> planes = {
      {&BatchTensors::image, BatchSource::kImage, {count, S, S, 3}, dtype},
      {&BatchTensors::teacher, BatchSource::kTeacher, {count, S, S}, DType::kFloat, !drawn.online}};
  if (patches > 0) {
    planes.push_back({&BatchTensors::patches, BatchSource::kPatches, {patches, P, P}, DType::kFloat, !drawn.online});
    planes.push_back({&BatchTensors::windows, BatchSource::kWindows, {patches, 4}, DType::kInt32});
  }
  if (drawn.shown && P != S) {
    planes.push_back({&BatchTensors::region, BatchSource::kImage, {count, P, P, 3}, dtype, drawn.online});
  }
  if (drawn.shown && patches > 0) {
    planes.push_back({&BatchTensors::patch_images, BatchSource::kImage, {patches, P, P, 3}, dtype, drawn.online});
  }
  return planes;
}

}  // namespace

SourceData source_in_place(const BatchItem& item, BatchSource source) {
  const Sample& sample = *item.sample;
  if (source == BatchSource::kImage) {
    Frame frame = whole(sample.image.size());
    const uint8_t* from = sample.image.rgb.data();
    if (item.region) {
      const Region& region = item.region->region;
      from += 3 * (region.top * frame.row_stride + region.left);
      frame.height = frame.width = region.side;
    }
    return {from, frame};
  }
  if (item.region) return label_in_place(item, source);
  const SampleDepth& depth = depth_of(item, source);
  return {depth.units.empty() ? depth.values.data() : nullptr, whole(depth.size())};
}

size_t source_bytes(const BatchItem& item, BatchSource source) {
  const Frame frame = source_in_place(item, source).frame;
  return pixel_bytes(source) * static_cast<size_t>(frame.height) * static_cast<size_t>(frame.width);
}

SourceData write_source(const BatchItem& item, BatchSource source, void* to) {
  const auto [from, frame] = source_in_place(item, source);
  if (from == nullptr) {
    depth_of(item, source).write_values(static_cast<float*>(to));
  } else {
    const size_t row_bytes = pixel_bytes(source) * static_cast<size_t>(frame.width);
    const size_t stride_bytes = pixel_bytes(source) * static_cast<size_t>(frame.row_stride);
    for (size_t row = 0; row < static_cast<size_t>(frame.height); ++row) {
      std::memcpy(static_cast<char*>(to) + row * row_bytes, static_cast<const char*>(from) + row * stride_bytes,
                  row_bytes);
    }
  }
  return {to, {frame.height, frame.width, frame.width}};
}

size_t view_count(const Batch& batch) {
  const BatchItem& first = batch.items.at(0);
  return first.region ? 1 : first.views.size();
}

std::vector<Plane> planes_of(const Batch& batch, size_t view, DType dtype) {
  const BatchItem& first = batch.items.at(0);
  if (first.region) return region_planes(first, std::ssize(batch.items), dtype);
  const ImageSize size = crop_size(batch, view);
  const int64_t count = static_cast<int64_t>(batch.items.size()) * crops_of(batch, view);
  const Shape map{count, size.height, size.width};
  std::vector<Plane> planes = {{&BatchTensors::image, BatchSource::kImage, {count, size.height, size.width, 3}, dtype}};
  if (!first.sample->teacher.empty()) {
    planes.push_back({&BatchTensors::teacher, BatchSource::kTeacher, map, DType::kFloat});
  }
  if (!first.sample->depth.empty()) {
    planes.push_back({&BatchTensors::truth, BatchSource::kTruth, map, DType::kFloat});
  }
  return planes;
}

int64_t make_parts(Device device, Stream stream, const Plane& plane, const BatchItem& item, size_t view,
                   const SourceData& from, void* to) {
  const auto* pixels = static_cast<const uint8_t*>(from.data);
  const bool image = plane.source == BatchSource::kImage;
  if (item.region) {
    if (image) return make_windows(device, stream, plane, *item.region, from, to);
    const bool several = plane.source == BatchSource::kPatches || plane.source == BatchSource::kWindows;
    const int parts = several ? patch_count(item) : 1;
    const size_t bytes = static_cast<size_t>(parts) * plane.part_bytes();
    if (device == Device::kCpu) {
      std::memcpy(to, from.data, bytes);
    } else {
      cuda::copy(to, from.data, bytes, cuda::Direction::kOnDevice, stream);
    }
    return parts;
  }
  char* part = static_cast<char*>(to);
  for (const AugmentParams& crop : item.views[view]) {
    if (image) {
      visit(plane.dtype, [&]<class T>() { make_image<T>(device, stream, from.frame, pixels, crop, part); });
    } else {
      auto* make = device == Device::kCpu ? cpu::preprocess_depth : cuda::preprocess_depth;
      make(stream, from.frame, static_cast<const float*>(from.data),
           plane.source == BatchSource::kTeacher ? crop.teacher : crop.image, crop.crop.height, crop.crop.width,
           reinterpret_cast<float*>(part));
    }
    part += plane.part_bytes();
  }
  return static_cast<int64_t>(item.views[view].size());
}

}  // namespace depthstill
