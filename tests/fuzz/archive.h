// Makes zip archives right again, so that damage gets past their checksums.
#pragma once

#include "tests/fuzz/target.h"

namespace depthstill::fuzz {

// Sets the CRC-32 of every entry of the directory, in both of its headers.
void repair_checksums(Bytes& archive);

// Writes sizes, checksums and directory anew, for the entries whose headers are found one after the other.
void repair_directory(Bytes& archive);

}  // namespace depthstill::fuzz
