// SIGINT and SIGTERM ask the running command to stop at the next safe point; a second signal ends the process at once.
// SIGXFSZ is ignored, so that a limit on file sizes is reported like a full disk.
#pragma once

namespace depthstill {

inline constexpr int kExitInterrupted = 130;

void install_interrupt_handlers();
bool interrupted();
void clear_interrupt();  // forgets the request: for a process that goes on after Interrupted

// Thrown by commands that stop because interrupted() turned true; the process exits with kExitInterrupted.
struct Interrupted {};
void throw_if_interrupted();

}  // namespace depthstill
