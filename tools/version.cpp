#include "tools/version.h"

#include "tools/commit.h"  // made by cmake/DepthstillCommit.cmake

namespace depthstill {

const char* version() { return DEPTHSTILL_VERSION; }
const char* commit() { return DEPTHSTILL_COMMIT; }

}  // namespace depthstill
