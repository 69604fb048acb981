#include "tools/op_table.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string_view>

namespace depthstill {
namespace {

using nlohmann::ordered_json;

// "fwd/decode_head.conv_out.0" is a layer's forward pass, "bwd/loss/dpm" a loss's backward pass.
std::pair<std::string, bool> layer_of(std::string_view range) {
  const bool backward = range.starts_with("bwd/");
  if (backward || range.starts_with("fwd/")) range.remove_prefix(4);
  return {std::string(range), backward};
}

double rate(double amount, double ms) { return ms > 0 ? amount / (1e-3 * ms) : 0.0; }

double share(double part, double whole) { return whole > 0 ? 100.0 * part / whole : 0.0; }

OpRow sum_of(const std::vector<OpRow>& rows, size_t begin) {
  OpRow sum;
  const auto add = [](OpTime& to, const OpTime& from) {
    to.ms += from.ms;
    to.work.flops += from.work.flops;
    to.work.bytes += from.work.bytes;
    to.calls += from.calls;
  };
  for (size_t i = begin; i < rows.size(); ++i) {
    add(sum.forward, rows[i].forward);
    add(sum.backward, rows[i].backward);
  }
  return sum;
}

double bound_ms(const std::vector<OpRow>& rows, size_t begin, const MachinePeak& peak) {
  double ms = 0;
  for (size_t i = begin; i < rows.size(); ++i) {
    ms += peak.bound_ms(rows[i].forward.work) + peak.bound_ms(rows[i].backward.work);
  }
  return ms;
}

std::string line_of(const OpRow& row, double bound, double step_ms, size_t width) {
  const Work work = row.work();
  char flops[32] = "      -        -";
  if (work.flops > 0) {
    std::snprintf(flops, sizeof(flops), "%7.2f %8.1f", 1e-9 * work.flops, 1e-9 * rate(work.flops, row.ms()));
  }
  char text[256];
  std::snprintf(text, sizeof(text), "%-*s %-18s %9.3f %9.3f %6.1f %s %9.1f %7.1f %9.3f %6.1f\n",
                static_cast<int>(width), row.layer.c_str(), row.op.c_str(), row.forward.ms, row.backward.ms,
                share(row.ms(), step_ms), flops, 1e-6 * work.bytes, 1e-9 * rate(work.bytes, row.ms()), bound,
                share(bound, row.ms()));
  return text;
}

}  // namespace

double median_of(std::vector<double> values) {
  if (values.empty()) return 0.0;
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

void OpTable::add_step(const std::vector<OpSample>& samples, double step_ms) {
  for (auto& [key, entry] : entries_) {
    for (Direction* direction : {&entry.forward, &entry.backward}) direction->ms.push_back(0.0);
  }
  const size_t step = step_ms_.size();
  double ops_ms = 0;
  for (const OpSample& sample : samples) {
    const auto [layer, backward] = layer_of(sample.range);
    Entry& entry = entries_[{layer, std::string(sample.op)}];
    for (Direction* direction : {&entry.forward, &entry.backward}) direction->ms.resize(step + 1, 0.0);
    Direction& direction = backward ? entry.backward : entry.forward;
    direction.ms[step] += sample.ms;
    ops_ms += sample.ms;
    // The work of all steps, which is the same in each.
    direction.work.flops += sample.work.flops;
    direction.work.bytes += sample.work.bytes;
    ++direction.calls;
  }
  step_ms_.push_back(step_ms);
  ops_ms_.push_back(ops_ms);
}

OpTime OpTable::time_of(const Direction& direction) {
  const auto steps = static_cast<double>(direction.ms.size());
  return {median_of(direction.ms),
          {direction.work.flops / steps, direction.work.bytes / steps},
          direction.calls / static_cast<int>(direction.ms.size())};
}

std::vector<OpRow> OpTable::rows() const {
  std::vector<OpRow> rows;
  for (const auto& [key, entry] : entries_) {
    rows.push_back({key.first, key.second, time_of(entry.forward), time_of(entry.backward)});
  }
  std::stable_sort(rows.begin(), rows.end(), [](const OpRow& a, const OpRow& b) { return a.ms() > b.ms(); });
  return rows;
}

std::string table_text(const OpTable& table, const MachinePeak& peak, size_t max_rows) {
  const std::vector<OpRow> rows = table.rows();
  const double step_ms = table.step_ms();
  const size_t shown = max_rows == 0 ? rows.size() : std::min(max_rows, rows.size());
  size_t width = 24;
  for (size_t i = 0; i < shown; ++i) width = std::max(width, rows[i].layer.size());
  char text[256];
  std::snprintf(text, sizeof(text), "%-*s %-18s %9s %9s %6s %7s %8s %9s %7s %9s %6s\n", static_cast<int>(width),
                "layer", "op", "fwd ms", "bwd ms", "%step", "GFLOP", "GFLOP/s", "MB", "GB/s", "bound ms", "%bound");
  std::string out = text;
  for (size_t i = 0; i < shown; ++i) {
    out += line_of(rows[i], bound_ms({rows[i]}, 0, peak), step_ms, width);
  }
  const auto add_sum = [&](const std::string& label, size_t begin) {
    OpRow sum = sum_of(rows, begin);
    sum.layer = label;
    out += line_of(sum, bound_ms(rows, begin, peak), step_ms, width);
  };
  if (shown < rows.size()) add_sum(std::to_string(rows.size() - shown) + " more", shown);
  add_sum("all ops", 0);
  const double outside_ms = step_ms - table.ops_ms();
  std::snprintf(text, sizeof(text), "step %.2f ms, of which %.2f ms (%.1f%%) outside ops\n", step_ms, outside_ms,
                share(outside_ms, step_ms));
  return out + text;
}

ordered_json table_json(const OpTable& table, const MachinePeak& peak) {
  const std::vector<OpRow> rows = table.rows();
  const auto direction = [&](const OpTime& time) {
    return ordered_json{{"ms", time.ms},
                        {"calls", time.calls},
                        {"flops", time.work.flops},
                        {"bytes", time.work.bytes},
                        {"bound_ms", peak.bound_ms(time.work)}};
  };
  ordered_json list = ordered_json::array();
  for (const OpRow& row : rows) {
    list.push_back({{"layer", row.layer},
                    {"op", row.op},
                    {"ms", row.ms()},
                    {"percent_of_bound", share(bound_ms({row}, 0, peak), row.ms())},
                    {"forward", direction(row.forward)},
                    {"backward", direction(row.backward)}});
  }
  const OpRow all = sum_of(rows, 0);
  return {{"step_ms", table.step_ms()}, {"ops_ms", table.ops_ms()},  {"bound_ms", bound_ms(rows, 0, peak)},
          {"flops", all.work().flops},  {"bytes", all.work().bytes}, {"rows", std::move(list)}};
}

}  // namespace depthstill
