#include "kernels/plans/timer.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "kernels/core/dry_run.h"
#include "kernels/core/error.h"
#include "kernels/core/library_options.h"
#include "kernels/core/runtime.h"
#include "kernels/core/tracing.h"

namespace depthstill::plans {
namespace {

constexpr int kRuns = 10;                           // runs that count, where the host launches each
constexpr int kReplays = 5, kMostPerGraph = 10;     // replays that count, and runs that one of them has
constexpr double kGraphMs = 1.0;                    // about as much work as one graph holds
constexpr double kHopeless = 2.0, kJitterMs = 0.1;  // the host's pace shows in one run

class Stopwatch {
 public:
  explicit Stopwatch(Stream stream) : stream_(stream) {}
  ~Stopwatch() {
    cuda::destroy_timestamp(begin_);
    cuda::destroy_timestamp(end_);
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

  Stream stream() const { return stream_; }
  // Returns how long the device takes for what work() gives it.
  template <class F>
  double ms(F work) const {
    cuda::take_timestamp(begin_, stream_);
    work();
    cuda::take_timestamp(end_, stream_);
    cuda::synchronize(stream_);
    return cuda::elapsed_ms(begin_, end_);
  }

 private:
  Stream stream_;
  void *begin_ = cuda::create_timestamp(), *end_ = cuda::create_timestamp();
};

// `work` several times, as one graph.
class Graph {
 public:
  Graph(Stream stream, int times, const std::function<void()>& work) {
    cuda::begin_capture(stream);
    try {
      for (int i = 0; i < times; ++i) work();
      graph_ = cuda::end_capture(stream);
    } catch (...) {
      cuda::abandon_capture(stream);
      throw;
    }
  }
  ~Graph() { cuda::destroy_graph(graph_); }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  void launch(Stream stream) const { cuda::launch_graph(graph_, stream); }

 private:
  void* graph_ = nullptr;
};

template <class F>
double median_of(int count, F measure) {
  std::vector<double> values;
  for (int i = 0; i < count; ++i) values.push_back(measure());
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : 0.5 * (values[half - 1] + values[half]);
}

// Times one run, which takes about `guess_ms`, within a graph; the result is infinite where it cannot be captured.
double replayed_ms(const Stopwatch& watch, double guess_ms, const std::function<void()>& run) {
  const int per_graph =
      guess_ms * kMostPerGraph <= kGraphMs ? kMostPerGraph : std::max(1, static_cast<int>(kGraphMs / guess_ms));
  try {
    const Graph graph(watch.stream(), per_graph, run);
    const auto replay_ms = [&] { return watch.ms([&] { graph.launch(watch.stream()); }); };
    replay_ms();  // uploads the graph
    return median_of(kReplays, replay_ms) / per_graph;
  } catch (const Error&) {
    cuda::synchronize(watch.stream());  // throws where it is the device that has failed
    return std::numeric_limits<double>::infinity();
  }
}

}  // namespace

bool may_measure(Stream stream) {
  const LibraryOptions& options = library_options();
  return options.measure && !options.deterministic && !cuda::dry_running() && !cuda::capturing(stream);
}

double median_ms(Stream stream, double best_ms, const std::function<void()>& run) {
  const Stopwatch watch(stream);
  watch.ms(run);  // loads the kernels
  const double second = watch.ms(run);
  if (second > kHopeless * best_ms + kJitterMs) return second;
  if (cuda::can_capture()) return replayed_ms(watch, second, run);
  watch.ms(run);
  return median_of(kRuns, [&] { return watch.ms(run); });
}

}  // namespace depthstill::plans
