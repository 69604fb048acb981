#include "tests/fuzz/mutate.h"

#include <algorithm>
#include <iterator>

namespace depthstill::fuzz {
namespace {

constexpr size_t kMostBytes = 8192;  // longer inputs take longer and show nothing else

// SplitMix64 (Steele, Lea and Flood, 2014).
class Random {
 public:
  Random(uint64_t seed, uint64_t number) : state_(seed * 0x9e3779b97f4a7c15u + number * 0xbf58476d1ce4e5b9u) {}
  uint64_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
  }
  size_t below(size_t limit) { return static_cast<size_t>(next() % limit); }
  template <class Row, size_t N>
  const Row& one_of(const Row (&rows)[N]) {
    return rows[below(N)];
  }

 private:
  uint64_t state_;
};

constexpr uint64_t kNumbers[] = {0,          1,          2,          3,        7,          8,          16,
                                 32,         64,         0x7f,       0x80,     0xff,       0x100,      0x7fff,
                                 0x8000,     0xffff,     0x10000,    0xffffff, 0x7fffffff, 0x80000000, 0xffffffff,
                                 1ull << 32, 1ull << 62, ~0ull >> 1, ~0ull};
constexpr std::string_view kDecimals[] = {"0",
                                          "1",
                                          "-1",
                                          "2",
                                          "3",
                                          "7",
                                          "8",
                                          "16",
                                          "64",
                                          "255",
                                          "256",
                                          "16384",
                                          "65535",
                                          "65536",
                                          "2147483647",
                                          "2147483648",
                                          "4294967295",
                                          "4294967296",
                                          "9223372036854775807",
                                          "18446744073709551615",
                                          "18446744073709551616",
                                          "0.5",
                                          "1e9",
                                          "1e999",
                                          "00"};
constexpr size_t kWidths[] = {1, 2, 4, 8};

class Mutation {
 public:
  Mutation(const Target& target, const std::vector<Bytes>& corpus, uint64_t seed, uint64_t number)
      : target_(target), corpus_(corpus), random_(seed, number), data_(any_file()) {}

  Bytes run() {
    using Edit = void (Mutation::*)();
    constexpr Edit kEdits[] = {
        &Mutation::flip_bit,       &Mutation::flip_bit,      &Mutation::set_byte,      &Mutation::set_number,
        &Mutation::set_number,     &Mutation::change_length, &Mutation::change_length, &Mutation::change_decimal,
        &Mutation::change_decimal, &Mutation::insert_word,   &Mutation::insert_word,   &Mutation::overwrite_with_word,
        &Mutation::insert_bytes,   &Mutation::erase,         &Mutation::erase,         &Mutation::repeat,
        &Mutation::move,           &Mutation::splice,        &Mutation::truncate};
    constexpr size_t kCounts[] = {1, 1, 1, 1, 2, 2, 3, 4, 8};
    for (size_t edits = random_.one_of(kCounts); edits > 0; --edits) {
      if (data_.empty()) data_ = any_file();
      if (!data_.empty()) (this->*random_.one_of(kEdits))();
      if (data_.size() > kMostBytes) data_.resize(kMostBytes);
    }
    if (target_.repair != nullptr && random_.below(8) != 0) target_.repair(data_);
    return std::move(data_);
  }

 private:
  const Bytes& any_file() { return corpus_[random_.below(corpus_.size())]; }
  size_t place() { return random_.below(data_.size()); }
  // Short ranges more often than long ones.
  size_t length(size_t most) {
    return most == 0 ? 0 : 1 + random_.below(std::min(most, size_t{1} << random_.below(9)));
  }
  auto iterator(size_t at) { return data_.begin() + static_cast<std::ptrdiff_t>(at); }

  void insert(size_t at, Input bytes) {
    const Bytes copy(bytes.begin(), bytes.end());  // it may be a part of data_
    data_.insert(iterator(at), copy.begin(), copy.end());
  }
  void overwrite(size_t at, Input bytes) {
    std::copy_n(bytes.begin(), std::min(bytes.size(), data_.size() - at), iterator(at));
  }
  uint64_t read(size_t at, size_t width, bool little) const {
    uint64_t value = 0;
    for (size_t i = 0; i < width; ++i) value = value << 8 | data_[little ? at + width - 1 - i : at + i];
    return value;
  }
  void write(size_t at, size_t width, bool little, uint64_t value) {
    for (size_t i = 0; i < width && at + i < data_.size(); ++i) {
      data_[at + i] = static_cast<uint8_t>(value >> 8 * (little ? i : width - 1 - i));
    }
  }

  void flip_bit() { data_[place()] ^= static_cast<uint8_t>(1u << random_.below(8)); }
  void set_byte() { data_[place()] = static_cast<uint8_t>(random_.next()); }
  void set_number() {
    const uint64_t value = random_.one_of(kNumbers) - random_.below(2);
    const size_t width = random_.one_of(kWidths), at = place();
    write(at, width, random_.below(2) == 0, value);
  }

  // A number that could be a length or a place in the file becomes another one that could.
  void change_length() {
    for (int tries = 0; tries < 32; ++tries) {
      const size_t width = random_.one_of(kWidths), at = place();
      const bool little = random_.below(2) == 0;
      if (at + width > data_.size()) continue;
      const uint64_t value = read(at, width, little);
      if (value < 1 || value > data_.size()) continue;
      const uint64_t rest = data_.size() - at - width;
      const uint64_t others[] = {value - 1, value + 1, 2 * value, value / 2,    0,
                                 rest,      rest + 1,  rest - 1,  data_.size(), value + 256};
      write(at, width, little, random_.one_of(others));
      return;
    }
  }

  void change_decimal() {
    const auto is_digit = [](uint8_t c) { return c >= '0' && c <= '9'; };
    auto begin = std::find_if(iterator(place()), data_.end(), is_digit);
    if (begin == data_.end()) begin = std::find_if(data_.begin(), data_.end(), is_digit);
    if (begin == data_.end()) return;
    const auto end = std::find_if_not(begin, data_.end(), is_digit);
    const auto at = static_cast<size_t>(begin - data_.begin());
    std::string text(random_.one_of(kDecimals));
    if (end - begin < 18 && random_.below(2) == 0) {
      text = std::to_string(std::stoll(std::string(begin, end)) + static_cast<int64_t>(random_.below(9)) - 4);
    }
    data_.erase(begin, end);
    insert(at, {reinterpret_cast<const uint8_t*>(text.data()), text.size()});
  }

  Input word() {
    if (target_.words.empty()) return {};
    const std::string_view text = target_.words[random_.below(target_.words.size())];
    return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
  }
  void insert_word() { insert(random_.below(data_.size() + 1), word()); }
  void overwrite_with_word() { overwrite(place(), word()); }
  void insert_bytes() {
    Bytes bytes(length(16), static_cast<uint8_t>(random_.next()));
    if (random_.below(2) == 0) {
      for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random_.next());
    }
    insert(random_.below(data_.size() + 1), bytes);
  }
  void erase() {
    const size_t at = place();
    data_.erase(iterator(at), iterator(at + length(data_.size() - at)));
  }
  void repeat() {
    const size_t at = place(), to = place();
    const Input range(&data_[at], length(data_.size() - at));
    insert(to, range);
  }
  void move() {
    const size_t at = place(), to = place();
    const Bytes range(iterator(at), iterator(at + length(data_.size() - at)));
    overwrite(to, range);
  }
  void splice() {
    const Bytes& other = any_file();
    if (other.empty()) return;
    data_.resize(place());
    const size_t from = random_.below(2) == 0 ? std::min(data_.size(), other.size()) : random_.below(other.size());
    data_.insert(data_.end(), other.begin() + static_cast<std::ptrdiff_t>(from), other.end());
  }
  void truncate() { data_.resize(place()); }

  const Target& target_;
  const std::vector<Bytes>& corpus_;
  Random random_;
  Bytes data_;
};

}  // namespace

Bytes mutated(const Target& target, const std::vector<Bytes>& corpus, uint64_t seed, uint64_t number) {
  return Mutation(target, corpus, seed, number).run();
}

}  // namespace depthstill::fuzz
