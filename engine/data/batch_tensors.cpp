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
  const Tensor values = in_place ? Tensor() : tensor<float>({frame.height, frame.width}, depth.copy().metres, device);
  const float* from = in_place ? depth.metres.data() : values.data<float>();
  const OpRange range("preprocess", [&] { return preprocess_work(sizeof(float), frame, batch); });
  run(device, cpu::preprocess_depth, cuda::preprocess_depth)(frame, from, params, batch.size(1), batch.size(2),
                                                             slot<float>(batch, index));
}

}  // namespace

BatchTensors empty_tensors(const Batch& batch, DType dtype, Device device) {
  check(!batch.items.empty(), "to_tensors: expected at least one sample");
  const ImageSize crop = batch.items[0].params.crop;
  const auto count = static_cast<int64_t>(batch.items.size());
  const auto map = [&](const SampleDepth& first) {
    return first.empty() ? Tensor() : empty({count, crop.height, crop.width}, DType::kFloat, device);
  };
  const Sample& first = *batch.items[0].sample;
  return {empty({count, crop.height, crop.width, 3}, dtype, device), map(first.teacher), map(first.depth)};
}

bool fits(const Batch& batch, const BatchTensors& tensors) {
  if (!tensors.image.defined() || batch.items.empty()) return false;
  const ImageSize crop = batch.items[0].params.crop;
  const Sample& first = *batch.items[0].sample;
  return tensors.image.shape() == Shape{static_cast<int64_t>(batch.items.size()), crop.height, crop.width, 3} &&
         tensors.teacher.defined() != first.teacher.empty() && tensors.truth.defined() != first.depth.empty();
}

void check_crops(const Batch& batch) {
  check(!batch.items.empty(), "to_tensors: expected at least one sample");
  const ImageSize crop = batch.items[0].params.crop;
  for (const auto& [sample, params] : batch.items) {
    check(params.crop == crop, sample->where, ": expected a crop of ", crop.height, "x", crop.width, ", found ",
          params.crop.height, "x", params.crop.width, "; images of several sizes need a batch size of 1 or a crop");
  }
}

void write_tensors(const Batch& batch, const BatchTensors& tensors) {
  const ProfileRange range("input", "preprocess");
  check_crops(batch);
  for (size_t i = 0; i < batch.items.size(); ++i) {
    const auto& [sample, params] = batch.items[i];
    write_image(sample->image.size(), sample->image.rgb, params.image, tensors.image, i);
    if (tensors.teacher.defined()) write_depth(sample->teacher, params.teacher, tensors.teacher, i);
    if (tensors.truth.defined()) write_depth(sample->depth, params.image, tensors.truth, i);
  }
}

BatchTensors to_tensors(const Batch& batch, DType dtype, Device device) {
  const BatchTensors tensors = empty_tensors(batch, dtype, device);
  write_tensors(batch, tensors);
  return tensors;
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
  for (const BatchItem& item : batch.items) names += (names.empty() ? "" : ", ") + item.sample->name;
  return names;
}

}  // namespace depthstill
