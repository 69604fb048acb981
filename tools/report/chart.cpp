#include "tools/report/chart.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

namespace depthstill {
namespace {

constexpr double kWidth = 640, kHeight = 250, kLeft = 66, kRight = 14, kTop = 10, kBottom = 46;
constexpr size_t kMaxPoints = 500, kColours = 6;

struct Axis {
  double low = 0, high = 1;
  bool logarithmic = false;
  std::vector<double> ticks;

  double position(double value) const {
    if (logarithmic) return std::log(value / low) / std::log(high / low);
    return (value - low) / (high - low);
  }
};

// A step of 1, 2 or 5 times a power of ten that gives about `count` intervals.
double round_step(double range, int count) {
  const double raw = range / count, power = std::pow(10.0, std::floor(std::log10(raw)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (raw <= factor * power) return factor * power;
  }
  return 10 * power;
}

Axis linear_axis(double low, double high) {
  if (!(high > low)) {
    const double margin = low == 0 ? 1 : std::abs(low) * 0.1;
    low -= margin;
    high += margin;
  }
  const double step = round_step(high - low, 5);
  Axis axis{low, high, false, {}};
  for (double i = std::ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; ++i) axis.ticks.push_back(i * step);
  return axis;
}

Axis log_axis(double low, double high) {
  Axis axis{low / 1.1, high * 1.1, true, {}};
  const bool sparse = high / low > 1e3;
  for (double power = std::pow(10.0, std::floor(std::log10(axis.low))); power <= axis.high; power *= 10) {
    for (const double factor : {1.0, 2.0, 5.0}) {
      const double tick = factor * power;
      if (tick >= axis.low && tick <= axis.high && (factor == 1.0 || !sparse)) axis.ticks.push_back(tick);
    }
  }
  return axis;
}

template <class... Values>
std::string text_of(const char* format, Values... values) {
  std::array<char, 256> text{};
  std::snprintf(text.data(), text.size(), format, values...);
  return text.data();
}

double x_at(const Axis& axis, double x) { return kLeft + axis.position(x) * (kWidth - kLeft - kRight); }
double y_at(const Axis& axis, double y) { return kHeight - kBottom - axis.position(y) * (kHeight - kTop - kBottom); }

std::string frame_of(const Axis& x, const Axis& y, const std::string& x_label) {
  std::string svg;
  for (const double tick : y.ticks) {
    const double at = y_at(y, tick);
    svg += text_of("<line class='grid' x1='%.1f' x2='%.1f' y1='%.1f' y2='%.1f'/>", kLeft, kWidth - kRight, at, at);
    svg +=
        text_of("<text x='%.1f' y='%.1f' text-anchor='end'>%s</text>", kLeft - 6, at + 5, short_number(tick).c_str());
  }
  for (const double tick : x.ticks) {
    svg += text_of("<text x='%.1f' y='%.1f' text-anchor='middle'>%s</text>", x_at(x, tick), kHeight - kBottom + 19,
                   short_number(tick).c_str());
  }
  svg += text_of("<line class='axis' x1='%.1f' x2='%.1f' y1='%.1f' y2='%.1f'/>", kLeft, kWidth - kRight,
                 kHeight - kBottom, kHeight - kBottom);
  return svg + text_of("<text x='%.1f' y='%.1f' text-anchor='middle'>", (kLeft + kWidth - kRight) / 2, kHeight - 5) +
         escape_html(x_label) + "</text>";
}

std::string line_of(const Axis& x, const Axis& y, std::span<const Point> points, size_t colour, bool faint) {
  std::string path;
  for (const Point& point : points) {
    path += text_of("%s%.1f %.1f", path.empty() ? "M" : "L", x_at(x, point.x), y_at(y, point.y));
  }
  std::string svg = text_of("<path class='line%s' style='stroke:var(--line-%zu)' d='", faint ? " faint" : "", colour);
  svg += path + "'/>";
  if (points.size() <= 40 && !faint) {
    for (const Point& point : points) {
      svg += text_of("<circle r='2.6' cx='%.1f' cy='%.1f' style='fill:var(--line-%zu)'><title>%s: %s</title></circle>",
                     x_at(x, point.x), y_at(y, point.y), colour, short_number(point.x).c_str(),
                     short_number(point.y).c_str());
    }
  }
  return svg;
}

}  // namespace

std::string escape_html(const std::string& text) {
  std::string result;
  for (const char c : text) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      case '\'':
        result += "&#39;";
        break;
      default:
        result += c;
    }
  }
  return result;
}

std::string short_number(double value) {
  if (!std::isfinite(value)) return "-";
  if (std::abs(value) >= 10000 && std::abs(value) < 1e7) return text_of("%.4gk", value / 1000);
  return text_of("%.4g", std::abs(value) < 1e-12 ? 0.0 : value);
}

std::vector<Point> thin(std::span<const Point> points, size_t count) {
  if (points.size() <= count) return {points.begin(), points.end()};
  std::vector<Point> result;
  for (size_t part = 0; part < count; ++part) {
    const size_t begin = part * points.size() / count, end = (part + 1) * points.size() / count;
    Point mean;
    for (size_t i = begin; i < end; ++i) {
      mean.x += points[i].x;
      mean.y += points[i].y;
    }
    const auto n = static_cast<double>(end - begin);
    result.push_back({mean.x / n, mean.y / n});
  }
  return result;
}

std::vector<Point> smooth(std::span<const Point> points, double weight) {
  std::vector<Point> result;
  double sum = 0, total = 0;
  for (const Point& point : points) {
    sum = weight * sum + (1 - weight) * point.y;
    total = weight * total + (1 - weight);
    result.push_back({point.x, sum / total});
  }
  return result;
}

std::string line_chart(const ChartOptions& options, std::span<const Series> series) {
  std::vector<Series> drawn;
  double x_low = INFINITY, x_high = -INFINITY, y_low = INFINITY, y_high = -INFINITY;
  for (Series line : series) {
    std::erase_if(line.points, [](const Point& p) { return !std::isfinite(p.x) || !std::isfinite(p.y); });
    line.points = thin(line.points, kMaxPoints);
    for (const Point& point : line.points) {
      x_low = std::min(x_low, point.x);
      x_high = std::max(x_high, point.x);
      y_low = std::min(y_low, point.y);
      y_high = std::max(y_high, point.y);
    }
    drawn.push_back(std::move(line));
  }
  std::string html = "<figure class='chart'><figcaption>" + escape_html(options.title) + "</figcaption>";
  if (!(x_low <= x_high)) return html + "<p class='muted'>nothing logged yet</p></figure>";

  const double margin = 0.05 * (y_high - y_low);
  const Axis x = linear_axis(x_low, x_high);
  const Axis y =
      options.logarithmic && y_low > 0 ? log_axis(y_low, y_high) : linear_axis(y_low - margin, y_high + margin);
  html += text_of("<svg viewBox='0 0 %.0f %.0f' role='img'>", kWidth, kHeight) + frame_of(x, y, options.x_label);
  std::string legend;
  size_t colour = 0;
  for (const Series& line : drawn) {
    html += line_of(x, y, line.points, colour % kColours, line.faint);
    if (line.faint) continue;  // the line that follows has the same colour
    legend += text_of("<span><i style='background:var(--line-%zu)'></i>", colour % kColours) + escape_html(line.name) +
              "</span>";
    ++colour;
  }
  html += "</svg>";
  if (colour > 1) html += "<div class='legend'>" + legend + "</div>";
  return html + "</figure>";
}

}  // namespace depthstill
