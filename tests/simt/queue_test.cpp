// The emulated device's streams: what the host sees of them at every pace, and what they refuse as CUDA does.
#include "kernels/simt/queue.h"

#include <gtest/gtest.h>

#include <string>

#include "kernels/core/error.h"
#include "kernels/core/runtime.h"

namespace depthstill {
namespace {

using cuda::Pace;

class Streams : public testing::Test {
 protected:
  ~Streams() override { cuda::set_pace(Pace::kAtOnce); }

  // Gives a letter to a stream.
  void write(Stream stream, char letter) {
    simt::submit(stream.handle, [this, letter] { text += letter; });
  }

  std::string text;  // letters in the order in which they were written
  const Stream a{cuda::create_stream()}, b{cuda::create_stream()};
};

TEST_F(Streams, DoTheirWorkAtOnceByDefault) {
  write(a, 'a');
  EXPECT_EQ(text, "a");
  write(b, 'b');
  EXPECT_EQ(text, "ab");
}

TEST_F(Streams, DoNoMoreThanIsAwaited) {
  cuda::set_pace(Pace::kWhenAwaited);
  void* event = cuda::create_event();
  cuda::synchronize_event(event);  // the event was never recorded
  write(a, '1');
  cuda::record_event(event, a);
  write(a, '2');
  write(b, 'b');
  EXPECT_EQ(text, "");
  cuda::synchronize_event(event);
  EXPECT_EQ(text, "1");
  cuda::synchronize(b);
  EXPECT_EQ(text, "1b");
  cuda::synchronize(a);
  EXPECT_EQ(text, "1b2");
  cuda::destroy_event(event);
}

TEST_F(Streams, LetTheOthersRunAheadAsFarAsEventsLetThem) {
  cuda::set_pace(Pace::kOthersFirst);
  void* event = cuda::create_event();
  write(a, '1');
  cuda::record_event(event, a);
  write(a, '2');
  write(b, 'x');
  cuda::wait_for_event(b, event);
  cuda::record_event(event, b);  // the wait keeps what the event was before
  write(b, 'y');
  EXPECT_EQ(text, "");
  cuda::synchronize(a);
  EXPECT_EQ(text, "x1y2");
  cuda::destroy_event(event);
}

TEST_F(Streams, CopyWhatIsThereWhenTheyGetThere) {
  cuda::set_pace(Pace::kWhenAwaited);
  int from = 1, to = 0;
  cuda::copy(&to, &from, sizeof(int), cuda::Direction::kToHost, a);
  from = 2;
  EXPECT_EQ(to, 0);
  cuda::synchronize(a);
  EXPECT_EQ(to, 2);
}

TEST_F(Streams, GraphsRepeatWhatWasCaptured) {
  cuda::set_pace(Pace::kWhenAwaited);
  write(a, '0');
  cuda::begin_capture(a);
  EXPECT_TRUE(cuda::capturing(a));
  write(a, '1');
  write(b, 'b');  // this is not captured
  write(a, '2');
  void* graph = cuda::end_capture(a);
  EXPECT_FALSE(cuda::capturing(a));
  cuda::synchronize(a);
  EXPECT_EQ(text, "0");
  cuda::launch_graph(graph, a);
  cuda::launch_graph(graph, a);
  cuda::destroy_graph(graph);  // the graph has not run yet
  write(a, '3');
  cuda::synchronize(a);
  EXPECT_EQ(text, "012123");
  cuda::synchronize(b);
  EXPECT_EQ(text, "012123b");
}

TEST_F(Streams, RefuseWhatBreaksACapture) {
  char byte = 0;
  void* event = cuda::create_event();
  cuda::begin_capture(a);
  EXPECT_THROW(cuda::synchronize(a), Error);
  EXPECT_THROW(cuda::begin_capture(a), Error);
  EXPECT_THROW(cuda::record_event(event, a), Error);
  EXPECT_THROW(cuda::wait_for_event(a, event), Error);
  EXPECT_THROW(cuda::malloc_device(1), Error);
  EXPECT_THROW(cuda::copy(&byte, &byte, 1, cuda::Direction::kToHost, a), Error);
  EXPECT_NO_THROW(cuda::copy(&byte, &byte, 0, cuda::Direction::kOnDevice, a));
  EXPECT_NO_THROW(cuda::synchronize(b));
  write(a, '1');
  cuda::abandon_capture(a);
  EXPECT_THROW(cuda::end_capture(a), Error);
  cuda::synchronize(a);
  EXPECT_EQ(text, "");
  cuda::destroy_event(event);
}

TEST_F(Streams, ReportAFaultToWhoeverWaits) {
  cuda::set_pace(Pace::kWhenAwaited);
  simt::submit(a.handle, [] { fail("a kernel's fault"); });
  write(a, '1');
  EXPECT_THROW(cuda::synchronize(a), Error);
  EXPECT_EQ(text, "");
  cuda::synchronize(a);
  EXPECT_EQ(text, "1");
}

TEST_F(Streams, FreeingMemoryWaitsForEverything) {
  cuda::set_pace(Pace::kWhenAwaited);
  auto* memory = static_cast<char*>(cuda::malloc_device(1));
  simt::submit(b.handle, [=, this] {
    *memory = 'm';
    text += *memory;
  });
  cuda::free_device(memory);
  EXPECT_EQ(text, "m");
}

}  // namespace
}  // namespace depthstill
