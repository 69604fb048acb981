// A reader with a fault of every kind that the driver has to notice; the first byte of an input picks one.
#include <csignal>
#include <memory>
#include <stdexcept>

#include "tests/fuzz/target.h"

namespace depthstill::fuzz {
namespace {

void read(Input input) {
  const auto kind = input.empty() ? uint8_t{0} : input[0];
  if (kind == 'c') std::raise(SIGSEGV);
  if (kind == 'e') throw std::logic_error("planted");
  if (kind == 'l') {
    for (volatile bool ever = true; ever;) {
    }
  }
  if (kind == 'm') std::make_unique<Bytes>(most_bytes(input.size()) + 1);
  if (kind == 'n') fail("planted\nlines");
  if (kind == 'w') expect(false, "a planted contradiction");
  check(kind != 'r', "planted: expected another letter, found r");
}

}  // namespace

Target planted_target() { return {"planted", read, {}}; }

}  // namespace depthstill::fuzz
