#include "engine/io/map_file.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iomanip>
#include <limits>
#include <optional>
#include <span>
#include <sstream>
#include <string_view>
#include <system_error>
#include <utility>

#include "engine/io/atomic_file.h"
#include "engine/io/checksum.h"
#include "engine/io/open_file.h"
#include "engine/io/pfm.h"
#include "engine/io/png_text.h"
#include "engine/io/text_file.h"
#include "kernels/core/error.h"

namespace depthstill {
namespace {

std::string extension_of(const std::string& path) {
  std::string extension = std::filesystem::path(path).extension().string();
  for (char& c : extension) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return extension;
}

bool is_png(const std::string& path) { return extension_of(path) == ".png"; }

double unit_of(const std::string& path, const MapFormat& format, bool integers) {
  const double unit = integers ? format.metres_per_unit : format.metres_per_float_unit;
  check(std::isfinite(unit) && unit >= 0, path, ": expected a depth scale > 0, found ", unit);
  check(unit > 0 || !integers || !is_png(path), path,
        ": expected a stated depth scale (metres per unit) for a 16-bit PNG, found none");
  return unit > 0 ? unit : 1.0;
}

constexpr double kMostPng = 65535, kMostHalf = 65504;

// Counts what is lost if values are stored in `unit`, as numbers up to `most` with 0 for what is below `least`.
Clipping clipping_of(const DepthMap& map, double unit, double most, double least) {
  Clipping clipping;
  clipping.pixels = static_cast<int64_t>(map.values.size());
  clipping.limit = most * unit;
  const bool zero_is_unknown = map.kind.quantity == Quantity::kDepth;
  for (const float value : map.values) {
    const double units = static_cast<double>(value) / unit;
    clipping.beyond += std::round(units) > most;
    clipping.vanished += zero_is_unknown && units > 0 && units < least;
  }
  return clipping;
}

Image16 to_units(const DepthMap& depth, double unit) {
  Image16 image{depth.width, depth.height, std::vector<uint16_t>(depth.values.size())};
  for (size_t i = 0; i < depth.values.size(); ++i) {
    const double units = std::round(static_cast<double>(depth.values[i]) / unit);
    image.grey[i] = units > 0 ? static_cast<uint16_t>(std::min(units, kMostPng)) : uint16_t{0};  // NaN: 0
  }
  return image;
}

}  // namespace

// The stored numbers of rows, times the unit.
class MapReader::Source {
 public:
  virtual ~Source() = default;
  virtual ImageSize size() const = 0;
  virtual bool integers() const = 0;
  virtual std::optional<MapStatement> statement() const = 0;  // what the file says of itself
  virtual void read_rows(int first, int last, double unit, std::span<float> values) const = 0;
};

namespace {

constexpr size_t kMostHeaderBytes = 65536;

// A .pfm has no room for a statement.
constexpr std::string_view kChecksum = "\nchecksum ";
std::string beside_pfm(const std::string& path) { return path + ".txt"; }
std::string checksum_line(std::span<const uint8_t> file) {
  std::ostringstream text;
  text << kChecksum << std::hex << std::setw(16) << std::setfill('0') << checksum64(std::as_bytes(file)) << '\n';
  return text.str();
}

std::vector<uint8_t> head_of(const OpenFile& file) {
  std::vector<uint8_t> head(static_cast<size_t>(std::min<uint64_t>(file.size(), kMostHeaderBytes)));
  file.read(0, head);
  return head;
}

class PngSource final : public MapReader::Source {
 public:
  explicit PngSource(const std::string& path) {
    const std::vector<uint8_t> file = read_bytes(path);
    image_ = decode_png16(file, path);
    if (const auto text = find_png_text(file, kStatementName)) statement_ = parse_statement(*text, path);
  }
  ImageSize size() const override { return image_.size(); }
  bool integers() const override { return true; }
  std::optional<MapStatement> statement() const override { return statement_; }
  void read_rows(int first, int, double unit, std::span<float> values) const override {
    const uint16_t* from = &image_.grey[static_cast<size_t>(first) * static_cast<size_t>(image_.width)];
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(from[i] * unit);
  }

 private:
  Image16 image_;
  std::optional<MapStatement> statement_;
};

void scale(std::span<float> values, double unit) {
  if (unit == 1) return;
  for (float& value : values) value = static_cast<float>(value * unit);
}

std::string shape_text(const std::vector<int64_t>& shape) {
  return '(' + list_text(shape, [](int64_t size) { return std::to_string(size); }) + ')';
}

class NpySource final : public MapReader::Source {
 public:
  explicit NpySource(const std::string& path) : file_(path), layout_(parse_npy(head_of(file_), file_.size(), path)) {
    std::vector<int64_t> shape = layout_.shape;
    while (shape.size() > 2 && shape.front() == 1) shape.erase(shape.begin());
    while (shape.size() > 2 && shape.back() == 1) shape.pop_back();
    check(shape.size() == 2 && std::min(shape[0], shape[1]) >= 1 && std::max(shape[0], shape[1]) <= kMaxImageSide, path,
          ": expected an array (height, width) of 1 to ", kMaxImageSide, " a side, found ", shape_text(layout_.shape));
    size_ = {static_cast<int>(shape[1]), static_cast<int>(shape[0])};
  }
  NpySource(const std::string& path, int64_t index) : file_(path), layout_(parse_stack(file_)) {
    const std::vector<int64_t>& shape = layout_.shape;
    check(index >= 0 && index < shape[0], path, ": expected a map ", index, " in the stack, found ", shape[0], " maps");
    size_ = {static_cast<int>(shape[2]), static_cast<int>(shape[1])};
    layout_.data_offset += static_cast<uint64_t>(index * shape[1] * shape[2]) * layout_.element_bytes;
  }
  static NpyLayout parse_stack(const OpenFile& file) {
    NpyLayout layout = parse_npy(head_of(file), file.size(), file.path());
    const std::vector<int64_t>& shape = layout.shape;
    check(shape.size() == 3 && *std::min_element(shape.begin(), shape.end()) >= 1 &&
              std::max(shape[1], shape[2]) <= kMaxImageSide && !layout.fortran_order,
          file.path(), ": expected a stack of maps (maps, height, width) in C order, of 1 to ", kMaxImageSide,
          " a side, found ", shape_text(shape), layout.fortran_order ? " in Fortran order" : "");
    return layout;
  }
  ImageSize size() const override { return size_; }
  bool integers() const override { return layout_.integers; }
  std::optional<MapStatement> statement() const override { return named_statement(layout_.comment, file_.path()); }
  void read_rows(int first, int last, double unit, std::span<float> values) const override {
    if (layout_.fortran_order) {
      read_columns(static_cast<size_t>(first), static_cast<size_t>(last - first), values);
    } else {
      read_values(static_cast<uint64_t>(first) * static_cast<uint64_t>(size_.width), values);
    }
    scale(values, unit);
  }

 private:
  // The numbers of the file from the given one on.
  void read_values(uint64_t from, std::span<float> values) const {
    if (layout_.element_bytes == sizeof(float) && !layout_.integers && !layout_.swapped) {
      file_.read(layout_.data_offset + from * sizeof(float),
                 {reinterpret_cast<uint8_t*>(values.data()), values.size_bytes()});
      return;
    }
    std::vector<uint8_t> stored(values.size() * layout_.element_bytes);
    file_.read(layout_.data_offset + from * layout_.element_bytes, stored);
    layout_.to_floats(stored, values);
  }
  // Fortran order: the file holds column after column.
  void read_columns(size_t first, size_t rows, std::span<float> values) const {
    const auto width = static_cast<size_t>(size_.width), height = static_cast<size_t>(size_.height);
    std::vector<float> columns(values.size());
    if (rows == height) {
      read_values(0, columns);
    } else {
      for (size_t c = 0; c < width; ++c) read_values(c * height + first, std::span(columns).subspan(c * rows, rows));
    }
    for (size_t r = 0; r < rows; ++r) {
      for (size_t c = 0; c < width; ++c) values[r * width + c] = columns[c * rows + r];
    }
  }

  OpenFile file_;
  NpyLayout layout_;
  ImageSize size_;
};

class PfmSource final : public MapReader::Source {
 public:
  explicit PfmSource(const std::string& path) : file_(path), layout_(parse_pfm(head_of(file_), file_.size(), path)) {}
  ImageSize size() const override { return {layout_.width, layout_.height}; }
  bool integers() const override { return false; }
  std::optional<MapStatement> statement() const override {
    const std::string beside = beside_pfm(file_.path());
    std::error_code missing;
    if (std::filesystem::file_size(beside, missing) > kMostHeaderBytes || missing) return std::nullopt;
    const std::vector<uint8_t> bytes = read_bytes(beside);
    const std::string text(bytes.begin(), bytes.end());  // anyone's file, of any encoding
    const size_t mark = text.find(kChecksum);
    const bool belongs = mark != std::string::npos && text.substr(mark) == checksum_line(read_bytes(file_.path()));
    return belongs ? named_statement(text.substr(0, mark), beside) : std::nullopt;
  }
  void read_rows(int first, int last, double unit, std::span<float> values) const override {
    const auto width = static_cast<size_t>(layout_.width);
    const uint64_t at = static_cast<uint64_t>(layout_.height - last) * width * sizeof(float);
    file_.read(layout_.data_offset + at, {reinterpret_cast<uint8_t*>(values.data()), values.size_bytes()});
    for (size_t top = 0, bottom = static_cast<size_t>(last - first) - 1; top < bottom; ++top, --bottom) {
      std::swap_ranges(&values[top * width], &values[top * width] + width, &values[bottom * width]);
    }
    swap_pfm(layout_, values);
    scale(values, unit);
  }

 private:
  OpenFile file_;
  PfmLayout layout_;
};

// The file beside it comes first: without it, what is no depth in metres would be taken for that.
void write_pfm_map(const std::string& path, const FloatMap& map, const MapStatement& statement) {
  const std::vector<uint8_t> file = encode_pfm(map, path);
  if (!(statement.kind == kMetricDepth && statement.unit == 1)) {
    const std::string beside = beside_pfm(path);
    check(!std::filesystem::exists(beside) || read_text(beside).starts_with(kStatementName), beside,
          ": expected no file, or one that says what ", path, " holds, found another");
    write_file(beside, named_text(statement) + checksum_line(file));
  }
  write_file(path, file);
}

std::unique_ptr<MapReader::Source> open_source(const std::string& path) {
  const std::string extension = extension_of(path);
  if (is_png(path)) return std::make_unique<PngSource>(path);
  if (extension == ".npy") return std::make_unique<NpySource>(path);
  if (extension == ".pfm") return std::make_unique<PfmSource>(path);
  fail(path, ": expected a depth map .png, .npy or .pfm, found '", extension, "'");
}

}  // namespace

MapReader::MapReader(const std::string& path, const MapFormat& format) : MapReader(path, format, open_source(path)) {}
MapReader MapReader::of_stack(const std::string& path, int64_t index, const MapFormat& format) {
  return {path, format, std::make_unique<NpySource>(path, index)};
}
MapReader::MapReader(const std::string& path, const MapFormat& format, std::unique_ptr<Source> source)
    : path_(path),
      format_(format),
      source_(std::move(source)),
      statement_(source_->statement().value_or(MapStatement{format.kind, 0})) {
  if (statement_.unit == 0) statement_.unit = unit_of(path, format, source_->integers());
}
MapReader::~MapReader() = default;
MapReader::MapReader(MapReader&&) noexcept = default;
MapReader& MapReader::operator=(MapReader&&) noexcept = default;

ImageSize MapReader::size() const { return source_->size(); }

void MapReader::read_rows(int first, int last, float* values) const {
  check(first >= 0 && first <= last && last <= size().height, path_, ": expected rows within the map's ", size().height,
        ", got [", first, ", ", last, ")");
  const auto width = static_cast<size_t>(size().width);
  const std::span<float> rows(values, static_cast<size_t>(last - first) * width);
  if (rows.empty()) return;
  source_->read_rows(first, last, statement_.unit, rows);
  const auto usable = [](float value) { return value >= 0.0f && value <= std::numeric_limits<float>::max(); };
  if (format_.unusable == MapFormat::Unusable::kHole) {
    for (float& value : rows) value = usable(value) ? value : 0.0f;
  }
  if (format_.unusable != MapFormat::Unusable::kRefused) return;
  for (size_t i = 0; i < rows.size(); ++i) {
    check(usable(rows[i]), path_, ": expected finite depths >= 0, found ", rows[i], " at row ",
          static_cast<size_t>(first) + i / width, ", column ", i % width);
  }
}

int64_t stack_size(const std::string& path) { return NpySource::parse_stack(OpenFile(path)).shape[0]; }

DepthMap read_map(const std::string& path, const MapFormat& format) { return read_map(MapReader(path, format)); }

DepthMap read_map(const MapReader& reader) {
  const ImageSize size = reader.size();
  DepthMap map{size.width, size.height,
               std::vector<float>(static_cast<size_t>(size.width) * static_cast<size_t>(size.height)), reader.kind()};
  reader.read_rows(0, size.height, map.values.data());
  return map;
}

std::string describe(const Clipping& clipping) {
  std::ostringstream text;
  text << std::setprecision(3) << clipping.beyond + clipping.vanished << " of " << clipping.pixels << " pixels are ";
  if (clipping.beyond > 0) text << "beyond " << clipping.limit << " m and stored as " << clipping.limit << " m";
  if (clipping.beyond > 0 && clipping.vanished > 0) text << ", or ";
  if (clipping.vanished > 0) text << "nearer than half a unit and stored as 0, which means unknown";
  return text.str();
}

Clipping write_map(const std::string& path, const DepthMap& map, const MapFormat& format, NpyType type) {
  check(map.width > 0 && map.height > 0 &&
            map.values.size() == static_cast<size_t>(map.width) * static_cast<size_t>(map.height),
        path, ": expected ", map.size(), " depths, got ", map.values.size());
  const std::string extension = extension_of(path);
  check(is_png(path) || extension == ".npy" || extension == ".pfm", path,
        ": expected a depth map .png, .npy or .pfm, found '", extension, "'");
  const bool half = type == NpyType::kHalf;
  check(!half || extension == ".npy", path, ": expected a .npy file for half precision, got '", extension, "'");
  const MapStatement statement{map.kind, unit_of(path, format, is_png(path))};
  if (is_png(path)) {
    std::vector<uint8_t> file = encode_png(to_units(map, statement.unit));
    add_png_text(file, kStatementName, to_text(statement));
    write_file(path, file);
    return clipping_of(map, statement.unit, kMostPng, 0.5);
  }
  std::vector<float> values = map.values;
  for (float& value : values) value = static_cast<float>(value / statement.unit);
  if (extension == ".pfm") {
    write_pfm_map(path, {map.width, map.height, values}, statement);
    return {};
  }
  Clipping clipping;
  if (half) {
    clipping = clipping_of(map, statement.unit, kMostHalf, 0x1p-25);
    for (float& value : values) value = value > static_cast<float>(kMostHalf) ? static_cast<float>(kMostHalf) : value;
  }
  const int64_t shape[] = {map.height, map.width};
  write_npy(path, shape, values, type, named_text(statement));
  return clipping;
}

}  // namespace depthstill
