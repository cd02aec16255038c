// Candidate lists: which neighbours of a city a search tries.
#pragma once

#include <initializer_list>
#include <vector>

#include "tsp/problem.h"

namespace fd::tsp {

// The neighbourhood that candidates are chosen from and that alpha-nearness is worked out on: the `nearest`
// nearest cities and `per_quadrant` more in each quadrant, in ascending length. Copies of a point and the
// depot as build_problem says.
Candidates neighbour_lists(const Problem& problem, City nearest = 10, City per_quadrant = 2);

// Neighbours of every city, best first, -1 ends a list: by heat, by alpha.
struct Preferred {
    const City* city = nullptr;  // [n, width], the problem's numbering
    City width = 0;
};

// At most `width` candidates a city, the depot not counted, in ascending length: of `near` (neighbour_lists)
// the five nearest, of each preferred list the five best, in turn by rank until `width` are found; then the
// nearest again.
Candidates choose_candidates(const Problem& problem, const Candidates& near, City width,
                             std::initializer_list<Preferred> preferred);

}  // namespace fd::tsp
