// A build uses the instructions that DEPTHSTILL_MARCH allows; a processor that lacks them would end the program without
// a word. This check runs before all other code of the program and uses none of them itself: it names what is missing.
#if defined(__x86_64__)
#include <unistd.h>

#include <cstring>

namespace {

#define DS_BASELINE __attribute__((target("arch=x86-64")))

// The compiler defines __AVX2__ as 1 or not at all.
#define DS_TEXT(text) #text
#define DS_IS_DEFINED(macro) (DS_TEXT(macro)[0] == '1')

DS_BASELINE void say(const char* text) { static_cast<void>(!write(STDERR_FILENO, text, std::strlen(text))); }

// It says the first missing one's part of the line, too.
DS_BASELINE bool require(const char* name, bool built, int present, bool missing) {
  if (!built || present) return missing;
  say(missing ? ", " : "depthstill: expected a processor with what this build uses, found one without ");
  say(name);
  return true;
}

__attribute__((constructor(101))) DS_BASELINE void check_processor() {
  __builtin_cpu_init();
  bool missing = false;
#define DS_REQUIRE(name, macro) missing = require(name, DS_IS_DEFINED(macro), __builtin_cpu_supports(name), missing)
  DS_REQUIRE("sse4.2", __SSE4_2__);
  DS_REQUIRE("popcnt", __POPCNT__);
  DS_REQUIRE("avx", __AVX__);
  DS_REQUIRE("avx2", __AVX2__);
  DS_REQUIRE("fma", __FMA__);
  DS_REQUIRE("fma4", __FMA4__);
  DS_REQUIRE("bmi2", __BMI2__);
  DS_REQUIRE("gfni", __GFNI__);
  DS_REQUIRE("avx512f", __AVX512F__);
  DS_REQUIRE("avx512bw", __AVX512BW__);
  DS_REQUIRE("avx512dq", __AVX512DQ__);
  DS_REQUIRE("avx512vl", __AVX512VL__);
  DS_REQUIRE("avx512ifma", __AVX512IFMA__);
  DS_REQUIRE("avx512vbmi", __AVX512VBMI__);
  DS_REQUIRE("avx512vbmi2", __AVX512VBMI2__);
  DS_REQUIRE("avx512vnni", __AVX512VNNI__);
  DS_REQUIRE("avx512bitalg", __AVX512BITALG__);
  DS_REQUIRE("avx512vpopcntdq", __AVX512VPOPCNTDQ__);
  DS_REQUIRE("avx512bf16", __AVX512BF16__);
#undef DS_REQUIRE
  if (!missing) return;
  say(" (build on this machine, or with a lesser -DDEPTHSTILL_MARCH such as x86-64-v3)\n");
  _exit(1);
}

}  // namespace
#endif
