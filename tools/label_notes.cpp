#include "tools/label_notes.h"

#include <functional>
#include <utility>

namespace depthstill {
namespace {

constexpr int64_t kMostNotes = 20;

}  // namespace

std::optional<std::string> LabelNotes::after_batch(const Batch& batch, int64_t step, const RegionLoading& regions,
                                                   const Dataset& data) {
  constexpr size_t kNamed = 3;
  const RegionTeacher& teacher = *regions.teachers.at(static_cast<size_t>(batch.teacher));
  int64_t empty = 0;
  std::string first;
  for (const BatchItem& item : batch.items) {
    if (item.region->problem.empty()) continue;
    const std::string path = teacher.path(data, item.sample->index, batch.epoch);
    if (empty++ == 0) first = concat_text(path, ' ', item.region->problem);
    if (named_.size() < kNamed) named_.push_back(path);
  }
  labels_ += static_cast<int64_t>(batch.items.size());
  empty_ += empty;
  if (empty == 0 || notes_ == kMostNotes) return {};
  return concat_text("note: step ", step, ": ", empty, " of ", batch.items.size(), " labels teach nothing: ", first,
                     empty > 1 ? ", and others" : "",
                     ++notes_ == kMostNotes ? "; further ones are counted at the end of an epoch" : "");
}

std::optional<std::string> LabelNotes::after_epoch(int64_t epoch) {
  const int64_t labels = labels_ - std::exchange(labels_before_, labels_);
  const int64_t empty = empty_ - std::exchange(empty_before_, empty_);
  check(labels == 0 || empty < labels, "epoch ", epoch + 1, ": expected a label that teaches something, found ", empty,
        " that are constant or hold nothing finite, such as ", list_text(named_, std::identity()));
  const bool many = !warned_ && 100 * empty_ > labels_;
  warned_ = warned_ || many;
  if (!many && (empty == 0 || notes_ < kMostNotes)) return {};
  return concat_text(many ? "warning: " : "note: ", empty_, " of ", labels_, " labels teach nothing, such as ",
                     list_text(named_, std::identity()));
}

}  // namespace depthstill
