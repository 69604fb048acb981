// metrics.jsonl of a run: one JSON object per line, appended as training goes.
//   {"type":"step","step":12,"epoch":0,"lr":1e-4,"grad_norm":3.1,"images_per_second":0.4,"losses":{"total":..,..}}
//   {"type":"eval","step":180,"epoch":3,"split":"val","images":25,"metrics":{"abs_rel":..}}
// Epochs count from 0, steps from 1. After a resume, lines of steps that are run again come later in the file and
// replace the earlier ones.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "engine/eval/metrics.h"
#include "engine/train/trainer.h"

namespace depthstill {

struct EvalRecord {
  int64_t step = 0, epoch = 0;
  std::string split;  // "val", "test", "train"
  int64_t images = 0;
  Metrics metrics;
};

std::string to_json_line(const StepRecord& record);  // text with the line end
std::string to_json_line(const EvalRecord& record);

struct RunLog {
  std::vector<StepRecord> steps;  // ascending steps
  std::vector<EvalRecord> evals;
};
// A last line cut short by a crash is passed over; any other malformed line throws Error "file:line: ...".
RunLog read_run_log(const std::string& path);

}  // namespace depthstill
