// These functions say whether this process may use AMX tiles.
#pragma once

namespace depthstill::cpu {

// True if the processor has AMX-BF16 and AVX-512, the kernel grants the tile state (asked for once) and
// DEPTHSTILL_NO_AMX is not set.
bool amx_usable();

// True if code that sizes its tiles from CPUID leaf 0x1D may use AMX. Some hypervisors show AMX but leave that leaf
// empty; oneDNN then executes an invalid tile configuration and the process dies.
bool amx_palette_visible();

}  // namespace depthstill::cpu
