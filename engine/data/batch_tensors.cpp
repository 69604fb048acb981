#include "engine/data/batch_tensors.h"

#include <span>

#include "engine/data/batch_planes.h"
#include "engine/ops.h"
#include "engine/profile.h"
#include "kernels/preprocess.h"

namespace depthstill {
namespace {

// Makes the item's parts of one tensor of a view, the first of which is number `at`. Returns how many there are.
int64_t write_parts(const Plane& plane, const BatchItem& item, size_t view, const Tensor& batch, int64_t at) {
  const Device device = batch.device();
  SourceData from = source_in_place(item, plane.source);
  const size_t bytes = source_bytes(item, plane.source);
  std::vector<uint8_t> written;
  Tensor copied;
  if (device != Device::kCpu || from.data == nullptr) {
    written.resize(bytes);
    from = write_source(item, plane.source, written.data());
  }
  if (device != Device::kCpu) {
    copied = tensor<uint8_t>({static_cast<int64_t>(bytes)}, written, device);
    from.data = copied.raw();
  }
  char* to = static_cast<char*>(batch.raw()) + static_cast<size_t>(at) * plane.part_bytes();
  const OpRange range("preprocess", [&] {
    return Work{0, static_cast<double>(bytes) + static_cast<double>(plane.part_bytes())};
  });
  return make_parts(device, stream_of(device), plane, item, view, from, to);
}

}  // namespace

int64_t crops_of(const Batch& batch, size_t view) {
  const BatchItem& first = batch.items.at(0);
  return first.region ? 1 : static_cast<int64_t>(first.views.at(view).size());
}

ImageSize crop_size(const Batch& batch, size_t view) {
  const BatchItem& first = batch.items.at(0);
  return first.region ? ImageSize{first.region->size, first.region->size} : first.views.at(view).at(0).crop;
}

BatchViews empty_tensors(const Batch& batch, DType dtype, Device device) {
  check(!batch.items.empty(), "to_tensors: expected at least one sample");
  BatchViews views(view_count(batch));
  for (size_t v = 0; v < views.size(); ++v) {
    for (const Plane& plane : planes_of(batch, v, dtype)) {
      views[v].*plane.tensor = empty(plane.shape, plane.dtype, device);
    }
  }
  return views;
}

bool fits(const Batch& batch, std::span<const BatchTensors> views) {
  if (batch.items.empty() || views.size() != view_count(batch)) return false;
  for (size_t v = 0; v < views.size(); ++v) {
    BatchTensors wanted;
    for (const Plane& plane : planes_of(batch, v, views[v].image.dtype())) {
      const Tensor& tensor = views[v].*plane.tensor;
      if (!tensor.defined() || !(tensor.shape() == plane.shape)) return false;
      wanted.*plane.tensor = tensor;
    }
    for (const auto tensor : kBatchTensors) {
      if ((views[v].*tensor).defined() != (wanted.*tensor).defined()) return false;
    }
  }
  return true;
}

void check_crops(const Batch& batch) {
  check(!batch.items.empty(), "to_tensors: expected at least one sample");
  const BatchItem& first = batch.items[0];
  for (const BatchItem& item : batch.items) {
    const std::string& where = item.sample->where;
    check(item.region.has_value() == first.region.has_value() &&
              (!item.region || (item.region->size == first.region->size &&
                                item.region->label.patches.size() == first.region->label.patches.size())),
          where, ": expected a region of the batch's size, with as many patches");
    check(item.views.size() == first.views.size(), where, ": expected ", first.views.size(), " views, found ",
          item.views.size());
    for (size_t v = 0; v < item.views.size(); ++v) {
      const View& crops = item.views[v];
      check(!crops.empty() && crops.size() == first.views[v].size(), where, ": expected ", first.views[v].size(),
            " crops, found ", crops.size());
      const ImageSize crop = first.views[v][0].crop;
      for (const AugmentParams& params : crops) {
        check(params.crop == crop, where, ": expected a crop of ", crop.height, "x", crop.width, ", found ",
              params.crop.height, "x", params.crop.width, "; images of several sizes need a batch size of 1 or a crop");
      }
    }
  }
}

void write_tensors(const Batch& batch, std::span<const BatchTensors> views) {
  const ProfileRange range("input", "preprocess");
  check_crops(batch);
  for (size_t v = 0; v < views.size(); ++v) {
    for (const Plane& plane : planes_of(batch, v, views[v].image.dtype())) {
      if (!plane.filled) continue;
      int64_t at = 0;
      for (const BatchItem& item : batch.items) at += write_parts(plane, item, v, views[v].*plane.tensor, at);
    }
  }
}

BatchViews to_tensors(const Batch& batch, DType dtype, Device device) {
  BatchViews views = empty_tensors(batch, dtype, device);
  write_tensors(batch, views);
  return views;
}

Tensor to_tensor(const Image8& image, DType dtype, Device device) {
  const Frame frame{image.height, image.width, image.width};
  Tensor batch = empty({1, frame.height, frame.width, 3}, dtype, device);
  const Tensor pixels =  // on the CPU the image is read where it is
      device == Device::kCpu ? Tensor() : tensor<uint8_t>({frame.height, frame.width, 3}, image.rgb, device);
  const uint8_t* from = pixels.defined() ? pixels.data<uint8_t>() : image.rgb.data();
  const OpRange range("preprocess", [&] { return Work{0, static_cast<double>(image.rgb.size()) + bytes_of(batch)}; });
  visit(dtype, [&]<class T>() {
    run(device, cpu::preprocess_image<T>, cuda::preprocess_image<T>)(frame, from, PreprocessParams{}, frame.height,
                                                                     frame.width, batch);
  });
  return batch;
}

Tensor to_tensor(std::vector<float> rgb, ImageSize size, DType dtype, Device device) {
  for (size_t i = 0; i < rgb.size(); ++i) rgb[i] = (rgb[i] - kImageMean[i % 3]) / kImageStd[i % 3];
  const Tensor image = tensor<float>({1, size.height, size.width, 3}, rgb, device);
  const NoGrad no_grad;
  return dtype == DType::kFloat ? image : cast(image, dtype);
}

std::string names_of(const Batch& batch) {
  std::string names;
  for (const BatchItem& item : batch.items) {
    names += concat_text(names.empty() ? "" : ", ", item.sample->name, " (", item.sample->where, ")");
  }
  return names;
}

}  // namespace depthstill
