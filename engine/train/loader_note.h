// Says when training waits for its data, and what would help.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace depthstill {

class LoaderNote {
 public:
  LoaderNote(int workers, bool packed) : workers_(workers), packed_(packed) {}

  // The trainer calls this after each step, with the seconds since the start that were spent in next() and in steps. It
  // returns a line if more than a tenth of the last 50 steps was waiting: at most one an epoch. The first step, which
  // fills the queue, does not count.
  std::optional<std::string> after_step(int64_t epoch, double seconds_waiting, double seconds_in_steps);

 private:
  int workers_;
  bool packed_;
  int64_t steps_ = -1, noted_epoch_ = -1;
  double waiting_ = 0, in_steps_ = 0;  // values when the present 50 steps began
};

}  // namespace depthstill
