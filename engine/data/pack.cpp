#include "engine/data/pack.h"

#include <algorithm>
#include <exception>
#include <filesystem>
#include <optional>
#include <utility>

#include "engine/data/loader.h"
#include "kernels/core/error.h"

namespace depthstill {
namespace {

namespace fs = std::filesystem;

class Packer {
 public:
  Packer(std::shared_ptr<const Dataset> data, std::string folder, const PackOptions& options,
         const std::function<void(int64_t done, int64_t total)>& progress)
      : data_(std::move(data)), folder_(std::move(folder)), options_(options), progress_(progress) {}

  PackReport run() {
    claim_folder();
    for (const int64_t first : list_shards(folder_)) {
      write_shards(first);
      const Shard shard((fs::path(folder_) / shard_name(first)).string());
      check(shard.first() == done_, shard.path(), ": expected sample ", done_, " first, found ", shard.first());
      done_ += static_cast<int64_t>(shard.entries().size());
      check(done_ <= data_->size(), shard.path(), ": expected ", data_->size(), " samples in all, found more");
      report_.kept += static_cast<int64_t>(shard.entries().size());
    }
    write_shards(data_->size());
    progress_(done_, data_->size());
    return report_;
  }

 private:
  void claim_folder() {
    const PackManifest wanted{pack_settings(data_->spec()), data_->list_checksum(), data_->size(), data_->skipped()};
    if (const std::optional<PackManifest> found = read_pack_manifest(folder_)) {
      check_pack_settings(folder_, *found, wanted);
    } else {
      write_pack_manifest(folder_, wanted);
    }
  }

  // Writes the samples from done_ up to `end`, which has a shard already or is the end of the set.
  void write_shards(int64_t end) {
    if (done_ >= end) return;
    LoaderOptions loading;
    loading.batch_size = 1;
    loading.workers = options_.workers;
    loading.prefetch_batches = 2 * options_.workers;
    loading.shuffle = false;
    loading.first_step = done_;
    Loader loader(data_, loading);
    while (done_ < end) write_shard(loader, end);
  }

  // If the caller or a bad file stops the reading, the samples before it go into a shard first.
  void write_shard(Loader& loader, int64_t end) {
    const DatasetSpec& spec = data_->spec();
    ShardWriter shard(folder_, done_);
    std::exception_ptr stopped;
    while (done_ < end && shard.bytes() < options_.shard_bytes) {
      std::optional<Batch> batch;
      try {
        progress_(done_, data_->size());
        batch = loader.next();
      } catch (...) {
        stopped = std::current_exception();
        break;
      }
      shard.add(*batch.value().items[0].sample, data_->entry(done_), spec.depth.metres_per_unit,
                spec.teacher ? spec.teacher->format.metres_per_unit : 0);
      ++done_;
    }
    if (shard.count() > 0) {
      shard.commit();
      report_.written += shard.count();
      report_.bytes += shard.bytes();
      report_.max_error = std::max(report_.max_error, shard.max_error());
    }
    if (stopped) std::rethrow_exception(stopped);
  }

  const std::shared_ptr<const Dataset> data_;
  const std::string folder_;
  const PackOptions options_;
  const std::function<void(int64_t done, int64_t total)>& progress_;
  PackReport report_;
  int64_t done_ = 0;
};

}  // namespace

PackReport pack(const std::shared_ptr<const Dataset>& data, const std::string& folder, const PackOptions& options,
                const std::function<void(int64_t done, int64_t total)>& progress) {
  check(!data->packed(), folder, ": expected a data set of files to pack, found a packed one");
  return Packer(data, folder, options, progress).run();
}

}  // namespace depthstill
