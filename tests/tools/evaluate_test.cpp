#include "engine/eval/evaluate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>

#include "engine/io/npy.h"
#include "engine/io/pfm.h"
#include "engine/io/text_file.h"
#include "kernels/core/error.h"
#include "tests/tools/eval_contract.h"

namespace depthstill {
namespace {

using namespace testing_eval;

TEST_F(EvalContract, KittiPredictions) {
  make(375, 1242, 256, 80, 1.3f);
  std::vector<std::string> args = arguments("kitti");
  args.insert(args.end(), {"--csv", (root_ / "out.csv").string()});
  ASSERT_EQ(eval_command(args), "0");
  const nlohmann::json json = result();
  EXPECT_EQ(json["images"], 2);
  EXPECT_EQ(json["without_truth"], 1);
  EXPECT_NEAR(json["abs_rel"].get<double>(), 0.3, 1e-6);
  EXPECT_NEAR(json["rmse_log"].get<double>(), std::log(1.3), 1e-6);
  EXPECT_NEAR(json["log10"].get<double>(), std::log10(1.3), 1e-6);
  EXPECT_NEAR(json["silog"].get<double>(), 0, 1e-3);
  EXPECT_EQ(json["d1"], 0);
  EXPECT_EQ(json["d2"], 1);
  EXPECT_EQ(json["d3"], 1);
  for (const char* key : {"images", "abs_rel", "sq_rel", "rmse", "rmse_log", "log10", "silog", "d1", "d2", "d3"}) {
    EXPECT_TRUE(json.contains(key)) << key;
  }
  EXPECT_NE(json["protocol"].get<std::string>().find("143:349"), std::string::npos);
  const std::vector<std::string> lines = split_lines(read_text((root_ / "out.csv").string()));
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[1].rfind("a/b.c/0.jpg,", 0), 0u);
}

TEST_F(EvalContract, NyuPredictions) {
  make(480, 640, 1000, 10, 0.9f);
  ASSERT_EQ(eval_command(arguments("nyu")), "0");
  EXPECT_NEAR(result()["abs_rel"].get<double>(), 0.1, 1e-6);
  EXPECT_EQ(result()["d1"], 1);
  EXPECT_NE(result()["protocol"].get<std::string>().find("45:471"), std::string::npos);
}

TEST_F(EvalContract, ProtocolOptions) {
  make(40, 60, 500, 80, 2.0f);
  std::vector<std::string> args = arguments("plain");
  args.insert(args.end(), {"--depth-scale", "500", "--median-scaling", "--max-depth", "90"});
  ASSERT_EQ(eval_command(args), "0");
  EXPECT_NEAR(result()["abs_rel"].get<double>(), 0, 1e-6);
  EXPECT_NE(result()["protocol"].get<std::string>().find("90"), std::string::npos);
}

TEST_F(EvalContract, FloatGroundTruthIsInMetresUnlessStated) {
  make(40, 60, 500, 80, 1.25f);
  const auto list_of = [&](const char* extension, float units) {
    std::ofstream list(root_ / "list.txt");
    for (const char* number : {"0", "1"}) {
      DepthMap truth = read_map((root_ / "gt" / (std::string(number) + ".png")).string(), {1.0 / 500});
      for (float& metres : truth.values) metres *= units;
      const std::string name = std::string("gt/") + number + extension;
      const int64_t shape[] = {truth.height, truth.width};
      if (std::string(extension) == ".npy") write_npy((root_ / name).string(), shape, truth.values);
      if (std::string(extension) == ".pfm") write_pfm((root_ / name).string(), truth.width, truth.height, truth.values);
      list << "a/b.c/" << number << ".jpg " << name << " 700\n";
    }
  };
  for (const char* extension : {".npy", ".pfm"}) {
    list_of(extension, 1);
    std::vector<std::string> args = arguments("plain");
    ASSERT_EQ(eval_command(args), "0");
    EXPECT_NEAR(result()["abs_rel"].get<double>(), 0.25, 1e-6) << extension;
    args.insert(args.end(), {"--depth-scale", "500"});
    ASSERT_EQ(eval_command(args), "0");
    EXPECT_NEAR(result()["abs_rel"].get<double>(), 0.25, 1e-6) << extension;
    list_of(extension, 1000);
    args.insert(args.end(), {"--depth-float-scale", "1000"});
    ASSERT_EQ(eval_command(args), "0");
    EXPECT_NEAR(result()["abs_rel"].get<double>(), 0.25, 1e-6) << extension;
  }
}

TEST_F(EvalContract, RelativePredictionsAreRefused) {
  make(40, 60, 256, 80, 1.0f);
  write_map((root_ / "pred" / "a_b.c_1.npy").string(),
            {60, 40, std::vector<float>(60 * 40, 0.5f), kRelativeInverseDepth}, {});
  EXPECT_NE(
      eval_command(arguments("plain"))
          .find("list.txt:2: the prediction for a/b.c/1.jpg is inverse depth up to scale and shift, expected depth in "
                "metres"),
      std::string::npos);
}

TEST_F(EvalContract, RelativeGroundTruthIsRefused) {
  make(40, 60, 256, 80, 1.0f);
  const DepthMap inverse{60, 40, std::vector<float>(60 * 40, 0.5f), kRelativeInverseDepth};
  write_map((root_ / "gt" / "1.png").string(), inverse, {1e-3});
  write_map((root_ / "pred" / "a_b.c_1.npy").string(), inverse, {});
  EXPECT_NE(eval_command(arguments("plain"))
                .find("gt/1.png: expected depth in metres, found inverse depth up to scale and shift"),
            std::string::npos);
}

// The same figures from depth, inverse depth and affine versions of either, as files of each format and naming.
TEST_F(EvalContract, RelativePredictionsAreFitted) {
  make(40, 60, 256, 80, 1.0f);
  const auto store = [&](const std::string& folder, const std::function<std::string(int)>& name, bool inverse,
                         double unit) {
    for (const int number : {0, 1}) {
      DepthMap map = read_map((root_ / "gt" / (std::to_string(number) + ".png")).string(), {1.0 / 256});
      for (float& value : map.values) {
        value = value == 0 ? 0.4f : inverse ? 0.25f / value + 0.125f : 0.01f * value + 0.05f;
      }
      map.kind = {inverse ? Quantity::kInverseDepth : Quantity::kDepth, Ambiguity::kScaleAndShift};
      const fs::path path = root_ / folder / name(number);
      fs::create_directories(path.parent_path());
      if (path.extension() == ".npy") {
        const int64_t shape[] = {map.height, map.width};
        write_npy(path.string(), shape, map.values);  // does not say what it is
      } else {
        write_map(path.string(), map, {unit});
      }
    }
  };
  const auto flat = [](const char* extension) {
    return [extension](int number) { return concat_text("a_b.c_", number, extension); };
  };
  store("disparity", flat(".npy"), true, 1);
  store("depth", flat(".png"), false, 1.0 / 60000);
  store(
      "marigold", [](int number) { return concat_text("a/b.c/pred_", number, ".pfm"); }, true, 1);
  store(
      "image", [](int number) { return concat_text("a/b.c/", number, ".npy"); }, false, 1);
  const struct {
    const char* folder;
    std::vector<std::string> options;
    double scale, shift;
  } cases[] = {{"disparity", {"--align", "disparity-ls"}, 4, -0.5},
               {"depth", {"--align", "depth-ls"}, 100, -5},
               {"depth", {"--align", "depth-l1", "--pred-kind", "depth"}, 100, -5},
               {"marigold", {"--align", "disparity-ls", "--pred-names", "marigold"}, 4, -0.5},
               {"image", {"--align", "depth-ls", "--pred-names", "image", "--protocol", "marigold"}, 100, -5}};
  for (const auto& c : cases) {
    SCOPED_TRACE(c.folder);
    std::vector<std::string> args = arguments("plain");
    args[7] = (root_ / c.folder).string();
    args.insert(args.end(), c.options.begin(), c.options.end());
    args.insert(args.end(), {"--csv", (root_ / "out.csv").string()});
    ASSERT_EQ(eval_command(args), "0");
    EXPECT_NEAR(result()["abs_rel"].get<double>(), 0, 1e-3);  // a PNG's rounding
    EXPECT_EQ(result()["align"], c.options[1]);
    EXPECT_EQ(result()["fit"]["images"], 2);
    EXPECT_EQ(result()["fit"]["negative_scale"], 0);
    const std::vector<std::string> lines = split_lines(read_text((root_ / "out.csv").string()));
    EXPECT_EQ(lines[0], "image,pixels,abs_rel,sq_rel,rmse,rmse_log,log10,silog,d1,d2,d3,scale,shift,fit_pixels,i_rmse");
    std::stringstream line(lines[1]);
    std::vector<std::string> cells;
    for (std::string cell; std::getline(line, cell, ',');) cells.push_back(cell);
    EXPECT_NEAR(std::stod(cells[11]), c.scale, 1e-2 * c.scale);
    EXPECT_NEAR(std::stod(cells[12]), c.shift, 2e-2 * std::abs(c.shift));
    EXPECT_EQ(cells[13], cells[1]);
  }
  std::vector<std::string> args = arguments("plain");
  args[7] = (root_ / "depth").string();
  args.insert(args.end(), {"--align", "disparity-ls", "--pred-kind", "disparity"});
  EXPECT_NE(
      eval_command(args).find("a_b.c_0.png: expected inverse depth as --pred-kind says, found depth up to scale and "
                              "shift, as the file says"),
      std::string::npos);
}

TEST_F(EvalContract, MedianScalingIsASpellingOfAlignMedian) {
  make(40, 60, 256, 80, 2.0f);
  std::vector<std::string> spelled = arguments("plain"), named = arguments("plain");
  spelled.emplace_back("--median-scaling");
  named.insert(named.end(), {"--align", "median"});
  ASSERT_EQ(eval_command(spelled), "0");
  const nlohmann::json expected = result();
  EXPECT_EQ(expected["align"], "median");
  ASSERT_EQ(eval_command(named), "0");
  EXPECT_EQ(result(), expected);
  spelled.insert(spelled.end(), {"--align", "depth-ls"});
  EXPECT_EQ(eval_command(spelled), "usage: eval: --median-scaling is --align median, got --align depth-ls beside it");
}

TEST_F(EvalContract, PredictionsOfAnotherSizeAreResizedIfAsked) {
  make(40, 60, 256, 80, 1.0f);
  for (const char* number : {"0", "1"}) {
    const int64_t shape[] = {20, 30};
    write_npy((root_ / "pred" / (std::string("a_b.c_") + number + ".npy")).string(), shape,
              std::vector<float>(600, 10.0f));
  }
  EXPECT_NE(eval_command(arguments("plain")).find("is 30x20, expected 60x40 (width x height); --pred-resize"),
            std::string::npos);
  for (const char* how : {"half-pixel", "corners", "nearest"}) {
    std::vector<std::string> args = arguments("plain");
    args.insert(args.end(), {"--pred-resize", how});
    EXPECT_EQ(eval_command(args), "0") << how;
  }
}

// ETH3D's truth has no header and infinity for nothing known, DIODE's a mask beside it, ScanNet's is in millimetres.
TEST_F(EvalContract, FilesOfTheFurtherSets) {
  const int64_t shape[] = {4, 6, 1}, plane[] = {4, 6}, lower[] = {3, 6};
  std::vector<float> truth, mask, prediction;
  for (int i = 0; i < 24; ++i) {
    const bool known = i % 4 != 1;
    truth.push_back(static_cast<float>(1 + 0.25 * i));
    mask.push_back(known);
    prediction.push_back(known ? 2 / truth.back() + 1 : 0.0f);
  }
  write_npy((root_ / "pred/a.npy").string(), plane, prediction);
  write_npy((root_ / "gt/diode.npy").string(), shape, truth);
  write_npy((root_ / "gt/mask.npy").string(), plane, mask);
  DepthMap millimetres{6, 4, truth};
  std::vector<float> raw = truth;
  for (size_t i = 0; i < raw.size(); ++i) {
    if (mask[i] == 0) raw[i] = INFINITY;
    if (mask[i] == 0) millimetres.values[i] = 0;
  }
  write_map((root_ / "gt/scannet.png").string(), millimetres, {0.001});
  std::ofstream(root_ / "gt/eth3d.JPG", std::ios::binary)
      .write(reinterpret_cast<const char*>(raw.data()), static_cast<std::streamsize>(raw.size() * sizeof(float)));
  const auto score = [&](const std::string& dataset, const std::string& columns) {
    std::ofstream(root_ / "list.txt") << "a.png " + columns;
    std::vector<std::string> args = arguments(dataset);
    args.insert(args.end(), {"--align", "disparity-ls"});
    return eval_command(args);
  };
  const std::pair<const char*, const char*> sets[] = {
      {"eth3d", "gt/eth3d.JPG"}, {"diode", "gt/diode.npy gt/mask.npy"}, {"scannet", "gt/scannet.png"}};
  for (const auto& [dataset, columns] : sets) {
    ASSERT_EQ(score(dataset, columns), "0") << dataset;
    EXPECT_NEAR(result()["abs_rel"].get<double>(), 0, 1e-5) << dataset;
    EXPECT_EQ(result()["protocol_name"], "marigold");
  }
  const std::string list = (root_ / "list.txt").string(), gt = (root_ / "gt/").string();
  EXPECT_EQ(score("diode", "gt/diode.npy"), list + ":1: expected a third column, the mask of the truth, found none");
  write_npy((root_ / "gt/mask.npy").string(), lower, std::vector<float>(18, 1.0f));
  EXPECT_EQ(
      score("diode", "gt/diode.npy gt/mask.npy"),
      list + ":1: " + gt + "mask.npy: expected a mask of 6x4 (width x height) like " + gt + "diode.npy, found 6x3");
  fs::resize_file(root_ / "gt/eth3d.JPG", 95);
  EXPECT_EQ(score("eth3d", "gt/eth3d.JPG"),
            list + ":1: " + gt + "eth3d.JPG: expected 96 bytes, floats of 6x4 (width x height), found 95");
}

TEST_F(EvalContract, ProtocolsAreNamed) {
  make(40, 60, 256, 80, 1.25f);
  for (const char* name : {"tie-kd", "marigold", "dav2-metric", "moge", "ultralytics"}) {
    std::vector<std::string> args = arguments("plain");
    args.insert(args.end(), {"--protocol", name});
    ASSERT_EQ(eval_command(args), "0") << name;
    EXPECT_EQ(result()["protocol_name"], name);
    EXPECT_NE(result()["protocol"].get<std::string>().find(concat_text("protocol ", name, " on plain: ")),
              std::string::npos);
    EXPECT_NEAR(result()["abs_rel"].get<double>(), 0.25, 1e-4) << name;
    EXPECT_EQ(result().contains("rmse_log"), name != std::string("moge") && name != std::string("ultralytics"));
  }
  std::vector<std::string> args = arguments("plain");
  args.insert(args.end(), {"--protocol", "monodepth2"});
  EXPECT_EQ(eval_command(args),
            "usage: eval: protocol monodepth2: expected a set on which it is defined (kitti), got "
            "'plain'");
}

TEST_F(EvalContract, TeacherSimilarityTakesRowsFrom110) {
  make(352, 1216, 256, 80, 1.0f);
  fs::create_directories(root_ / "teacher");
  for (const char* number : {"0", "1"}) {
    DepthMap teacher{1216, 352, std::vector<float>(352 * 1216, 10.0f)};
    write_map((root_ / "teacher" / (std::string("a_b.c_") + number + ".png")).string(), teacher, {80.0 / 65535});
    for (size_t i = 0; i < teacher.values.size(); ++i) teacher.values[i] = i < 110 * 1216 ? 70.0f : 11.0f;
    const int64_t shape[] = {352, 1216};
    write_npy((root_ / "pred" / (std::string("a_b.c_") + number + ".npy")).string(), shape, teacher.values);
  }
  std::ofstream(root_ / "list.txt") << "a/b.c/0.jpg None 1\na/b.c/1.jpg gt/1.png 1\n";
  std::vector<std::string> args = arguments("kitti");
  args.insert(args.end(), {"--teacher-similarity", "--teacher", (root_ / "teacher").string()});
  ASSERT_EQ(eval_command(args), "0");
  EXPECT_EQ(result()["images"], 2);
  EXPECT_NEAR(result()["abs_rel"].get<double>(), 0.1, 1e-4);
}

TEST_F(EvalContract, AStackHoldsPredictionsInTheOrderOfTheList) {
  make(40, 60, 256, 80, 1.25f);
  const std::string stack = (root_ / "stack.npy").string(), list = (root_ / "list.txt").string();
  std::vector<std::string> args = arguments("plain");
  *std::find(args.begin(), args.end(), (root_ / "pred").string()) = stack;
  const auto write = [&](int64_t maps) {
    std::vector<float> values;
    for (int64_t i = 0; i < maps; ++i) {
      const FloatArray map =
          read_npy((root_ / "pred" / concat_text("a_b.c_", std::min<int64_t>(i, 1), ".npy")).string());
      values.insert(values.end(), map.values.begin(), map.values.end());
    }
    const int64_t shape[] = {maps, 40, 60};
    write_npy(stack, shape, values);
  };
  for (const int64_t maps : {2, 3}) {  // of the lines with truth, or of all
    write(maps);
    ASSERT_EQ(eval_command(args), "0");
    EXPECT_NEAR(result()["abs_rel"].get<double>(), 0.25, 1e-6);
  }
  write(4);
  EXPECT_EQ(eval_command(args),
            stack + ": expected 3 maps, one per line of the list, or 2, one per line with truth, found 4");
}

TEST_F(EvalContract, TwoSystemsAreComparedImageByImage) {
  make(40, 60, 256, 80, 1.25f);
  fs::copy(root_ / "pred", root_ / "other");
  const std::string first = (root_ / "other" / "a_b.c_0.npy").string();
  FloatArray map = read_npy(first);
  for (float& metres : map.values) metres *= 0.84f;  // 1.05 times the truth
  write_npy(first, map.shape, map.values);
  std::vector<std::string> args = arguments("plain");
  args.insert(args.end(), {"--csv", (root_ / "ours.csv").string(), "--bootstrap-by", "scene", "--compare",
                           (root_ / "other").string()});
  ASSERT_EQ(eval_command(args), "0");
  const nlohmann::json by_maps = result()["compare"];
  EXPECT_EQ(result()["scenes"], 1);  // both lie in a/b.c
  EXPECT_NEAR(by_maps["abs_rel"]["difference"].get<double>(), 0.1, 1e-5);
  EXPECT_EQ(by_maps["abs_rel"]["better_share"], 0);
  args = arguments("plain");
  *std::find(args.begin(), args.end(), (root_ / "pred").string()) = (root_ / "other").string();
  args.insert(args.end(), {"--compare", (root_ / "ours.csv").string()});
  ASSERT_EQ(eval_command(args), "0");
  EXPECT_NEAR(result()["compare"]["abs_rel"]["difference"].get<double>(), -0.1, 1e-5);
  EXPECT_EQ(result()["compare"]["abs_rel"]["better_share"], 0.5);
  args.insert(args.end(), {"--align", "depth-ls"});
  EXPECT_EQ(eval_command(args), (root_ / "ours.csv").string() +
                                    ": expected figures with an alignment, as --align says, found some without");
}

TEST_F(EvalContract, ErrorsSayWhatAndWhere) {
  make(375, 1242, 256, 80, 1.0f);
  const std::string list = (root_ / "list.txt").string(), pred = (root_ / "pred" / "a_b.c_1.npy").string();
  const int64_t small[] = {2, 2};

  write_npy(pred, small, std::vector<float>(4, 1.0f));
  EXPECT_EQ(eval_command(arguments("kitti")), list +
                                                  ":2: the prediction for a/b.c/1.jpg is 2x2, expected 1216x352 (width "
                                                  "x height); --pred-resize brings it there");

  const int64_t shape[] = {352, 1216};
  write_npy(pred, shape, std::vector<float>(352 * 1216, NAN));
  EXPECT_NE(eval_command(arguments("kitti"))
                .find(concat_text(list, ":2: prediction for a/b.c/1.jpg (", pred, "): row 143, column ")),
            std::string::npos);

  std::ofstream(pred, std::ios::binary) << "not an array";
  EXPECT_EQ(eval_command(arguments("kitti")).rfind(list + ":2: " + pred, 0), 0u);

  fs::remove(pred);
  EXPECT_EQ(eval_command(arguments("kitti")), list + ":2: expected the prediction " + pred + ", found none");

  std::ofstream(root_ / "list.txt") << "a/b.c/0.jpg\n";
  EXPECT_EQ(eval_command(arguments("kitti")),
            list + ":1: expected 3 columns (image depth focal) or 2 (image depth), found 1");
  std::ofstream(root_ / "list.txt") << "";
  EXPECT_NE(eval_command(arguments("kitti")).find("empty list"), std::string::npos);

  EXPECT_EQ(eval_command({"--dataset", "kitti"}).rfind("usage: ", 0), 0u);
  EXPECT_EQ(eval_command({"--dataset", "mars"}).rfind("usage: ", 0), 0u);
  EXPECT_EQ(eval_command({"--pred", "x"}).rfind("usage: ", 0), 0u);
}

TEST_F(EvalContract, ListsAsPeopleHaveThem) {
  make(40, 60, 256, 80, 1.25f);
  const auto score = [&](const std::string& list) {
    std::ofstream(root_ / "list.txt") << list;
    const std::string outcome = eval_command(arguments("plain"));
    return outcome == "0" ? result()["images"].dump() + " " + format_metric(result()["abs_rel"]) : outcome;
  };
  const std::string root = fs::weakly_canonical(root_).string();
  const std::pair<std::string, std::string> cases[] = {
      {"\xef\xbb\xbf"
       "a/b.c/0.jpg gt/0.png 721.5\r\na/b.c/1.jpg gt/1.png 721.5\r\n",
       "2 0.2500"},
      {"a/b.c/0.jpg gt/0.png\na/b.c/1.jpg gt/1.png", "2 0.2500"},
      {"# image depth focal\na/b.c/0.jpg gt/0.png 721.5\n\na/b.c/1.jpg gt/1.png 721.5\n", "2 0.2500"},
      {"a/b.c/0.jpg gt/0.png gt/0_mask.png\n", "1 0.2500"},
      {"a\\b.c\\0.jpg\tgt\\0.png\n", "1 0.2500"},
      {root + "/a/b.c/0.jpg " + root + "/gt/0.png\n", "1 0.2500"},
      {"/a/b.c/0.jpg /gt/0.png 721.5\n", "1 0.2500"},
  };
  for (const auto& [list, expected] : cases) EXPECT_EQ(score(list), expected) << list;
  fs::rename(root_ / "pred/a_b.c_0.npy", root_ / "pred/with space_0.npy");
  EXPECT_EQ(score("\"with space/0.jpg\" gt/0.png 721.5\n"), "1 0.2500");
  EXPECT_EQ(score("/somewhere/rgb/0.jpg /somewhere/gt/0.png\n"),
            (root_ / "list.txt").string() + ":1: expected a file at " + root_.string() +
                "/somewhere/gt/0.png or /somewhere/gt/0.png, found none");
}

TEST_F(EvalContract, PathsOutsideOfTheRootAndNamesOfTwo) {
  make(40, 60, 256, 80, 1.25f);
  fs::create_directories(root_ / "below");
  std::vector<std::string> args = arguments("plain");
  args[3] = (root_ / "below").string();
  std::ofstream(root_ / "list.txt") << "a/b.c/0.jpg ../gt/0.png\n";
  EXPECT_EQ(eval_command(args).rfind((root_ / "list.txt").string() + ":1: expected a path below ", 0), 0u);
  fs::create_directory_symlink(root_ / "gt", root_ / "below/gt");
  std::ofstream(root_ / "list.txt") << "a/b.c/0.jpg gt/0.png\n";
  EXPECT_EQ(eval_command(args).rfind((root_ / "list.txt").string() + ":1: expected a path below ", 0), 0u);
  args.emplace_back("--allow-outside");
  EXPECT_EQ(eval_command(args), "0");
  std::ofstream(root_ / "list.txt") << "a_b.c/0.jpg gt/0.png\na/b.c_0.jpg gt/1.png\n";
  EXPECT_EQ(eval_command(arguments("plain")),
            (root_ / "list.txt").string() +
                ":2: expected a map of its own for a/b.c_0.jpg, found a_b.c_0.npy, the name of "
                "that of a_b.c/0.jpg in line 1, too");
}

}  // namespace
}  // namespace depthstill
