#include "tools/label_notes.h"

#include <utility>

namespace depthstill {
namespace {

constexpr int64_t kMostNotes = 20;
constexpr size_t kMostNamed = 3;

LabelTally since(const LabelTally& now, const LabelTally& before) {
  return {now.labels - before.labels, now.empty - before.empty};
}

}  // namespace

std::optional<std::string> LabelNotes::add(const LabelTally& labels, const std::string& steps,
                                           const std::string& first) {
  all_.labels += labels.labels;
  all_.empty += labels.empty;
  if (labels.empty == 0 || notes_ == kMostNotes) return {};
  return concat_text("note: ", steps, ": ", labels.empty, " of ", labels.labels, " labels teach nothing",
                     first.empty() ? "" : ": " + first, labels.empty > 1 && !first.empty() ? ", and others" : "",
                     ++notes_ == kMostNotes ? "; further ones are counted at the end of an epoch" : "");
}

std::optional<std::string> LabelNotes::after_batch(const Batch& batch, int64_t step, const RegionLoading& regions,
                                                   const Dataset& data) {
  const RegionTeacher& teacher = *regions.teachers.at(static_cast<size_t>(batch.teacher));
  if (teacher.online()) return {};
  LabelTally labels{std::ssize(batch.items), 0};
  std::string first;
  for (const BatchItem& item : batch.items) {
    if (item.region->problem.empty()) continue;
    const std::string path = teacher.path(data, item.sample->index, batch.epoch);
    if (labels.empty++ == 0) first = concat_text(path, ' ', item.region->problem);
    if (named_.size() < kMostNamed) named_.push_back(path);
  }
  return add(labels, concat_text("step ", step), first);
}

std::optional<std::string> LabelNotes::after_steps(const LabelTally& tally, const std::string& steps,
                                                   const Batch* batch,
                                                   const std::function<std::vector<LabelFault>()>& faults) {
  const LabelTally labels = since(tally, std::exchange(made_, tally));
  std::string first;
  if (labels.empty > 0 && batch != nullptr && batch->items.at(0).region->online) {
    const std::vector<LabelFault> known = faults();
    for (size_t i = 0; i < known.size(); ++i) {
      if (known[i] == LabelFault::kNone) continue;
      const Sample& sample = *batch->items.at(i).sample;
      const std::string name = concat_text("a teacher's map of ", sample.name, " (", sample.where, ')');
      if (first.empty()) first = concat_text(name, ' ', describe(known[i]));
      if (named_.size() < kMostNamed) named_.push_back(name);
    }
  }
  return add(labels, steps, first);
}

std::string LabelNotes::examples() const {
  return named_.empty() ? "" : ", such as " + list_text(named_, std::identity());
}

std::optional<std::string> LabelNotes::after_epoch(int64_t epoch) {
  const LabelTally now = since(all_, std::exchange(before_epoch_, all_));
  check(now.labels == 0 || now.empty < now.labels, "epoch ", epoch + 1,
        ": expected a label that teaches something, found ", now.empty, " that are constant or hold nothing finite",
        examples());
  const bool many = !warned_ && 100 * all_.empty > all_.labels;
  warned_ = warned_ || many;
  if (!many && (now.empty == 0 || notes_ < kMostNotes)) return {};
  return concat_text(many ? "warning: " : "note: ", all_.empty, " of ", all_.labels, " labels teach nothing",
                     examples());
}

}  // namespace depthstill
