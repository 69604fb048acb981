#include "tools/report/report.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "kernels/core/error.h"
#include "tools/progress.h"
#include "tools/report/chart.h"
#include "tools/report/colormap.h"

namespace depthstill {
namespace {

size_t count_of(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = 0; (at = text.find(part, at)) != std::string::npos; at += part.size()) ++count;
  return count;
}

StepRecord step(int64_t number, double loss) {
  return {number, number / 10, 1e-3, 2.5, 0.4, {{"total", loss}, {"dpm", loss / 2}}};
}

EvalRecord eval(int64_t number, double abs_rel) {
  EvalRecord record{number, number / 10, "val", 25, {}};
  record.metrics.abs_rel = abs_rel;
  return record;
}

class RunLogFile : public testing::Test {
 protected:
  std::string write(const std::string& text) const {
    const std::string path = testing::TempDir() + "metrics.jsonl";
    std::ofstream(path, std::ios::binary) << text;
    return path;
  }
};

TEST_F(RunLogFile, ReadsWhatWasWritten) {
  const RunLog log =
      read_run_log(write(to_json_line(step(1, 0.1)) + to_json_line(step(2, 1e-9)) + to_json_line(eval(2, 0.3))));
  ASSERT_EQ(log.steps.size(), 2u);
  EXPECT_EQ(log.steps[1].losses, (std::vector<std::pair<std::string, double>>{{"total", 1e-9}, {"dpm", 5e-10}}));
  EXPECT_EQ(log.steps[0].lr, 1e-3);
  EXPECT_EQ(log.evals.at(0).metrics.abs_rel, 0.3);
  EXPECT_EQ(log.evals[0].split, "val");
}

TEST_F(RunLogFile, LaterLinesReplaceEarlierOnesAfterAResume) {
  std::string text;
  for (int i = 1; i <= 5; ++i) text += to_json_line(step(i, 1));
  text += to_json_line(eval(5, 0.5));
  for (int i = 3; i <= 4; ++i) text += to_json_line(step(i, 2));
  text += to_json_line(eval(4, 0.4));
  const RunLog log = read_run_log(write(text));
  ASSERT_EQ(log.steps.size(), 4u);
  EXPECT_EQ(log.steps[1].losses[0].second, 1);
  EXPECT_EQ(log.steps[2].losses[0].second, 2);
  ASSERT_EQ(log.evals.size(), 1u);
  EXPECT_EQ(log.evals[0].metrics.abs_rel, 0.4);
}

TEST_F(RunLogFile, OnlyTheLastLineMayBeCut) {
  const std::string line = to_json_line(step(1, 1));
  EXPECT_EQ(read_run_log(write(line + line.substr(0, 20))).steps.size(), 1u);
  try {
    read_run_log(write(line.substr(0, 20) + "\n" + line));
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("metrics.jsonl:1: "), std::string::npos);
  }
}

TEST(Chart, DrawsLinesAxesAndLegend) {
  const std::vector<Series> series = {{"a<b", {{0, 1}, {1, 10}, {2, NAN}, {3, 100}}}, {"c", {{0, 2}, {3, 3}}}};
  const std::string svg = line_chart({"title & more", "step", true}, series);
  EXPECT_EQ(count_of(svg, "<path class='line'"), 2u);
  EXPECT_NE(svg.find("a&lt;b"), std::string::npos);
  EXPECT_NE(svg.find("title &amp; more"), std::string::npos);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  EXPECT_NE(line_chart({"empty", "step", false}, {}).find("nothing logged"), std::string::npos);
  // One point, or a constant line, still has an axis.
  const std::vector<Series> flat = {{"f", {{5, 0}}}};
  EXPECT_EQ(line_chart({"flat", "step", true}, flat).find("nan"), std::string::npos);
}

TEST(Chart, ThinsAndSmooths) {
  std::vector<Point> points;
  for (int i = 0; i < 1000; ++i) points.push_back({static_cast<double>(i), 2.0});
  EXPECT_EQ(thin(points, 100).size(), 100u);
  EXPECT_DOUBLE_EQ(thin(points, 100)[0].x, 4.5);
  EXPECT_DOUBLE_EQ(smooth(points, 0.9)[0].y, 2.0);  // no pull towards zero at the start
  EXPECT_EQ(short_number(0.00004), "4e-05");
  EXPECT_EQ(short_number(17352), "17.35k");
}

TEST(Colormap, EndsAndOrder) {
  // The polynomials follow the published tables of 256 colours to 8 (Magma) and 24 (Turbo) units.
  const struct {
    Colormap map;
    double position;
    std::array<int, 3> expected;
  } cases[] = {{Colormap::kMagma, 0, {0, 0, 4}},
               {Colormap::kMagma, 1, {252, 253, 191}},
               {Colormap::kMagma, 0.5, {183, 55, 121}},
               {Colormap::kTurbo, 0.5, {164, 252, 60}},
               {Colormap::kGrey, 0.5, {128, 128, 128}}};
  for (const auto& c : cases) {
    for (size_t i = 0; i < 3; ++i)
      EXPECT_NEAR(colour_at(c.map, c.position)[i], c.expected[i], c.map == Colormap::kTurbo ? 24 : 8) << c.position;
  }
  EXPECT_THROW(parse_colormap("jet"), Error);

  const ColourRange range{2, 50};
  EXPECT_NEAR(range.position(2), 1, 1e-12);
  EXPECT_NEAR(range.position(50), 0, 1e-12);
  EXPECT_NEAR(range.position(10), 0.5, 1e-12);
  const DepthMap depth{3, 1, {0, 2, 50}};
  const Image8 image = colour_depth(depth, Colormap::kGrey, range);
  EXPECT_EQ(image.rgb, (std::vector<uint8_t>{128, 128, 128, 255, 255, 255, 0, 0, 0}));
}

TEST(Report, IsOneSelfContainedPage) {
  Report report;
  report.title = "run <1>";
  report.facts = {{"device", "cpu & more"}};
  report.final = MetricsSummary{{0.1, 1, 2, 0.2, 0.05, 15, 0.9, 0.98, 0.99}, 25, 1};
  report.protocol = "protocol kitti";
  report.final_label = "best epoch 2 (chosen by d1), val list";
  report.split = "val";
  report.select_metric = "d1";
  report.baselines = {{"constant", "constant 8 m", {{0.35, 1, 2, 0.2, 0.05, 15, 0.47, 0.8, 0.9}, 25, 1}},
                      {"row_median", "median of each row", {{0.245, 1, 2, 0.2, 0.05, 15, 0.72, 0.8, 0.9}, 25, 1}}};
  report.baseline_source = "train.txt, 48 images";
  report.recipe = "[model]\nname = \"<x>\"\n";
  for (int i = 0; i < 120; ++i) report.log.steps.push_back(step(i, 1.0 / (1 + i)));
  for (int i = 1; i <= 3; ++i) report.log.evals.push_back(eval(10 * i, 0.4 / i));
  report.log.evals[1].metrics.d1 = 0.5;
  ReportPanel panel{"a/b.png", {64, 16, std::vector<uint8_t>(64 * 16 * 3, 90)}, {64, 16, {}}, {64, 16, {}}};
  for (int i = 0; i < 64 * 16; ++i) {
    panel.reference.values.push_back(i < 64 ? 0 : 5.0f + static_cast<float>(i) / 64);
    panel.prediction.values.push_back(6.0f);
  }
  report.panels = {panel};
  panel.reference = {};
  report.panels.push_back(panel);
  const std::string html = render_report(report);
  EXPECT_EQ(count_of(html, "<img"), 6u);  // 4 views, and 2 where there is nothing to compare with
  EXPECT_EQ(count_of(html, "src='data:image/"), 6u);
  EXPECT_EQ(html.find("http"), std::string::npos);
  EXPECT_EQ(html.find("<script"), std::string::npos);
  EXPECT_NE(html.find("run &lt;1&gt;"), std::string::npos);
  EXPECT_NE(html.find("&lt;x&gt;"), std::string::npos);
  EXPECT_NE(html.find("0.1000"), std::string::npos);
  for (const char* text : {"<td>best epoch 2 (chosen by d1), val list</td><td>0.1000</td>", "<td>last epoch 4</td>",
                           "<td>constant 8 m</td><td>0.3500</td>", "<td>median of each row</td><td>0.2450</td>",
                           "train.txt, 48 images", "<dt>silog ↓</dt><dd>100 times the standard deviation",
                           "<figcaption>relative error against the teacher</figcaption>", "Marked: the best in d1"}) {
    EXPECT_NE(html.find(text), std::string::npos) << text;
  }
  EXPECT_EQ(count_of(html, "<tr class='best'>"), 2u) << "the kept one beside the baselines, and one of the epochs";
  EXPECT_NE(html.find("<tr class='best'><td>val</td><td>3</td>"), std::string::npos) << "by d1, not by abs_rel";
  EXPECT_NE(html.find("prefers-color-scheme:dark"), std::string::npos);
  for (const char* tag : {"section", "figure", "svg", "table", "div", "ul", "dl", "dd", "p", "pre"}) {
    EXPECT_EQ(count_of(html, std::string("<") + tag + " ") + count_of(html, std::string("<") + tag + ">"),
              count_of(html, std::string("</") + tag + ">"))
        << tag;
  }
}

TEST(Report, TheWorstImagesComeFirst) {
  Report report;
  report.final = MetricsSummary{{}, 25, 1};
  report.select_metric = "abs_rel";
  report.images.push_back({"none", 0});
  for (int i = 0; i < 25; ++i) {
    report.images.push_back({concat_text("image", i, "<"), 7, Metrics{.abs_rel = 0.01 * (i * 7 % 25)}});
  }
  const auto at = [&](const std::string& text) { return render_report(report).find(text); };
  EXPECT_LT(at("<td>image7&lt;</td><td>7</td><td>0.2400</td>"), at("<td>image14&lt;</td><td>7</td><td>0.2300</td>"));
  EXPECT_NE(at("<td>image15&lt;</td>"), std::string::npos) << "0.05, the last of 20";
  EXPECT_EQ(at("<td>image22&lt;</td>"), std::string::npos) << "0.04";
  EXPECT_NE(at("By abs_rel, of 25 images"), std::string::npos);
  report.select_metric = "d1";  // higher is better, and the same for all: in the list's order
  EXPECT_NE(at("<th>image</th>"), std::string::npos);
  EXPECT_LT(at("<td>image0&lt;</td>"), at("<td>image19&lt;</td>"));
}

TEST(Report, APanelIsOnePicture) {
  ReportPanel panel{"a", {2, 1, {1, 2, 3, 4, 5, 6}}, {2, 1, {4, 8}}, {2, 1, {4, 12}}};
  const Image8 picture = panel_picture(panel);
  EXPECT_EQ(picture.size(), (ImageSize{10, 8}));
  const auto pixel = [&](int x, int y) {
    const auto at = picture.rgb.begin() + 3 * (10 * y + x);
    return std::vector<uint8_t>(at, at + 3);
  };
  EXPECT_EQ(pixel(1, 0), (std::vector<uint8_t>{4, 5, 6}));
  EXPECT_EQ(pixel(4, 4), (std::vector<uint8_t>{255, 255, 255}));
  EXPECT_EQ(pixel(8, 0), pixel(0, 7)) << "both depths are 4 m";
  const auto none = colour_at(Colormap::kMagma, 0), half = colour_at(Colormap::kMagma, 1);
  EXPECT_EQ(pixel(8, 7), std::vector<uint8_t>(none.begin(), none.end()));
  EXPECT_EQ(pixel(9, 7), std::vector<uint8_t>(half.begin(), half.end()));
  panel.reference = {};
  EXPECT_EQ(panel_picture(panel).size(), (ImageSize{2, 8}));
  const ReportPanel wide{
      "a", {1282, 2, std::vector<uint8_t>(3 * 1282 * 2)}, {}, {1282, 2, std::vector<float>(1282 * 2, 4.0f)}};
  EXPECT_LE(panel_picture(wide).width, 640);
}

TEST(Report, OfARunThatLoggedNothing) { EXPECT_NE(render_report(Report{}).find("nothing logged"), std::string::npos); }

TEST(Progress, Formats) {
  EXPECT_EQ(format_duration(48.4), "48 s");
  EXPECT_EQ(format_duration(723), "12 min 03 s");
  EXPECT_EQ(format_duration(12000), "3 h 20 min");
  EXPECT_EQ(format_bytes(512), "512 B");
  EXPECT_EQ(format_bytes(1.5 * 1024 * 1024), "1.50 MiB");
}

}  // namespace
}  // namespace depthstill
