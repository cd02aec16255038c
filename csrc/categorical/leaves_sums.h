// Part of leaves_level.h: sums of exponentials.

// exp(t) = 2^n exp(r), |r| <= ln2 / 2, by a minimax polynomial: relative error < 2e-7. Lane k sums the
// elements k mod 32, and lanes are added in order, at every level.
constexpr int kLanes = 32;
constexpr float kLog2E = 1.44269502f, kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
constexpr float kRound = 0x1.8p23f;  // x + kRound - kRound is x rounded
constexpr float kExp[4] = {0x1.10626ep-7f, 0x1.572a1ep-5f, 0x1.5557aep-3f, 0x1.fffdfcp-2f};

struct ExpLanes {
    alignas(64) float ties[kLanes], sum[kLanes], first[kLanes], second[kLanes];
};

// Whole groups of kLanes.
inline void add_exps(const float* l, int n, float most, float per_temperature, ExpLanes& lanes) {
#if FD_LEVEL > 0
    constexpr int kVectors = kLanes / kWidth;
    const Floats top = broadcast(most), scale = broadcast(per_temperature);
    Floats ties[kVectors], sum[kVectors], first[kVectors], second[kVectors];
    for (int j = 0; j < kVectors; ++j) {
        ties[j] = load(lanes.ties + kWidth * j);
        sum[j] = load(lanes.sum + kWidth * j);
        first[j] = load(lanes.first + kWidth * j);
        second[j] = load(lanes.second + kWidth * j);
    }
    for (int i = 0; i < n; i += kLanes) {
#pragma GCC unroll 4
        for (int j = 0; j < kVectors; ++j) {
            const Floats x = load(l + i + kWidth * j);
            const Floats t = times(minus(x, top), scale);
            const Floats shifted = fused(t, broadcast(kLog2E), broadcast(kRound));
            const Floats whole = minus(shifted, broadcast(kRound));
            const Floats r = fused(whole, broadcast(-kLn2Low), fused(whole, broadcast(-kLn2High), t));
            Floats q = fused(broadcast(kExp[0]), r, broadcast(kExp[1]));
            q = fused(q, r, broadcast(kExp[2]));
            q = fused(q, r, broadcast(kExp[3]));
            q = plus(fused(q, times(r, r), r), broadcast(1.0f));
            accumulate(x, top, t, times_power(q, shifted), ties[j], sum[j], first[j], second[j]);
        }
    }
    for (int j = 0; j < kVectors; ++j) {
        store(lanes.ties + kWidth * j, ties[j]);
        store(lanes.sum + kWidth * j, sum[j]);
        store(lanes.first + kWidth * j, first[j]);
        store(lanes.second + kWidth * j, second[j]);
    }
#else
    for (int i = 0; i < n; ++i) {
        const int k = i % kLanes;
        const float x = l[i];
        if (x == most) lanes.ties[k] += 1;
        if (!(x < most)) continue;
        lanes.second[k] = x > lanes.second[k] ? x : lanes.second[k];
        const float t = (x - most) * per_temperature;
        if (!(t >= kLeastExponent)) continue;
        const float shifted = fma(t, kLog2E, kRound), whole = shifted - kRound;
        const float r = fma(whole, -kLn2Low, fma(whole, -kLn2High, t));
        float q = fma(kExp[0], r, kExp[1]);
        q = fma(q, r, kExp[2]);
        q = fma(q, r, kExp[3]);
        q = fma(q, r * r, r) + 1.0f;
        const float e =
            bit_cast<float>(bit_cast<int32_t>(q) + static_cast<int32_t>(bit_cast<uint32_t>(shifted) << 23));
        lanes.sum[k] += e;
        lanes.first[k] = fma(e, t, lanes.first[k]);
    }
#endif
}

void exp_sums(const float* l, int n, float most, float per_temperature, ExpSums& out) {
    ExpLanes lanes;
    for (int k = 0; k < kLanes; ++k) {
        lanes.ties[k] = lanes.sum[k] = lanes.first[k] = 0;
        lanes.second[k] = kMinusInfinity<float>;
    }
    const int whole = n / kLanes * kLanes;
    add_exps(l, whole, most, per_temperature, lanes);
    if (whole < n) {
        float rest[kLanes];
        for (int k = 0; k < kLanes; ++k) rest[k] = whole + k < n ? l[whole + k] : kMinusInfinity<float>;
        add_exps(rest, kLanes, most, per_temperature, lanes);
    }
    out = {0, 0, 0, kMinusInfinity<float>};
    for (int k = 0; k < kLanes; ++k) {
        out.ties += static_cast<double>(lanes.ties[k]);
        out.sum += static_cast<double>(lanes.sum[k]);
        out.first += static_cast<double>(lanes.first[k]);
        out.second = lanes.second[k] > out.second ? lanes.second[k] : out.second;
    }
}
