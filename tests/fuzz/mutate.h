// Inputs made from the files of a corpus.
#pragma once

#include <cstdint>
#include <vector>

#include "tests/fuzz/target.h"

namespace depthstill::fuzz {

// The corpus file changed in one to eight places: bits, bytes, numbers of any width and order, lengths, decimal
// numbers, words of the format, ranges put in, taken out, repeated or taken from another file. The result follows from
// corpus, seed and number alone.
Bytes mutated(const Target& target, const std::vector<Bytes>& corpus, uint64_t seed, uint64_t number);

}  // namespace depthstill::fuzz
