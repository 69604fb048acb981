// Line charts as inline SVG. Colours come from the page's CSS variables --line-0, --line-1, ..., --grid and --muted.
#pragma once

#include <span>
#include <string>
#include <vector>

namespace depthstill {

struct Point {
  double x = 0, y = 0;
};

struct Series {
  std::string name;
  std::vector<Point> points;  // ascending x; points that are not finite are left out
  bool faint = false;         // drawn pale, without a legend entry: raw values behind a smoothed line
};

struct ChartOptions {
  std::string title, x_label;
  bool logarithmic = false;  // y axis; needs positive values, else it is linear
};

// A <figure> with a title, axes with round tick values, the lines, and a legend when there are several.
std::string line_chart(const ChartOptions& options, std::span<const Series> series);

// Returns at most `count` points: means over equal stretches of the series.
std::vector<Point> thin(std::span<const Point> points, size_t count);
// Exponential moving average with the given weight of the past, bias-corrected.
std::vector<Point> smooth(std::span<const Point> points, double weight);

// Short text of a number: 0.0421, 12.5, 3e-05, 120k.
std::string short_number(double value);
std::string escape_html(const std::string& text);

}  // namespace depthstill
