#include "engine/eval/evaluate_files.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>

#include "engine/eval/evaluation_text.h"
#include "engine/eval/score_parts.h"
#include "kernels/core/error.h"
#include "kernels/core/parallel.h"
#include "tests/eval/golden_map.h"
#include "tests/io/test_files.h"

namespace depthstill {
namespace {

using testing_eval::u;
using testing_files::error_of;
using testing_files::TemporaryFolder;

// Truth and predictions of one size on disk; the former in metres or raw, the latter inverse depth with some <= 0.
class FileSet {
 public:
  FileSet(ImageSize truth, ImageSize frame, int images, bool raw) : raw_(raw), size_(truth) {
    for (int k = 0; k < images; ++k) add(truth, frame, static_cast<uint32_t>(k));
  }

  // With 1, 2 and 5 threads.
  std::vector<Evaluation> by_threads(const Protocol& protocol) const {
    std::vector<Evaluation> found;
    const int before = num_threads();
    for (const int threads : {1, 2, 5}) {
      set_num_threads(threads);
      found.push_back(evaluate_files(protocol, items, opener(protocol), options()));
    }
    set_num_threads(before);
    return found;
  }
  Evaluation whole(const Protocol& protocol) const {
    const OpenPrediction open = opener(protocol);
    return evaluate(
        protocol, items, [&](const EvalItem& item) { return read_map(open(item)); }, options());
  }

  TemporaryFolder folder;
  std::vector<EvalItem> items;

 private:
  void add(ImageSize size, ImageSize frame, uint32_t k) {
    std::vector<float> truth, prediction;
    for (uint32_t i = 0; i < static_cast<uint32_t>(size.width * size.height); ++i) {
      const double g = 2 + 1.5 * u(3 + k, i);
      truth.push_back(u(11 + k, i) < -0.7 ? (raw_ ? INFINITY : 0.0f) : static_cast<float>(g));
    }
    for (uint32_t i = 0; i < static_cast<uint32_t>(frame.width * frame.height); ++i) {
      const double p = 7 / (2 + 1.5 * u(3 + k, i)) + 3 + 0.4 * u(4 + k, i);
      prediction.push_back(static_cast<float>(i % 97 == 0 ? -p : p));
    }
    const std::string number = std::to_string(k), file = folder / ("truth" + number + (raw_ ? ".JPG" : ".npy"));
    const int64_t shape[] = {size.height, size.width}, frame_shape[] = {frame.height, frame.width};
    if (raw_) {
      std::ofstream(file, std::ios::binary)
          .write(reinterpret_cast<const char*>(truth.data()), static_cast<std::streamsize>(4 * truth.size()));
    } else {
      write_npy(file, shape, truth);
    }
    write_npy(folder / ("pred" + number + ".npy"), frame_shape, prediction);
    items.push_back({"image" + number, "list.txt:" + std::to_string(k + 1), file});
  }

  OpenPrediction opener(const Protocol& protocol) const {
    MapFormat format;
    format.unusable = MapFormat::Unusable::kKept;
    format.kind = {row_of(protocol.alignment).quantity, row_of(protocol.alignment).ambiguity};
    return [this, format](const EvalItem& item) {
      return MapReader(folder / ("pred" + item.name.substr(5) + ".npy"), format);
    };
  }

  EvaluateOptions options() const {
    EvaluateOptions options;
    options.truth_size = [this](const EvalItem&) { return size_; };
    return options;
  }

  bool raw_;
  ImageSize size_;
};

Protocol protocol_of(const std::string& dataset, const std::string& name, Alignment alignment) {
  Protocol protocol = make_protocol(dataset, name);
  protocol.alignment = alignment;
  return protocol;
}

Protocol disparity_metrics(Protocol protocol) {
  protocol.metric_space = Quantity::kInverseDepth;
  return protocol;
}

void expect_same(const Evaluation& found, const Evaluation& expected) {
  ASSERT_EQ(found.images.size(), expected.images.size());
  for (size_t i = 0; i < found.images.size(); ++i) {
    const ImageMetrics &a = found.images[i], &b = expected.images[i];
    EXPECT_EQ(a.name, b.name);
    ASSERT_TRUE(a.metrics && b.metrics);
    EXPECT_EQ(std::memcmp(&*a.metrics, &*b.metrics, sizeof(Metrics)), 0) << a.metrics->abs_rel - b.metrics->abs_rel;
    EXPECT_EQ(std::memcmp(&a.fit, &b.fit, sizeof(Fit)), 0);
    EXPECT_EQ(a.pixels, b.pixels);
    EXPECT_EQ(a.limited, b.limited);
    EXPECT_EQ(a.nonfinite, b.nonfinite);
  }
  EXPECT_EQ(evaluation_json(found), evaluation_json(expected));
}

// More pixels than are held in memory, in rows that no part ends with, and columns that the fit leaves out.
TEST(EvaluateFiles, PartsOfALargeImageMakeTheFiguresOfTheWhole) {
  const ImageSize size{1301, 811};
  const FileSet files(size, size, 1, true);
  for (const Alignment alignment :
       {Alignment::kNone, Alignment::kMedian, Alignment::kDepthLs, Alignment::kDisparityLs, Alignment::kLogLs}) {
    const Protocol protocol = protocol_of("eth3d", "marigold", alignment);
    ASSERT_TRUE(scores_by_parts(protocol, {}));
    const Evaluation expected = files.whole(protocol);
    for (const Evaluation& found : files.by_threads(protocol)) expect_same(found, expected);
  }
}

TEST(EvaluateFiles, ImagesSideBySideMakeTheFiguresOfOneAfterAnother) {
  const FileSet kitti({1242, 375}, {1216, 352}, 3, false), plain({9, 7}, {9, 7}, 7, false);
  const std::pair<const FileSet*, Protocol> cases[] = {
      {&kitti, protocol_of("kitti", "tie-kd", Alignment::kNone)},
      {&kitti, protocol_of("kitti", "marigold", Alignment::kDisparityLs)},
      {&plain, protocol_of("plain", "ultralytics", Alignment::kMedian)},
      {&plain, protocol_of("plain", "tie-kd", Alignment::kMedian)},
      {&plain, protocol_of("plain", "moge", Alignment::kDepthL1)},
      {&plain, protocol_of("plain", "ultralytics", Alignment::kDepthLs)},
      {&plain, protocol_of("plain", "tie-kd", Alignment::kDisparityL1)},
      {&plain, disparity_metrics(protocol_of("plain", "tie-kd", Alignment::kDisparityLs))},
  };
  for (const auto& [files, protocol] : cases) {
    SCOPED_TRACE(describe(protocol));
    FileSet const* const set = files;
    const Evaluation expected = set->whole(protocol);
    for (const Evaluation& found : set->by_threads(protocol)) expect_same(found, expected);
  }
}

TEST(EvaluateFiles, TheFirstItemsErrorIsTheOneThatIsThrown) {
  FileSet files({9, 7}, {9, 7}, 40, false);
  const Protocol protocol = protocol_of("plain", "tie-kd", Alignment::kNone);
  for (const size_t bad : {35u, 17u, 9u}) {
    std::vector<float> values(63, 1.0f);
    values[13] = NAN;
    std::vector<float> truth(63, 2.0f);
    const int64_t shape[] = {7, 9};
    write_npy(files.items[bad].truth, shape, truth);
    write_npy(files.folder / ("pred" + std::to_string(bad) + ".npy"), shape, values);
    EXPECT_EQ(error_of([&] { files.by_threads(protocol); }),
              concat_text("list.txt:", bad + 1, ": prediction for image", bad,
                          ": row 1, column 4 is nan, expected a finite number where there is truth"));
  }
}

TEST(EvaluateFiles, WhatTheProgressThrowsEndsIt) {
  const FileSet files({9, 7}, {9, 7}, 5, false);
  EvaluateOptions options;
  options.progress = [](int64_t, int64_t) { fail("stopped"); };
  MapFormat format;
  const auto open = [&](const EvalItem& item) {
    return MapReader(files.folder / ("pred" + item.name.substr(5) + ".npy"), format);
  };
  EXPECT_EQ(
      error_of([&] { evaluate_files(protocol_of("plain", "tie-kd", Alignment::kNone), files.items, open, options); }),
      "stopped");
}

TEST(MapStack, EachMapIsOne) {
  const TemporaryFolder folder;
  const std::string path = folder / "stack.npy";
  const int64_t shape[] = {3, 2, 4}, flat[] = {6, 4};
  std::vector<float> values;
  for (int i = 0; i < 24; ++i) values.push_back(static_cast<float>(i));
  write_npy(path, shape, values);
  EXPECT_EQ(stack_size(path), 3);
  const DepthMap second = read_map(MapReader::of_stack(path, 1, {}));
  EXPECT_EQ(second.size(), (ImageSize{4, 2}));
  EXPECT_EQ(second.values, (std::vector<float>{8, 9, 10, 11, 12, 13, 14, 15}));
  EXPECT_EQ(error_of([&] { MapReader::of_stack(path, 3, {}); }),
            path + ": expected a map 3 in the stack, found 3 maps");
  write_npy(path, flat, values);
  EXPECT_EQ(error_of([&] { stack_size(path); }),
            path + ": expected a stack of maps (maps, height, width) in C order, of 1 to 16384 a side, found (6, 4)");
}

}  // namespace
}  // namespace depthstill
