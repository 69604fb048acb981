#include "losses/online_teachers.h"

#include <algorithm>
#include <utility>

#include "engine/allocator.h"
#include "engine/ops.h"
#include "engine/profile.h"
#include "models/sky_rule.h"

namespace depthstill {
namespace {

Shape with_count(const Shape& shape, int64_t count) {
  Shape part{count};
  for (int d = 1; d < shape.rank(); ++d) part.push_back(shape[d]);
  return part;
}

size_t bytes_per_item(const Tensor& batch) { return batch.bytes() / static_cast<size_t>(batch.size(0)); }

char* item_at(const Tensor& batch, int64_t index) {
  return static_cast<char*>(batch.raw()) + static_cast<size_t>(index) * bytes_per_item(batch);
}

size_t mebibytes(size_t bytes) { return (bytes + (1 << 20) - 1) >> 20; }

// Maps at the student's size: bilinear, on pixel centres, as region_label() does it where all is finite. What is not
// finite reaches its neighbours.
Tensor at_side(const Tensor& maps, int64_t side) {
  const int64_t N = maps.size(0), from = maps.size(1);
  if (from == side) return maps;
  return upsample_bilinear(maps.view({N, from, from, 1}), side, side, false).view({N, side, side});
}

}  // namespace

size_t state_bytes(const Module& network) {
  size_t bytes = 0;
  for (const StateEntry& entry : network.state()) bytes += entry.tensor->bytes();
  return bytes;
}

size_t bytes_taken(Device device, const std::function<void()>& run) {
  const NoGrad no_grad;
  reset_peak_memory(device);
  const size_t before = memory_stats(device).in_use;
  run();
  synchronize(device);
  return memory_stats(device).peak - before;
}

void run_in_parts(const Tensor& images, int64_t most, const std::function<Tensor(const Tensor&)>& network,
                  const Tensor& to) {
  const NoGrad no_grad;
  const Device device = images.device();
  const int64_t N = images.size(0);
  for (int64_t first = 0; first < N; first += most) {
    const int64_t count = std::min(most, N - first);
    Tensor part = images;
    if (count < N) {
      part = empty(with_count(images.shape(), count), images.dtype(), device);
      copy_bytes(part.raw(), device, item_at(images, first), device, part.bytes());
    }
    const Tensor result = network(part);
    check(result.shape() == with_count(to.shape(), count) && result.dtype() == to.dtype(), "labels: expected ",
          to.dtype(), ' ', with_count(to.shape(), count), " of a network, got ", result.dtype(), ' ', result.shape());
    copy_bytes(item_at(to, first), device, result.raw(), device, result.bytes());
  }
}

OnlineTeachers::OnlineTeachers(std::vector<std::shared_ptr<const DepthModel>> networks, int64_t most)
    : networks_(std::move(networks)), most_(most) {
  check(most >= 1, "online teachers: expected at least one image at a time, got ", most);
  for (const auto& network : networks_) {
    if (!network) continue;
    if (!tally_.defined())
      tally_ = zeros({kLabelTallyElements}, DType::kInt64, network->parameter_tensors()[0].device());
    memory_.weights += state_bytes(*network);
  }
}

std::string OnlineTeachers::prepare(const BatchTensors& batch) {
  const Tensor& seen = batch.region.defined() ? batch.region : batch.image;
  const Device device = seen.device();
  const int64_t count = std::min(most_, std::max(seen.size(0), batch.patches.defined() ? batch.patches.size(0) : 0));
  std::string lines;
  for (const auto& network : networks_) {
    if (!network) continue;
    size_t taken = 0;
    try {
      taken = bytes_taken(device, [&] {
        at_side(maps_of(*network, zeros(with_count(seen.shape(), count), seen.dtype(), device)), batch.teacher.size(1));
      });
    } catch (const OutOfMemory& error) {
      throw OutOfMemory(concat_text("the online teacher ", network->name(), ", on ", count, " images of ", seen.size(1),
                                    " pixels: ", error.what(),
                                    "; a new run with a smaller distill.label_batch takes less"));
    }
    memory_.temporaries = std::max(memory_.temporaries, taken);
    lines += concat_text(lines.empty() ? "" : "\n", "online teacher ", network->name(), ": ",
                         mebibytes(state_bytes(*network)), " MiB of weights, and ", mebibytes(taken),
                         " MiB while it sees ", count, " images of ", seen.size(1), " pixels");
  }
  return lines;
}

Tensor OnlineTeachers::maps_of(const DepthModel& network, const Tensor& images) const {
  if (is_exponential(network.options().head)) {  // its rule of the sky is one of the host
    const std::vector<float> labels = labels_of(network, images);
    return tensor<float>({images.size(0), images.size(1), images.size(2)}, labels, images.device());
  }
  const Tensor maps = depth_of(network.forward(images));
  if (network.options().head == Head::kRelative) return maps;
  return div(exp(scale(maps, 0.0f)), maps);  // 1 / maps; that of 0 is infinite, which does not count
}

void OnlineTeachers::label(const BatchTensors& batch, int64_t teacher) {
  const auto& network = networks_.at(static_cast<size_t>(teacher));
  if (!network) return;
  const ProfileRange range("teacher");
  const auto maps = [&](const Tensor& images) { return maps_of(*network, images); };
  const int64_t side = batch.teacher.size(1);
  run_in_parts(
      batch.region.defined() ? batch.region : batch.image, most_,
      [&](const Tensor& images) { return at_side(maps(images), side); }, batch.teacher);
  if (batch.patches.defined()) run_in_parts(batch.patch_images, most_, maps, batch.patches);
  faults_ = screen_labels(batch.teacher, batch.patches, tally_);
}

LabelTally OnlineTeachers::tally() const { return tally_.defined() ? read_label_tally(tally_) : LabelTally{}; }

std::vector<LabelFault> OnlineTeachers::faults() const {
  if (!faults_.defined()) return {};
  std::vector<LabelFault> faults;
  for (const int32_t fault : to_vector<int32_t>(faults_)) faults.push_back(static_cast<LabelFault>(fault));
  return faults;
}

}  // namespace depthstill
