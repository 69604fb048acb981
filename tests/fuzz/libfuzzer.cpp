// One target, DEPTHSTILL_FUZZ_TARGET, behind the interface of clang's libFuzzer; libfuzzer.sh builds it.
#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "tests/fuzz/target.h"

#define DEPTHSTILL_TARGET_OF(name) depthstill::fuzz::name##_target()
#define DEPTHSTILL_TARGET(name) DEPTHSTILL_TARGET_OF(name)

namespace {
const depthstill::fuzz::Target& target() {
  static const depthstill::fuzz::Target only = DEPTHSTILL_TARGET(DEPTHSTILL_FUZZ_TARGET);
  return only;
}
}  // namespace

extern "C" {

size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t most);

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const depthstill::fuzz::Outcome outcome = depthstill::fuzz::run(target(), {data, size});
  if (outcome.finding.empty()) return 0;
  std::fprintf(stderr, "finding: %s\n", outcome.finding.c_str());
  std::abort();
}

size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t most, unsigned seed) {
  size = LLVMFuzzerMutate(data, size, most);
  if (target().repair == nullptr || seed % 8 == 0) return size;
  depthstill::fuzz::Bytes input(data, data + size);
  target().repair(input);
  if (input.size() > most) return size;
  std::copy(input.begin(), input.end(), data);
  return input.size();
}

}  // extern "C"
