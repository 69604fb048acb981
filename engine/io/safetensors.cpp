#include "engine/io/safetensors.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
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

constexpr auto kLastType = static_cast<size_t>(StoredType::kF64);

StoredType parse_type(const std::string& text, const std::string& where) {
  for (size_t i = 0; i <= kLastType; ++i) {
    if (text == name_of(static_cast<StoredType>(i))) return static_cast<StoredType>(i);
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
  const uint64_t expected = checked_bytes(tensor.shape, tensor.type, where);
  check(end - begin == expected, where, ": expected ", expected, " bytes for its shape, found ", end - begin);
  tensor.handle = static_cast<size_t>(begin);
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

  const Json header = parse_header(text, path());
  std::vector<StoredTensor> tensors;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      metadata_ = parse_metadata(entry, path());
    } else {
      tensors.push_back(parse_tensor(name, entry, data_bytes, path()));
    }
  }
  std::sort(tensors.begin(), tensors.end(), [](const StoredTensor& a, const StoredTensor& b) {
    return std::pair(a.handle, a.bytes) < std::pair(b.handle, b.bytes);
  });
  size_t end = 0;
  for (const StoredTensor& tensor : tensors) {
    check(tensor.handle == end, path(), ": tensor '", printable(tensor.name), "': expected its data at byte ", end,
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
  check(to.size() == from.size(), path(), ": tensor '", tensor.name, "': expected room for ", from.size(),
        " bytes, got ", to.size());
  std::copy(from.begin(), from.end(), to.begin());
}

void write_safetensors(const std::string& path, std::span<const TensorToStore> tensors,
                       const std::map<std::string, std::string>& metadata) {
  write_safetensors(path, tensors, metadata, [&](size_t i) {
    const TensorToStore& tensor = tensors[i];
    const uint64_t bytes = checked_bytes(tensor.shape, tensor.type, path);
    check(tensor.data != nullptr || bytes == 0, path, ": tensor '", tensor.name, "': expected data, got none");
    return std::span(static_cast<const std::byte*>(tensor.data), static_cast<size_t>(bytes));
  });
}

void write_safetensors(const std::string& path, std::span<const TensorToStore> tensors,
                       const std::map<std::string, std::string>& metadata, const TensorSource& bytes_of) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t end = 0;
  for (const TensorToStore& tensor : tensors) {
    const std::string where = path + ": tensor '" + tensor.name + "'";
    check(tensor.name != "__metadata__" && !header.contains(tensor.name), where, ": expected a name of its own");
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
