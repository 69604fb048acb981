// Progress on stderr: one redrawn line on a terminal, else a plain line now and then.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace depthstill {

class Progress {
 public:
  // `unit` is what is counted ("img"). Steps before `start` were done by an earlier run and do not count for the rate.
  Progress(std::string label, std::string unit, int64_t total, int64_t start = 0);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `note` follows the rate and the time left: losses, learning rate, memory.
  void update(int64_t done, std::string_view note = {});
  void finish();

 private:
  using Clock = std::chrono::steady_clock;
  std::string line(std::string_view note) const;

  std::string label_, unit_;
  int64_t total_, start_, done_;
  bool terminal_, finished_ = false, shown_ = false;
  Clock::time_point began_, last_shown_;
};

// The callback for work that takes one shows how far it is, and throws Interrupted once the user asks to stop.
std::function<void(int64_t done, int64_t total)> interruptible_progress(std::string label, std::string unit);

// Writes a line to stderr, whatever the text holds, and erases a progress line under way, which the next update draws
// again.
void log_line(std::string_view text);
// Writes a line to stdout; if that is a terminal, likewise in place of a progress line.
void print_result(std::string_view line);

// "48 s", "12 min 03 s", "3 h 20 min".
std::string format_duration(double seconds);
// "812 KiB", "1.93 GiB".
std::string format_bytes(double bytes);

}  // namespace depthstill
