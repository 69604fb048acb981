#include "engine/io/torch_file.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <string_view>
#include <utility>

#include "engine/io/text_file.h"
#include "engine/io/zip.h"
#include "kernels/core/error.h"

namespace depthstill {
namespace {

using Kind = PickleValue::Kind;

constexpr size_t kMaxRank = 16;
constexpr int kMaxDepth = 16;  // depth of nested dictionaries
// The LONG1 instruction that begins every file of the older format: 0x1950a86a20f9469cfc6c.
constexpr std::string_view kStreamMagic("\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", 12);
constexpr int64_t kStreamProtocol = 1001;

// Training scripts put a state dict under these keys, in the order of preference.
constexpr std::string_view kWrappers[] = {"state_dict", "model_state_dict", "model_state", "model",
                                          "student",    "module",           "net",         "train_model"};

struct TypeName {
  std::string_view name;
  StoredType type;
};
constexpr TypeName kStorageTypes[] = {
    {"FloatStorage", StoredType::kF32},  {"HalfStorage", StoredType::kF16}, {"BFloat16Storage", StoredType::kBf16},
    {"DoubleStorage", StoredType::kF64}, {"LongStorage", StoredType::kI64}, {"IntStorage", StoredType::kI32},
    {"ShortStorage", StoredType::kI16},  {"CharStorage", StoredType::kI8},  {"ByteStorage", StoredType::kU8},
    {"BoolStorage", StoredType::kBool},
};
constexpr TypeName kElementTypes[] = {
    {"torch.float32", StoredType::kF32}, {"torch.float16", StoredType::kF16}, {"torch.bfloat16", StoredType::kBf16},
    {"torch.float64", StoredType::kF64}, {"torch.int64", StoredType::kI64},   {"torch.int32", StoredType::kI32},
    {"torch.int16", StoredType::kI16},   {"torch.int8", StoredType::kI8},     {"torch.uint8", StoredType::kU8},
    {"torch.bool", StoredType::kBool},   {"torch.uint16", StoredType::kU16},  {"torch.uint32", StoredType::kU32},
    {"torch.uint64", StoredType::kU64},
};

const StoredType* find_type(std::span<const TypeName> table, std::string_view name) {
  for (const TypeName& entry : table) {
    if (entry.name == name) return &entry.type;
  }
  return nullptr;
}

// "torch.FloatStorage", "torch.cuda.FloatStorage".
const StoredType* find_storage_type(std::string_view name) {
  for (const std::string_view prefix : {"torch.cuda.", "torch."}) {
    if (name.starts_with(prefix)) return find_type(kStorageTypes, name.substr(prefix.size()));
  }
  return nullptr;
}

bool is_untyped_storage(std::string_view name) {
  return name == "torch.storage.UntypedStorage" || name == "torch.UntypedStorage";
}

constexpr std::string_view kRebuild = "torch._utils._rebuild_tensor";
constexpr std::string_view kRebuild2 = "torch._utils._rebuild_tensor_v2";
constexpr std::string_view kRebuild3 = "torch._utils._rebuild_tensor_v3";
constexpr std::string_view kParameter = "torch._utils._rebuild_parameter";
constexpr std::string_view kParameterWithState = "torch._utils._rebuild_parameter_with_state";
constexpr std::string_view kFromType = "torch._tensor._rebuild_from_type_v2";

// Allows the names that the tensors of a checkpoint are made of, and those that training scripts keep beside them. The
// latter become values that say what they were, and are never looked into.
bool may_name(const std::string& name) {
  static const std::set<std::string_view> known = {kRebuild,
                                                   kRebuild2,
                                                   kRebuild3,
                                                   kParameter,
                                                   kParameterWithState,
                                                   kFromType,
                                                   "torch.Size",
                                                   "torch.device",
                                                   "torch.Tensor",
                                                   "torch.nn.parameter.Parameter",
                                                   "torch.serialization._get_layout",
                                                   "collections.OrderedDict",
                                                   "collections.defaultdict",
                                                   "collections.Counter",
                                                   "collections.deque",
                                                   "_codecs.encode",
                                                   "argparse.Namespace",
                                                   "pathlib.Path",
                                                   "pathlib.PosixPath",
                                                   "pathlib.WindowsPath",
                                                   "pathlib._local.PosixPath",
                                                   "pathlib._local.WindowsPath",
                                                   "datetime.datetime",
                                                   "datetime.date",
                                                   "datetime.timedelta",
                                                   "numpy.dtype",
                                                   "numpy.ndarray",
                                                   "numpy.core.multiarray.scalar",
                                                   "numpy.core.multiarray._reconstruct",
                                                   "numpy._core.multiarray.scalar",
                                                   "numpy._core.multiarray._reconstruct"};
  static const std::set<std::string_view> builtin = {"set",   "frozenset", "list",  "dict",  "tuple",
                                                     "int",   "float",     "bool",  "str",   "complex",
                                                     "bytes", "bytearray", "slice", "range", "object"};
  for (const std::string_view module : {"builtins.", "__builtin__."}) {
    if (name.starts_with(module)) return builtin.contains(std::string_view(name).substr(module.size()));
  }
  return known.contains(name) || find_storage_type(name) != nullptr || is_untyped_storage(name) ||
         find_type(kElementTypes, name) != nullptr;
}

bool may_name_nothing(const std::string&) { return false; }

std::span<const std::byte> first_bytes(std::span<const std::byte> bytes, size_t count) {
  return bytes.first(std::min(bytes.size(), count));
}

bool is_stream(std::span<const std::byte> file) {
  const std::span<const std::byte> head = first_bytes(file, 2 + kStreamMagic.size());
  const std::string_view text(reinterpret_cast<const char*>(head.data()), head.size());
  return text.size() > 2 && text[0] == '\x80' && text.substr(2) == kStreamMagic;
}

struct Storage {
  const StoredType* type = nullptr;  // null: bytes, whose type stands with the tensor
  std::string_view key;
  int64_t numel = 0;
  int64_t view_offset = 0, view_numel = -1;  // part of it, in the older format; -1: all

  size_t item_bytes() const { return type ? size_of(*type) : 1; }
};

// A Rebuild says how a tensor was pickled: the function that rebuilds it, and its arguments.
struct Rebuild {
  std::string_view function;
  const PickleValue* arguments = nullptr;
};

// The pickled tree, read for what it says.
class Reader {
 public:
  Reader(const Pickle& pickle, std::string where) : pickle_(pickle), where_(std::move(where)) {}

  void expect(bool ok, const char* expected) const {
    if (!ok) fail(where_, ": expected ", expected, ", found another object");
  }

  const PickleValue& at(const PickleValue& sequence, size_t i) const { return pickle_[sequence.items[i]]; }

  int64_t integer(const PickleValue& value) const {
    expect(value.kind == Kind::kInt, "a whole number");
    return value.integer;
  }

  std::vector<int64_t> integers(const PickleValue& value) const {
    const PickleValue* list = &value;
    if (callable(value) == "torch.Size") {
      const PickleValue& arguments = pickle_[value.arguments];
      expect(arguments.items.size() == 1, "one argument of torch.Size");
      list = &at(arguments, 0);
    }
    expect(list->kind == Kind::kTuple || list->kind == Kind::kList, "a tuple of numbers");
    expect(list->items.size() <= kMaxRank, "at most 16 dimensions");
    std::vector<int64_t> numbers;
    for (size_t i = 0; i < list->items.size(); ++i) numbers.push_back(integer(at(*list, i)));
    return numbers;
  }

  std::string_view callable(const PickleValue& value) const {
    if (value.kind != Kind::kCall) return {};
    return pickle_.global_name(pickle_[value.callable]);
  }

  // Empty unless the value is a tensor.
  Rebuild rebuild(const PickleValue& value) const {
    Rebuild result{callable(value), nullptr};
    if (result.function.empty()) return {};
    result.arguments = &pickle_[value.arguments];
    for (int wrapper = 0; wrapper < 4; ++wrapper) {
      const PickleValue& arguments = *result.arguments;
      if (arguments.kind != Kind::kTuple) return {};
      if (result.function == kRebuild || result.function == kRebuild2 || result.function == kRebuild3) return result;
      if (result.function == kFromType && arguments.items.size() >= 3) {
        result = {pickle_.global_name(at(arguments, 0)), &at(arguments, 2)};
      } else if ((result.function == kParameter || result.function == kParameterWithState) &&
                 !arguments.items.empty() && at(arguments, 0).kind == Kind::kCall) {
        const PickleValue& inner = at(arguments, 0);
        result = {callable(inner), &pickle_[inner.arguments]};
      } else {
        return {};
      }
    }
    return {};
  }

  bool is_dict(const PickleValue& value) const {
    const std::string_view name = callable(value);
    return value.kind == Kind::kDict || name == "collections.OrderedDict" || name == "collections.defaultdict";
  }

  // Null if the key is not there. Of two equal keys the last one counts, as in Python.
  const PickleValue* lookup(const PickleValue& dict, std::string_view key) const {
    for (size_t i = dict.items.size() / 2; i-- > 0;) {
      const PickleValue& name = at(dict, 2 * i);
      if (name.kind == Kind::kText && name.text == key) return &at(dict, 2 * i + 1);
    }
    return nullptr;
  }

  // The id of a storage: ("storage", type, key, device, numel[, view]).
  Storage storage(const PickleValue& value) const {
    expect(value.kind == Kind::kPersistent, "a storage");
    const PickleValue& id = pickle_[value.arguments];
    const bool whole = id.kind == Kind::kTuple && (id.items.size() == 5 || id.items.size() == 6);
    expect(whole && at(id, 0).text == "storage" && at(id, 2).kind == Kind::kText, "the id of a storage");
    Storage storage;
    const std::string& type = pickle_.global_name(at(id, 1));
    storage.type = find_storage_type(type);
    expect(storage.type != nullptr || is_untyped_storage(type), "a type of storage");
    storage.key = at(id, 2).text;
    storage.numel = integer(at(id, 4));
    expect(storage.numel >= 0, "a size of storage");
    if (id.items.size() == 6 && at(id, 5).kind != Kind::kNone) {
      const PickleValue& view = at(id, 5);
      expect(view.kind == Kind::kTuple && view.items.size() == 3, "a view of a storage");
      storage.view_offset = integer(at(view, 1));
      storage.view_numel = integer(at(view, 2));
      expect(storage.view_offset >= 0 && storage.view_offset <= storage.numel && storage.view_numel >= 0 &&
                 storage.view_numel <= storage.numel - storage.view_offset,
             "a view within its storage");
    }
    return storage;
  }

 private:
  const Pickle& pickle_;
  const std::string where_;
};

}  // namespace

// Walks the state dict and lists its tensors.
class TensorCollector {
 public:
  explicit TensorCollector(TorchFile& file)
      : file_(file), pickle_(*file.pickle_), reader_(pickle_, file.path()), room_(16 * pickle_.size() + 4096) {}

  std::vector<StoredTensor> collect() {
    const PickleValue* dict = &pickle_.root();
    for (int depth = 0; depth < kMaxDepth; ++depth) {
      const PickleValue* inner = wrapped(*dict);
      if (inner == nullptr) break;
      dict = inner;
    }
    check(reader_.is_dict(*dict), file_.path(), ": expected a dictionary of tensors, found another object");
    walk(*dict, "", 0);
    check(!tensors_.empty(), file_.path(), ": expected a dictionary of tensors, found none");
    return std::move(tensors_);
  }

 private:
  const PickleValue* wrapped(const PickleValue& value) const {
    if (!reader_.is_dict(value)) return nullptr;
    for (const std::string_view key : kWrappers) {
      const PickleValue* inner = reader_.lookup(value, key);
      if (inner != nullptr && reader_.is_dict(*inner) && !inner->items.empty()) return inner;
    }
    return nullptr;
  }

  // Objects may be shared, so the walk could be far longer than the file; its steps are paid from what the file has.
  void pay(size_t cost) {
    check(cost <= room_, file_.path(), ": expected names and nesting in proportion to the file, found more");
    room_ -= cost;
  }

  void walk(const PickleValue& dict, const std::string& prefix, int depth) {
    check(depth < kMaxDepth, file_.path(), ": expected at most ", kMaxDepth, " levels of dictionaries, found more");
    pay(dict.items.size() + 1);
    for (size_t i = 0; i + 1 < dict.items.size(); i += 2) {
      const PickleValue &key = reader_.at(dict, i), &value = reader_.at(dict, i + 1);
      const Rebuild tensor = reader_.rebuild(value);
      if (tensor.arguments == nullptr && !reader_.is_dict(value)) continue;
      if (key.kind != Kind::kText && key.kind != Kind::kInt) continue;
      pay(prefix.size() + key.text.size());
      const std::string name = prefix + (key.kind == Kind::kText ? std::string(key.text) : std::to_string(key.integer));
      if (tensor.arguments == nullptr)
        walk(value, name + ".", depth + 1);
      else
        add(tensor, name);
    }
  }

  void add(const Rebuild& tensor, const std::string& name) {
    const std::string where = file_.path() + ": tensor '" + printable(name) + "'";
    const Reader reader(pickle_, where);
    const PickleValue& arguments = *tensor.arguments;
    const size_t count = arguments.items.size();
    reader.expect(count >= (tensor.function == kRebuild3 ? 7u : 4u), "all arguments of a tensor");
    const Storage storage = reader.storage(reader.at(arguments, 0));
    const StoredType* type = storage.type;
    size_t metadata = 6;
    if (tensor.function == kRebuild3) {
      type = find_type(kElementTypes, pickle_.global_name(reader.at(arguments, metadata++)));
    }
    reader.expect(type != nullptr, "a known element type");
    if (count > metadata) {
      const PickleValue& flags = reader.at(arguments, metadata);  // conjugate or negative views
      reader.expect(flags.kind == Kind::kNone || flags.items.empty(), "a plain view");
    }

    StoredTensor stored;
    stored.name = name;
    stored.type = *type;
    stored.shape = reader.integers(reader.at(arguments, 2));
    stored.handle = file_.views_.size();
    TorchFile::View view;
    view.strides = reader.integers(reader.at(arguments, 3));
    place(stored, view, storage, reader.integer(reader.at(arguments, 1)), where);
    pay(sizeof(int64_t) * view.strides.size());
    tensors_.push_back(std::move(stored));
    file_.views_.push_back(std::move(view));
  }

  // Finds the bytes and checks that every element lies within them.
  void place(StoredTensor& stored, TorchFile::View& view, const Storage& storage, int64_t offset,
             const std::string& where) const {
    const size_t item = size_of(stored.type);
    check(view.strides.size() == stored.shape.size(), where, ": expected a stride per dimension, found ",
          view.strides.size(), " for ", shape_text(stored.shape));
    bool empty = false;
    for (size_t d = 0; d < stored.shape.size(); ++d) {
      check(stored.shape[d] >= 0 && view.strides[d] >= 0, where, ": expected sizes and strides >= 0, found ",
            shape_text(stored.shape), " with strides ", shape_text(view.strides));
      empty = empty || stored.shape[d] == 0;
    }
    const uint64_t bytes = empty ? 0 : checked_bytes(stored.shape, stored.type, where);
    const size_t file_bytes = file_.file_.bytes().size();
    check(bytes <= file_bytes, where, ": expected no more bytes than the file's ", file_bytes, ", found shape ",
          shape_text(stored.shape));
    stored.bytes = static_cast<size_t>(bytes);

    const std::span<const std::byte> all = bytes_of(storage, where);
    const size_t begin = static_cast<size_t>(storage.view_offset) * storage.item_bytes();
    const size_t part =
        storage.view_numel < 0 ? all.size() - begin : static_cast<size_t>(storage.view_numel) * storage.item_bytes();
    const std::span<const std::byte> own = all.subspan(begin, part);
    const auto numel = static_cast<int64_t>(own.size() / item);
    check(offset >= 0 && offset <= numel, where, ": expected an offset within its storage of ", numel,
          " elements, found ", offset);
    int64_t room = numel - offset - 1;  // how far the last element may be from the first
    for (size_t d = 0; !empty && d < stored.shape.size(); ++d) {
      const int64_t steps = stored.shape[d] - 1, stride = view.strides[d];
      check(steps == 0 || stride <= room / steps, where, ": expected elements within its storage of ", numel,
            ", found shape ", shape_text(stored.shape), " with strides ", shape_text(view.strides), " from ", offset);
      room -= steps * stride;
      if (steps == 0) view.strides[d] = 0;  // it is never taken, and any number may stand there
    }
    check(empty || room >= 0, where, ": expected elements within its storage of ", numel, ", found none");
    view.storage = own.subspan(static_cast<size_t>(offset) * item);
  }

  std::span<const std::byte> bytes_of(const Storage& storage, const std::string& where) const {
    const auto found = file_.storages_.find(storage.key);
    check(found != file_.storages_.end(), where, ": expected its data under the key '", printable(storage.key),
          "', found none");
    const size_t count = found->second.size() / storage.item_bytes();
    check(found->second.size() % storage.item_bytes() == 0 && count == static_cast<size_t>(storage.numel), where,
          ": expected ", storage.numel, " elements of ", storage.item_bytes(), " bytes of data, found ",
          found->second.size(), " bytes");
    return found->second;
  }

  TorchFile& file_;
  const Pickle& pickle_;
  const Reader reader_;
  size_t room_;
  std::vector<StoredTensor> tensors_;
};

TorchFile::TorchFile(const std::string& path) : WeightsFile(path), file_(path, "a PyTorch checkpoint") {
  if (is_zip(file_.bytes()))
    read_archive();
  else
    read_stream();
  set_tensors(TensorCollector(*this).collect());
}

bool TorchFile::recognises(const std::string& path) {
  const MappedFile file(path, "a file of weights");
  return is_zip(file.bytes()) || is_stream(file.bytes());
}

// An archive holds NAME/data.pkl, NAME/data/KEY, and, if it is newer, NAME/byteorder.
void TorchFile::read_archive() {
  const ZipEntries entries = read_zip(file_.bytes(), path());
  constexpr std::string_view kPickle = "data.pkl", kData = "data/", kOrder = "byteorder", kCode = "constants.pkl";
  const auto is_pickle = [&](const auto& entry) {
    const size_t slash = entry.first.find('/');
    return slash != std::string::npos && std::string_view(entry.first).substr(slash + 1) == kPickle;
  };
  const auto pickled = std::find_if(entries.begin(), entries.end(), is_pickle);
  check(pickled != entries.end(), path(), ": expected a PyTorch checkpoint (NAME/data.pkl), found a zip archive ",
        entries.empty()
            ? "of nothing"
            : concat_text("of ", entries.size(), " files, such as '", printable(entries.begin()->first), "'"));
  const auto second = std::find_if(std::next(pickled), entries.end(), is_pickle);
  check(second == entries.end(), path(), ": expected one NAME/data.pkl, found '", printable(pickled->first),
        "' and another");
  for (const auto& [name, entry] : entries) {
    check(!entry.compressed, path(), ": expected stored entries, as torch.save writes them, found ", printable(name),
          " compressed");
  }
  const std::string folder = pickled->first.substr(0, pickled->first.size() - kPickle.size());
  check(!entries.contains(folder + std::string(kCode)), path(),
        ": expected a checkpoint of torch.save, found a TorchScript program");
  if (const auto order = entries.find(folder + std::string(kOrder)); order != entries.end()) {
    const std::string_view text(reinterpret_cast<const char*>(order->second.bytes.data()), order->second.bytes.size());
    check(text == "little", path(), ": expected little-endian data, found '", printable(text), "'");
  }
  const std::string data = folder + std::string(kData);
  for (auto entry = entries.lower_bound(data); entry != entries.end() && entry->first.starts_with(data); ++entry) {
    storages_.emplace(entry->first.substr(data.size()), entry->second.bytes);
  }
  pickle_.emplace(pickled->second.bytes, path(), may_name);
}

// The stream holds pickles one after the other (magic number, protocol, system, object, keys of the storages), then per
// storage its number of elements and its data.
void TorchFile::read_stream() {
  std::span<const std::byte> rest = file_.bytes();
  const auto next = [&](bool (*may)(const std::string&)) {
    Pickle pickle(rest, path(), may);
    rest = rest.subspan(pickle.size());
    return pickle;
  };
  next(may_name_nothing);
  const Pickle protocol = next(may_name_nothing), system = next(may_name_nothing);
  check(protocol.root().kind == Kind::kInt && protocol.root().integer == kStreamProtocol, path(),
        ": expected protocol ", kStreamProtocol, " of torch.save, found another");
  const PickleValue* order = Reader(system, path()).lookup(system.root(), "little_endian");
  check(order == nullptr || (order->kind == Kind::kBool && order->integer == 1), path(),
        ": expected little-endian data, found another order");

  pickle_.emplace(next(may_name));
  const Pickle keys = next(may_name_nothing);
  check(keys.root().kind == Kind::kList, path(), ": expected a list of storages, found another object");
  const Reader reader(*pickle_, path());
  std::map<std::string_view, size_t> item_bytes;
  for (const PickleValue& value : pickle_->values()) {
    if (value.kind != Kind::kPersistent) continue;
    const Storage storage = reader.storage(value);
    item_bytes[storage.key] = storage.item_bytes();
  }
  for (const PickleId id : keys.root().items) {
    const auto item = item_bytes.find(keys[id].text);
    check(item != item_bytes.end(), path(), ": expected a storage that a tensor uses, found '",
          printable(keys[id].text), "'");
    uint64_t numel = 0;
    check(rest.size() >= sizeof(numel), path(), ": expected the size of a storage, found the end of the file");
    std::memcpy(&numel, rest.data(), sizeof(numel));
    rest = rest.subspan(sizeof(numel));
    check(numel <= rest.size() / item->second, path(), ": expected ", numel, " elements of storage '",
          printable(keys[id].text), "', found ", rest.size(), " bytes: the file is cut short");
    const size_t bytes = static_cast<size_t>(numel) * item->second;
    storages_[std::string(keys[id].text)] = rest.first(bytes);
    rest = rest.subspan(bytes);
  }
}

void TorchFile::read_bytes(const StoredTensor& tensor, std::span<std::byte> to) const {
  check(to.size() == tensor.bytes, path(), ": tensor '", printable(tensor.name), "': expected room for ", tensor.bytes,
        " bytes, got ", to.size());
  if (to.empty()) return;
  const View& view = views_[tensor.handle];
  const size_t item = size_of(tensor.type), rank = tensor.shape.size();
  // The dimensions from `inner` on are contiguous and are copied at once.
  size_t inner = rank, run = item;
  while (inner > 0 && (tensor.shape[inner - 1] == 1 || static_cast<size_t>(view.strides[inner - 1]) * item == run)) {
    run *= static_cast<size_t>(tensor.shape[--inner]);
  }
  std::vector<int64_t> index(inner, 0);
  int64_t from = 0;
  for (size_t at = 0; at < to.size(); at += run) {
    std::memcpy(to.data() + at, view.storage.data() + static_cast<size_t>(from) * item, run);
    for (size_t d = inner; d-- > 0;) {
      from += view.strides[d];
      if (++index[d] < tensor.shape[d]) break;
      from -= view.strides[d] * tensor.shape[d];
      index[d] = 0;
    }
  }
}

}  // namespace depthstill
