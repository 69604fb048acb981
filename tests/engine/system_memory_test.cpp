#include "engine/system_memory.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "engine/io/atomic_file.h"
#include "tests/io/test_files.h"

namespace depthstill {
namespace {

class AvailableMemory : public testing::Test {
 protected:
  void write(const std::string& path, const std::string& text) {
    const std::filesystem::path file = folder_ / path;
    std::filesystem::create_directories(file.parent_path());
    write_file(file.string(), text);
  }
  std::optional<size_t> asked() const { return available_memory(folder_.path()); }
  testing_files::TemporaryFolder folder_;
};

TEST_F(AvailableMemory, IsWhatTheMachineAndItsSwapHave) {
  EXPECT_EQ(asked(), std::nullopt);
  write("proc/meminfo",
        "MemTotal:  4000 kB\nMemFree: 100 kB\nMemAvailable:   3000 kB\nSwapTotal: 9 kB\nSwapFree:  5 kB\n");
  EXPECT_EQ(asked(), 3005u * 1024);
}

TEST_F(AvailableMemory, IsHeldToTheControlGroup) {
  write("proc/meminfo", "MemAvailable: 3000 kB\n");
  write("sys/fs/cgroup/memory.max", "max\n");
  write("sys/fs/cgroup/memory.current", "900000\n");
  write("sys/fs/cgroup/memory.stat", "anon 600000\ninactive_file 200000\nactive_file 100000\n");
  EXPECT_EQ(asked(), 3000u * 1024);
  write("sys/fs/cgroup/memory.max", "1000000\n");
  EXPECT_EQ(asked(), 300000u);
  write("sys/fs/cgroup/memory.max", "500000\n");  // lowered while in use
  EXPECT_EQ(asked(), 0u);
}

TEST_F(AvailableMemory, KnowsControlGroupsOfVersion1) {
  write("sys/fs/cgroup/memory/memory.limit_in_bytes", "1000000\n");
  write("sys/fs/cgroup/memory/memory.usage_in_bytes", "400000\n");
  EXPECT_EQ(asked(), 600000u);
}

}  // namespace
}  // namespace depthstill
