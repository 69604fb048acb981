#include "engine/system_memory.h"

#include <algorithm>
#include <fstream>
#include <limits>

namespace depthstill {
namespace {

// The first number of a file; "max", as control groups write it, is none.
std::optional<size_t> number_in(const std::string& path) {
  std::ifstream file(path);
  size_t number = 0;
  return file >> number ? std::optional(number) : std::nullopt;
}

// The number behind a key that begins a line; 0 if there is none.
size_t number_of(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  std::string word;
  size_t number = 0;
  while (file >> word) {
    if (word == key && file >> number) return number;
    file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  return 0;
}

// File pages that nobody has used lately count as used, but go as soon as they are in the way.
std::optional<size_t> left_in_group(const std::string& limit, const std::string& used, const std::string& statistics) {
  const auto most = number_in(limit), now = number_in(used);
  if (!most || !now) return std::nullopt;
  const size_t held = *now - std::min(*now, number_of(statistics, "inactive_file"));
  return *most - std::min(*most, held);
}

}  // namespace

std::optional<size_t> available_memory(const std::string& root) {
  std::optional<size_t> least;
  const auto take = [&](std::optional<size_t> bytes) {
    if (bytes) least = std::min(*bytes, least.value_or(*bytes));
  };
  const std::string memory = root + "/proc/meminfo", group = root + "/sys/fs/cgroup/";
  if (const size_t kib = number_of(memory, "MemAvailable:"); kib > 0)
    take((kib + number_of(memory, "SwapFree:")) * 1024);
  take(left_in_group(group + "memory.max", group + "memory.current", group + "memory.stat"));
  take(left_in_group(group + "memory/memory.limit_in_bytes", group + "memory/memory.usage_in_bytes",
                     group + "memory/memory.stat"));
  return least;
}

std::optional<size_t> available_memory() { return available_memory(""); }

}  // namespace depthstill
