// The process-wide oneDNN engine and stream. Include this instead of dnnl.hpp: it makes sure that oneDNN is told which
// instruction sets are safe before it looks at the processor.
#pragma once

#include <dnnl.hpp>

namespace depthstill::cpu {

const dnnl::engine& dnn_engine();
dnnl::stream& dnn_stream();  // one per thread; executes in place

}  // namespace depthstill::cpu
