// Included by encode_leaves_cpu.cpp once for each SIMD level, inside a namespace named after it.

#if FD_LEVEL == 0

// One point after the other, by the functions that define the result.
template <Wanted W, int N>
void locate_simplex(const Level<float>& level, Bounds bounds, const Points<float>& points, int groups, int,
                    int, const Located<float>& out) {
    constexpr int K = simplex::vertices(N);
    for (int p = 0; p < groups * kGroup; ++p) {
        simplex_at<N, float>(level, bounds, points, p, W, out.index + p / kGroup * K * kGroup + p % kGroup,
                             out.weight + p / kGroup * K * kGroup + p % kGroup,
                             out.axes == nullptr ? nullptr : out.axes + p / kGroup * N * kGroup + p % kGroup);
    }
}

template <Wanted W, int N>
void locate_grid(const Level<float>& level, Bounds bounds, const Points<float>& points, int groups, int first,
                 int count, const Located<float>& out) {
    for (int p = 0; p < groups * kGroup; ++p) {
        const int at = p / kGroup * count * kGroup + p % kGroup;
        grid_at<N, float>(level, bounds, points, p, W, first, count, out.index + at, out.weight + at);
    }
}

#else

struct LaneCell {
    Ints v[kMaxAxes];
    Floats f[kMaxAxes];
    Mask valid;
    bool all_valid;
};

template <int N>
inline LaneCell cell_of_lanes(const Floats* y, Bounds bounds, uint32_t valid) {
    LaneCell cell;
    constexpr uint32_t kAll = (1u << kLanes) - 1;
    cell.valid = lanes_of(valid);
    cell.all_valid = valid == kAll && bounds == Bounds::clamp;
    if (bounds == Bounds::extend) {
        const Floats far = all(0x1p30f), near = all(-0x1p30f);
        FD_UNROLL_LANES
        for (int i = 0; i < N; ++i)
            cell.valid = both(cell.valid, both(greater(y[i], near), greater(far, y[i])));
    }
    FD_UNROLL_LANES
    for (int i = 0; i < N; ++i) {
        Floats whole;
        const Floats inside = cell.all_valid ? y[i] : pick(cell.valid, y[i], all(0.0f));
        cell.v[i] = floor_of_lanes(inside, whole);
        cell.f[i] = minus(y[i], whole);
    }
    return cell;
}

template <int N>
inline void lattice_place(const Level<float>& level, const float* x, int stride, Floats* y) {
    FD_UNROLL_LANES
    for (int i = 0; i < N; ++i) y[i] = fused(all(level.scale), load(x + i * stride), all(level.shift[i]));
}

inline Floats or_nan(const LaneCell& cell, Floats v) {
    return cell.all_valid ? v : pick(cell.valid, v, all(__builtin_nanf("")));
}

// One comparator: the larger f first, payloads with it.
template <int Payloads>
struct Swapped {
    Floats& a;
    Floats& b;
    void operator()(Ints* p, Ints* q, Floats& u, Floats& v, bool with_floats) const {
        const Mask m = greater(b, a);
        const Floats high = pick(m, b, a), low = pick(m, a, b);
        a = high, b = low;
        for (int k = 0; k < Payloads; ++k) {
            const Ints first = pick(m, q[k], p[k]), second = pick(m, p[k], q[k]);
            p[k] = first, q[k] = second;
        }
        if (with_floats) {
            const Floats first = pick(m, v, u), second = pick(m, u, v);
            u = first, v = second;
        }
    }
};

// simplex::DenseNumber inside the cube, where a step along an axis moves the number by a constant; `e` are
// the digits before they wrap, and a wrap moves it by a constant, too. `path` holds numbers of axes.
template <int N>
struct DenseLanes {
    Ints number, jump, whole, e[N], move[N], carry[N];

    DenseLanes(const Level<float>& level, const Ints* v) {
        const uint32_t a = static_cast<uint32_t>(level.a), k = static_cast<uint32_t>(level.k);
        alignas(64) uint32_t jumps[16] = {}, moves[16] = {};
        uint32_t power[N] = {1}, rows = 1, sum = 0;
        FD_UNROLL_LANES
        for (int i = 1; i < N; ++i) power[i] = rows *= a;
        number = N == 1 ? v[0] : times(v[N - 1], all(rows));
        FD_UNROLL_LANES
        for (int i = 0; i < N - 1; ++i) {
            e[i] = minus(v[i], v[N - 1]);
            number = plus(number, i == 0 ? e[0] : times(e[i], all(power[i])));
            carry[i] = all(power[i] * a + k * rows);
            jumps[i] = power[i];
            sum += power[i];
            moves[i] = 1u, moves[N - 1] = ~0u;
            move[i] = load(moves);
            moves[i] = 0u;
        }
        jumps[N - 1] = rows - sum;
        jump = load(jumps);
        whole = all(rows * (a + N * k));
    }

    void step(Ints axis) {
        number = plus(number, chosen(jump, axis));
        FD_UNROLL_LANES
        for (int i = 0; i < N - 1; ++i) e[i] = plus(e[i], chosen(move[i], axis));
    }

    Ints value() const {
        Ints n = number;
        FD_UNROLL_LANES
        for (int i = 0; i < N - 1; ++i) n = plus_where(greater(all(0u), e[i]), n, carry[i]);
        n = smallest(n, plus(n, whole));  // unsigned: a number below 0 is a large one
        return smallest(n, minus(n, whole));
    }
};

constexpr uint32_t kLargestDenseInLanes = 1u << 29;  // twice the number of entries must not overflow

template <Wanted W, int N>
void locate_simplex(const Level<float>& level, Bounds bounds, const Points<float>& points, int groups, int,
                    int, const Located<float>& out) {
    constexpr int K = simplex::vertices(N);
    constexpr bool slopes = W == Wanted::slopes;
    if (level.dense && (bounds == Bounds::extend || level.size > kLargestDenseInLanes)) {
        return scalar::locate_simplex<W, N>(level, bounds, points, groups, 0, K, out);
    }
    const Floats skew = all(simplex::skew<float>(N)), scale = all(level.scale);
    for (int p = 0; p < groups * kGroup; p += kLanes) {
        const int at = p / kGroup * K * kGroup + p % kGroup;
        Floats y[N];
        lattice_place<N>(level, points.x + p, points.stride, y);
        Floats sum = y[0];
        FD_UNROLL_LANES
        for (int i = 1; i < N; ++i) sum = plus(sum, y[i]);
        FD_UNROLL_LANES
        for (int i = 0; i < N; ++i) y[i] = fused(skew, sum, y[i]);
        LaneCell cell = cell_of_lanes<N>(y, bounds, points.valid[p / kGroup] >> (p % kGroup));

        // Payload 0: what the hash changes by, or the axis; payload 1: the axis.
        Ints path[N][2], hash = all(0u);
        Floats along[N], total = all(0.0f);
        FD_UNROLL_LANES
        for (int i = 0; i < N; ++i) {
            if (level.dense) {
                path[i][0] = all(static_cast<uint32_t>(i));
            } else {
                const Ints prime = all(hash_prime(i));
                const Ints product = i == 0 ? cell.v[0] : times(cell.v[i], prime);
                path[i][0] = exclusive(product, plus(product, prime));
                hash = i == 0 ? product : exclusive(hash, product);
            }
            path[i][1] = all(static_cast<uint32_t>(i));
            if (slopes) {
                along[i] = load(points.u + i * points.stride + p);
                total = i == 0 ? along[0] : plus(total, along[i]);
            } else {
                along[i] = total;
            }
        }
        if (out.axes != nullptr) {
            simplex::sorting_network<N>([&](int i, int j) {
                Swapped<2>{cell.f[i], cell.f[j]}(path[i], path[j], along[i], along[j], slopes);
            });
            FD_UNROLL_LANES
            for (int k = 0; k < N; ++k)
                store(out.axes + p / kGroup * N * kGroup + k * kGroup + p % kGroup, path[k][1]);
        } else {
            simplex::sorting_network<N>([&](int i, int j) {
                Swapped<1>{cell.f[i], cell.f[j]}(path[i], path[j], along[i], along[j], slopes);
            });
        }

        float* weight = out.weight + at;
        if (slopes) {
            store(weight, or_nan(cell, minus(all(-0.0f), times(scale, fused(skew, total, along[0])))));
            FD_UNROLL_LANES
            for (int k = 1; k < N; ++k)
                store(weight + k * kGroup, or_nan(cell, times(scale, minus(along[k - 1], along[k]))));
            store(weight + N * kGroup, or_nan(cell, times(scale, fused(skew, total, along[N - 1]))));
        } else {
            store(weight, or_nan(cell, minus(all(1.0f), cell.f[0])));
            FD_UNROLL_LANES
            for (int k = 1; k < N; ++k)
                store(weight + k * kGroup, or_nan(cell, minus(cell.f[k - 1], cell.f[k])));
            store(weight + N * kGroup, or_nan(cell, cell.f[N - 1]));
        }

        uint32_t* index = out.index + at;
        if (level.dense) {
            DenseLanes<N> dense(level, cell.v);
            store(index, dense.value());
            FD_UNROLL_LANES
            for (int k = 0; k < N; ++k) {
                dense.step(path[k][0]);
                store(index + (k + 1) * kGroup, dense.value());
            }
        } else {
            const Ints mask = all(level.mask);
            store(index, common(hash, mask));
            FD_UNROLL_LANES
            for (int k = 0; k < N; ++k) {
                hash = exclusive(hash, path[k][0]);
                store(index + (k + 1) * kGroup, common(hash, mask));
            }
        }
    }
}

template <Wanted W, int N>
void locate_grid(const Level<float>& level, Bounds bounds, const Points<float>& points, int groups, int first,
                 int count, const Located<float>& out) {
    if ((bounds == Bounds::extend && level.dense) || W == Wanted::slopes) {
        return scalar::locate_grid<W, N>(level, bounds, points, groups, first, count, out);
    }
    // A vertex is a choice for each axis; those of the first three axes are combined once for all vertices.
    constexpr int kLow = N < 3 ? N : 3, kLowVertices = 1 << kLow;
    const Ints size = all(level.size), mask = all(level.mask);
    for (int p = 0; p < groups * kGroup; p += kLanes) {
        const int at = p / kGroup * count * kGroup + p % kGroup;
        Floats y[N];
        lattice_place<N>(level, points.x + p, points.stride, y);
        const LaneCell cell = cell_of_lanes<N>(y, bounds, points.valid[p / kGroup] >> (p % kGroup));
        Ints part[N][2];
        Floats factor[N][2];
        uint32_t stride = 1;
        FD_UNROLL_LANES
        for (int i = 0; i < N; ++i) {
            if (level.dense) {
                part[i][0] = i == 0 ? cell.v[0] : times(cell.v[i], all(stride));
                part[i][1] = plus(part[i][0], all(stride));
                stride *= static_cast<uint32_t>(level.a);
            } else {
                part[i][0] = i == 0 ? cell.v[0] : times(cell.v[i], all(hash_prime(i)));
                part[i][1] = plus(part[i][0], all(hash_prime(i)));
            }
            factor[i][0] = minus(all(1.0f), cell.f[i]);
            factor[i][1] = cell.f[i];
        }
        const auto joined = [&](Ints a, Ints b) { return level.dense ? plus(a, b) : exclusive(a, b); };
        Ints low_index[kLowVertices];
        Floats low_weight[kLowVertices];
        FD_UNROLL_LANES
        for (int k = 0; k < kLowVertices; ++k) {
            low_index[k] = part[0][k & 1];
            low_weight[k] = factor[0][k & 1];
            FD_UNROLL_LANES
            for (int i = 1; i < kLow; ++i) {
                low_index[k] = joined(low_index[k], part[i][k >> i & 1]);
                low_weight[k] = times(low_weight[k], factor[i][k >> i & 1]);
            }
        }
        for (int k = first; k < first + count; k += kLowVertices) {
            FD_UNROLL_LANES
            for (int j = 0; j < kLowVertices; ++j) {
                Ints index = low_index[j];
                Floats weight = low_weight[j];
                FD_UNROLL_LANES
                for (int i = kLow; i < N; ++i) {
                    index = joined(index, part[i][k >> i & 1]);
                    weight = times(weight, factor[i][k >> i & 1]);
                }
                index =
                    level.dense ? pick(greater(size, index), index, minus(index, size)) : common(index, mask);
                store(out.index + at + (k - first + j) * kGroup, index);
                store(out.weight + at + (k - first + j) * kGroup, or_nan(cell, weight));
            }
        }
    }
}

#endif
