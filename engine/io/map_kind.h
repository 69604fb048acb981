// What the numbers of a depth map mean, and how a map file says so of itself.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace depthstill {

enum class Quantity : uint8_t { kDepth, kInverseDepth };
// An Ambiguity is what a map lacks to be absolute: with kNone, depth is in metres and inverse depth in 1 / metres.
enum class Ambiguity : uint8_t { kNone, kScale, kScaleAndShift };

struct MapKind {
  Quantity quantity = Quantity::kDepth;
  Ambiguity ambiguity = Ambiguity::kNone;
  bool operator==(const MapKind&) const = default;
};
std::string name_of(const MapKind& kind);  // "depth in metres", "inverse depth up to scale and shift", ...
inline constexpr MapKind kMetricDepth{};
inline constexpr MapKind kRelativeInverseDepth{Quantity::kInverseDepth, Ambiguity::kScaleAndShift};

// A MapStatement is what a map file says of itself, as one line of text. `unit` is the size of a stored unit in the
// kind's own. Map files hold it under the name kStatementName:
//   .png  a tEXt chunk of that keyword
//   .npy  a comment at the end of the header, "# depthstill: ...", which numpy passes over
//   .pfm  nothing for depth in metres, else a file NAME.pfm.txt, with the checksum64 of the .pfm that it belongs to
struct MapStatement {
  MapKind kind;
  double unit = 1;
};
inline constexpr std::string_view kStatementName = "depthstill";

std::string to_text(const MapStatement& statement);  // "depth in metres, unit 0.00390625"
// Throws Error that begins with `where` if the text is no statement.
MapStatement parse_statement(std::string_view text, const std::string& where);
// The same behind its name, "depthstill: ..."; nullopt for text that begins otherwise.
std::string named_text(const MapStatement& statement);
std::optional<MapStatement> named_statement(std::string_view text, const std::string& where);

}  // namespace depthstill
