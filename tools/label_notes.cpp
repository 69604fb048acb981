#include "tools/label_notes.h"

#include <functional>

namespace depthstill {

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
  if (empty == 0) return {};
  constexpr int64_t kMostNotes = 20;
  const bool note = empty_ < kMostNotes;
  empty_ += empty;
  if (!note) return {};
  return concat_text("note: step ", step, ": ", empty, " of ", batch.items.size(), " labels teach nothing: ", first,
                     empty > 1 ? ", and others" : "",
                     empty_ >= kMostNotes ? "; further ones are counted at the end of an epoch" : "");
}

std::optional<std::string> LabelNotes::after_epoch() {
  if (warned_ || 100 * empty_ <= labels_) return {};
  warned_ = true;
  return concat_text("warning: ", empty_, " of ", labels_, " labels teach nothing, such as ",
                     list_text(named_, std::identity()));
}

}  // namespace depthstill
