// From decoded samples to the tensors that a training step reads.
#pragma once

#include <string>
#include <vector>

#include "engine/data/loader.h"
#include "engine/tensor.h"

namespace depthstill {

struct BatchTensors {
  Tensor image;    // (N, H, W, 3), normalised
  Tensor teacher;  // (N, H, W) metres, 0 = none; undefined if the samples have no teacher map
  Tensor truth;    // the same from the ground truth
};

// Applies each item's augmentation on `device`; the images come out as `dtype`.
BatchTensors to_tensors(const Batch& batch, DType dtype, Device device);

// The same in two parts, for tensors that are used again: new ones of the shapes that `batch` needs, and their
// contents. fits() says whether `tensors` have these shapes.
BatchTensors empty_tensors(const Batch& batch, DType dtype, Device device);
bool fits(const Batch& batch, const BatchTensors& tensors);
void write_tensors(const Batch& batch, const BatchTensors& tensors);
void check_crops(const Batch& batch);  // throws Error unless all samples have a crop of the same size

// One whole image, normalised: (1, H, W, 3).
Tensor to_tensor(const Image8& image, DType dtype, Device device);

// The same of an RGB image (height, width, 3) in floats 0..255.
Tensor to_tensor(std::vector<float> rgb, ImageSize size, DType dtype, Device device);

// "a.png, b.png": for messages about a batch.
std::string names_of(const Batch& batch);

}  // namespace depthstill
