// One error type for the whole project. A message names the operation or file, what was expected and what was found.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace depthstill {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

template <class... Parts>
std::string concat_text(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return text.str();
}

template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  throw Error(concat_text(parts...));
}

// Throws Error with the concatenated parts unless `ok`. For op boundaries and parsers; kernels assume checked input.
template <class... Parts>
void check(bool ok, const Parts&... parts) {
  if (!ok) fail(parts...);
}

}  // namespace depthstill
