// depthstill for other programs: the networks, losses and training of the binary as a C++20 library.
//
//   CMake        find_package(depthstill) and link depthstill::losses, which brings the floors below it:
//                depthstill::models, depthstill::engine, depthstill::kernels
//   pkg-config   depthstill
//
// Threads: call everything from one thread at a time. Ops use several threads of their own (kernels/core/parallel.h:
// set_num_threads), loaders have theirs, and several processes may share a machine.
// Errors: what cannot be done throws depthstill::Error with one line that says what was expected and what was found.
// Output: nothing is printed. set_message_sink() takes the lines that no call can return.
// Names: everything is in namespace depthstill; the folders are those of the source tree, so "engine/ops.h" is the
// catalogue of ops and "losses/tie_kd.h" an objective to learn from.
//
// Examples: tools/library/examples in the source tree.
#pragma once

#include "engine/data/loader.h"
#include "engine/eval/evaluate.h"
#include "engine/io/map_file.h"
#include "engine/ops.h"
#include "engine/train/trainer.h"
#include "kernels/core/messages.h"
#include "kernels/core/parallel.h"
#include "losses/tie_kd.h"
#include "models/model_file.h"
#include "models/model_table.h"
#include "models/predictor.h"
