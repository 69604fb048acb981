// regions.json, which says what the labels of a folder are of.
#include <string_view>

#include "engine/data/region_teacher.h"
#include "tests/fuzz/target.h"

namespace depthstill::fuzz {
namespace {

void read(Input input) {
  static const InputFile file(std::string("regions/") + kRegionsFile);
  file.write(input);
  const std::string folder = work_folder() + "/regions";
  const RegionFolderSettings found = read_region_settings(folder);
  check_region_folder(folder, found);
}

}  // namespace

Target regions_target() {
  using namespace std::string_view_literals;
  return {"regions",
          read,
          {"\"version\": 1"sv, "\"version\": 2"sv, "1e300"sv, "-1"sv, "18446744073709551616"sv, "1.5"sv, "null"sv,
           "\"settings\":"sv, "\"list_checksum\":"sv, "\"epochs\":"sv, "\"teacher\":"sv, "{}"sv, "[]"sv, "[[[[[[[["sv,
           "\"\\n\""sv, "\"\\u0000\""sv, "\xff"sv}};
}

}  // namespace depthstill::fuzz
