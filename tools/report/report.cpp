#include "tools/report/report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <span>
#include <string_view>

#include "engine/io/atomic_file.h"
#include "engine/io/text_file.h"
#include "tools/report/chart.h"
#include "tools/report/colormap.h"

namespace depthstill {
namespace {

constexpr int kPanelWidth = 640;
constexpr double kErrorLimit = 0.5;  // relative error at the end of the error colours
constexpr size_t kSmoothFrom = 50;   // steps from which the loss curves are smoothed
constexpr size_t kWorstImages = 20;

constexpr const char* kStyle = R"css(
:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--text:#1c2128;--muted:#667085;--grid:#e4e7ec;--accent:#2563eb;
--line-0:#2563eb;--line-1:#d9480f;--line-2:#2b8a3e;--line-3:#9333ea;--line-4:#b7791f;--line-5:#0e7490}
@media(prefers-color-scheme:dark){:root{--bg:#11151c;--card:#1a2029;--text:#e6e9ef;--muted:#98a2b3;--grid:#2d3643;
--accent:#7aa2f7;--line-0:#7aa2f7;--line-1:#ff9e64;--line-2:#9ece6a;--line-3:#c39bf5;--line-4:#e0af68;--line-5:#7dcfff}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--text);font:15px/1.5 system-ui,"Segoe UI",Roboto,sans-serif}
main{max-width:1360px;margin:0 auto;padding:28px 20px 60px}
h1{font-size:26px;margin:0 0 4px}h2{font-size:18px;margin:34px 0 12px}
.muted{color:var(--muted)}
.facts{display:flex;flex-wrap:wrap;gap:6px 22px;margin:10px 0 0;padding:0;list-style:none}
.facts b{color:var(--muted);font-weight:500;margin-right:6px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(112px,1fr));gap:10px}
.tile,.chart,.panel,details{background:var(--card);border:1px solid var(--grid);border-radius:10px;padding:12px 14px;margin:0}
.tile span{color:var(--muted);font-size:13px}.tile strong{display:block;font-size:21px;font-variant-numeric:tabular-nums}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,310px),1fr));gap:14px}
figcaption{font-weight:600;margin-bottom:6px}
svg{width:100%;height:auto;display:block;font:15px system-ui,sans-serif}
svg text{fill:var(--muted)}svg line.grid{stroke:var(--grid)}svg line.axis{stroke:var(--muted)}
svg path.line{fill:none;stroke-width:1.8;stroke-linejoin:round}svg path.faint{opacity:.28;stroke-width:1}
.meanings{display:grid;grid-template-columns:max-content 1fr;gap:2px 14px;font-size:13px;margin:10px 0 0}.meanings dd{margin:0}
.legend{display:flex;flex-wrap:wrap;gap:4px 16px;font-size:13px;margin-top:4px}
.legend i{display:inline-block;width:18px;height:3px;border-radius:2px;margin-right:6px;vertical-align:middle}
.panel{margin-bottom:16px}.panel h3{font-size:14px;margin:0 0 8px;overflow-wrap:anywhere}
.views{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,300px),1fr));gap:10px}
.views figure{margin:0}.views figcaption{font-weight:500;font-size:13px;color:var(--muted);margin-bottom:3px}
.views img{width:100%;display:block;border-radius:6px}
.bar{display:block;height:8px;border-radius:4px;margin-top:6px}
.scale{display:flex;justify-content:space-between;font-size:12px;color:var(--muted);font-variant-numeric:tabular-nums}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;width:100%}
.scroll{overflow-x:auto}th,td{padding:4px 10px;text-align:right;border-bottom:1px solid var(--grid);white-space:nowrap}
th{color:var(--muted);font-weight:500}th[colspan]{text-align:center}tr+tr th:first-child{text-align:right}
colgroup+colgroup{border-left:1px solid var(--grid)}.scroll td:first-child{position:sticky;left:0;background:var(--bg)}
td:first-child,th:first-child{text-align:left}tr.best td{color:var(--accent);font-weight:600}
pre{overflow-x:auto;font-size:13px;margin:10px 0 0}summary{cursor:pointer;font-weight:600}
)css";

constexpr std::string_view kPageHead =
    "<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' "
    "content='width=device-width,initial-scale=1'><title>";
constexpr std::string_view kPageEnd = "</main></body></html>\n";

std::string fixed(double value, int decimals = 4) {
  char text[40];
  std::snprintf(text, sizeof text, "%.*f", decimals, value);
  return std::isfinite(value) ? text : "-";
}

std::string base64(std::span<const uint8_t> bytes) {
  constexpr const char* digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t left = std::min<size_t>(3, bytes.size() - i);
    uint32_t group = uint32_t{bytes[i]} << 16;
    if (left > 1) group |= uint32_t{bytes[i + 1]} << 8;
    if (left > 2) group |= bytes[i + 2];
    for (size_t k = 0; k < 4; ++k) text += k <= left ? digits[group >> (18 - 6 * k) & 63u] : '=';
  }
  return text;
}

std::string gradient_bar(Colormap map, const std::vector<std::string>& labels, bool bright_first) {
  std::string html = "<span class='bar' style='background:linear-gradient(90deg";
  for (int i = 0; i <= 12; ++i) {
    const double x = i / 12.0;
    const auto c = colour_at(map, bright_first ? 1 - x : x);
    html += ",rgb(" + std::to_string(c[0]) + "," + std::to_string(c[1]) + "," + std::to_string(c[2]) + ")";
  }
  html += ")'></span><div class='scale'>";
  for (const std::string& label : labels) html += "<span>" + label + "</span>";
  return html + "</div>";
}

std::string depth_bar(const ColourRange& range) {
  std::vector<std::string> labels;
  for (int i = 0; i <= 4; ++i) {
    labels.push_back(short_number(std::round(10 * range.near * std::pow(range.far / range.near, i / 4.0)) / 10) + " m");
  }
  return gradient_bar(Colormap::kTurbo, labels, true);
}

std::string view(const std::string& caption, const std::string& mime, std::span<const uint8_t> file,
                 const std::string& below) {
  return "<figure><figcaption>" + caption + "</figcaption><img alt='" + caption + "' src='data:" + mime + ";base64," +
         base64(file) + "'>" + below + "</figure>";
}

// Relative error |prediction - reference| / reference as a position on Magma; grey without reference.
Image8 error_picture(const DepthMap& prediction, const DepthMap& reference) {
  Image8 image{prediction.width, prediction.height, {}};
  for (size_t i = 0; i < prediction.values.size(); ++i) {
    const double truth = static_cast<double>(reference.values[i]);
    const double error = std::abs(static_cast<double>(prediction.values[i]) - truth) / truth;
    const auto colour =
        truth > 0 ? colour_at(Colormap::kMagma, error / kErrorLimit) : std::array<uint8_t, 3>{128, 128, 128};
    image.rgb.insert(image.rgb.end(), colour.begin(), colour.end());
  }
  return image;
}

ReportPanel shown_size(const ReportPanel& panel) {
  return {panel.name, shrink(panel.image, kPanelWidth), shrink(panel.reference, kPanelWidth),
          shrink(panel.prediction, kPanelWidth), panel.reference_label};
}

std::string panel(const ReportPanel& whole, const std::string& reference_label) {
  const ReportPanel panel = shown_size(whole);
  const DepthMap &reference = panel.reference, &prediction = panel.prediction;
  const bool compared = !reference.empty();
  const ColourRange range = colour_range(compared ? reference : prediction);
  const std::string bar = depth_bar(range), png = "image/png";
  std::string html = "<section class='panel'><h3>" + escape_html(panel.name) + "</h3><div class='views'>";
  html += view("input", "image/jpeg", encode_jpeg(panel.image), "");
  if (compared) {
    html += view(escape_html(reference_label), png, encode_png(colour_depth(reference, Colormap::kTurbo, range)), bar);
  }
  html += view("prediction", png, encode_png(colour_depth(prediction, Colormap::kTurbo, range)), bar);
  if (compared) {
    const std::vector<std::string> labels = {"0 %", "25 %", "50 % and more"};
    html += view("relative error against the " + escape_html(reference_label), png,
                 encode_png(error_picture(prediction, reference)), gradient_bar(Colormap::kMagma, labels, false));
  }
  return html + "</div></section>";
}

std::string loss_charts(const RunLog& log) {
  std::map<std::string, size_t> order;
  std::vector<Series> losses;
  Series lr{"learning rate", {}, false}, norm{"gradient norm", {}, false};
  for (const StepRecord& step : log.steps) {
    const auto x = static_cast<double>(step.step);
    for (const auto& [name, value] : step.losses) {
      const auto [at, added] = order.try_emplace(name, losses.size());
      if (added) losses.push_back({name, {}, false});
      losses[at->second].points.push_back({x, value});
    }
    lr.points.push_back({x, step.lr});
    norm.points.push_back({x, step.grad_norm});
  }
  std::vector<Series> drawn;
  bool wide = false;
  for (const Series& loss : losses) {
    if (loss.points.size() >= kSmoothFrom) {
      drawn.push_back({loss.name, loss.points, true});
      drawn.push_back({loss.name, smooth(loss.points, 0.9), false});
    } else {
      drawn.push_back(loss);
    }
    const auto [low, high] = std::minmax_element(loss.points.begin(), loss.points.end(),
                                                 [](const Point& a, const Point& b) { return a.y < b.y; });
    wide = wide || high->y > 20 * low->y;
  }
  return line_chart({"Loss", "step", wide}, drawn) + line_chart({"Learning rate", "step", false}, {{lr}}) +
         line_chart({"Gradient norm before clipping", "step", true}, {{norm}});
}

std::string metric_charts(const Report& report) {
  const std::vector<EvalRecord>& evals = report.log.evals;
  std::string html;
  for (const char* const name : {"abs_rel", "rmse", "rmse_log", "d1"}) {
    const MetricField& field = metric_field(name);
    std::vector<Series> series;
    for (const EvalRecord& record : evals) {
      auto at = std::find_if(series.begin(), series.end(), [&](const Series& s) { return s.name == record.split; });
      if (at == series.end()) at = series.insert(series.end(), {record.split, {}, false});
      at->points.push_back({static_cast<double>(record.epoch + 1), record.metrics.*field.value});
    }
    for (const BaselineScore& baseline : report.baselines) {
      const double value = baseline.summary.mean.*field.value;
      series.push_back({baseline.name, {}, false});
      for (const int64_t epoch : {evals.front().epoch, evals.back().epoch}) {
        series.back().points.push_back({static_cast<double>(epoch + 1), value});
      }
    }
    html += line_chart(
        {std::string(name) + (field.lower_is_better ? " (lower is better)" : " (higher is better)"), "epoch", false},
        series);
  }
  return html;
}

std::string metric_heads() {
  std::string html;
  for (const MetricField& field : kMetricFields) {
    html += concat_text("<th title='", escape_html(field.meaning), "'>", field.name,
                        field.lower_is_better ? " ↓" : " ↑", "</th>");
  }
  return html;
}

std::string metric_cells(const Metrics& metrics) {
  std::string html;
  for (const MetricField& field : kMetricFields) html += "<td>" + fixed(metrics.*field.value) + "</td>";
  return html;
}

std::string metric_meanings() {
  std::string html = "<dl class='meanings'>";
  for (const MetricField& field : kMetricFields) {
    html += concat_text("<dt>", field.name, field.lower_is_better ? " ↓" : " ↑", "</dt><dd>",
                        escape_html(field.meaning), "</dd>");
  }
  return html +
         "</dl><p class='muted'>p is the prediction, g the truth; ↓ lower is better, ↑ higher is better. Each "
         "figure is the mean of the images' own.</p>";
}

std::string metric_table(const Report& report) {
  const MetricField& chosen_by = metric_field(report.select_metric);
  std::string html = "<div class='scroll'><table><tr><th>list</th><th>epoch</th><th>step</th><th>images</th>" +
                     metric_heads() + "</tr>";
  for (const EvalRecord& record : report.log.evals) {
    const double value = record.metrics.*chosen_by.value;
    const bool best = std::none_of(report.log.evals.begin(), report.log.evals.end(), [&](const EvalRecord& other) {
      const double rival = other.metrics.*chosen_by.value;
      return other.split == record.split && (chosen_by.lower_is_better ? rival < value : rival > value);
    });
    html += concat_text(best ? "<tr class='best'>" : "<tr>", "<td>", escape_html(record.split), "</td><td>",
                        record.epoch + 1, "</td><td>", record.step, "</td><td>", record.images, "</td>",
                        metric_cells(record.metrics), "</tr>");
  }
  return html + "</table></div><p class='muted'>Marked: the best in " + report.select_metric + "</p>";
}

// The kept epoch, the last one, and what looks at no image.
std::string comparison(const Report& report) {
  std::string html = "<div class='scroll'><table><tr><th>compared</th>" + metric_heads() +
                     "</tr><tr class='best'><td>" + escape_html(report.final_label) + "</td>" +
                     metric_cells(report.final->mean) + "</tr>";
  const auto& evals = report.log.evals;
  const auto last = std::find_if(evals.rbegin(), evals.rend(),
                                 [&](const EvalRecord& record) { return record.split == report.split; });
  if (last != evals.rend()) {
    html += concat_text("<tr><td>last epoch ", last->epoch + 1, "</td>", metric_cells(last->metrics), "</tr>");
  }
  for (const BaselineScore& baseline : report.baselines) {
    html += "<tr><td>" + escape_html(baseline.text) + "</td>" + metric_cells(baseline.summary.mean) + "</tr>";
  }
  html += "</table></div>";
  if (!report.baselines.empty()) {
    html += "<p class='muted'>Constant and row medians look at no image: they are taken from " +
            escape_html(report.baseline_source) + ". A student has to beat them.</p>";
  }
  return html + metric_meanings();
}

std::string final_tiles(const Report& report) {
  std::string html =
      "<h2>Result" + (report.final_label.empty() ? "" : ": " + escape_html(report.final_label)) + "</h2>";
  html += "<div class='tiles'>";
  for (const MetricField& field : kMetricFields) {
    html += std::string("<div class='tile'><span>") + field.name + (field.lower_is_better ? " ↓" : " ↑") +
            "</span><strong>" + fixed(report.final->mean.*field.value) + "</strong></div>";
  }
  html +=
      "<div class='tile'><span>images</span><strong>" + std::to_string(report.final->images) + "</strong></div></div>";
  html += "<p class='muted'>" + escape_html(report.protocol);
  if (report.final->skipped) html += "; " + std::to_string(report.final->skipped) + " images without a valid pixel";
  return html + "</p>" + comparison(report);
}

void paste(const Image8& part, int left, int top, Image8& into) {
  const auto row = static_cast<size_t>(part.width) * 3;
  for (int y = 0; y < part.height; ++y) {
    const auto from = static_cast<size_t>(y) * row;
    const auto to = (static_cast<size_t>(top + y) * static_cast<size_t>(into.width) + static_cast<size_t>(left)) * 3;
    std::copy_n(part.rgb.begin() + static_cast<std::ptrdiff_t>(from), row,
                into.rgb.begin() + static_cast<std::ptrdiff_t>(to));
  }
}

}  // namespace

Image8 panel_picture(const ReportPanel& whole) {
  constexpr int kGap = 6;
  const ReportPanel panel = shown_size(whole);
  const bool compared = !panel.reference.empty();
  const ColourRange range = colour_range(compared ? panel.reference : panel.prediction);
  const int columns = compared ? 2 : 1, width = panel.image.width, height = panel.image.height;
  Image8 picture{columns * width + (columns - 1) * kGap, 2 * height + kGap, {}};
  picture.rgb.assign(static_cast<size_t>(picture.width) * static_cast<size_t>(picture.height) * 3, 255);
  paste(panel.image, 0, 0, picture);
  paste(colour_depth(panel.prediction, Colormap::kTurbo, range), 0, height + kGap, picture);
  if (!compared) return picture;
  paste(colour_depth(panel.reference, Colormap::kTurbo, range), width + kGap, 0, picture);
  paste(error_picture(panel.prediction, panel.reference), width + kGap, height + kGap, picture);
  return picture;
}

std::string worst_images(std::span<const ImageMetrics> all, const std::string& metric) {
  const MetricField& field = metric_field(metric);
  std::vector<const ImageMetrics*> images;
  for (const ImageMetrics& image : all) {
    if (image.metrics) images.push_back(&image);
  }
  if (images.empty()) return "";
  std::stable_sort(images.begin(), images.end(), [&](const ImageMetrics* a, const ImageMetrics* b) {
    const double x = *a->metrics.*field.value, y = *b->metrics.*field.value;
    return field.lower_is_better ? x > y : x < y;
  });
  std::string html = "<div class='scroll'><table><tr><th>image</th><th>pixels</th>" + metric_heads() + "</tr>";
  for (size_t i = 0; i < std::min(images.size(), kWorstImages); ++i) {
    html += concat_text("<tr><td>", escape_html(images[i]->name), "</td><td>", images[i]->pixels, "</td>",
                        metric_cells(*images[i]->metrics), "</tr>");
  }
  return html + concat_text("</table></div><p class='muted'>By ", field.name, ", of ", images.size(),
                            " images; eval --csv has all</p>");
}

std::string with_section(const std::string& path, const std::string& title, const std::string& body) {
  const std::vector<uint8_t> bytes = read_bytes(path);
  const std::string page(bytes.begin(), bytes.end());
  check(page.starts_with(kPageHead) && page.ends_with(kPageEnd), path,
        ": expected the report.html of a run, found something else");
  const std::string begin = "<section aria-label='" + escape_html(title) + "'>";
  constexpr std::string_view end = "</section>";
  const size_t first = std::min(page.find(begin), page.size() - kPageEnd.size());
  const size_t last = page.compare(first, begin.size(), begin) == 0 ? page.find(end, first) + end.size() : first;
  return page.substr(0, first) + begin + body + std::string(end) + page.substr(last);
}

std::string report_page(const std::string& title, const std::string& subtitle, const std::string& body) {
  return concat_text(kPageHead, escape_html(title), " - depthstill</title><style>", kStyle,
                     "</style></head><body><main><h1>", escape_html(title), "</h1><div class='muted'>",
                     escape_html(subtitle), "</div>", body, kPageEnd);
}

std::string render_report(const Report& report) {
  std::string html = "<ul class='facts'>";
  for (const auto& [name, value] : report.facts) {
    html += "<li><b>" + escape_html(name) + "</b>" + escape_html(value) + "</li>";
  }
  html += "</ul>";
  if (report.final) {
    html += final_tiles(report);
    const std::string worst = worst_images(report.images, report.select_metric);
    if (!worst.empty()) html += "<h2>Worst images</h2>" + worst;
  }
  html += "<h2>Training</h2><div class='grid'>" + loss_charts(report.log) + "</div>";
  if (!report.log.evals.empty()) {
    html += "<h2>Metrics against epochs</h2><div class='grid'>" + metric_charts(report) + "</div><h2>Evaluations</h2>" +
            metric_table(report);
  }
  if (!report.panels.empty()) {
    html +=
        "<h2>Predictions</h2><p class='muted'>Worst images first, then some spread over the list. The figures above "
        "compare with ground truth, the error maps with what "
        "stands beside the prediction.</p>";
  }
  for (const ReportPanel& each : report.panels) {
    html += panel(each, each.reference_label.empty() ? report.reference_label : each.reference_label);
  }
  if (!report.recipe.empty()) {
    html += "<h2>Recipe</h2><details><summary>every setting of this run</summary><pre>" + escape_html(report.recipe) +
            "</pre></details>";
  }
  return report_page(report.title, "depthstill training report", html);
}

void write_report(const std::string& path, const Report& report) { write_file(path, render_report(report)); }

}  // namespace depthstill
