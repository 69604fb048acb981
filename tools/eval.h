// `depthstill eval` for other commands.
#pragma once

#include <string>
#include <vector>

namespace depthstill {

// Does what `depthstill eval ARGUMENTS` does but for its result on stdout: --json and --csv are what comes of it.
// Throws UsageError for wrong arguments, Error where it fails, Interrupted after SIGINT or SIGTERM.
void evaluate_quietly(std::vector<std::string> arguments);

}  // namespace depthstill
