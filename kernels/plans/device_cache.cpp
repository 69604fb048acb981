#include <cublasLt.h>
#include <cudnn.h>

#include "kernels/core/error.h"
#include "kernels/core/library_options.h"
#include "kernels/core/runtime.h"
#include "kernels/plans/timer.h"

namespace depthstill::plans {

PlanCache* device_cache(Stream stream) {
  if (!may_measure(stream)) return nullptr;
  // The cache lives as long as the process, like the plans themselves.
  static PlanCache& cache = *new PlanCache(
      library_options().cache_folder,
      concat_text(cuda::device_info().name, " cudnn ", cudnnGetVersion(), " cublaslt ", cublasLtGetVersion()));
  return &cache;
}

}  // namespace depthstill::plans
