#include "kernels/preprocess.h"

#include "kernels/core/parallel.h"
#include "kernels/preprocess_pixel.h"

namespace depthstill::cpu {

template <class T>
void preprocess_image(Stream, const Frame& frame, const uint8_t* image, const PreprocessParams& params,
                      int64_t crop_height, int64_t crop_width, T* y) {
  const SourceMap map(frame, params);
  parallel_for(crop_height, 8, [&](int64_t r) {
    for (int64_t c = 0; c < crop_width; ++c) {
      float rgb[3];
      preprocess_pixel(frame, image, params, map, static_cast<int>(r), static_cast<int>(c), rgb);
      for (int k = 0; k < 3; ++k) y[(r * crop_width + c) * 3 + k] = static_cast<T>(rgb[k]);
    }
  });
}

void preprocess_depth(Stream, const Frame& frame, const float* depth, const PreprocessParams& params,
                      int64_t crop_height, int64_t crop_width, float* y) {
  const SourceMap map(frame, params);
  parallel_for(crop_height, 8, [&](int64_t r) {
    for (int64_t c = 0; c < crop_width; ++c) {
      y[r * crop_width + c] = preprocess_depth_pixel(frame, depth, map, static_cast<int>(r), static_cast<int>(c));
    }
  });
}

template void preprocess_image(Stream, const Frame&, const uint8_t*, const PreprocessParams&, int64_t, int64_t, float*);
template void preprocess_image(Stream, const Frame&, const uint8_t*, const PreprocessParams&, int64_t, int64_t, bf16*);

}  // namespace depthstill::cpu
