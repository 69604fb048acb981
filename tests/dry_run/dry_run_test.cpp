// The dry run itself: what it records, and what it refuses as a GPU would.
#include "kernels/core/dry_run.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "engine/allocator.h"
#include "engine/ops.h"
#include "kernels/add.h"
#include "kernels/core/error.h"
#include "kernels/core/runtime.h"

namespace depthstill {
namespace {

class DryRunTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { enable_dry_run(); }
  void SetUp() override { cuda::take_dry_run(); }

  // What tests before this one do not hold.
  static size_t free_bytes() {
    release_unused_memory(Device::kCuda);
    return cuda::device_info().free_bytes;
  }
};

std::string error_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST_F(DryRunTest, SaysWhatItSimulates) {
  EXPECT_TRUE(available(Device::kCuda));
  const cuda::DeviceInfo info = cuda::device_info();
  EXPECT_NE(info.name.find("H100"), std::string::npos) << info.name;
  EXPECT_NE(info.name.find("dry run"), std::string::npos) << info.name;
  EXPECT_EQ(info.total_bytes, cuda::kH100Bytes);
}

// Segments that are free but too small for the next tensor go back to the device.
TEST_F(DryRunTest, FreeSegmentsAreNoReasonToBeOutOfMemory) {
  const auto all = static_cast<int64_t>(free_bytes());
  const auto take = [&](int64_t percent) { return empty({all / 100 * percent}, DType::kUint8, Device::kCuda); };
  { const Tensor a = take(40), b = take(40); }
  const Tensor held = take(10);
  EXPECT_EQ(take(55).numel(), all / 100 * 55);
  EXPECT_NE(error_of([&] { take(95); }).find("out of cuda memory: wanted "), std::string::npos);
}

TEST_F(DryRunTest, ScratchThatIsGivenBackStartsAnew) {
  const Stream stream = stream_of(Device::kCuda);
  give_back_scratch(Device::kCuda);
  const size_t before = memory_stats(Device::kCuda).in_use;
  stream.scratch->get(size_t{1} << 30);
  EXPECT_GE(memory_stats(Device::kCuda).in_use, before + (size_t{1} << 30));
  give_back_scratch(Device::kCuda);
  EXPECT_EQ(memory_stats(Device::kCuda).in_use, before);
  void* kept = stream.scratch->get(1000);
  keep_scratch(Device::kCuda);
  give_back_scratch(Device::kCuda);
  EXPECT_NE(stream.scratch->get(1000), kept) << "a graph has the address of the other";
}

TEST_F(DryRunTest, RecordsKernelsWithTheirGrids) {
  const Tensor x = empty({1000, 300}, DType::kFloat, Device::kCuda);
  cuda::take_dry_run();
  const Tensor y = add(x, x);
  const cuda::DryRun record = cuda::take_dry_run();
  ASSERT_EQ(record.launches.size(), 1u);
  EXPECT_NE(record.launches[0].where.find("add.cu:"), std::string::npos) << record.launches[0].where;
  EXPECT_GE(record.launches[0].grid[0], 1u);
  EXPECT_GE(record.launches[0].block[0], 32u);
  EXPECT_TRUE(cuda::dry_run().launches.empty());
}

TEST_F(DryRunTest, CopiesToTheHostAreZero) {
  const float values[] = {1.0f, 2.0f};
  const Tensor x = tensor<float>({2}, values, Device::kCuda);
  EXPECT_EQ(to_vector<float>(x), (std::vector<float>{0.0f, 0.0f}));
  const cuda::DryRun record = cuda::take_dry_run();
  EXPECT_EQ(record.copies_to_device, 1);
  EXPECT_EQ(record.copies_to_host, 1);
  EXPECT_EQ(record.synchronizations, 2);
}

TEST_F(DryRunTest, TheHostMustNotTouchDeviceMemory) {
  const Tensor x = empty({4}, DType::kFloat, Device::kCuda);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(x.raw()) % 256, 0u);
  EXPECT_DEATH(*static_cast<volatile float*>(x.raw()) = 1.0f, "");
  EXPECT_DEATH(static_cast<void>(*static_cast<volatile float*>(x.raw())), "");
}

TEST_F(DryRunTest, AKernelMustNotGetHostMemory) {
  float host = 0.0f;
  EXPECT_NE(error_of([&] { cuda::check_argument("some.cu", &host); }).find("some.cu: expected a pointer to device"),
            std::string::npos);
  cuda::check_argument("some.cu", static_cast<float*>(nullptr));
  cuda::check_argument("some.cu", 3);
}

TEST_F(DryRunTest, RefusesWhatAnH100Refuses) {
  cuda::record_launch("k.cu", 1, {2147483647, 65535, 65535}, {1024, 1, 1}, 232448);
  EXPECT_EQ(error_of([] {
              cuda::record_launch("k.cu", 7, {1, 65536, 1}, {32, 1, 1}, 0);
            }),
            "k.cu:7: launch: expected at most 65535 blocks in dimension 1, got 65536");
  EXPECT_EQ(error_of([] {
              cuda::record_launch("k.cu", 7, {1, 1, 1}, {32, 64, 1}, 0);
            }),
            "k.cu:7: launch: expected at most 1024 threads a block, got 2048");
  EXPECT_EQ(error_of([] {
              cuda::record_launch("k.cu", 7, {1, 1, 1}, {1, 1, 128}, 0);
            }),
            "k.cu:7: launch: expected 1 to 64 threads in dimension 2, got 128");
  EXPECT_EQ(error_of([] {
              cuda::record_launch("k.cu", 7, {1, 1, 1}, {32, 1, 1}, 232449);
            }),
            "k.cu:7: launch: expected at most 232448 bytes of shared memory, got 232449");
}

TEST_F(DryRunTest, MemoryIsFiniteAndReused) {
  const size_t half_bytes = free_bytes() / 2;
  cuda::take_dry_run();
  void* half = cuda::malloc_device(half_bytes);
  ASSERT_NE(half, nullptr);
  EXPECT_EQ(cuda::malloc_device(cuda::kH100Bytes), nullptr);
  void* small = cuda::malloc_device(1);
  EXPECT_NE(small, nullptr);
  cuda::free_device(half);
  EXPECT_EQ(cuda::malloc_device(half_bytes), half);
  cuda::free_device(half);
  cuda::free_device(small);
  const cuda::DryRun record = cuda::take_dry_run();
  EXPECT_EQ(record.mallocs, 4);
  EXPECT_EQ(record.frees, 3);
}

TEST_F(DryRunTest, NoBytesHaveAPlaceOfTheirOwnToo) {  // null means full
  void *a = cuda::malloc_device(0), *b = cuda::malloc_device(0);
  EXPECT_NE(a, nullptr);
  EXPECT_NE(b, nullptr);
  EXPECT_NE(a, b);
  cuda::free_device(a);
  cuda::free_device(b);
  cuda::free_device(nullptr);
  cuda::free_pinned(nullptr);
}

TEST_F(DryRunTest, AGraphHoldsWhatWasCaptured) {
  const Stream stream = stream_of(Device::kCuda);
  const Tensor x = empty({64}, DType::kFloat, Device::kCuda);
  Tensor y = empty_like(x);
  cuda::take_dry_run();
  ASSERT_TRUE(cuda::can_capture());
  cuda::begin_capture(stream);
  copy_(y, x);
  run(Device::kCuda, cpu::add<float>, cuda::add<float>)(64, x, y, y);
  void* graph = cuda::end_capture(stream);
  EXPECT_TRUE(cuda::dry_run().launches.empty());
  cuda::launch_graph(graph, stream);
  cuda::launch_graph(graph, stream);
  cuda::destroy_graph(graph);
  const cuda::DryRun record = cuda::take_dry_run();
  EXPECT_EQ(record.graph_launches, 2);
  ASSERT_EQ(record.launches.size(), 4u);
  EXPECT_EQ(record.launches[0].where, "copy");
  EXPECT_NE(record.launches[3].where.find("add.cu"), std::string::npos);
}

TEST_F(DryRunTest, ACaptureRefusesToWaitAndToAllocate) {
  const Stream stream = stream_of(Device::kCuda);
  const Tensor x = empty({1}, DType::kFloat, Device::kCuda);
  cuda::begin_capture(stream);
  EXPECT_NE(error_of([&] { item(x); }).find("while a graph is captured"), std::string::npos);
  EXPECT_NE(error_of([&] { synchronize(Device::kCuda); }).find("while a graph is captured"), std::string::npos);
  EXPECT_NE(error_of([&] { cuda::malloc_device(256); }).find("while a graph is captured"), std::string::npos);
  cuda::abandon_capture(stream);
  synchronize(Device::kCuda);
}

}  // namespace
}  // namespace depthstill
