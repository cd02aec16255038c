// A tour cut into pieces whose ends are joined anew, without touching the tour: which cycles come out, how
// they are merged into one, what it costs. Work grows with the number of cuts, not with the tour.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "tsp/moves.h"
#include "tsp/problem.h"
#include "tsp/tour.h"

namespace fd::tsp {

template <class Distance>
class Pieces {
  public:
    Pieces(const Problem& problem, const Neighbours& near, Distance distance)
        : problem_(problem), near_(near), distance_(distance) {}

    using Pair = std::pair<City, City>;
    Total gain = 0;
    std::vector<Pair> removed, added;

    // Replaces the A-edges of an alternating cycle by its B-edges and merges what falls apart. False if
    // candidate edges do not suffice to merge.
    bool rejoin(const Tour& tour, std::span<const City> cycle) {
        tour_ = &tour;
        gain = 0;
        removed.clear(), added.clear();
        place_.clear(), join_.clear(), order_.clear();
        const size_t cuts = cycle.size() / 2;
        std::vector<int32_t>& ends = ends_;  // of the cities on the cycle
        ends.clear();
        for (size_t j = 0; j < cuts; ++j) {
            const City a = cycle[2 * j], b = cycle[2 * j + 1];
            const bool forward = tour.next(a) == b;
            place_.push_back(tour.place(forward ? a : b));
            const int32_t first = static_cast<int32_t>(2 * j);
            ends.push_back(forward ? first : first + 1);
            ends.push_back(forward ? first + 1 : first);
            removed.push_back({a, b});
            gain += distance_(a, b);
        }
        join_.resize(2 * cuts);
        for (size_t j = 0; j < cuts; ++j) {
            const size_t k = 2 * j + 1, l = k + 1 < cycle.size() ? k + 1 : 0;
            link_ends(ends[k], ends[l]);
            added.push_back({cycle[k], cycle[l]});
            gain -= distance_(cycle[k], cycle[l]);
        }
        for (size_t j = 0; j < cuts; ++j) order_.push_back(static_cast<int32_t>(j));
        std::sort(order_.begin(), order_.end(), [&](int32_t x, int32_t y) { return place_[x] < place_[y]; });
        for (label(); sizes_.size() > 1; label()) {
            if (!merge_smallest()) return false;
        }
        return true;
    }

    // The tour that the last successful rejoin describes.
    void write(std::vector<City>& tour) const {
        tour.clear();
        const int32_t start = first_end(0);
        int32_t end = start;
        do {
            const int32_t other = far_end(end);
            const int32_t step = (end & 1) != 0 ? 1 : -1, n = tour_->size();
            int32_t at = place_of(end);
            for (const int32_t last = place_of(other);; at += step) {
                if (at < 0) at += n;
                if (at >= n) at -= n;
                tour.push_back(tour_->at(at));
                if (at == last) break;
            }
            end = join_[other];
        } while (end != start);
    }

  private:
    // Cut j lies after place_[j]: end 2 j is the city there, end 2 j + 1 the one after. Piece i begins at the
    // i-th cut by place.
    City city(int32_t end) const { return tour_->at(place_[end >> 1] + (end & 1)); }
    int32_t place_of(int32_t end) const {
        const int32_t at = place_[end >> 1] + (end & 1);
        return at == tour_->size() ? 0 : at;
    }
    int32_t pieces() const { return static_cast<int32_t>(order_.size()); }
    int32_t first_end(int32_t piece) const { return 2 * order_[piece] + 1; }
    int32_t last_end(int32_t piece) const { return 2 * order_[piece + 1 < pieces() ? piece + 1 : 0]; }
    int32_t piece_of_end(int32_t end) const {
        const int32_t rank = rank_[end >> 1];
        return (end & 1) != 0 ? rank : rank > 0 ? rank - 1 : pieces() - 1;
    }
    int32_t far_end(int32_t end) const {
        const int32_t piece = piece_of_end(end);
        return (end & 1) != 0 ? last_end(piece) : first_end(piece);
    }
    int32_t piece_at(int32_t place) const {
        const auto after = std::lower_bound(order_.begin(), order_.end(), place,
                                            [&](int32_t cut, int32_t at) { return place_[cut] < at; });
        return static_cast<int32_t>(after == order_.begin() ? order_.size() - 1 : after - order_.begin() - 1);
    }

    // An edge that comes and goes again is in neither list.
    void note(std::vector<Pair>& list, std::vector<Pair>& opposite, City a, City b) {
        const auto same = [&](const Pair& edge) { return edge == Pair{a, b} || edge == Pair{b, a}; };
        const auto known = std::find_if(opposite.begin(), opposite.end(), same);
        if (known == opposite.end()) {
            list.push_back({a, b});
        } else {
            *known = opposite.back();
            opposite.pop_back();
        }
    }
    void link_ends(int32_t x, int32_t y) { join_[x] = y, join_[y] = x; }

    // Numbers the cycles that the pieces form.
    void label() {
        rank_.resize(order_.size());
        for (int32_t i = 0; i < pieces(); ++i) rank_[order_[i]] = i;
        label_.assign(order_.size(), -1);
        sizes_.clear();
        for (int32_t i = 0; i < pieces(); ++i) {
            if (label_[i] >= 0) continue;
            int32_t size = 0;
            const int32_t start = first_end(i);
            for (int32_t end = start;;) {
                const int32_t piece = piece_of_end(end);
                label_[piece] = static_cast<int32_t>(sizes_.size());
                size += length(piece);
                end = join_[far_end(end)];
                if (end == start) break;
            }
            sizes_.push_back(size);
        }
    }

    int32_t length(int32_t piece) const {
        const int32_t steps = place_of(last_end(piece)) - place_of(first_end(piece));
        return (steps < 0 ? steps + tour_->size() : steps) + 1;
    }

    // One of the two edges at a city: of the tour, after `place`, or a joined end of a piece.
    struct Link {
        City from, to;
        int32_t place = -1, end = -1;
    };
    Link link(int32_t place, int32_t piece, bool forward) const {
        const City from = tour_->at(place);
        const int32_t end = forward ? last_end(piece) : first_end(piece);
        if (place_of(end) == place) return {from, city(join_[end]), -1, end};
        const int32_t before = place > 0 ? place - 1 : tour_->size() - 1;
        return forward ? Link{from, tour_->next(from), place, -1} : Link{from, tour_->at(before), before, -1};
    }

    // Opens a link: the ends at its two cities.
    std::pair<int32_t, int32_t> open(const Link& l) {
        if (l.end >= 0) return {l.end, join_[l.end]};
        const int32_t cut = static_cast<int32_t>(place_.size());
        place_.push_back(l.place);
        join_.resize(join_.size() + 2);
        const auto at = std::lower_bound(order_.begin(), order_.end(), l.place,
                                         [&](int32_t c, int32_t p) { return place_[c] < p; });
        order_.insert(at, cut);
        return tour_->at(l.place) == l.from ? std::pair{2 * cut, 2 * cut + 1}
                                            : std::pair{2 * cut + 1, 2 * cut};
    }

    void exchange(const Link& ours, const Link& theirs, Total gained) {
        gain += gained;
        note(removed, added, ours.from, ours.to), note(removed, added, theirs.from, theirs.to);
        const auto [a, a_to] = open(ours);
        const auto [b, b_to] = open(theirs);
        link_ends(a, b), link_ends(a_to, b_to);
        note(added, removed, ours.from, theirs.from), note(added, removed, ours.to, theirs.to);
    }

    // Exchanges an edge of the smallest cycle and one of another for two that connect them, the cheapest such
    // pair of which one is a candidate edge.
    bool merge_smallest() {
        const int32_t smallest =
            static_cast<int32_t>(std::min_element(sizes_.begin(), sizes_.end()) - sizes_.begin());
        Total best = std::numeric_limits<Total>::min();
        Link ours, theirs;
        for (int32_t piece = 0; piece < pieces(); ++piece) {
            if (label_[piece] != smallest) continue;
            int32_t at = place_of(first_end(piece));
            for (int32_t left = length(piece); left > 0; --left, at = at + 1 < tour_->size() ? at + 1 : 0) {
                const Link mine[2] = {link(at, piece, true), link(at, piece, false)};
                const City a = mine[0].from;
                const Edge open[2] = {distance_(a, mine[0].to), distance_(a, mine[1].to)};
                const Neighbours::Slot* near = near_.of(a);
                for (City k = 0; k < near_.width() && near[k].length < std::numeric_limits<Edge>::max();
                     ++k) {
                    const City b = near[k].city;
                    const int32_t there = tour_->place(b), other = piece_at(there);
                    if (label_[other] == smallest) continue;
                    for (const bool forward : {true, false}) {
                        const Link yours = link(there, other, forward);
                        const Total freed = Total{distance_(b, yours.to)} - near[k].length;
                        for (int m = 0; m < 2; ++m) {
                            const Total now = freed + open[m] - distance_(mine[m].to, yours.to);
                            if (now <= best || problem_.is_fixed(a, mine[m].to) ||
                                problem_.is_fixed(b, yours.to))
                                continue;
                            best = now, ours = mine[m], theirs = yours;
                        }
                    }
                }
            }
        }
        if (best == std::numeric_limits<Total>::min()) return false;
        exchange(ours, theirs, best);
        return true;
    }

    const Problem& problem_;
    const Neighbours& near_;
    Distance distance_;
    const Tour* tour_ = nullptr;
    std::vector<int32_t> place_;  // of each cut
    std::vector<int32_t> join_;   // the end that each end is joined to
    std::vector<int32_t> order_;  // cuts by place
    std::vector<int32_t> rank_;   // places in order_
    std::vector<int32_t> label_, sizes_, ends_;
};

}  // namespace fd::tsp
