// A run folder of the program as it was at commit 15d9c82 goes on. tests/oracle/old_run.safetensors.zz is the
// last.safetensors that it left after three of four steps of this test's recipe, interrupted in the second epoch, and
// old_run_end.safetensors holds tensors of the one that it left at the end. Training had begun from weights that are 0
// but for the last layers, so that the file is small when it is compressed twice.
#include <gtest/gtest.h>
#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <vector>

#include "engine/io/safetensors.h"
#include "engine/io/text_file.h"
#include "tests/tools/small_recipe.h"
#include "tools/interrupt.h"
#include "tools/train_run.h"

namespace depthstill {
namespace {

namespace fs = std::filesystem;
using testing_files::TemporaryFolder;

std::vector<uint8_t> inflate(const std::vector<uint8_t>& from) {
  std::vector<uint8_t> to;
  std::vector<uint8_t> chunk(size_t{1} << 20);
  z_stream stream{};
  check(inflateInit(&stream) == Z_OK, "inflateInit failed");
  stream.next_in = const_cast<uint8_t*>(from.data());
  stream.avail_in = static_cast<unsigned>(from.size());
  for (int code = Z_OK; code == Z_OK;) {
    stream.next_out = chunk.data();
    stream.avail_out = static_cast<unsigned>(chunk.size());
    code = ::inflate(&stream, Z_NO_FLUSH);
    check(code == Z_OK || code == Z_STREAM_END, "the fixture is damaged");
    to.insert(to.end(), chunk.begin(), chunk.end() - stream.avail_out);
  }
  inflateEnd(&stream);
  return to;
}

TrainOptions resuming(const std::string& run) {
  TrainOptions options;
  options.out = run;
  options.resume = true;
  return options;
}

Recipe recipe_of_old_run(const TemporaryFolder& folder) {
  Recipe recipe = testing_files::recipe_of_small_set(folder, 1e-3);
  recipe.model.options.decoder_widths.clear();
  return recipe;
}

TEST(OldRun, GoesOnAsItWouldHave) {
  const TemporaryFolder folder;
  testing_files::write_small_set(folder, 4, 64, 32);
  const std::string oracle = DEPTHSTILL_SOURCE_DIR "/tests/oracle/";
  make_folder(folder / "old");
  testing_files::write_quickly(folder / "old/last.safetensors",
                               inflate(inflate(read_bytes(oracle + "old_run.safetensors.zz"))));
  fs::copy(folder / "old", folder / "again");
  train(recipe_of_old_run(folder), resuming(folder / "old"));

  const SafetensorsFile end(folder / "old/last.safetensors"), expected(oracle + "old_run_end.safetensors");
  EXPECT_EQ(end.metadata().at("updates"), "4");
  EXPECT_EQ(end.metadata().at("fused_head"), "0");
  bool same_bits = true;
  for (const StoredTensor& tensor : expected.tensors()) {
    const std::vector<float> found = end.read_floats(tensor.name), wanted = expected.read_floats(tensor.name);
    ASSERT_EQ(found.size(), wanted.size()) << tensor.name;
    double largest = 0, error = 0;
    for (size_t i = 0; i < wanted.size(); ++i) {
      largest = std::max(largest, std::abs(static_cast<double>(wanted[i])));
      error = std::max(error, std::abs(static_cast<double>(found[i]) - static_cast<double>(wanted[i])));
    }
    EXPECT_GT(largest, 0.0) << tensor.name;
    EXPECT_LE(error, 2e-5 * largest) << tensor.name;  // other processors add up in other orders
    same_bits = same_bits && error == 0.0;
  }
  std::printf("the old program's end on this processor: %s\n", same_bits ? "the same bits" : "rounding differs");

  // A run that this program wrote at the same place goes on to the same bits.
  install_interrupt_handlers();
  std::raise(SIGTERM);
  EXPECT_THROW(train(recipe_of_old_run(folder), resuming(folder / "again")), Interrupted);
  clear_interrupt();
  train(recipe_of_old_run(folder), resuming(folder / "again"));
  const SafetensorsFile again(folder / "again/last.safetensors");
  ASSERT_EQ(again.tensors().size(), end.tensors().size());
  for (const StoredTensor& tensor : end.tensors()) {
    const auto a = end.bytes(tensor), b = again.bytes(again.at(tensor.name));
    EXPECT_TRUE(std::equal(a.begin(), a.end(), b.begin(), b.end())) << tensor.name;
  }
}

}  // namespace
}  // namespace depthstill
