// What the JSON library leaves to its callers.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "kernels/core/error.h"

namespace depthstill {

// Names of files in it need not be UTF-8.
inline std::string json_text(const nlohmann::ordered_json& json, int indent = -1) {
  return json.dump(indent, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

// A whole number that T holds: get<T>() alone would wrap or be undefined. `path` is that of the file.
template <class T>
T integer_of(const nlohmann::ordered_json& json, const std::string& path) {
  const bool whole = json.is_number_unsigned() ? std::in_range<T>(json.get<uint64_t>())
                                               : json.is_number_integer() && std::in_range<T>(json.get<int64_t>());
  check(whole, path, ": expected a whole number of ", 8 * sizeof(T), " bits, found ",
        json.is_number() ? json.dump() : json.type_name());
  return json.get<T>();
}

}  // namespace depthstill
