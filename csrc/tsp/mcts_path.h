// A tour with one edge removed, on which 2-opt steps at the open end are tried without touching the tour.
//
// A step joins the open end to a city further on, and removes the edge from that city's predecessor, which
// becomes the new end: the part before the city is reversed. After k steps the path consists of at most k + 2
// pieces of the tour, so a step costs O(k), whatever the length that it reverses, and giving up costs
// nothing.
//
// A piece says between which boundaries of the tour's places it runs, in the path's direction. Place p lies
// between 2 p - 1 and 2 p + 1: a place is in the piece (from, to) if 2 p is between the two, and the reversed
// piece is (to, from), also for single places.
#pragma once

#include <cstdint>
#include <vector>

#include "common/simd.h"

#if FD_X86
#include <immintrin.h>
#endif

namespace fd::tsp {

struct Piece {
    int32_t from, to;

    FD_HOST_DEVICE int32_t direction() const { return from < to ? 1 : -1; }
    FD_HOST_DEVICE int32_t first() const { return (from + direction()) >> 1; }
    FD_HOST_DEVICE int32_t last() const { return (to - direction()) >> 1; }
};

namespace detail {

// Without a branch, of which a processor would mispredict every other one.
FD_HOST_DEVICE int32_t select(bool which, int32_t a, int32_t b) {
    return b ^ ((a ^ b) & -static_cast<int32_t>(which));
}

// The first piece that holds `place`. (2 p - from) and (2 p - to) have different signs there, so the sign of
// their exclusive or says it.
FD_HOST_DEVICE int32_t find_piece(const Piece* pieces, int32_t place) {
    int32_t at = 0;
    while (((2 * place - pieces[at].from) ^ (2 * place - pieces[at].to)) >= 0) ++at;
    return at;
}

// Turns a path of pieces around.
FD_HOST_DEVICE void reverse_pieces(Piece* low, Piece* high) {
    while (low < high) {
        --high;
        const Piece a = *low, b = *high;
        *low++ = {b.to, b.from};
        *high = {a.to, a.from};
    }
}

#if FD_X86
FD_TARGET_AVX512 inline uint32_t pieces_that_hold_avx512(const Piece* eight, __m512i twice) {
    const __m512i d = _mm512_sub_epi32(twice, _mm512_loadu_si512(eight));
    const __m512i signs = _mm512_xor_si512(d, _mm512_shuffle_epi32(d, _MM_PERM_CDAB));
    return _cvtmask8_u32(_mm512_movepi64_mask(signs));
}

// Sixteen at once, which is most often enough: a branch that depends on the place is a branch mispredicted.
FD_TARGET_AVX512 inline int32_t find_piece_avx512(const Piece* pieces, int32_t place) {
    const __m512i twice = _mm512_set1_epi32(2 * place);
    for (int32_t at = 0;; at += 16) {
        const uint32_t mask = pieces_that_hold_avx512(pieces + at, twice) |
                              pieces_that_hold_avx512(pieces + at + 8, twice) << 8;
        if (mask != 0) [[likely]]
            return at + __builtin_ctz(mask);
    }
}

FD_TARGET_AVX512 inline void reverse_pieces_avx512(Piece* low, Piece* high) {
    const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i turn = _mm512_sub_epi32(_mm512_set1_epi32(15), lanes);
    for (; high - low > 16; low += 8, high -= 8) {
        const __m512i a = _mm512_loadu_si512(low), b = _mm512_loadu_si512(high - 8);
        _mm512_storeu_si512(low, _mm512_permutexvar_epi32(turn, b));
        _mm512_storeu_si512(high - 8, _mm512_permutexvar_epi32(turn, a));
    }
    // The first eight and up to eight more, each to its place from the end downwards.
    const int32_t left = static_cast<int32_t>(high - low);
    const uint32_t from = (1u << left) - 1, to = 0xffff0000u >> left;
    const __m512i a = _mm512_maskz_loadu_epi64(_cvtu32_mask8(from), low);
    const __m512i b = _mm512_maskz_loadu_epi64(_cvtu32_mask8(from >> 8), low + 8);
    _mm512_mask_storeu_epi64(high - 8, _cvtu32_mask8(to >> 8), _mm512_permutexvar_epi32(turn, a));
    _mm512_mask_storeu_epi64(high - 16, _cvtu32_mask8(to), _mm512_permutexvar_epi32(turn, b));
}

FD_TARGET_AVX2 inline int32_t find_piece_avx2(const Piece* pieces, int32_t place) {
    const __m256i twice = _mm256_set1_epi32(2 * place);
    for (int32_t at = 0;; at += 4) {
        const __m256i four = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(pieces + at));
        const __m256i d = _mm256_sub_epi32(twice, four);
        const __m256i signs = _mm256_xor_si256(d, _mm256_shuffle_epi32(d, 0xb1));
        const int mask = _mm256_movemask_pd(_mm256_castsi256_pd(signs));
        if (mask != 0) return at + __builtin_ctz(mask);
    }
}

FD_TARGET_AVX2 inline void reverse_pieces_avx2(Piece* low, Piece* high) {
    const __m256i turn = _mm256_set_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    for (; high - low >= 8; low += 4, high -= 4) {
        __m256i *p = reinterpret_cast<__m256i*>(low), *q = reinterpret_cast<__m256i*>(high - 4);
        const __m256i a = _mm256_loadu_si256(p), b = _mm256_loadu_si256(q);
        _mm256_storeu_si256(p, _mm256_permutevar8x32_epi32(b, turn));
        _mm256_storeu_si256(q, _mm256_permutevar8x32_epi32(a, turn));
    }
    reverse_pieces(low, high);
}
#endif

template <simd::Level L>
FD_HOST_DEVICE int32_t find_piece_at(const Piece* pieces, int32_t place) {
#if FD_X86
    if constexpr (L == simd::Level::avx512) return find_piece_avx512(pieces, place);
    if constexpr (L == simd::Level::avx2) return find_piece_avx2(pieces, place);
#endif
    return find_piece(pieces, place);
}

template <simd::Level L>
FD_HOST_DEVICE void reverse_pieces_at(Piece* low, Piece* high) {
#if FD_X86
    if constexpr (L == simd::Level::avx512) return reverse_pieces_avx512(low, high);
    if constexpr (L == simd::Level::avx2) return reverse_pieces_avx2(low, high);
#endif
    reverse_pieces(low, high);
}

}  // namespace detail

// Where the path's open end is, and the place after it.
struct OpenEnd {
    int32_t place, second;
};

class CutPath {
  public:
    // Room for `steps` steps on a tour of n >= 3 cities.
    CutPath(int32_t n, int32_t steps)
        : n_(n), end_(kAhead + steps + 2), pieces_(static_cast<size_t>(end_) + kAhead, Piece{0, 0}) {}

    // The path that starts at place `start` and runs through all n places; downwards if `mirrored`.
    FD_HOST_DEVICE OpenEnd cut(int32_t start, bool mirrored) {
        head_ = pieces_.data() + end_ - 2;
        const int32_t direction = mirrored ? -1 : 1, before = 2 * start - direction;
        head_[0] = {before, mirrored ? -1 : 2 * n_ - 1};
        head_[1] = {mirrored ? 2 * n_ - 1 : -1, before};
        const int32_t next = start + direction;
        return {start, next < 0 ? n_ - 1 : next == n_ ? 0 : next};
    }

    // The place before `place`, which must not be the open end.
    FD_HOST_DEVICE int32_t before(int32_t place) const {
        const Piece* piece = head_ + detail::find_piece(head_, place);
        const int32_t direction = piece->direction();
        return piece->from + direction != 2 * place ? place - direction : piece[-1].last();
    }

    // Joins the open end to `place`, which must be neither the end nor the place after it.
    template <simd::Level L>
    FD_HOST_DEVICE OpenEnd step(int32_t place) {
        Piece* piece = head_ + detail::find_piece_at<L>(head_, place);
        const Piece whole = *piece;
        const int32_t boundary = 2 * place - whole.direction();
        const bool split = whole.from != boundary;
        // What will be the first piece, and what the second, seen before they are turned around.
        const Piece first{detail::select(split, whole.from, piece[-1].from),
                          detail::select(split, boundary, piece[-1].to)};
        const int32_t direction = first.direction(), end = first.last();
        const int32_t second =
            detail::select(first.from + 2 * direction != first.to, end - direction, piece[split - 2].last());
        detail::reverse_pieces_at<L>(head_, piece);
        piece->from = boundary;  // as it was, if it was not split
        head_ -= split;
        *head_ = {first.to, first.from};
        return {end, second};
    }

    const Piece* begin() const { return head_; }
    const Piece* end() const { return pieces_.data() + end_; }

  private:
    // Pieces before the head and past the end that may be read, but hold no place.
    static constexpr int32_t kAhead = 16;

    int32_t n_, end_;
    std::vector<Piece> pieces_;
    Piece* head_ = nullptr;
};

}  // namespace fd::tsp
