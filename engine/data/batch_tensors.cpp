#include "engine/data/batch_tensors.h"

#include <span>

#include "engine/ops.h"
#include "engine/profile.h"
#include "kernels/preprocess.h"

namespace depthstill {
namespace {

// The `index`-th sample's part of a batch tensor.
template <class T>
T* slot(const Tensor& batch, size_t index) {
  return batch.data<T>() + static_cast<int64_t>(index) * (batch.numel() / batch.size(0));
}

// Pixels of `pixel_bytes` in, one sample of the batch out.
Work preprocess_work(double pixel_bytes, const Frame& frame, const Tensor& batch) {
  return {0, pixel_bytes * static_cast<double>(frame.height) * static_cast<double>(frame.width) +
                 bytes_of(batch) / static_cast<double>(batch.size(0))};
}

void write_image(ImageSize size, std::span<const uint8_t> rgb, const PreprocessParams& params, const Tensor& batch,
                 size_t index) {
  const Frame frame{size.height, size.width, size.width};
  const Device device = batch.device();
  const Tensor pixels =  // on the CPU the image is read where it is
      device == Device::kCpu ? Tensor() : tensor<uint8_t>({frame.height, frame.width, 3}, rgb, device);
  const uint8_t* from = pixels.defined() ? pixels.data<uint8_t>() : rgb.data();
  const OpRange range("preprocess", [&] { return preprocess_work(3, frame, batch); });
  visit(batch.dtype(), [&]<class T>() {
    run(device, cpu::preprocess_image<T>, cuda::preprocess_image<T>)(frame, from, params, batch.size(1), batch.size(2),
                                                                     slot<T>(batch, index));
  });
}

void write_depth(const SampleDepth& depth, const PreprocessParams& params, const Tensor& batch, size_t index) {
  const Frame frame{depth.height, depth.width, depth.width};
  const Device device = batch.device();
  const bool in_place = device == Device::kCpu && depth.units.empty();
  const Tensor values = in_place ? Tensor() : tensor<float>({frame.height, frame.width}, depth.copy().values, device);
  const float* from = in_place ? depth.values.data() : values.data<float>();
  const OpRange range("preprocess", [&] { return preprocess_work(sizeof(float), frame, batch); });
  run(device, cpu::preprocess_depth, cuda::preprocess_depth)(frame, from, params, batch.size(1), batch.size(2),
                                                             slot<float>(batch, index));
}

}  // namespace

int64_t crops_of(const Batch& batch, size_t view) {
  return static_cast<int64_t>(batch.items.at(0).views.at(view).size());
}

ImageSize crop_size(const Batch& batch, size_t view) { return batch.items.at(0).views.at(view).at(0).crop; }

BatchViews empty_tensors(const Batch& batch, DType dtype, Device device) {
  check(!batch.items.empty(), "to_tensors: expected at least one sample");
  const Sample& first = *batch.items[0].sample;
  BatchViews views;
  for (size_t v = 0; v < batch.items[0].views.size(); ++v) {
    const ImageSize crop = crop_size(batch, v);
    const int64_t count = static_cast<int64_t>(batch.items.size()) * crops_of(batch, v);
    const auto map = [&](const SampleDepth& depth) {
      return depth.empty() ? Tensor() : empty({count, crop.height, crop.width}, DType::kFloat, device);
    };
    views.push_back({empty({count, crop.height, crop.width, 3}, dtype, device), map(first.teacher), map(first.depth)});
  }
  return views;
}

bool fits(const Batch& batch, std::span<const BatchTensors> views) {
  if (batch.items.empty() || views.size() != batch.items[0].views.size()) return false;
  const Sample& first = *batch.items[0].sample;
  for (size_t v = 0; v < views.size(); ++v) {
    const ImageSize crop = crop_size(batch, v);
    const int64_t count = static_cast<int64_t>(batch.items.size()) * crops_of(batch, v);
    if (!(views[v].image.shape() == Shape{count, crop.height, crop.width, 3}) ||
        views[v].teacher.defined() == first.teacher.empty() || views[v].truth.defined() == first.depth.empty())
      return false;
  }
  return true;
}

void check_crops(const Batch& batch) {
  check(!batch.items.empty(), "to_tensors: expected at least one sample");
  const std::vector<View>& first = batch.items[0].views;
  for (const auto& [sample, views] : batch.items) {
    check(views.size() == first.size(), sample->where, ": expected ", first.size(), " views, found ", views.size());
    for (size_t v = 0; v < views.size(); ++v) {
      check(!views[v].empty() && views[v].size() == first[v].size(), sample->where, ": expected ", first[v].size(),
            " crops, found ", views[v].size());
      const ImageSize crop = first[v][0].crop;
      for (const AugmentParams& params : views[v]) {
        check(params.crop == crop, sample->where, ": expected a crop of ", crop.height, "x", crop.width, ", found ",
              params.crop.height, "x", params.crop.width, "; images of several sizes need a batch size of 1 or a crop");
      }
    }
  }
}

void write_tensors(const Batch& batch, std::span<const BatchTensors> views) {
  const ProfileRange range("input", "preprocess");
  check_crops(batch);
  for (size_t v = 0; v < views.size(); ++v) {
    size_t at = 0;
    for (const auto& [sample, item_views] : batch.items) {
      for (const AugmentParams& params : item_views[v]) {
        write_image(sample->image.size(), sample->image.rgb, params.image, views[v].image, at);
        if (views[v].teacher.defined()) write_depth(sample->teacher, params.teacher, views[v].teacher, at);
        if (views[v].truth.defined()) write_depth(sample->depth, params.image, views[v].truth, at);
        ++at;
      }
    }
  }
}

BatchViews to_tensors(const Batch& batch, DType dtype, Device device) {
  BatchViews views = empty_tensors(batch, dtype, device);
  write_tensors(batch, views);
  return views;
}

Tensor to_tensor(const Image8& image, DType dtype, Device device) {
  Tensor batch = empty({1, image.height, image.width, 3}, dtype, device);
  write_image(image.size(), image.rgb, PreprocessParams{}, batch, 0);
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
