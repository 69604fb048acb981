#include "engine/io/safetensors.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <nlohmann/json.hpp>
#include <ostream>
#include <string_view>
#include <utility>

#include "engine/io/atomic_file.h"
#include "engine/io/file_kind.h"
#include "engine/io/text_file.h"
#include "kernels/core/error.h"

namespace depthstill {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit
constexpr size_t kMaxRank = 16;
constexpr size_t kMaxTensors = 1 << 17;  // far more than networks have: it bounds memory
constexpr const char* kMetadataKey = "__metadata__";

constexpr auto kLastType = static_cast<size_t>(StoredType::kF64);

// Says which tensor of which file; the text is made only where it is printed.
struct Where {
  const std::string &path, &name;
  friend std::ostream& operator<<(std::ostream& out, const Where& where) {
    return out << where.path << ": tensor '" << printable(where.name) << "'";
  }
};

StoredType parse_type(const std::string& text, const Where& where) {
  for (size_t i = 0; i <= kLastType; ++i) {
    if (text == name_of(static_cast<StoredType>(i))) return static_cast<StoredType>(i);
  }
  fail(where, ": expected a known dtype such as F32, found '", printable(text), "'");
}

// Takes the header event by event, so that time and memory are in proportion to its length, whatever it holds. Equal
// keys are seen here or by set_tensors(); a parsed document would silently keep the last.
class HeaderReader final : public nlohmann::json_sax<Json> {
 public:
  HeaderReader(const std::string& path, size_t data_bytes) : path_(path), data_bytes_(data_bytes) {}

  std::vector<StoredTensor> tensors;
  std::map<std::string, std::string> metadata;

  bool null() override { unexpected("null"); }
  bool boolean(bool) override { unexpected("boolean"); }
  bool number_integer(number_integer_t) override { unexpected("a number below 0"); }
  bool number_float(number_float_t, const string_t&) override { unexpected("a number with a fraction"); }
  bool binary(binary_t&) override { unexpected("binary data"); }
  bool number_unsigned(number_unsigned_t value) override;
  bool string(string_t& value) override;
  bool key(string_t& value) override;
  bool start_object(size_t) override;
  bool end_object() override;
  bool start_array(size_t) override;
  bool end_array() override {
    at_ = At::kEntry;
    return true;
  }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& error) override;

 private:
  enum class At : uint8_t { kStart, kNames, kMetadata, kEntry, kShape, kOffsets };  // what the reader is inside of
  enum Field : uint8_t { kDtype, kShapeField, kOffsetsField, kFields };
  static constexpr const char* kFieldNames[kFields] = {"dtype", "shape", "data_offsets"};

  Where where() const { return {path_, name_}; }
  [[noreturn]] void unexpected(const char* found) const;
  void finish_tensor();

  const std::string& path_;
  const size_t data_bytes_;
  At at_ = At::kStart;
  std::string name_, metadata_key_;
  StoredTensor tensor_;
  std::vector<uint64_t> offsets_;
  Field field_ = kDtype;
  unsigned fields_seen_ = 0;
  bool metadata_seen_ = false;
};

void HeaderReader::unexpected(const char* found) const {
  switch (at_) {
    case At::kStart:
      fail(path_, ": expected a header that begins with '{', found ", found);
    case At::kNames:
      if (name_ == kMetadataKey) fail(path_, ": expected __metadata__ to be an object, found ", found);
      fail(where(), ": expected an object, found ", found);
    case At::kMetadata:
      fail(path_, ": expected text for __metadata__ '", printable(metadata_key_), "', found ", found);
    case At::kEntry:
      fail(where(), ": expected ", field_ == kDtype ? "text" : "an array", " as ", kFieldNames[field_], ", found ",
           found);
    default:
      fail(where(), ": expected whole numbers >= 0 in ", kFieldNames[field_], ", found ", found);
  }
}

bool HeaderReader::number_unsigned(number_unsigned_t value) {
  if (at_ == At::kShape) {
    check(tensor_.shape.size() < kMaxRank, where(), ": expected a shape of at most ", kMaxRank,
          " dimensions, found more");
    check(value < uint64_t{1} << 62, where(), ": expected a shape that fits in memory, found ", value);
    tensor_.shape.push_back(static_cast<int64_t>(value));
  } else if (at_ == At::kOffsets) {
    check(offsets_.size() < 2, where(), ": expected two data_offsets, found more");
    offsets_.push_back(value);
  } else {
    unexpected("a number");
  }
  return true;
}

bool HeaderReader::string(string_t& value) {
  if (at_ == At::kMetadata)
    metadata[metadata_key_] = value;
  else if (at_ == At::kEntry && field_ == kDtype)
    tensor_.type = parse_type(value, where());
  else
    unexpected("text");
  return true;
}

bool HeaderReader::key(string_t& value) {
  bool twice = false;
  if (at_ == At::kNames) {
    name_ = value;
  } else if (at_ == At::kMetadata) {
    metadata_key_ = value;
    twice = metadata.contains(value);
  } else {
    const auto known = std::find(std::begin(kFieldNames), std::end(kFieldNames), value);
    if (known == std::end(kFieldNames))
      fail(where(), ": expected the keys dtype, shape and data_offsets, found '", printable(value), "'");
    field_ = static_cast<Field>(known - std::begin(kFieldNames));
    twice = fields_seen_ >> field_ & 1;
    fields_seen_ |= 1u << field_;
  }
  if (twice) fail(path_, ": expected each header key once, found '", printable(value), "' twice");
  return true;
}

bool HeaderReader::start_object(size_t) {
  if (at_ == At::kStart) {
    at_ = At::kNames;
  } else if (at_ != At::kNames) {
    unexpected("an object");
  } else if (name_ == kMetadataKey) {
    check(!metadata_seen_, path_, ": expected each header key once, found '", kMetadataKey, "' twice");
    metadata_seen_ = true;
    at_ = At::kMetadata;
  } else {
    check(tensors.size() < kMaxTensors, path_, ": expected at most ", kMaxTensors, " tensors, found more");
    tensor_ = {};
    offsets_.clear();
    fields_seen_ = 0;
    at_ = At::kEntry;
  }
  return true;
}

bool HeaderReader::end_object() {
  if (at_ == At::kEntry) finish_tensor();
  at_ = At::kNames;
  return true;
}

bool HeaderReader::start_array(size_t) {
  if (at_ != At::kEntry || field_ == kDtype) unexpected("an array");
  at_ = field_ == kShapeField ? At::kShape : At::kOffsets;
  return true;
}

bool HeaderReader::parse_error(size_t, const std::string&, const nlohmann::detail::exception& error) {
  const std::string_view reason = error.what();  // "[json.exception.parse_error.101] parse error at ..."
  const size_t code_end = reason.find("] ");
  fail(path_, ": expected a JSON header, found: ",
       printable(reason.substr(code_end == std::string_view::npos ? 0 : code_end + 2)));
}

void HeaderReader::finish_tensor() {
  check(fields_seen_ == (1u << kFields) - 1, where(), ": expected the keys dtype, shape and data_offsets, found fewer");
  check(offsets_.size() == 2, where(), ": expected two data_offsets, found ", offsets_.size());
  const uint64_t begin = offsets_[0], end = offsets_[1];
  check(begin <= end && end <= data_bytes_, where(), ": expected data_offsets within the file's ", data_bytes_,
        " bytes of data, found [", begin, ", ", end, "]");
  const uint64_t expected = checked_bytes(tensor_.shape, tensor_.type, path_ + ": tensor '" + printable(name_) + "'");
  check(end - begin == expected, where(), ": expected ", expected, " bytes for its shape, found ", end - begin);
  tensor_.name = std::move(name_);
  tensor_.handle = static_cast<size_t>(begin);
  tensor_.bytes = static_cast<size_t>(end - begin);
  tensors.push_back(std::move(tensor_));
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::string& path) : WeightsFile(path), file_(path, "a safetensors file") {
  parse();
}

void SafetensorsFile::parse() {
  const std::span<const std::byte> all = file_.bytes();
  const bool begins = all.size() > 8 && all[8] == std::byte{'{'};
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, all.data(), std::min<size_t>(all.size(), 8));
  if (!begins || header_bytes > kMaxHeaderBytes) {
    const std::string kind = file_kind(all);
    check(kind.empty(), path(), ": expected a safetensors file or a PyTorch checkpoint, found ", kind);
  }
  check(all.size() >= 8, path(), ": expected a safetensors file, found only ", all.size(), " bytes");
  check(header_bytes <= kMaxHeaderBytes && header_bytes <= all.size() - 8, path(),
        ": expected a safetensors header within the file's ", all.size(), " bytes, found a length of ", header_bytes);
  const std::string_view text(reinterpret_cast<const char*>(all.data()) + 8, static_cast<size_t>(header_bytes));
  check(!text.empty() && text[0] == '{', path(), ": expected a safetensors header that begins with '{', found none");
  data_begin_ = 8 + static_cast<size_t>(header_bytes);
  const size_t data_bytes = all.size() - data_begin_;

  HeaderReader header(path(), data_bytes);
  Json::sax_parse(text.begin(), text.end(), &header);
  metadata_ = std::move(header.metadata);
  std::vector<StoredTensor> tensors = std::move(header.tensors);
  std::sort(tensors.begin(), tensors.end(), [](const StoredTensor& a, const StoredTensor& b) {
    return std::pair(a.handle, a.bytes) < std::pair(b.handle, b.bytes);
  });
  size_t end = 0;
  for (const StoredTensor& tensor : tensors) {
    check(tensor.handle == end, Where{path(), tensor.name}, ": expected its data at byte ", end,
          " (no gaps, no overlaps), found ", tensor.handle);
    end += tensor.bytes;
  }
  check(end == data_bytes, path(), ": expected ", end, " bytes of data, found ", data_bytes);
  set_tensors(std::move(tensors));
}

std::span<const std::byte> SafetensorsFile::bytes(const StoredTensor& tensor) const {
  return file_.bytes().subspan(data_begin_ + tensor.handle, tensor.bytes);
}

void SafetensorsFile::read_bytes(const StoredTensor& tensor, std::span<std::byte> to) const {
  const std::span<const std::byte> from = bytes(tensor);
  check(to.size() == from.size(), path(), ": tensor '", printable(tensor.name), "': expected room for ", from.size(),
        " bytes, got ", to.size());
  std::copy(from.begin(), from.end(), to.begin());
}

void write_safetensors(const std::string& path, std::span<const TensorToStore> tensors,
                       const std::map<std::string, std::string>& metadata) {
  write_safetensors(path, tensors, metadata, [&](size_t i) {
    const TensorToStore& tensor = tensors[i];
    const uint64_t bytes = checked_bytes(tensor.shape, tensor.type, path);
    check(tensor.data != nullptr || bytes == 0, path, ": tensor '", printable(tensor.name),
          "': expected data, got none");
    return std::span(static_cast<const std::byte*>(tensor.data), static_cast<size_t>(bytes));
  });
}

void write_safetensors(const std::string& path, std::span<const TensorToStore> tensors,
                       const std::map<std::string, std::string>& metadata, const TensorSource& bytes_of) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header[kMetadataKey] = metadata;
  uint64_t end = 0;
  for (const TensorToStore& tensor : tensors) {
    const std::string where = path + ": tensor '" + printable(tensor.name) + "'";
    check(tensor.name != kMetadataKey && !header.contains(tensor.name), where, ": expected a name of its own");
    const uint64_t bytes = checked_bytes(tensor.shape, tensor.type, where);
    header[tensor.name] = {{"dtype", name_of(tensor.type)},
                           {"shape", tensor.shape},
                           {"data_offsets", std::vector<uint64_t>{end, end + bytes}}};
    end += bytes;
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const Json::exception& error) {
    fail(path, ": expected names and metadata in UTF-8, got: ", error.what());
  }
  constexpr size_t kAlignment = 64;
  text.append((kAlignment - (8 + text.size()) % kAlignment) % kAlignment, ' ');
  const uint64_t header_bytes = text.size();
  check(header_bytes <= kMaxHeaderBytes, path, ": expected a header of at most ", kMaxHeaderBytes, " bytes, got ",
        header_bytes);
  AtomicFile file(path);
  file.write(&header_bytes, sizeof(header_bytes));
  file.write(text.data(), text.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    const std::span<const std::byte> bytes = bytes_of(i);
    check(bytes.size() == checked_bytes(tensors[i].shape, tensors[i].type, path), path, ": tensor '", tensors[i].name,
          "': expected data of its shape, got ", bytes.size(), " bytes");
    file.write(bytes.data(), bytes.size());
  }
  file.commit();
}

}  // namespace depthstill
