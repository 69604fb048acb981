#include "tools/interrupt.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>

namespace depthstill {
namespace {

std::atomic<bool> stop_requested{false};
static_assert(std::atomic<bool>::is_always_lock_free, "written by a signal handler");

void on_signal(int) {
  if (stop_requested.exchange(true)) _exit(kExitInterrupted);
}

}  // namespace

void install_interrupt_handlers() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  action.sa_handler = SIG_IGN;  // a file over the limit of `ulimit -f` is an error of write(), as on a full disk
  sigaction(SIGXFSZ, &action, nullptr);
}

bool interrupted() { return stop_requested.load(); }
void clear_interrupt() { stop_requested = false; }

void throw_if_interrupted() {
  if (interrupted()) throw Interrupted{};
}

}  // namespace depthstill
