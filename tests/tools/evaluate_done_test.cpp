// What an evaluation answers to files that are not as they should be, and to any number of threads.
#include "engine/io/map_file.h"
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
