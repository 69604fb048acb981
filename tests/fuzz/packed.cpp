// Packed data sets. An input holds both files of a set: packed.json up to the first zero byte, then one shard.
#include "engine/data/packed.h"

#include <algorithm>
#include <string_view>

#include "engine/io/checksum.h"
#include "tests/fuzz/target.h"

namespace depthstill::fuzz {
namespace {

constexpr size_t kFooterBytes = 32;

Input shard_of(Input input) {
  const auto zero = std::find(input.begin(), input.end(), uint8_t{0});
  return input.subspan(std::min(static_cast<size_t>(zero - input.begin()) + 1, input.size()));
}

void check_map(const SampleDepth& map, ImageSize size) {
  if (map.empty()) return;
  expect(map.size() == size, "expected a map of ", size, ", found ", map.size());
  expect(map.units.size() == static_cast<size_t>(size.width) * static_cast<size_t>(size.height),
         "other units than pixels");
  map.copy();
}

void read(Input input) {
  static const InputFile manifest("packed/packed.json"), samples("packed/" + shard_name(0));
  const Input shard = shard_of(input);
  manifest.write(input.first(input.size() - shard.size() - (shard.empty() ? 0 : 1)));
  samples.write(shard);
  const PackedSet set(work_folder() + "/packed");
  check_pack_settings("packed", set.manifest(), set.manifest());
  std::string damage;
  for (int64_t i = 0; i < set.size(); ++i) {
    const std::string message = message_of([&] {
      Sample sample;
      sample.index = i;
      set.load(sample);
      const ImageSize size = sample.image.size();
      const size_t bytes = size_t{3} * static_cast<size_t>(size.width) * static_cast<size_t>(size.height);
      expect(sample.image.rgb.size() == bytes, "expected ", bytes, " bytes of pixels, found ", sample.image.rgb.size());
      check_map(sample.depth, size);
      check_map(sample.teacher, size);
    });
    if (damage.empty()) damage = message;
  }
  if (!damage.empty()) fail(damage);
}

// Puts a right footer behind the index, which begins with its first brace and key, and ends with the last brace.
void repair(Bytes& input) {
  const Input shard = shard_of(input);
  constexpr std::string_view kBegin = "{\"first\"";
  const auto begin = std::search(shard.begin(), shard.end(), kBegin.begin(), kBegin.end());
  if (begin == shard.end()) return;
  const auto at = static_cast<size_t>(begin - shard.begin());
  const auto end = static_cast<size_t>(std::find(shard.rbegin(), shard.rend(), uint8_t{'}'}).base() - shard.begin());
  const Input index = shard.subspan(at, std::max(end, at) - at);
  Bytes footer(kFooterBytes);
  set_number(std::span(footer), 0, uint64_t{at});
  set_number(std::span(footer), 8, uint64_t{index.size()});
  set_number(std::span(footer), 16, checksum64(std::as_bytes(index)));
  std::copy_n("DSSHARD1", 8, footer.begin() + 24);
  input.resize(input.size() - shard.size() + end);
  input.insert(input.end(), footer.begin(), footer.end());
}

}  // namespace

Target packed_target() {
  using namespace std::string_view_literals;
  return {"packed",
          read,
          {"\"first\":"sv,
           "\"samples\":"sv,
           "\"name\":"sv,
           "\"image\":"sv,
           "\"depth\":"sv,
           "\"teacher\":"sv,
           "\"at\":"sv,
           "\"size\":"sv,
           "[16384,16384]"sv,
           "[-1,-1]"sv,
           "[4294967297,1]"sv,
           "\"metres_per_unit\":"sv,
           "1e400"sv,
           "-1.5"sv,
           "1e300"sv,
           "null"sv,
           "{}"sv,
           "[]"sv,
           "[[[[[[[["sv,
           "\"\\n\""sv,
           "\"\\u0000\""sv,
           "\"settings\":"sv,
           "\"version\": 2"sv,
           "\"ffffffffffffffff\""sv,
           "DSSHARD1"sv,
           "\0"sv,
           "18446744073709551552"sv,
           "\xff"sv},
          repair};
}

}  // namespace depthstill::fuzz
