// Stands in for this folder where the ONNX classes were not found.
#include "models/onnx/export.h"

namespace depthstill {

void export_onnx(const DepthModel&, const std::string& path, const OnnxOptions&) {
  fail(path, ": this build cannot write ONNX: libonnx-dev and libprotobuf-dev were not there when it was configured");
}

}  // namespace depthstill
