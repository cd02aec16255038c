// From what the caller has (points or a matrix, heat, fixed edges) to what the searches take.
#pragma once

#include <cstdint>
#include <vector>

#include "tsp/heat.h"
#include "tsp/problem.h"

namespace fd::tsp {

// Everything in the caller's numbering. Arrays are borrowed, and values are finite: callers check that.
struct BuildOptions {
    int64_t n = 0;
    const double* xy = nullptr;    // [n, 2] for every metric but explicit_matrix; GEO as the file has it
    const Edge* matrix = nullptr;  // [n, n], explicit_matrix only
    Metric metric = Metric::euclidean;
    bool open = false;            // adds city n, the depot
    const City* fixed = nullptr;  // [fixed_count, 2]; the depot is city n
    int64_t fixed_count = 0;
    HeatLists heat;
    City candidates = 8;  // at most so many a city; the depot of an open path comes on top
};

// Raises std::invalid_argument where edges cannot all be in one tour, or coordinates cannot be scaled.
//
// Exact duplicates stay cities of their own. They are neighbours in the problem's numbering, copies
// c_1 .. c_m of a point; some shortest tour visits them in a row. So each copy has its predecessor and
// successor for candidates, and only c_1 and c_m know other points (of which they see the first and last
// copy): neighbour lists never fill up with copies, and no number of copies cuts a point off.
Problem build_problem(const BuildOptions& options);

// The problem's number of each of the caller's cities; the depot's is n - 1 on both sides.
std::vector<City> problem_numbers(const Problem& problem);

}  // namespace fd::tsp
