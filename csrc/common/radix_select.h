// Selection by rank on integer keys, kRadixBits at a time from the top: what the kernels that do it share.
//
// A pass counts (or weighs) the keys that start with the prefix found so far by their next bits; the bin that
// holds the wanted rank extends the prefix. Counts and weights are integers, so no order of adding them
// matters.
#pragma once

#include <cstdint>

#include "common/portable.h"

namespace fd {

constexpr int kRadixBits = 11, kRadixBins = 1 << kRadixBits;

// How the bits of a key fall on passes: the last one has what is left over.
template <int kKeyBits>
struct RadixPasses {
    static constexpr int kCount = (kKeyBits + kRadixBits - 1) / kRadixBits;

    FD_HOST_DEVICE static constexpr int shift(int pass) {
        const int shift = kKeyBits - kRadixBits * (pass + 1);
        return shift > 0 ? shift : 0;
    }
    FD_HOST_DEVICE static constexpr int bits(int pass) {
        return (pass == 0 ? kKeyBits : shift(pass - 1)) - shift(pass);
    }
};

// What the passes so far have fixed: the leading bits of the key of the wanted 0-based rank, and that rank
// among the keys with those bits.
struct RadixChoice {
    unsigned long long prefix, rank;
};

}  // namespace fd
