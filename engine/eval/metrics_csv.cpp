#include "engine/eval/metrics_csv.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <optional>
#include <sstream>
#include <string_view>

#include "engine/io/atomic_file.h"
#include "engine/io/csv_cell.h"
#include "engine/io/text_file.h"
#include "kernels/core/error.h"

namespace depthstill {
namespace {

std::string number(double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.9g", value);
  return text;
}

bool among(const MetricField& field, std::span<const MetricField> fields) {
  return std::any_of(fields.begin(), fields.end(), [&](const MetricField& one) { return one.value == field.value; });
}

}  // namespace

void write_metrics_csv(const std::string& path, std::span<const ImageMetrics> images,
                       std::span<const MetricField> fields, bool fits) {
  std::vector<MetricField> first, last;
  for (const MetricField& field : fields) (among(field, kMetricFields) ? first : last).push_back(field);
  std::string text = "image,pixels";
  for (const MetricField& field : first) text += std::string(",") + field.name;
  if (fits) text += ",scale,shift,fit_pixels";
  for (const MetricField& field : last) text += std::string(",") + field.name;
  const bool boundary = std::any_of(images.begin(), images.end(),
                                    [](const ImageMetrics& image) { return image.boundary_f1.has_value(); });
  if (boundary) text += ",boundary_f1";
  text += '\n';
  for (const ImageMetrics& image : images) {
    const auto add = [&](double value) { text += image.metrics ? ',' + number(value) : ","; };
    text += csv_cell(image.name) + ',' + std::to_string(image.pixels);
    for (const MetricField& field : first) add(image.metrics ? *image.metrics.*field.value : 0);
    if (fits) {
      add(image.fit.scale);
      add(image.fit.shift);
      add(static_cast<double>(image.fit.pixels));
    }
    for (const MetricField& field : last) add(image.metrics ? *image.metrics.*field.value : 0);
    if (boundary) add(image.boundary_f1.value_or(0));
    text += '\n';
  }
  write_file(path, text);
}

namespace {

// The cells of a line; a cell in quotes holds commas, and quotes twice.
std::vector<std::string> cells_of(std::string_view line) {
  std::vector<std::string> cells(1);
  bool quotes = false;
  for (size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (c == '"' && quotes && i + 1 < line.size() && line[i + 1] == '"') {
      cells.back() += line[++i];
    } else if (c == '"') {
      quotes = !quotes;
    } else if (c == ',' && !quotes) {
      cells.emplace_back();
    } else {
      cells.back() += c;
    }
  }
  return cells;
}

double number_of(const std::string& text, const std::string& where, const std::string& column) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  check(error == std::errc{} && end == text.data() + text.size(), where, ": expected a number as ", column, ", found '",
        text, "'");
  return value;
}

}  // namespace

MetricsTable read_metrics_csv(const std::string& path) {
  std::istringstream lines(read_text(path));
  std::string line;
  std::getline(lines, line);
  const std::vector<std::string> columns = cells_of(line);
  check(columns.size() >= 3 && columns[0] == "image" && columns[1] == "pixels", path,
        ":1: expected the columns of eval --csv, image,pixels,..., found '", line.substr(0, 60), "'");
  MetricsTable table;
  std::vector<std::optional<MetricField>> fields(columns.size());
  for (size_t c = 2; c < columns.size(); ++c) {
    table.fits |= columns[c] == "scale";
    for (const MetricField& field : kEvalFields) {
      if (field.name == columns[c]) table.fields.push_back(*(fields[c] = field));
    }
  }
  for (int64_t number = 2; std::getline(lines, line); ++number) {
    const std::string where = concat_text(path, ':', number);
    const std::vector<std::string> cells = cells_of(line);
    check(cells.size() == columns.size(), where, ": expected ", columns.size(), " columns, found ", cells.size());
    ImageMetrics image;
    image.name = cells[0];
    image.pixels = static_cast<int64_t>(number_of(cells[1], where, columns[1]));
    for (size_t c = 2; c < cells.size(); ++c) {
      if (!fields[c] || cells[c].empty()) continue;  // an empty cell: the image was left out
      if (!image.metrics) image.metrics.emplace();
      *image.metrics.*fields[c]->value = number_of(cells[c], where, columns[c]);
    }
    table.images.push_back(std::move(image));
  }
  check(!table.images.empty(), path, ": expected a line per image, found none");
  return table;
}

}  // namespace depthstill
