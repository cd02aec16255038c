// Stable least-significant-digit sort of 32-bit keys with one payload each.
#pragma once

#include <array>
#include <cstdint>
#include <utility>
#include <vector>

namespace fd::tsp {

template <class Payload>
void radix_sort(std::vector<uint32_t>& keys, std::vector<Payload>& payloads) {
    constexpr int kBits = 11, kDigits = 3;  // 33 bits
    constexpr uint32_t kMask = (1u << kBits) - 1;
    std::array<std::array<size_t, kMask + 1>, kDigits> counts{};
    for (const uint32_t key : keys) {
        for (int d = 0; d < kDigits; ++d) ++counts[d][key >> kBits * d & kMask];
    }
    std::vector<uint32_t> next_keys(keys.size());
    std::vector<Payload> next_payloads(keys.size());
    for (int d = 0; d < kDigits; ++d) {
        auto& place = counts[d];
        size_t before = 0, fullest = 0;
        for (size_t& count : place) {
            fullest = count > fullest ? count : fullest;
            before += std::exchange(count, before);
        }
        if (fullest == keys.size()) continue;  // one digit for all
        for (size_t i = 0; i < keys.size(); ++i) {
            const size_t to = place[keys[i] >> kBits * d & kMask]++;
            next_keys[to] = keys[i];
            next_payloads[to] = payloads[i];
        }
        keys.swap(next_keys);
        payloads.swap(next_payloads);
    }
}

}  // namespace fd::tsp
