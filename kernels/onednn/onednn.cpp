#include "kernels/onednn/onednn.h"

#include <cstdlib>

#include "kernels/core/amx.h"

namespace depthstill::cpu {
namespace {

// oneDNN 2.x uses AMX wherever CPUID shows it, without checking that the tile palette is described or asking the
// kernel for permission on every path, and then dies of SIGILL in some virtual machines. A choice that the user made in
// the environment stands.
void limit_instruction_set() {
  if (std::getenv("DNNL_MAX_CPU_ISA") || std::getenv("ONEDNN_MAX_CPU_ISA")) return;
  const bool safe = DNNL_VERSION_MAJOR >= 3 && amx_usable() && amx_palette_visible();
  if (!safe) dnnl::set_max_cpu_isa(dnnl::cpu_isa::avx512_core_bf16);  // a cap: no effect on lesser processors
}

}  // namespace

const dnnl::engine& dnn_engine() {
  static const dnnl::engine engine = [] {
    limit_instruction_set();
    return dnnl::engine(dnnl::engine::kind::cpu, 0);
  }();
  return engine;
}

dnnl::stream& dnn_stream() {
  thread_local dnnl::stream stream(dnn_engine());
  return stream;
}

}  // namespace depthstill::cpu
