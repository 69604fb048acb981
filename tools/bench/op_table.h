// An OpTable lists time, work and distance from the bound per layer and op, from the samples of several training steps.
// Where nothing was timed, the bound stands alone.
#pragma once

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "tools/bench/machine_peak.h"

namespace depthstill {

double median_of(std::vector<double> values);

// All calls of one op in one layer, in one direction and step.
struct OpTime {
  double ms = 0;  // median over the steps
  Work work;
  int calls = 0;
};

struct OpRow {
  std::string layer, op;     // layer: the path of a module, "loss/dpm", "update/adamw"
  OpTime forward, backward;  // forward holds losses and the update, too
  double ms() const { return forward.ms + backward.ms; }
  Work work() const { return {forward.work.flops + backward.work.flops, forward.work.bytes + backward.work.bytes}; }
};

// What a step does, coarsely: input, teacher and features (networks that make labels), student, losses, update.
struct StepPart {
  std::string name;
  double ms = 0;  // mean of the steps that have it
  int steps = 0;  // how many those are
};

class OpTable {
 public:
  void add_step(const std::vector<OpSample>& samples, double step_ms);
  std::vector<StepPart> parts() const;  // those that there are, in the order above
  std::vector<OpRow> rows() const;      // the slowest first
  // Medians over the steps: of the whole step, and of what all ops of a step add up to.
  double step_ms() const { return median_of(step_ms_); }
  double ops_ms() const { return median_of(ops_ms_); }
  int steps() const { return static_cast<int>(step_ms_.size()); }

 private:
  struct Direction {
    std::vector<double> ms;  // time of each step
    Work work;
    int calls = 0;
  };
  struct Entry {
    Direction forward, backward;
  };
  static OpTime time_of(const Direction& direction);

  std::map<std::pair<std::string, std::string>, Entry> entries_;
  std::map<std::string, StepPart> parts_;
  std::vector<double> step_ms_, ops_ms_;
};

// "teacher 812.0 ms in 2 of 3 steps, student 90.1 ms, ..."
std::string parts_text(const OpTable& table);

// The text has at most `max_rows` lines (0: all) and what the others add up to.
std::string table_text(const OpTable& table, const MachinePeak& peak, size_t max_rows);
nlohmann::ordered_json table_json(const OpTable& table, const MachinePeak& peak);

// A StepBound says what ops take at least, in milliseconds; each direction of a row is bound by products or by memory.
struct StepBound {
  double products_ms = 0, memory_ms = 0;
  double ms() const { return products_ms + memory_ms; }
};
StepBound step_bound(const OpTable& table, const MachinePeak& peak);

// The largest bounds come first: per layer, at most `max_rows` lines, and then all layers together per op.
std::string bound_text(const OpTable& table, const MachinePeak& peak, size_t max_rows);
nlohmann::ordered_json bound_json(const OpTable& table, const MachinePeak& peak);

}  // namespace depthstill
