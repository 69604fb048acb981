// These functions say which depthstill this is.
#pragma once

namespace depthstill {

// "0.1.0", as in metadata and JSON.
const char* version();
// The commit of the checkout that was built, with "-changed" if files differed from it; "unknown" outside of a git
// checkout.
const char* commit();

}  // namespace depthstill
