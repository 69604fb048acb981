#include "engine/io/map_kind.h"

#include <array>
#include <charconv>
#include <cmath>

#include "engine/io/text_file.h"
#include "kernels/core/error.h"

namespace depthstill {
namespace {

constexpr std::string_view kUnit = ", unit ";

}  // namespace

std::string name_of(const MapKind& kind) {
  const bool inverse = kind.quantity == Quantity::kInverseDepth;
  const char* const up_to[] = {inverse ? " in 1 / metres" : " in metres", " up to scale", " up to scale and shift"};
  return std::string(inverse ? "inverse depth" : "depth") + up_to[static_cast<size_t>(kind.ambiguity)];
}

std::string to_text(const MapStatement& statement) {
  std::array<char, 32> digits{};
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), statement.unit).ptr;
  return concat_text(name_of(statement.kind), kUnit, std::string_view(digits.data(), end));
}

MapStatement parse_statement(std::string_view text, const std::string& where) {
  MapStatement statement;
  const size_t at = text.find(kUnit);
  bool known = false;
  for (const Quantity quantity : {Quantity::kDepth, Quantity::kInverseDepth}) {
    for (const Ambiguity ambiguity : {Ambiguity::kNone, Ambiguity::kScale, Ambiguity::kScaleAndShift}) {
      if (text.substr(0, at) != name_of({quantity, ambiguity})) continue;
      statement.kind = {quantity, ambiguity};
      known = at != std::string_view::npos;
    }
  }
  if (known) {
    const char* const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data() + at + kUnit.size(), end, statement.unit);
    known = error == std::errc() && stop == end && std::isfinite(statement.unit) && statement.unit > 0;
  }
  check(known, where, ": expected the file to say what it holds, as in '", to_text({}), "', found '", printable(text),
        "'");
  return statement;
}

std::string named_text(const MapStatement& statement) { return concat_text(kStatementName, ": ", to_text(statement)); }

std::optional<MapStatement> named_statement(std::string_view text, const std::string& where) {
  const std::string before = std::string(kStatementName) + ": ";
  if (!text.starts_with(before)) return std::nullopt;
  return parse_statement(text.substr(before.size()), where);
}

}  // namespace depthstill
