// What an evaluation answers to files that are not as they should be, and to any number of threads.
#include "engine/io/atomic_file.h"
#include "engine/io/map_file.h"
#include "engine/io/png_text.h"
#include "tests/tools/eval_contract.h"

namespace depthstill {
namespace {

using namespace testing_eval;

TEST_F(EvalContract, AnImageWithoutAValidPixelIsCounted) {
  make(40, 60, 256, 80, 1.25f);
  write_map((root_ / "gt/1.png").string(), {60, 40, std::vector<float>(2400, 0.0f)}, {1.0 / 256});
  std::vector<std::string> args = arguments("plain");
  args.insert(args.end(), {"--csv", (root_ / "out.csv").string(), "--align", "depth-ls"});
  ASSERT_EQ(eval_command(args), "0");
  EXPECT_EQ(result()["images"], 1);
  EXPECT_EQ(result()["skipped"], 1);
  EXPECT_EQ(result()["without_truth"], 1);
  EXPECT_EQ(result()["fit"]["images"], 1);
  EXPECT_NEAR(result()["abs_rel"].get<double>(), 0, 1e-6);
  EXPECT_EQ(split_lines(read_text((root_ / "out.csv").string()))[2], "a/b.c/1.jpg,0,,,,,,,,,,,,,");
  write_map((root_ / "gt/0.png").string(), {60, 40, std::vector<float>(2400, 0.0f)}, {1.0 / 256});
  EXPECT_EQ(eval_command(args),
            (root_ / "list.txt").string() + ": expected an image with a valid pixel, found none among 2");
}

TEST_F(EvalContract, NoPixelToFitNamesTheFile) {
  make(40, 60, 256, 80, 1.0f);
  const std::string pred = (root_ / "pred/a_b.c_1.npy").string();
  const int64_t shape[] = {40, 60};
  write_npy(pred, shape, std::vector<float>(2400, -1.0f));
  std::vector<std::string> args = arguments("plain");
  args.insert(args.end(), {"--protocol", "marigold", "--align", "disparity-ls"});
  EXPECT_EQ(eval_command(args), concat_text((root_ / "list.txt").string(), ":2: prediction for a/b.c/1.jpg (", pred,
                                            "): expected a pixel to fit by disparity-ls, found none"));
}

TEST_F(EvalContract, AnyNumberOfThreadsWritesTheSameBytes) {
  make(375, 1242, 256, 80, 1.3f);
  const auto written = [&](const char* threads) {
    std::vector<std::string> args = arguments("kitti");
    args.insert(args.end(), {"--csv", (root_ / "out.csv").string(), "--align", "depth-ls", "--bootstrap", "20",
                             "--threads", threads});
    EXPECT_EQ(eval_command(args), "0");
    return read_text((root_ / "out.json").string()) + read_text((root_ / "out.csv").string());
  };
  const int before = num_threads();
  const std::string one = written("1");
  EXPECT_EQ(written("2"), one);
  EXPECT_EQ(written("5"), one);
  set_num_threads(before);
}

TEST_F(EvalContract, MetricSpaceAndNonfiniteNumbers) {
  make(40, 60, 256, 80, 1.25f);
  std::vector<std::string> args = arguments("plain");
  args.insert(args.end(), {"--metric-space", "disparity"});
  ASSERT_EQ(eval_command(args), "0");
  EXPECT_NEAR(result()["abs_rel"].get<double>(), 0.2, 1e-6);  // |0.8 - 1|
  EXPECT_EQ(result()["metric_space"], "disparity");
  const std::string pred = (root_ / "pred/a_b.c_1.npy").string();
  FloatArray map = read_npy(pred);
  map.values[0] = NAN;  // has truth
  write_npy(pred, map.shape, map.values);
  const std::vector<std::string> plain = arguments("plain");
  EXPECT_NE(eval_command(plain).find("row 0, column 0 is nan"), std::string::npos);
  args = plain;
  args.insert(args.end(), {"--nonfinite", "limit"});
  EXPECT_EQ(eval_command(args), "0");
  EXPECT_FALSE(result().contains("metric_space"));
  args.insert(args.end(), {"--protocol", "moge"});
  EXPECT_EQ(eval_command(args),
            "usage: eval: expected a protocol with limits of depth for --nonfinite limit, got moge on plain");
  args = arguments("plain");
  args.insert(args.end(), {"--protocol", "ultralytics", "--nonfinite", "fail"});
  EXPECT_NE(eval_command(args).find("row 0, column 0 is nan"), std::string::npos);
}

// MoGe's bundle: folders named by an index, truth as logarithms, the set's own protocol.
TEST_F(EvalContract, MogesBundle) {
  const int64_t shape[] = {6, 8};
  std::ofstream index(root_ / ".index.txt");
  for (const char* name : {"office/0 1", "office/02"}) {
    fs::create_directories(root_ / name);
    Image16 codes{8, 6, {}};
    std::vector<float> prediction;
    for (int i = 0; i < 48; ++i) {
      const bool known = i % 5 != 0;
      codes.grey.push_back(static_cast<uint16_t>(known ? 1 + 1200 * i : i == 5 ? 65535 : 0));
      const double depth = 0.5 * std::pow(160, 1200.0 * i / 65533);
      prediction.push_back(static_cast<float>(known ? 0.8 / depth + 0.1 : 1000));
    }
    std::vector<uint8_t> png = encode_png(codes);
    add_png_text(png, "near", "0.5");
    add_png_text(png, "far", "80.0");
    write_file((root_ / name / "depth.png").string(), png);
    write_npy((root_ / name / "image.npy").string(), shape, prediction);
    index << name << "\n";
  }
  index.close();
  std::vector<std::string> args = {"--dataset",    "moge",
                                   "--root",       root_.string(),
                                   "--list",       (root_ / ".index.txt").string(),
                                   "--pred",       root_.string(),
                                   "--pred-names", "image",
                                   "--align",      "disparity-ls",
                                   "--json",       (root_ / "out.json").string()};
  ASSERT_EQ(eval_command(args), "0");
  EXPECT_EQ(result()["images"], 2);
  EXPECT_EQ(result()["protocol_name"], "moge");
  EXPECT_NEAR(result()["abs_rel"].get<double>(), 0, 1e-5);
  EXPECT_NE(result()["protocol"].get<std::string>().find(
                "list .index.txt, 2 lines; truth in metres, logarithms between each file's near and far"),
            std::string::npos);
  args.insert(args.end(), {"--protocol", "marigold"});
  EXPECT_EQ(eval_command(args).rfind("usage: eval: protocol marigold: expected a set on which it is defined", 0), 0u);
  fs::remove(root_ / "office/02/depth.png");
  args.resize(args.size() - 2);
  EXPECT_NE(eval_command(args).find(".index.txt:2: "), std::string::npos);
}

std::string eval_help() {
  CLI::App app("test");
  Run run;
  add_eval_command(app, run);
  return app.get_subcommand("eval")->help();
}

TEST(EvalHelp, ShowsACommandPerBenchmarkAsTheReadmeDoes) {
  const std::string help = eval_help();
  const std::string readme = read_text(std::string(DEPTHSTILL_SOURCE_DIR) + "/README.md");
  for (const char* set : {"nyu", "kitti", "eth3d", "scannet", "diode"}) {
    const std::string command = concat_text("depthstill eval --dataset ", set, ' ');
    EXPECT_NE(help.find(command), std::string::npos) << set;
    EXPECT_NE(readme.find(command), std::string::npos) << set;
  }
}

}  // namespace
}  // namespace depthstill
