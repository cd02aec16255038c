#pragma once

#include <pybind11/pybind11.h>

namespace fd::tsp {

// Adds TourProblem and the searches to a module.
void bind_search(pybind11::module_& m);

}  // namespace fd::tsp
