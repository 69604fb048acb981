#include "engine/eval/evaluate_files.h"

#include <atomic>
#include <exception>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "engine/data/pixels.h"
#include "engine/eval/score_parts.h"
#include "kernels/core/parallel.h"

namespace depthstill {
namespace {

// A file beyond this is scored alone, by all threads: several of its kind side by side would be much memory.
constexpr uintmax_t kLargeFile = uintmax_t{8} << 20;

bool is_large(const EvalItem& item) {
  std::error_code missing;  // is reported by whoever reads the file
  const uintmax_t bytes = std::filesystem::file_size(item.truth, missing);
  return !missing && bytes > kLargeFile;
}

class FileScorer {
 public:
  FileScorer(const Protocol& protocol, std::span<const EvalItem> items, const OpenPrediction& open,
             const EvaluateOptions& options)
      : protocol_(protocol), items_(items), open_(open), options_(options), scores_(items.size()) {}

  std::vector<std::optional<ItemScore>> run() {
    const bool few = static_cast<int64_t>(items_.size()) < num_threads();
    for (size_t begin = 0; begin < items_.size();) {
      size_t end = begin;
      while (!few && end < items_.size() && !is_large(items_[end])) ++end;
      if (end > begin) {
        side_by_side(begin, end);
      } else {
        report(begin);
        score_one(begin);
        end = begin + 1;
      }
      begin = end;
    }
    report(items_.size());
    return std::move(scores_);
  }

 private:
  void report(size_t done) const {
    if (options_.progress) options_.progress(static_cast<int64_t>(done), static_cast<int64_t>(items_.size()));
  }

  // Items are taken in order, so that all before one that fails are scored as well: which error is the first does not
  // depend on the threads.
  void side_by_side(size_t begin, size_t end) {
    report(begin);
    std::vector<std::exception_ptr> errors(end - begin + 1);  // threads must not throw; the last: of the progress
    std::atomic<size_t> next{begin};
    parallel_for(num_threads(), 1, [&](int64_t thread) {
      for (size_t i = next++; i < end; i = next++) {
        try {
          score_one(i);
        } catch (...) {
          errors[i - begin] = std::current_exception();
          next = end;
        }
        if (thread != 0) continue;
        try {
          report(i);
        } catch (...) {
          errors.back() = std::current_exception();
          next = end;
        }
      }
    });
    for (const std::exception_ptr& error : errors) {
      if (error) std::rethrow_exception(error);
    }
  }

  void score_one(size_t index) {
    const EvalItem& item = items_[index];
    if (item.truth.empty()) return;
    std::optional<MapReader> prediction;  // is opened before truth only if that needs its size
    const ImageSize raw_size = raw_truth_size(protocol_, item, options_, [&] {
      prediction.emplace(open_(item));
      return prediction->size();
    });
    const TruthReader truth = open_truth(protocol_, item, options_.truth_format, raw_size);
    if (!prediction) prediction.emplace(open_(item));
    const Rect frame = frame_rect(protocol_, truth.size());
    const bool other_size = protocol_.resize != PredictionResize::kNone && prediction->size() != frame.size();
    if (other_size || options_.baselines != nullptr || !scores_by_parts(protocol_, options_.scoring)) {
      const DepthMap g = crop(at_line(item.where, [&] { return read_truth(truth); }), frame);
      DepthMap p = at_line(item.where, [&] { return read_map(*prediction); });
      scores_[index] = score_item(protocol_, item, g, p, options_);
      return;
    }
    ItemScore score;
    score.predicted = prediction->kind();
    check_prediction(protocol_, item, score.predicted, prediction->size(), frame.size(), options_);
    const FramePair pair = at_line(item.where, [&] { return FramePair(protocol_, truth, *prediction); });
    score.score.metrics = score_parts(protocol_, score_name(item), pair);
    score.score.metrics.name = item.name;
    scores_[index] = std::move(score);
  }

  const Protocol& protocol_;
  std::span<const EvalItem> items_;
  const OpenPrediction& open_;
  const EvaluateOptions& options_;
  std::vector<std::optional<ItemScore>> scores_;
};

}  // namespace

Evaluation evaluate_files(const Protocol& protocol, std::span<const EvalItem> items, const OpenPrediction& open,
                          const EvaluateOptions& options) {
  return gather(protocol, FileScorer(protocol, items, open, options).run(), options.baselines);
}

}  // namespace depthstill
