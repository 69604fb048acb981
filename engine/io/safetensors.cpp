#include "engine/io/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <ostream>
#include <set>
#include <string_view>
#include <utility>

#include "engine/io/atomic_file.h"
#include "engine/io/half.h"
#include "engine/io/text_file.h"
#include "kernels/bf16.h"
#include "kernels/error.h"

namespace depthstill {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit
constexpr size_t kMaxRank = 16;

struct TypeEntry {
  const char* name;
  size_t bytes;
};
constexpr TypeEntry kTypes[] = {{"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"U16", 2}, {"I16", 2}, {"F16", 2}, {"BF16", 2},
                                {"U32", 4},  {"I32", 4}, {"F32", 4}, {"U64", 8}, {"I64", 8}, {"F64", 8}};

StoredType parse_type(const std::string& text, const std::string& where) {
  for (size_t i = 0; i < std::size(kTypes); ++i) {
    if (text == kTypes[i].name) return static_cast<StoredType>(i);
  }
  fail(where, ": expected a known dtype such as F32, found '", printable(text), "'");
}

// nlohmann-json silently keeps the last of two equal keys.
Json parse_header(std::string_view text, const std::string& path) {
  std::vector<std::set<std::string>> keys;
  const auto watch = [&](int, Json::parse_event_t event, Json& value) {
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key) {
      const auto& key = value.get_ref<const std::string&>();
      check(keys.back().insert(key).second, path, ": expected each header key once, found '", printable(key),
            "' twice");
    }
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), watch);
  } catch (const Json::exception& error) {
    const std::string_view reason = error.what();  // "[json.exception.parse_error.101] parse error at ..."
    const size_t code_end = reason.find("] ");
    fail(path, ": expected a JSON header, found: ",
         printable(reason.substr(code_end == std::string_view::npos ? 0 : code_end + 2)));
  }
}

uint64_t parse_unsigned(const Json& value, const char* what, const std::string& where) {
  check(value.is_number_unsigned(), where, ": expected whole numbers >= 0 in ", what, ", found ", value.type_name());
  return value.get<uint64_t>();
}

// `product` times each size, held below 2^62 so that later sums cannot wrap.
uint64_t checked_bytes(const std::vector<int64_t>& shape, size_t item_bytes, const std::string& where) {
  constexpr uint64_t kLimit = uint64_t{1} << 62;
  uint64_t product = item_bytes;
  for (const int64_t size : shape) {
    const auto n = static_cast<uint64_t>(size);
    check(n == 0 || product <= kLimit / n, where, ": expected a shape that fits in memory, found more");
    product *= n;
  }
  return product;
}

StoredTensor parse_tensor(const std::string& name, const Json& entry, size_t data_bytes, const std::string& path) {
  const std::string where = path + ": tensor '" + printable(name) + "'";
  check(entry.is_object() && entry.size() == 3 && entry.contains("dtype") && entry.contains("shape") &&
            entry.contains("data_offsets"),
        where, ": expected the keys dtype, shape and data_offsets, found others");
  check(entry["dtype"].is_string(), where, ": expected a dtype, found ", entry["dtype"].type_name());
  const Json &shape = entry["shape"], &offsets = entry["data_offsets"];
  check(shape.is_array() && shape.size() <= kMaxRank, where, ": expected a shape of at most ", kMaxRank,
        " dimensions, found ", shape.is_array() ? concat_text(shape.size()) : shape.type_name());
  check(offsets.is_array() && offsets.size() == 2, where, ": expected two data_offsets, found ",
        offsets.is_array() ? concat_text(offsets.size()) : offsets.type_name());

  StoredTensor tensor;
  tensor.name = name;
  tensor.type = parse_type(entry["dtype"].get<std::string>(), where);
  for (const Json& size : shape) {
    const uint64_t n = parse_unsigned(size, "shape", where);
    check(n < uint64_t{1} << 62, where, ": expected a shape that fits in memory, found ", n);
    tensor.shape.push_back(static_cast<int64_t>(n));
  }
  const uint64_t begin = parse_unsigned(offsets[0], "data_offsets", where);
  const uint64_t end = parse_unsigned(offsets[1], "data_offsets", where);
  check(begin <= end && end <= data_bytes, where, ": expected data_offsets within the file's ", data_bytes,
        " bytes of data, found [", begin, ", ", end, "]");
  const uint64_t expected = checked_bytes(tensor.shape, size_of(tensor.type), where);
  check(end - begin == expected, where, ": expected ", expected, " bytes for its shape, found ", end - begin);
  tensor.offset = static_cast<size_t>(begin);
  tensor.bytes = static_cast<size_t>(end - begin);
  return tensor;
}

std::map<std::string, std::string> parse_metadata(const Json& entry, const std::string& path) {
  check(entry.is_object(), path, ": expected __metadata__ to be an object, found ", entry.type_name());
  std::map<std::string, std::string> metadata;
  for (const auto& [key, value] : entry.items()) {
    check(value.is_string(), path, ": expected text for __metadata__ '", printable(key), "', found ",
          value.type_name());
    metadata[key] = value.get<std::string>();
  }
  return metadata;
}

template <class Stored, class Convert>
void convert(std::span<const std::byte> from, std::span<float> to, Convert convert_one) {
  for (size_t i = 0; i < to.size(); ++i) {
    Stored value;
    std::memcpy(&value, from.data() + i * sizeof(Stored), sizeof(Stored));
    to[i] = convert_one(value);
  }
}

}  // namespace

size_t size_of(StoredType type) { return kTypes[static_cast<size_t>(type)].bytes; }
const char* name_of(StoredType type) { return kTypes[static_cast<size_t>(type)].name; }
std::ostream& operator<<(std::ostream& out, StoredType type) { return out << name_of(type); }

SafetensorsFile::SafetensorsFile(const std::string& path) : path_(path) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  check(descriptor >= 0, path, ": expected a readable file, found: ", std::strerror(errno));
  struct stat status {};
  const bool regular = fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode);
  map_bytes_ = regular ? static_cast<size_t>(status.st_size) : 0;
  void* map = map_bytes_ > 0 ? mmap(nullptr, map_bytes_, PROT_READ, MAP_PRIVATE, descriptor, 0) : MAP_FAILED;
  const int reason = errno;
  close(descriptor);
  check(regular, path, ": expected a safetensors file, found a folder or special file");
  check(map_bytes_ > 0, path, ": expected a safetensors file, found an empty file");
  check(map != MAP_FAILED, path, ": expected a file that can be mapped, found: ", std::strerror(reason));
  map_ = static_cast<const std::byte*>(map);
  try {
    parse();
  } catch (...) {
    munmap(map, map_bytes_);
    throw;
  }
}

SafetensorsFile::~SafetensorsFile() { munmap(const_cast<std::byte*>(map_), map_bytes_); }

void SafetensorsFile::parse() {
  check(map_bytes_ >= 8, path_, ": expected a safetensors file, found only ", map_bytes_, " bytes");
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, map_, 8);
  check(header_bytes <= kMaxHeaderBytes && header_bytes <= map_bytes_ - 8, path_,
        ": expected a safetensors header within the file's ", map_bytes_, " bytes, found a length of ", header_bytes);
  const std::string_view text(reinterpret_cast<const char*>(map_) + 8, static_cast<size_t>(header_bytes));
  check(!text.empty() && text[0] == '{', path_, ": expected a safetensors header that begins with '{', found none");
  data_begin_ = 8 + static_cast<size_t>(header_bytes);
  const size_t data_bytes = map_bytes_ - data_begin_;

  const Json header = parse_header(text, path_);
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      metadata_ = parse_metadata(entry, path_);
    } else {
      tensors_.push_back(parse_tensor(name, entry, data_bytes, path_));
    }
  }
  std::sort(tensors_.begin(), tensors_.end(), [](const StoredTensor& a, const StoredTensor& b) {
    return std::pair(a.offset, a.bytes) < std::pair(b.offset, b.bytes);
  });
  size_t end = 0;
  for (const StoredTensor& tensor : tensors_) {
    check(tensor.offset == end, path_, ": tensor '", printable(tensor.name), "': expected its data at byte ", end,
          " (no gaps, no overlaps), found ", tensor.offset);
    end += tensor.bytes;
  }
  check(end == data_bytes, path_, ": expected ", end, " bytes of data, found ", data_bytes);
  for (size_t i = 0; i < tensors_.size(); ++i) by_name_[tensors_[i].name] = i;
}

const StoredTensor* SafetensorsFile::find(const std::string& name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &tensors_[found->second];
}

const StoredTensor& SafetensorsFile::at(const std::string& name) const {
  const StoredTensor* tensor = find(name);
  check(tensor != nullptr, path_, ": expected a tensor '", name, "', found none among ", tensors_.size());
  return *tensor;
}

std::span<const std::byte> SafetensorsFile::bytes(const StoredTensor& tensor) const {
  return {map_ + data_begin_ + tensor.offset, tensor.bytes};
}

void SafetensorsFile::read_floats(const StoredTensor& tensor, std::span<float> values) const {
  check(values.size() == static_cast<size_t>(tensor.numel()), path_, ": tensor '", tensor.name, "': expected ",
        values.size(), " values, found ", tensor.numel());
  const std::span<const std::byte> from = bytes(tensor);
  switch (tensor.type) {
    case StoredType::kF32:
      return convert<float>(from, values, [](float v) { return v; });
    case StoredType::kF64:
      return convert<double>(from, values, [](double v) { return static_cast<float>(v); });
    case StoredType::kF16:
      return convert<uint16_t>(from, values, half_to_float);
    case StoredType::kBf16:
      return convert<bf16>(from, values, [](bf16 v) { return static_cast<float>(v); });
    default:
      fail(path_, ": tensor '", tensor.name, "': expected F32, F16, BF16 or F64, found ", tensor.type);
  }
}

std::vector<float> SafetensorsFile::read_floats(const std::string& name) const {
  const StoredTensor& tensor = at(name);
  std::vector<float> values(static_cast<size_t>(tensor.numel()));
  read_floats(tensor, values);
  return values;
}

void write_safetensors(const std::string& path, std::span<const TensorToStore> tensors,
                       const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t end = 0;
  for (const TensorToStore& tensor : tensors) {
    const std::string where = path + ": tensor '" + tensor.name + "'";
    check(tensor.name != "__metadata__" && !header.contains(tensor.name), where, ": expected a name of its own");
    const uint64_t bytes = checked_bytes(tensor.shape, size_of(tensor.type), where);
    check(tensor.data != nullptr || bytes == 0, where, ": expected data, got none");
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
  for (const TensorToStore& tensor : tensors) {
    file.write(tensor.data, static_cast<size_t>(checked_bytes(tensor.shape, size_of(tensor.type), path)));
  }
  file.commit();
}

}  // namespace depthstill
