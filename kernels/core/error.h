// One error type for the whole project. A message names the operation or file, what was expected and what was found.
#pragma once

#include <iterator>
#include <sstream>
#include <stdexcept>
#include <string>

namespace depthstill {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A device has no memory left for what was asked; what was in use is still good.
struct OutOfMemory : Error {
  using Error::Error;
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

// Lists what was expected, for a message: "a, b, c", or with " or " for `last` "a, b or c". name_of(row) is printed.
template <class Rows, class F>
std::string list_text(const Rows& rows, F name_of, const char* last = ", ") {
  std::ostringstream text;
  size_t left = std::size(rows);
  for (const auto& row : rows) {
    --left;
    text << name_of(row) << (left > 1 ? ", " : left == 1 ? last : "");
  }
  return text.str();
}

// Throws Error with the concatenated parts unless `ok`. Op boundaries and parsers call it; kernels assume checked
// input.
template <class... Parts>
void check(bool ok, const Parts&... parts) {
  if (!ok) fail(parts...);
}

}  // namespace depthstill
