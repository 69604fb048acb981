#include "engine/data/region.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/random.h"
#include "kernels/core/error.h"

namespace depthstill {

Region draw_region(const RegionSpec& spec, ImageSize image, uint64_t seed, int64_t epoch, int64_t index) {
  check(image.width >= 1 && image.height >= 1, "region: expected an image of at least one pixel, found ", image);
  check(spec.patch >= 1 && spec.patch <= spec.least && spec.patches >= 0, "region: expected patches of 1 to ",
        spec.least, " pixels, found ", spec.patches, " of ", spec.patch);
  Philox random(seed, stream_id(RandomUse::kRegion, epoch, index));
  const auto up_to = [&](int most) { return static_cast<int>(random.below(static_cast<uint32_t>(most) + 1)); };
  // Every number is drawn whether it is used or not, so that a change of one setting leaves the others' draws.
  const int shorter = std::min(image.width, image.height), low = std::min(spec.least, shorter);
  Region region{};
  region.side = low + up_to(shorter - low);
  region.left = up_to(image.width - region.side);
  region.top = up_to(image.height - region.side);
  region.mirrored = random.uniform() < spec.flip_probability;
  if (spec.centred) {
    region.side = shorter;
    region.left = (image.width - shorter) / 2;
    region.top = (image.height - shorter) / 2;
    region.mirrored = false;
  }
  region.scaled = std::max(region.side, spec.least);
  if (spec.patches == 0) return region;  // what follows is drawn last

  const int64_t n = std::max(2, (region.scaled + spec.patch - 1) / spec.patch), rest = region.scaled - spec.patch;
  const auto start = [&](int64_t k) { return static_cast<int>(rest * k / (n - 1)); };
  const std::vector<int64_t> cells = random.permutation(n * n);
  for (int64_t k = 0; k < spec.patches; ++k) {
    const int64_t cell = cells[static_cast<size_t>(k % (n * n))];
    region.patches.push_back({start(cell / n), start(cell % n)});
  }
  return region;
}

RegionParams region_params(const Region& region, int scaled) {
  RegionParams params;
  params.top = region.top;
  params.left = region.left;
  params.side = region.side;
  params.mirrored = region.mirrored;
  params.scaled = scaled;
  return params;
}

RegionParams patch_params(const Region& region, const Region::Patch& patch) {
  RegionParams params = region_params(region, region.scaled);
  params.row = patch.row;
  params.column = patch.column;
  return params;
}

void write_window(Device device, Stream stream, const Frame& frame, const uint8_t* image, const RegionParams& params,
                  int size, DType dtype, void* to) {
  visit(dtype, [&]<class T>() {
    auto* make = device == Device::kCpu ? cpu::preprocess_region<T> : cuda::preprocess_region<T>;
    make(stream, frame, image, params, size, static_cast<T*>(to));
  });
}

int64_t draw_teacher(std::span<const double> weights, uint64_t seed, int64_t epoch, int64_t step) {
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  check(sum > 0 && std::isfinite(sum) && std::ranges::all_of(weights, [](double weight) { return weight >= 0; }),
        "teachers: expected shares that are not negative and not all 0, found a sum of ", sum);
  double left = Philox(seed, stream_id(RandomUse::kTeacher, epoch, step)).uniform() * sum;
  int64_t drawn = 0;
  for (int64_t k = 0; k < std::ssize(weights); ++k) {
    const double weight = weights[static_cast<size_t>(k)];
    if (weight == 0) continue;
    drawn = k;  // rounding may leave something after the last one
    if (left < weight) break;
    left -= weight;
  }
  return drawn;
}

}  // namespace depthstill
