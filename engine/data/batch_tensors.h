// Turns decoded samples into the tensors that a training step reads.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "engine/data/loader.h"
#include "engine/tensor.h"

namespace depthstill {

// BatchTensors hold one view of all samples of a batch. N is samples times crops of the view; the crops of a sample lie
// side by side.
struct BatchTensors {
  Tensor image;    // (N, H, W, 3), normalised
  Tensor teacher;  // (N, H, W) metres, 0 = none; undefined if the samples have no teacher map
  Tensor truth;    // the same from the ground truth
  // Of regions with K patches each: the teacher's maps of them, and where in the region they lie (resize_windows).
  Tensor patches = {};  // (N K, P, P)
  Tensor windows = {};  // (N K, 4) int32
  // What an online teacher makes these maps from, where it makes them: regions, undefined where it sees `image`, and
  // their patches.
  Tensor region = {};        // (N, P, P, 3), normalised
  Tensor patch_images = {};  // (N K, P, P, 3)
};
inline constexpr Tensor BatchTensors::*kBatchTensors[] = {
    &BatchTensors::image,   &BatchTensors::teacher, &BatchTensors::truth,       &BatchTensors::patches,
    &BatchTensors::windows, &BatchTensors::region,  &BatchTensors::patch_images};
using BatchViews = std::vector<BatchTensors>;

// Applies each item's augmentation on `device`; the images come out as `dtype`.
BatchViews to_tensors(const Batch& batch, DType dtype, Device device);

// The same in two parts, for tensors that are used again: new ones of the shapes that `batch` needs, and their
// contents, but for labels that come from elsewhere (Plane::filled). fits() says whether `views` have these shapes.
BatchViews empty_tensors(const Batch& batch, DType dtype, Device device);
bool fits(const Batch& batch, std::span<const BatchTensors> views);
void write_tensors(const Batch& batch, std::span<const BatchTensors> views);
void check_crops(const Batch& batch);  // throws Error unless all samples have the same views, of the same sizes

// Crops of a view that one sample has, and their size.
int64_t crops_of(const Batch& batch, size_t view);
ImageSize crop_size(const Batch& batch, size_t view);

// One whole image, normalised: (1, H, W, 3).
Tensor to_tensor(const Image8& image, DType dtype, Device device);

// The same of an RGB image (height, width, 3) in floats 0..255.
Tensor to_tensor(std::vector<float> rgb, ImageSize size, DType dtype, Device device);

// "a.png (LIST:1), b.png (LIST:7)": for messages about a batch.
std::string names_of(const Batch& batch);

}  // namespace depthstill
