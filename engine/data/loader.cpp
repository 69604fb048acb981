#include "engine/data/loader.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <limits>
#include <mutex>
#include <thread>
#include <utility>

#include "engine/random.h"
#include "kernels/core/error.h"

namespace depthstill {
namespace {

// Decoded samples, kept as they come until the limit is reached: every epoch reads every sample once, so throwing some
// out to admit others would gain nothing.
class SampleCache {
 public:
  SampleCache(size_t limit, bool images_only) : limit_(limit), images_only_(images_only) {}

  std::shared_ptr<const Sample> load(const Dataset& dataset, int64_t index) {
    const auto slot = static_cast<size_t>(index);
    if (limit_ > 0) {
      const std::lock_guard lock(mutex_);
      if (slot < samples_.size() && samples_[slot]) return samples_[slot];
    }
    auto sample = std::make_shared<const Sample>(images_only_ ? dataset.load_image(index) : dataset.load(index));
    if (limit_ > 0) {
      const std::lock_guard lock(mutex_);
      samples_.resize(static_cast<size_t>(dataset.size()));
      if (!samples_[slot] && bytes_ + sample->bytes() <= limit_) {
        samples_[slot] = sample;
        bytes_ += sample->bytes();
      }
    }
    return sample;
  }

  size_t bytes() const {
    const std::lock_guard lock(mutex_);
    return bytes_;
  }

 private:
  const size_t limit_;
  const bool images_only_;
  mutable std::mutex mutex_;
  std::vector<std::shared_ptr<const Sample>> samples_;
  size_t bytes_ = 0;
};

void check_options(const LoaderOptions& options) {
  check(options.batch_size >= 1, "loader: expected a batch size >= 1, got ", options.batch_size);
  check(options.workers >= 1, "loader: expected workers >= 1, got ", options.workers);
  check(options.prefetch_batches >= 1, "loader: expected prefetch_batches >= 1, got ", options.prefetch_batches);
  check(options.epochs < int64_t{1} << 24, "loader: expected fewer than 2^24 epochs, got ", options.epochs);
  check(options.first_epoch >= 0 && options.first_step >= 0, "loader: expected to begin at epoch and step >= 0, got ",
        options.first_epoch, " and ", options.first_step);
  check(!options.regions ||
            (!options.regions->teachers.empty() && options.regions->teachers.size() == options.regions->shares.size()),
        "loader: expected regions to have teachers and a share for each");
}

}  // namespace

bool RegionLoading::online() const {
  return std::ranges::any_of(teachers, [](const auto& teacher) { return teacher->online(); });
}

std::vector<int64_t> epoch_order(int64_t size, const LoaderOptions& options, int64_t epoch) {
  if (options.shuffle) return Philox(options.seed, stream_id(RandomUse::kShuffle, epoch)).permutation(size);
  std::vector<int64_t> order(static_cast<size_t>(size));
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int64_t>(i);
  return order;
}

int64_t steps_per_epoch(int64_t samples, const LoaderOptions& options) {
  check_options(options);
  const int64_t batch = options.batch_size;
  const int64_t steps = options.drop_last ? samples / batch : (samples + batch - 1) / batch;
  check(steps > 0, "loader: expected at least one batch of ", batch, ", found ", samples, " samples");
  return steps;
}

int64_t steps_of_run(int64_t samples, const LoaderOptions& options, int64_t most) {
  const int64_t all = steps_per_epoch(samples, options) * options.epochs;
  return most > 0 ? std::min(all, most) : all;
}

class Loader::Impl {
 public:
  Impl(std::shared_ptr<const Dataset> dataset, LoaderOptions options)
      : dataset_(std::move(dataset)),
        options_(std::move(options)),
        cache_(dataset_->packed() ? 0 : options_.cache_bytes,  // mapped memory is a cache already
               options_.regions.has_value()) {
    check_options(options_);
    steps_per_epoch_ = steps_per_epoch(dataset_->size(), options_);
    check(options_.first_step < steps_per_epoch_, "loader: expected to begin before step ", steps_per_epoch_, ", got ",
          options_.first_step);
    if (options_.regions) static_cast<void>(draw_teacher(options_.regions->shares, 0, 0, 0));  // refuses what is none
    open_epoch_ = options_.first_epoch;
    open_step_ = options_.first_step;
    for (int i = 0; i < options_.workers; ++i) threads_.emplace_back([this] { work(); });
  }

  ~Impl() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    work_ready_.notify_all();
  }

  std::optional<Batch> next() {
    std::unique_lock lock(mutex_);
    if (open_.empty() && all_open()) return std::nullopt;
    const auto complete = [&] { return !open_.empty() && open_.front().missing == 0; };
    if (!complete()) {
      const auto begin = std::chrono::steady_clock::now();
      batch_ready_.wait(lock, complete);
      wait_seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    }
    for (const std::exception_ptr& error : open_.front().errors) {
      if (error) std::rethrow_exception(error);  // the batch stays, so that later calls throw too
    }
    Batch batch = std::move(open_.front().batch);
    open_.pop_front();
    lock.unlock();
    work_ready_.notify_all();
    return batch;
  }

  double wait_seconds() const {
    const std::lock_guard lock(mutex_);
    return wait_seconds_;
  }
  double decode_seconds() const {
    const std::lock_guard lock(mutex_);
    return decoded_ > 0 ? decode_seconds_ / static_cast<double>(decoded_) : 0;
  }
  size_t cached_bytes() const { return cache_.bytes(); }

 private:
  struct OpenBatch {
    Batch batch;
    std::vector<int64_t> indices;
    std::vector<std::exception_ptr> errors;
    size_t taken = 0, missing = 0;  // items given to workers, items not yet delivered by them
  };

  bool all_open() const { return open_epoch_ >= options_.epochs || opened_ >= options_.batches; }

  // A batch with items that no worker has taken; opens the next one if the window allows. Null: nothing to do now.
  OpenBatch* find_work() {
    if (!open_.empty() && open_.back().taken < open_.back().indices.size()) return &open_.back();
    if (all_open() || open_.size() >= static_cast<size_t>(options_.prefetch_batches)) return nullptr;
    if (order_.empty()) order_ = epoch_order(dataset_->size(), options_, open_epoch_);
    const auto first = order_.begin() + open_step_ * options_.batch_size;
    const auto count = std::min<std::ptrdiff_t>(options_.batch_size, order_.end() - first);
    ++opened_;
    OpenBatch& opened = open_.emplace_back();  // deque: references to the other batches stay valid
    opened.batch.epoch = open_epoch_;
    opened.batch.step = open_step_;
    if (options_.regions) {
      opened.batch.teacher = draw_teacher(options_.regions->shares, options_.seed, open_epoch_, open_step_);
    }
    opened.indices.assign(first, first + count);
    opened.missing = opened.indices.size();
    opened.batch.items.resize(opened.missing);
    opened.errors.resize(opened.missing);
    if (++open_step_ == steps_per_epoch_) {
      open_step_ = 0;
      ++open_epoch_;
      order_.clear();
    }
    return &opened;
  }

  // The item `slot` of its batch.
  BatchItem load(int64_t epoch, int64_t index, int64_t teacher, size_t slot) {
    BatchItem item;
    item.sample = cache_.load(*dataset_, index);
    const ImageSize frame = item.sample->image.size();
    at_line(item.sample->where, [&] {
      if (options_.regions) {
        const RegionLoading& regions = *options_.regions;
        item.region = {draw_region(regions.spec, frame, options_.seed, epoch, index), regions.size, regions.spec.patch,
                       regions.online()};
      } else {
        item.views = options_.views(frame, options_.seed, epoch, index);
      }
    });
    if (!item.region) return item;
    LabelledRegion& drawn = *item.region;
    const RegionTeacher& labels = *options_.regions->teachers[static_cast<size_t>(teacher)];
    drawn.online = labels.online();
    drawn.label = labels.load(*dataset_, *item.sample, drawn.region, epoch, drawn.size);
    if (!drawn.online) drawn.problem = label_problem(drawn.label.region);
    if (!drawn.problem.empty()) {
      for (std::vector<float>* map : {&drawn.label.region, &drawn.label.patches}) {
        std::ranges::fill(*map, std::numeric_limits<float>::quiet_NaN());
      }
    }
    for (const Region::Patch& patch : drawn.region.patches) {
      drawn.windows.insert(drawn.windows.end(),
                           {static_cast<int32_t>(slot), patch.row, patch.column, drawn.region.scaled});
    }
    return item;
  }

  void work() {
    std::unique_lock lock(mutex_);
    for (;;) {
      OpenBatch* batch = nullptr;
      work_ready_.wait(lock, [&] { return stopping_ || (batch = find_work()) != nullptr; });
      if (stopping_) return;
      const size_t slot = batch->taken++;
      const int64_t epoch = batch->batch.epoch, index = batch->indices[slot], teacher = batch->batch.teacher;
      lock.unlock();
      BatchItem item;
      std::exception_ptr error;
      const auto begin = std::chrono::steady_clock::now();
      try {
        item = load(epoch, index, teacher, slot);
      } catch (...) {
        error = std::current_exception();
      }
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
      lock.lock();
      decode_seconds_ += seconds;
      ++decoded_;
      batch->batch.items[slot] = std::move(item);
      batch->errors[slot] = error;
      if (--batch->missing == 0) batch_ready_.notify_one();
    }
  }

  const std::shared_ptr<const Dataset> dataset_;
  const LoaderOptions options_;
  SampleCache cache_;
  int64_t steps_per_epoch_ = 0;

  mutable std::mutex mutex_;  // guards all below
  std::condition_variable work_ready_, batch_ready_;
  std::deque<OpenBatch> open_;  // batches in order; only the last may have items that no worker took
  std::vector<int64_t> order_;  // order of open_epoch_; empty until needed
  int64_t open_epoch_ = 0, open_step_ = 0, opened_ = 0;
  bool stopping_ = false;
  double wait_seconds_ = 0, decode_seconds_ = 0;
  int64_t decoded_ = 0;

  std::vector<std::jthread> threads_;  // last: joined before the rest goes
};

Loader::Loader(std::shared_ptr<const Dataset> dataset, LoaderOptions options)
    : impl_(std::make_unique<Impl>(std::move(dataset), std::move(options))) {}
Loader::~Loader() = default;
Loader::Loader(Loader&&) noexcept = default;
Loader& Loader::operator=(Loader&&) noexcept = default;

std::optional<Batch> Loader::next() { return impl_->next(); }
double Loader::wait_seconds() const { return impl_->wait_seconds(); }
double Loader::decode_seconds() const { return impl_->decode_seconds(); }
size_t Loader::cached_bytes() const { return impl_->cached_bytes(); }

}  // namespace depthstill
