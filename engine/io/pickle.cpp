#include "engine/io/pickle.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "engine/io/text_file.h"
#include "kernels/core/error.h"

namespace depthstill {

using Kind = PickleValue::Kind;

// The stack machine of Python's `pickle`, without its effects. Each instruction makes at most one value.
class PickleParser {
 public:
  PickleParser(Pickle& out, std::span<const std::byte> bytes, const std::string& where,
               const std::function<bool(const std::string&)>& may_name)
      : out_(out), bytes_(bytes), where_(where), may_name_(may_name) {}

  void parse() {
    expect(!bytes_.empty() && byte_at(0) == 0x80, "a pickle of protocol 2 or newer", "none");
    while (step()) {
    }
    out_.root_ = pop();
    expect(stack_.empty() && marks_.empty(), "one object", "more");
    out_.size_ = at_;
  }

 private:
  template <class Found>
  void expect(bool ok, const char* expected, const Found& found) const {
    if (!ok) fail(where_, ": pickle: byte ", at_, ": expected ", expected, ", found ", found);
  }

  uint8_t byte_at(size_t i) const { return static_cast<uint8_t>(bytes_[i]); }

  std::string_view take(uint64_t count) {
    expect(count <= bytes_.size() - at_, "a length within the file", count);
    const std::string_view text(reinterpret_cast<const char*>(bytes_.data()) + at_, static_cast<size_t>(count));
    at_ += static_cast<size_t>(count);
    return text;
  }

  uint64_t number(int width) {  // little-endian, unsigned
    const std::string_view text = take(static_cast<uint64_t>(width));
    uint64_t value = 0;
    for (size_t i = 0; i < text.size(); ++i) value |= uint64_t{static_cast<uint8_t>(text[i])} << (8 * i);
    return value;
  }

  std::string_view line() {
    const std::string_view rest(reinterpret_cast<const char*>(bytes_.data()) + at_, bytes_.size() - at_);
    const size_t end = rest.find('\n');
    expect(end != std::string_view::npos, "a line", "the end");
    at_ += end + 1;
    return rest.substr(0, end);
  }

  PickleValue& value(PickleId id) { return out_.values_[id]; }

  PickleId push(PickleValue value) {
    expect(out_.values_.size() < kMaxValues, "fewer objects than a checkpoint ever has", "more");
    const auto id = static_cast<PickleId>(out_.values_.size());
    out_.values_.push_back(std::move(value));
    stack_.push_back(id);
    return id;
  }

  void push_simple(Kind kind, int64_t integer = 0) {
    PickleValue value;
    value.kind = kind;
    value.integer = integer;
    push(std::move(value));
  }

  void push_text(Kind kind, std::string_view text) {
    PickleValue value;
    value.kind = kind;
    value.text = text;
    push(std::move(value));
  }

  void push_items(Kind kind, std::vector<PickleId> items) {
    PickleValue value;
    value.kind = kind;
    value.items = std::move(items);
    push(std::move(value));
  }

  size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }

  PickleId top() const {
    expect(stack_.size() > floor(), "an object on the stack", "none");
    return stack_.back();
  }

  PickleId pop() {
    const PickleId id = top();
    stack_.pop_back();
    return id;
  }

  std::vector<PickleId> pop_count(size_t count) {
    expect(stack_.size() - floor() >= count, "more objects on the stack", stack_.size() - floor());
    std::vector<PickleId> items(stack_.end() - static_cast<std::ptrdiff_t>(count), stack_.end());
    stack_.resize(stack_.size() - count);
    return items;
  }

  std::vector<PickleId> pop_mark() {
    expect(!marks_.empty(), "a mark", "none");
    std::vector<PickleId> items = pop_count(stack_.size() - marks_.back());
    marks_.pop_back();
    return items;
  }

  void push_dict(std::vector<PickleId> items) {
    expect(items.size() % 2 == 0, "a value for each key", "a key alone");
    push_items(Kind::kDict, std::move(items));
  }

  // APPEND(S), ADDITEMS and SETITEM(S) change the object below.
  void add_items(const std::vector<PickleId>& items, bool pairs) {
    PickleValue& target = value(top());
    const bool fits = target.kind == Kind::kCall || target.kind == (pairs ? Kind::kDict : Kind::kList);
    expect(fits, pairs ? "a dictionary to add to" : "a list to add to", "something else");
    expect(!pairs || items.size() % 2 == 0, "a value for each key", "a key alone");
    target.items.insert(target.items.end(), items.begin(), items.end());
  }

  void global(std::string_view module, std::string_view name) {
    const std::string full = std::string(module) + "." + std::string(name);
    auto known = global_ids_.find(full);
    if (known == global_ids_.end()) {
      check(may_name_(full), where_, ": refuses to construct `", printable(full),
            "`: only tensors, dictionaries, numbers and text are read");
      known = global_ids_.emplace(full, out_.global_names_.size()).first;
      out_.global_names_.push_back(full);
    }
    push_simple(Kind::kGlobal, static_cast<int64_t>(known->second));
  }

  void stack_global() {
    const std::vector<PickleId> names = pop_count(2);
    const PickleValue &module = value(names[0]), &name = value(names[1]);
    expect(module.kind == Kind::kText && name.kind == Kind::kText, "the name of a class", "something else");
    global(module.text, name.text);
  }

  void call(bool with_keywords) {
    if (with_keywords) pop();
    const std::vector<PickleId> parts = pop_count(2);
    expect(value(parts[0]).kind == Kind::kGlobal, "a call of something named", "something else");
    expect(value(parts[1]).kind == Kind::kTuple, "arguments in a tuple", "something else");
    PickleValue result;
    result.kind = Kind::kCall;
    result.callable = parts[0];
    result.arguments = parts[1];
    push(std::move(result));
  }

  void persistent() {
    PickleValue result;
    result.kind = Kind::kPersistent;
    result.arguments = pop();
    push(std::move(result));
  }

  // Attributes of an object: none is of use here. The state of a dictionary is PyTorch's `_metadata`.
  void build() {
    pop();
    const Kind kind = value(top()).kind;
    expect(kind == Kind::kCall || kind == Kind::kDict, "an object to give attributes to", "something else");
  }

  void integer(uint64_t width) {
    const std::string_view text = take(width);
    if (width > 8) return push_text(Kind::kLong, text);
    uint64_t value = width > 0 && (static_cast<uint8_t>(text.back()) & 0x80) ? ~uint64_t{0} : 0;
    for (size_t i = text.size(); i-- > 0;) value = value << 8 | static_cast<uint8_t>(text[i]);
    push_simple(Kind::kInt, static_cast<int64_t>(value));
  }

  void real() {
    uint64_t bits = 0;
    for (const char c : take(8)) bits = bits << 8 | static_cast<uint8_t>(c);
    PickleValue value;
    value.kind = Kind::kFloat;
    value.real = std::bit_cast<double>(bits);
    push(std::move(value));
  }

  // An entry takes at least two bytes of pickle, so indices stay below its length.
  void remember(uint64_t index) {
    expect(index < bytes_.size() && index <= 2 * at_, "a memo index within the pickle", index);
    if (index >= memo_.size()) memo_.resize(static_cast<size_t>(index) + 1, kNothing);
    memo_[static_cast<size_t>(index)] = top();
    ++memo_entries_;
  }

  void recall(uint64_t index) {
    const bool known = index < memo_.size() && memo_[static_cast<size_t>(index)] != kNothing;
    expect(known, "a known memo index", index);
    stack_.push_back(memo_[static_cast<size_t>(index)]);
  }

  bool step();
  bool step_container(uint8_t code);
  bool step_scalar(uint8_t code);
  bool step_object(uint8_t code);

  static constexpr PickleId kNothing = ~PickleId{0};
  static constexpr size_t kMaxValues = 1 << 19;  // 32 MiB of them, for networks of thousands of tensors

  Pickle& out_;
  const std::span<const std::byte> bytes_;
  const std::string& where_;
  const std::function<bool(const std::string&)>& may_name_;
  size_t at_ = 0;
  std::vector<PickleId> stack_, memo_;
  std::vector<size_t> marks_;
  uint64_t memo_entries_ = 0;
  std::map<std::string, size_t> global_ids_;
};

// False after STOP.
bool PickleParser::step() {
  const auto code = static_cast<uint8_t>(number(1));
  if (code == '.') return false;
  if (!step_scalar(code) && !step_container(code) && !step_object(code)) {
    --at_;
    expect(false, "an instruction of protocols 2 to 5", concat_text("code ", static_cast<int>(code)));
  }
  return true;
}

bool PickleParser::step_scalar(uint8_t code) {
  switch (code) {
    case 'N':
      return push_simple(Kind::kNone), true;
    case 0x88:  // NEWTRUE
      return push_simple(Kind::kBool, 1), true;
    case 0x89:  // NEWFALSE
      return push_simple(Kind::kBool, 0), true;
    case 'J':  // BININT
      return push_simple(Kind::kInt, static_cast<int32_t>(number(4))), true;
    case 'K':  // BININT1
      return push_simple(Kind::kInt, static_cast<int64_t>(number(1))), true;
    case 'M':  // BININT2
      return push_simple(Kind::kInt, static_cast<int64_t>(number(2))), true;
    case 0x8a:  // LONG1
      return integer(number(1)), true;
    case 0x8b:  // LONG4
      return integer(number(4)), true;
    case 'G':  // BINFLOAT
      return real(), true;
    case 'U':   // SHORT_BINSTRING, the text of Python 2
    case 0x8c:  // SHORT_BINUNICODE
      return push_text(Kind::kText, take(number(1))), true;
    case 'T':  // BINSTRING
    case 'X':  // BINUNICODE
      return push_text(Kind::kText, take(number(4))), true;
    case 0x8d:  // BINUNICODE8
      return push_text(Kind::kText, take(number(8))), true;
    case 'C':  // SHORT_BINBYTES
      return push_text(Kind::kBytes, take(number(1))), true;
    case 'B':  // BINBYTES
      return push_text(Kind::kBytes, take(number(4))), true;
    case 0x8e:  // BINBYTES8
    case 0x96:  // BYTEARRAY8
      return push_text(Kind::kBytes, take(number(8))), true;
    default:
      return false;
  }
}

bool PickleParser::step_container(uint8_t code) {
  switch (code) {
    case '(':  // MARK
      return marks_.push_back(stack_.size()), true;
    case ')':  // EMPTY_TUPLE
      return push_items(Kind::kTuple, {}), true;
    case 't':  // TUPLE
      return push_items(Kind::kTuple, pop_mark()), true;
    case 0x85:  // TUPLE1
    case 0x86:  // TUPLE2
    case 0x87:  // TUPLE3
      return push_items(Kind::kTuple, pop_count(code - 0x84u)), true;
    case ']':   // EMPTY_LIST
    case 0x8f:  // EMPTY_SET
      return push_items(Kind::kList, {}), true;
    case 'l':   // LIST
    case 0x91:  // FROZENSET
      return push_items(Kind::kList, pop_mark()), true;
    case 'a':  // APPEND
      return add_items(pop_count(1), false), true;
    case 'e':   // APPENDS
    case 0x90:  // ADDITEMS
      return add_items(pop_mark(), false), true;
    case '}':  // EMPTY_DICT
      return push_dict({}), true;
    case 'd':  // DICT
      return push_dict(pop_mark()), true;
    case 's':  // SETITEM
      return add_items(pop_count(2), true), true;
    case 'u':  // SETITEMS
      return add_items(pop_mark(), true), true;
    default:
      return false;
  }
}

bool PickleParser::step_object(uint8_t code) {
  switch (code) {
    case 0x80: {  // PROTO
      const uint64_t protocol = number(1);
      return expect(protocol >= 2 && protocol <= 5, "protocol 2 to 5", protocol), true;
    }
    case 0x95:  // FRAME: how the bytes were buffered
      return number(8), true;
    case '0':  // POP
      return pop(), true;
    case '1':  // POP_MARK
      return pop_mark(), true;
    case '2':  // DUP
      return stack_.push_back(top()), true;
    case 'q':  // BINPUT
      return remember(number(1)), true;
    case 'r':  // LONG_BINPUT
      return remember(number(4)), true;
    case 0x94:  // MEMOIZE
      return remember(memo_entries_), true;
    case 'h':  // BINGET
      return recall(number(1)), true;
    case 'j':  // LONG_BINGET
      return recall(number(4)), true;
    case 'c': {  // GLOBAL
      const std::string_view module = line();
      return global(module, line()), true;
    }
    case 0x93:  // STACK_GLOBAL
      return stack_global(), true;
    case 'R':   // REDUCE
    case 0x81:  // NEWOBJ
      return call(false), true;
    case 0x92:  // NEWOBJ_EX
      return call(true), true;
    case 'b':  // BUILD
      return build(), true;
    case 'Q':  // BINPERSID
      return persistent(), true;
    default:
      return false;
  }
}

Pickle::Pickle(std::span<const std::byte> bytes, const std::string& where,
               const std::function<bool(const std::string&)>& may_name) {
  PickleParser(*this, bytes, where, may_name).parse();
}

const std::string& Pickle::global_name(const PickleValue& value) const {
  static const std::string none;
  return value.kind == Kind::kGlobal ? global_names_[static_cast<size_t>(value.integer)] : none;
}

}  // namespace depthstill
