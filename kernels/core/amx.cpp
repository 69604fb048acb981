#include "kernels/core/amx.h"

#include <cstdlib>
#include <string_view>

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace depthstill::cpu {
#if defined(__x86_64__) && defined(__linux__)
namespace {

bool processor_has_amx() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  constexpr unsigned kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;
  if ((d & kAmxBf16) == 0 || (d & kAmxTile) == 0) return false;
  if (!__get_cpuid_count(7, 1, &a, &b, &c, &d)) return false;
  constexpr unsigned kAvx512Bf16 = 1u << 5;
  return (a & kAvx512Bf16) != 0 && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512dq");
}

// Linux makes the 8 KB of tile state an opt-in of the process, because it enlarges signal frames.
bool request_tile_state() {
  constexpr int kArchReqXcompPerm = 0x1023, kXfeatureTileData = 18;
  return syscall(SYS_arch_prctl, kArchReqXcompPerm, kXfeatureTileData) == 0;
}

}  // namespace

bool amx_usable() {
  static const bool usable = [] {
    const char* off = std::getenv("DEPTHSTILL_NO_AMX");
    if (off && std::string_view(off) != "" && std::string_view(off) != "0") return false;
    return processor_has_amx() && request_tile_state();
  }();
  return usable;
}

bool amx_palette_visible() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(0x1d, 0, &a, &b, &c, &d) && a != 0;
}
#else
bool amx_usable() { return false; }
bool amx_palette_visible() { return false; }
#endif
}  // namespace depthstill::cpu
