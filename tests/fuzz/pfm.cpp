// .pfm maps.
#include "engine/io/pfm.h"

#include <algorithm>
#include <cstring>

#include "engine/io/map_file.h"
#include "tests/fuzz/maps.h"
#include "tests/fuzz/target.h"

namespace depthstill::fuzz {
namespace {

void read(Input input) {
  const FloatMap map = decode_pfm(input, "map");
  expect(map.width >= 1 && map.height >= 1 &&
             map.values.size() == static_cast<size_t>(map.width) * static_cast<size_t>(map.height),
         "expected ", map.width, "x", map.height, " values, found ", map.values.size());
  static const InputFile file("map.pfm");
  file.write(input);
  const DepthMap depth = read_in_parts(file.path());
  const bool same = depth.width == map.width && depth.height == map.height &&
                    std::equal(depth.values.begin(), depth.values.end(), map.values.begin(),
                               [](float a, float b) { return a == b || (a != a && b != b); });
  expect(same, "other values by another way of reading");
}

}  // namespace

Target pfm_target() {
  return {"pfm",
          read,
          {"Pf\n", "PF\n", "-1.0\n", "1.0\n", "1e-3", "-0", "nan", "inf", "# text\n", "\r\n", "\t", "16384 1\n"}};
}

}  // namespace depthstill::fuzz
