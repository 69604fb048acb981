// Batches of samples, decoded ahead of time by worker threads. What a batch holds depends only on the data set, the
// options and its (epoch, step): never on the number of workers or on timing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/data/augment.h"
#include "engine/data/dataset.h"
#include "engine/data/region_teacher.h"

namespace depthstill {

// Regions instead of views: of each image a square, and the label that the teacher of its iteration has for it. Ground
// truth is not read.
struct RegionLoading {
  RegionSpec spec;
  int size = 560;  // pixels of a side that the student sees
  std::vector<std::shared_ptr<const RegionTeacher>> teachers;
  std::vector<double> shares;  // in which they are drawn (draw_teacher), one per teacher
  bool online() const;         // one of them at least is a network beside the student
};

struct LoaderOptions {
  int batch_size = 8;
  int workers = 2;           // threads that decode; they do not use kernels/core/parallel.h
  int prefetch_batches = 3;  // batches that the workers may run ahead, at least 1
  bool shuffle = true;       // a permutation of its own for each epoch
  bool drop_last = true;     // leave out an incomplete last batch
  DrawViews views = whole_frame();
  std::optional<RegionLoading> regions;
  uint64_t seed = 0;
  int64_t first_epoch = 0, first_step = 0;                // position to begin at, for resuming
  int64_t epochs = 1;                                     // the end: after epoch `epochs` - 1
  int64_t batches = std::numeric_limits<int64_t>::max();  // the end, too: after this many
  size_t cache_bytes = 0;  // decoded samples kept in memory for the next epoch, at most this much
};

struct LabelledRegion {
  Region region;
  int size = 0, patch = 0;            // pixels of a side that the student sees, and its teacher
  bool shown = false;                 // the run has online teachers: its batches have room for what those see
  bool online = false;                // and one of those makes this label, when the batch is on the device
  RegionLabel label = {};             // NaN where nothing is known
  std::string problem = {};           // label_problem() of the stored label, which is then NaN throughout; empty: none
  std::vector<int32_t> windows = {};  // (patches, 4): the item's number in its batch, row, column, region.scaled
};

struct BatchItem {
  std::shared_ptr<const Sample> sample;
  std::vector<View> views = {};
  std::optional<LabelledRegion> region = {};  // in place of views
};

struct Batch {
  int64_t epoch = 0, step = 0;  // step: within the epoch
  int64_t teacher = 0;          // of its regions, an index
  std::vector<BatchItem> items;
};

class Loader {
 public:
  Loader(std::shared_ptr<const Dataset> dataset, LoaderOptions options);
  ~Loader();  // stops the workers, wherever they are
  Loader(Loader&&) noexcept;
  Loader& operator=(Loader&&) noexcept;

  // The next batch, in order of (epoch, step); nullopt after the last. If a sample of it could not be loaded, throws
  // that sample's Error, and again on every later call.
  std::optional<Batch> next();

  double wait_seconds() const;    // time that next() has waited for workers, in all
  double decode_seconds() const;  // time that a worker takes for the item of a batch, the mean so far
  size_t cached_bytes() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

// Batches of an epoch over `samples`. Throws Error if there are none.
int64_t steps_per_epoch(int64_t samples, const LoaderOptions& options);
// Those of all epochs of a run, but at most `most`, if that is not 0.
int64_t steps_of_run(int64_t samples, const LoaderOptions& options, int64_t most);

// The sample indices of an epoch in the order of delivery.
std::vector<int64_t> epoch_order(int64_t size, const LoaderOptions& options, int64_t epoch);

}  // namespace depthstill
