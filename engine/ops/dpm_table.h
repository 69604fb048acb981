// The target's table that dpm and dpm_head read.
#pragma once

#include "engine/tensor.h"
#include "kernels/dpm/dpm.h"

namespace depthstill {

// The table of log targets for these options, made once and kept on the device.
DpmTableView dpm_table_for(const DpmBins& bins, const DpmOptions& options, Device device);

}  // namespace depthstill
