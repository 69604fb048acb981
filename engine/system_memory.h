// What the system has left for this process, asked before memory is touched: a process that touches more is killed.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

namespace depthstill {

// Bytes that can be used without anything else having to go: of the machine (MemAvailable and free swap), and of the
// control group (version 1 or 2) that holds this process, whichever is less. nullopt where neither is known.
std::optional<size_t> available_memory();

// The same of the files below `root` in place of those of the system.
std::optional<size_t> available_memory(const std::string& root);

}  // namespace depthstill
