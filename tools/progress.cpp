#include "tools/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <utility>

#include "engine/io/text_file.h"
#include "tools/interrupt.h"

namespace depthstill {
namespace {

using namespace std::chrono_literals;
constexpr auto kRedraw = 100ms;
constexpr auto kPlainLine = 15s;  // time between lines of a log file

bool line_under_way = false;

int terminal_columns() {
  winsize size{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

template <class... Values>
std::string format_text(const char* format, Values... values) {
  char text[96];
  std::snprintf(text, sizeof text, format, values...);
  return text;
}

}  // namespace

std::string format_duration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return "?";
  const auto s = static_cast<long long>(std::llround(seconds));
  if (s < 60) return format_text("%lld s", s);
  if (s < 3600) return format_text("%lld min %02lld s", s / 60, s % 60);
  return format_text("%lld h %02lld min", s / 3600, s / 60 % 60);
}

std::string format_bytes(double bytes) {
  const char* const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  int unit = 0;
  for (; bytes >= 1024 && unit < 4; ++unit) bytes /= 1024;
  return format_text(bytes < 10 && unit > 0    ? "%.2f %s"
                     : bytes < 100 && unit > 0 ? "%.1f %s"
                                               : "%.0f %s",
                     bytes, units[unit]);
}

Progress::Progress(std::string label, std::string unit, int64_t total, int64_t start)
    : label_(std::move(label)),
      unit_(std::move(unit)),
      total_(total),
      start_(start),
      done_(start),
      terminal_(isatty(STDERR_FILENO) == 1),
      began_(Clock::now()),
      last_shown_(began_) {}

Progress::~Progress() { finish(); }

std::string Progress::line(std::string_view note) const {
  const double elapsed = std::chrono::duration<double>(Clock::now() - began_).count();
  const double rate = elapsed > 0 ? static_cast<double>(done_ - start_) / elapsed : 0;
  std::string text = label_ + ' ' + std::to_string(done_) + '/' + std::to_string(total_);
  if (rate > 0) {
    text += rate >= 1 ? format_text("  %.1f %s/s", rate, unit_.c_str())
                      : format_text("  %.1f s/%s", 1 / rate, unit_.c_str());
    if (done_ < total_) text += "  " + format_duration(static_cast<double>(total_ - done_) / rate) + " left";
  }
  if (!note.empty()) text.append("  ").append(note);
  return text;
}

void Progress::update(int64_t done, std::string_view note) {
  done_ = done;
  const auto now = Clock::now();
  const bool last = done_ >= total_;
  if (terminal_) {
    if (shown_ && !last && now - last_shown_ < kRedraw) return;
    const int columns = terminal_columns(), width = std::clamp(columns / 5, 8, 30);
    const double share =
        total_ > 0 ? std::clamp(static_cast<double>(done_) / static_cast<double>(total_), 0.0, 1.0) : 1;
    const int filled = static_cast<int>(share * width);
    std::string text = '[' + std::string(static_cast<size_t>(filled), '=') +
                       std::string(static_cast<size_t>(width - filled), ' ') + "] " + line(note);
    if (static_cast<int>(text.size()) >= columns) text.resize(static_cast<size_t>(columns - 1));
    std::fprintf(stderr, "\r\033[K%s", text.c_str());
    std::fflush(stderr);
    line_under_way = true;
  } else {
    if (!last && now - last_shown_ < kPlainLine) return;
    std::fprintf(stderr, "%s\n", line(note).c_str());
  }
  shown_ = true;
  last_shown_ = now;
}

void Progress::finish() {
  if (finished_) return;
  finished_ = true;
  if (line_under_way) std::fputc('\n', stderr);
  line_under_way = false;
}

std::function<void(int64_t, int64_t)> interruptible_progress(std::string label, std::string unit) {
  return [label = std::move(label), unit = std::move(unit), bar = std::shared_ptr<Progress>()](int64_t done,
                                                                                               int64_t total) mutable {
    if (!bar) bar = std::make_shared<Progress>(label, unit, total, done);
    bar->update(done);
    if (done < total) throw_if_interrupted();
  };
}

void log_line(std::string_view text) {
  std::fprintf(stderr, "%s%s\n", line_under_way ? "\r\033[K" : "", one_line(text).c_str());
  line_under_way = false;
}

void print_result(std::string_view line) {
  const bool seen = isatty(STDOUT_FILENO) == 1;
  if (seen && line_under_way) {
    std::fputs("\r\033[K", stderr);
    line_under_way = false;
  }
  std::printf("%.*s\n", static_cast<int>(line.size()), line.data());
  if (seen) std::fflush(stdout);
}

}  // namespace depthstill
