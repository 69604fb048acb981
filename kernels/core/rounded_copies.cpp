#include "kernels/core/rounded_copies.h"

#include <iterator>
#include <map>

namespace depthstill::cuda {
namespace {

struct Copy {
  int64_t n = 0;
  bf16* values = nullptr;
};

// By the parameters' first address.
std::map<const float*, Copy>& copies() {
  static auto& known = *new std::map<const float*, Copy>();
  return known;
}

}  // namespace

void set_rounded_copy(const float* parameters, int64_t n, bf16* copy) {
  copies().erase(parameters);
  if (copy != nullptr) copies().emplace(parameters, Copy{n, copy});
}

bf16* rounded_copy(const float* parameters, int64_t n) {
  auto next = copies().upper_bound(parameters);
  if (next == copies().begin()) return nullptr;
  const auto& [first, copy] = *std::prev(next);
  const int64_t offset = parameters - first;
  return offset + n <= copy.n ? copy.values + offset : nullptr;
}

}  // namespace depthstill::cuda
