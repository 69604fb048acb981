#include "engine/eval/truth_file.h"

#include <gtest/gtest.h>

#include "engine/io/png_text.h"
#include "tests/io/test_files.h"

namespace depthstill {
namespace {

using testing_files::error_of;
using testing_files::TemporaryFolder;

// A file of MoGe's form, with texts that may be missing.
std::string log_png(const TemporaryFolder& folder, const std::vector<std::pair<const char*, const char*>>& texts) {
  std::vector<uint8_t> png = encode_png(Image16{7, 1, {0, 1, 2, 20000, 32768, 65534, 65535}});
  for (const auto& [keyword, text] : texts) add_png_text(png, keyword, text);
  const std::string path = folder / "depth.png";
  write_file(path, png);
  return path;
}

// By NumPy in float32: near ** (1 - q) * far ** q, q = (v.astype(float32) - 1) / 65533.
TEST(TruthFile, LogarithmsBetweenNearAndFar) {
  const TemporaryFolder folder;
  const float expected[] = {0, 0.5f, 0.500038743019104f, 2.3529419898986816f, 6.32480001449585f, 80, 0};
  const DepthMap map = read_log_png(log_png(folder, {{"far", "80.0"}, {"near", "5e-1"}}));
  EXPECT_EQ(map.size(), (ImageSize{7, 1}));
  for (size_t i = 0; i < 7; ++i) EXPECT_NEAR(map.values[i], expected[i], 5e-7f * expected[i]) << i;
  const DepthMap scaled = read_log_png(log_png(folder, {{"near", "0.5"}, {"far", "80"}, {"unit", "2.5"}}));
  for (size_t i = 0; i < 7; ++i) EXPECT_NEAR(scaled.values[i], 2.5f * expected[i], 2e-6f * expected[i]) << i;
}

TEST(TruthFile, LogarithmsNeedTheirTexts) {
  const TemporaryFolder folder;
  std::string path = log_png(folder, {{"near", "0.5"}});
  EXPECT_EQ(error_of([&] { read_log_png(path); }), path + ": expected the text 'far' of MoGe's depth maps, found none");
  for (const char* bad : {"0", "-1", "nan", "1m", ""}) {
    path = log_png(folder, {{"near", bad}, {"far", "80"}});
    EXPECT_EQ(error_of([&] { read_log_png(path); }),
              path + ": expected a number > 0 as the text 'near', found '" + bad + "'");
  }
}

}  // namespace
}  // namespace depthstill
