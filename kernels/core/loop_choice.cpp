// Which of the copies of the loops run here: 0 is the build's own, the others are those of DEPTHSTILL_WIDTHS in
// cmake/DepthstillWidths.cmake, whose jumps read this number. Before it is known they take the build's.
#if defined(__x86_64__)
namespace {

int widest_copy() {
  __builtin_cpu_init();
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  if (!avx512) return 0;
  return __builtin_cpu_supports("avx512bf16") ? 2 : 1;
}

}  // namespace

extern "C" {
extern int depthstill_width;
int depthstill_width = widest_copy();
}
#endif
