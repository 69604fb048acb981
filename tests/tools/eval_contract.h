// Runs of `depthstill eval` within the test's process, on small data sets that tests write.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "engine/eval/protocol.h"
#include "engine/io/npy.h"
#include "engine/io/text_file.h"
#include "kernels/core/error.h"
#include "kernels/core/parallel.h"
#include "tools/args.h"

namespace depthstill::testing_eval {

namespace fs = std::filesystem;

// Runs `depthstill eval ...` in this process: the exit code, or the message of what it threw.
inline std::string eval_command(const std::vector<std::string>& arguments) {
  CLI::App app("test");
  Run run;
  add_eval_command(app, run);
  std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
  reversed.emplace_back("eval");
  try {
    app.parse(reversed);
    testing::internal::CaptureStdout();
    const int code = run();
    testing::internal::GetCapturedStdout();
    return std::to_string(code);
  } catch (const CLI::ParseError& error) {
    return std::string("usage: ") + error.what();
  } catch (const UsageError& error) {
    testing::internal::GetCapturedStdout();
    return std::string("usage: ") + error.what();
  } catch (const Error& error) {
    testing::internal::GetCapturedStdout();
    return error.what();
  }
}

// A data set of two frames and one line without truth, and predictions that are `factor` times the truth.
class EvalContract : public testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::path(testing::TempDir()) / testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(root_);
    fs::create_directories(root_ / "gt");
    fs::create_directories(root_ / "pred");
  }

  void make(int height, int width, double units, double max_depth, float factor) {
    std::ofstream list(root_ / "list.txt");
    for (int i = 0; i < 2; ++i) {
      DepthMap truth{width, height, {}};
      for (int y = 0; y < height; ++y) {
        for (int x = 0; x < width; ++x) {
          const bool known = (x + y) % 3 == 0;
          truth.values.push_back(
              known ? static_cast<float>(std::round(units * (0.5 + 0.4 * max_depth * y / height)) / units) : 0);
        }
      }
      const std::string number = std::to_string(i);
      write_map((root_ / "gt" / (number + ".png")).string(), truth, {1 / units});
      DepthMap frame = truth;
      if (height > 352 && width > 1216) frame = crop(truth, frame_rect(make_protocol("kitti"), {width, height}));
      for (float& metres : frame.values) metres = metres > 0 ? metres * factor : 1e6f;  // unknown pixels must not count
      const int64_t shape[] = {frame.height, frame.width};
      write_npy((root_ / "pred" / ("a_b.c_" + number + ".npy")).string(), shape, frame.values);
      list << "a/b.c/" << number << ".jpg gt/" << number << ".png 700\r\n";
    }
    list << "a/none.jpg None 700";  // no truth, no prediction, no line end
  }

  std::vector<std::string> arguments(const std::string& dataset) const {
    return {"--dataset", dataset,
            "--root",    root_.string(),
            "--list",    (root_ / "list.txt").string(),
            "--pred",    (root_ / "pred").string(),
            "--json",    (root_ / "out.json").string()};
  }
  static std::string format_metric(double value) {
    char text[32];
    std::snprintf(text, sizeof(text), "%.4f", value);
    return text;
  }
  nlohmann::json result() const { return nlohmann::json::parse(read_text((root_ / "out.json").string())); }
  fs::path root_;
};

}  // namespace depthstill::testing_eval
