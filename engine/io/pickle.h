// Reads a Python pickle (protocols 2 to 5) into a tree of inert values. Nothing is looked up, imported or executed: the
// name of a function or class is a value like any other, and calling it makes a node that says so. Which names may
// occur at all is the caller's choice; any other is refused by name as soon as it is read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace depthstill {

using PickleId = uint32_t;  // index of a value in its Pickle

struct PickleValue {
  enum class Kind : uint8_t {
    kNone,
    kBool,        // integer
    kInt,         // integer
    kLong,        // an integer of more than 8 bytes: text has them, little-endian
    kFloat,       // real
    kText,        // text, UTF-8 (not checked)
    kBytes,       // text
    kList,        // items; sets too
    kTuple,       // items
    kDict,        // items: key, value, key, value, ...
    kGlobal,      // integer: index of the name, see Pickle::global_name
    kCall,        // callable, arguments (a tuple); items: what was added to the new object, as in kList or kDict
    kPersistent,  // arguments: the id of an object outside the pickle
  };
  Kind kind = Kind::kNone;
  PickleId callable = 0, arguments = 0;
  union {
    int64_t integer = 0;
    double real;
  };
  std::string_view text = {};  // part of the pickled bytes
  std::vector<PickleId> items = {};
};

class Pickle {
 public:
  // Parses the pickle at the beginning of `bytes`, which must outlive this object. `may_name` decides which
  // "module.name" may occur. Throws Error, beginning with `where`; memory stays within kBytesPerByte of the pickle's
  // size.
  Pickle(std::span<const std::byte> bytes, const std::string& where,
         const std::function<bool(const std::string&)>& may_name);

  size_t size() const { return size_; }  // bytes of the pickle
  const PickleValue& root() const { return values_[root_]; }
  const PickleValue& operator[](PickleId id) const { return values_[id]; }
  const std::vector<PickleValue>& values() const { return values_; }
  const std::string& global_name(const PickleValue& value) const;  // "module.name"; "" unless value is a kGlobal

  static constexpr size_t kBytesPerByte = 256;

 private:
  friend class PickleParser;
  std::vector<PickleValue> values_;
  std::vector<std::string> global_names_;
  PickleId root_ = 0;
  size_t size_ = 0;
};

}  // namespace depthstill
