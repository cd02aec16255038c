// The searches as Python objects. Tours and ids are int32 arrays in the caller's numbering; the depot of an
// open path never shows: a path begins where it was cut.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>  // std::optional

#include <algorithm>
#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

#include "tsp/alpha.h"
#include "tsp/build_problem.h"
#include "tsp/candidates.h"
#include "tsp/greedy.h"
#include "tsp/ils.h"
#include "tsp/mcts.h"
#include "tsp/recombine.h"
#include "tsp/search_bind.h"

namespace py = pybind11;

namespace fd::tsp {
namespace {

constexpr auto kDense = py::array::c_style | py::array::forcecast;
template <class T>
using Array = py::array_t<T, kDense>;
using Order = Array<City>;
// Candidates of a city. With alpha-nearness five are enough, and the search is twice as fast as with eight.
constexpr City kNearest = 8, kNearestAndAlpha = 5;
constexpr double kForever = std::numeric_limits<double>::infinity();

Metric metric_of(const std::string& name) {
    constexpr const char* names[] = {"euclidean", "euc_2d", "ceil_2d", "man_2d", "max_2d", "att", "geo"};
    for (int32_t k = 0; k < 7; ++k) {
        if (name == names[k]) return static_cast<Metric>(k);
    }
    throw std::invalid_argument(
        "metric must be euclidean, euc_2d, ceil_2d, man_2d, max_2d, att or geo, got '" + name + "'");
}

template <class T>
void expect_shape(const char* name, const Array<T>& a, int64_t rows, int64_t columns) {
    if (a.ndim() == 2 && (rows < 0 || a.shape(0) == rows) && (columns < 0 || a.shape(1) == columns)) return;
    const auto text = [](int64_t v) { return v < 0 ? std::string("any") : std::to_string(v); };
    throw std::invalid_argument(std::string(name) + " must have shape [" + text(rows) + ", " + text(columns) +
                                "]");
}

template <class T>
py::array_t<T> to_array(const std::vector<T>& v) {
    return py::array_t<T>(static_cast<py::ssize_t>(v.size()), v.data());
}

// A problem, its heat, and translation between both numberings.
class TourProblem {
  public:
    TourProblem(const std::optional<Array<double>>& coords, const std::optional<Array<Edge>>& matrix,
                const std::string& metric, bool open_path, const std::optional<Array<City>>& fixed,
                const std::optional<Array<City>>& heat_ids, const std::optional<Array<float>>& heat,
                std::optional<City> candidates, std::optional<bool> alpha, std::optional<double> seconds) {
        BuildOptions options;
        if (coords.has_value() == matrix.has_value())
            throw std::invalid_argument("give either coords or matrix");
        if (coords) {
            expect_shape("coords", *coords, -1, 2);
            options.n = coords->shape(0), options.xy = coords->data(), options.metric = metric_of(metric);
        } else {
            expect_shape("matrix", *matrix, -1, matrix->shape(0));
            options.n = matrix->shape(0), options.matrix = matrix->data();
            options.metric = Metric::explicit_matrix;
        }
        options.open = open_path;
        if (fixed) {
            expect_shape("fixed", *fixed, -1, 2);
            options.fixed = fixed->data(), options.fixed_count = fixed->shape(0);
        }
        if (heat_ids.has_value() != heat.has_value())
            throw std::invalid_argument("heat_ids and heat come together");
        if (heat) {
            expect_shape("heat_ids", *heat_ids, options.n, -1);
            expect_shape("heat", *heat, options.n, heat_ids->shape(1));
            options.heat = {heat_ids->data(), heat->data(), heat->shape(1)};
        }
        options.candidates = candidates.value_or(kNearest);
        cities_ = static_cast<City>(options.n);
        py::gil_scoped_release release;
        problem = build_problem(options);
        numbers_ = problem_numbers(problem);
        heat_ = arrange_heat(problem, options.heat);
        const int32_t trees = worthwhile_trees(problem.n, alpha.has_value() ? kForever : seconds.value_or(0));
        if (alpha.value_or(true) && trees > 0) use_alpha(candidates.value_or(kNearestAndAlpha), trees);
    }

    City n() const { return cities_; }
    double lower_bound() const { return lower_bound_; }

    // Into the problem's numbering, the depot at the end.
    std::vector<City> numbered(const Order& order) const {
        if (order.ndim() != 1 || order.shape(0) != cities_)
            throw std::invalid_argument("a tour of these " + std::to_string(cities_) + " cities has shape [" +
                                        std::to_string(cities_) + "]");
        std::vector<City> cities(order.data(), order.data() + cities_);
        std::vector<uint8_t> seen(cities_, 0);
        for (City& c : cities) {
            if (c < 0 || c >= cities_ || seen[c]++)
                throw std::invalid_argument("a tour visits every city once; " + std::to_string(c) +
                                            " comes twice or is no city");
            c = numbers_[c];
        }
        if (problem.open) cities.push_back(problem.n - 1);
        return cities;
    }

    // Into the caller's numbering, cut at the depot.
    Order original(std::vector<City> cities) const {
        if (problem.open) {
            std::rotate(cities.begin(), std::find(cities.begin(), cities.end(), problem.n - 1), cities.end());
            cities.erase(cities.begin());
        }
        for (City& c : cities) c = problem.original[c];
        return to_array(cities);
    }

    std::vector<City> greedy() const { return greedy_tour(problem, heat_); }

    Total length(const std::vector<City>& cities) const {
        return problem.with_distance([&](auto distance) {
            Total sum = 0;
            for (size_t k = 0; k < cities.size(); ++k)
                sum += distance(cities[k], cities[k + 1 == cities.size() ? 0 : k + 1]);
            return sum;
        });
    }

    // [n, width] in the caller's numbering, -1 where a list is shorter or names the depot.
    Order candidate_ids() const {
        const City width = problem.candidates.width;
        Order ids({cities_, width});
        for (City i = 0; i < cities_; ++i) {
            const City* list = problem.candidates.cities_of(numbers_[i]);
            for (City k = 0; k < width; ++k)
                ids.mutable_at(i, k) = list[k] < 0 ? -1 : problem.original[list[k]];
        }
        return ids;
    }

    Problem problem;

  private:
    void use_alpha(City candidates, int32_t trees) {
        const Candidates near = neighbour_lists(problem);
        AlphaOptions options;
        options.trees = trees;
        const AlphaResult alpha = alpha_nearness(problem, near, options);
        lower_bound_ = alpha.lower_bound;
        problem.candidates =
            choose_candidates(problem, near, candidates,
                              {{heat_.city.data(), heat_.width}, {alpha.nearest.data(), alpha.width}});
    }

    City cities_;
    std::vector<City> numbers_;
    Heat heat_;
    double lower_bound_ = 0;
};

std::unique_ptr<IlsSearch> make_ils(const TourProblem& owner, const IlsOptions& options,
                                    const std::optional<Order>& start) {
    std::vector<City> tour;
    if (start) tour = owner.numbered(*start);
    py::gil_scoped_release release;
    if (!start) tour = owner.greedy();
    return std::make_unique<IlsSearch>(owner.problem, options, tour);
}

struct Mcts {
    const TourProblem& owner;
    std::unique_ptr<MctsSearch> search;
};

Mcts make_mcts(const TourProblem& owner, const MctsOptions& options, const std::optional<Order>& start,
               const std::optional<Array<City>>& heat_ids, const std::optional<Array<float>>& heat) {
    HeatLists lists;
    if (heat_ids.has_value() != heat.has_value())
        throw std::invalid_argument("heat_ids and heat come together");
    if (heat) {
        expect_shape("heat_ids", *heat_ids, owner.n(), -1);
        expect_shape("heat", *heat, owner.n(), heat_ids->shape(1));
        lists = {heat_ids->data(), heat->data(), heat->shape(1)};
    }
    std::vector<City> tour;
    if (start) tour = owner.numbered(*start);
    py::gil_scoped_release release;
    return {owner, std::make_unique<MctsSearch>(owner.problem, lists, options, tour)};
}

void bind_mcts(py::module_& m) {
    const auto read = [](auto MctsState::* member) {
        return [member](const Mcts& s) { return s.search->state().*member; };
    };
    py::class_<Mcts>(m, "MctsSearch", "Heat-guided search by sampled k-opt moves.")
        .def(py::init([](const TourProblem& owner, uint64_t seed, uint32_t instance, uint32_t trajectory,
                         const std::optional<Order>& start, std::optional<double> time_limit,
                         std::optional<int64_t> max_actions, const std::optional<Array<City>>& heat_ids,
                         const std::optional<Array<float>>& heat, double alpha, double beta, double param_h,
                         City max_candidates, bool candidates_from_heatmap, int32_t max_depth,
                         bool exact_ucb) {
                 MctsOptions options{seed, instance, trajectory};
                 options.time_limit = time_limit.value_or(kForever);
                 options.max_actions = max_actions.value_or(-1);
                 options.alpha = alpha, options.beta = beta, options.param_h = param_h;
                 options.max_candidates = max_candidates, options.max_depth = max_depth;
                 options.candidates_from_heatmap = candidates_from_heatmap, options.exact_ucb = exact_ucb;
                 return make_mcts(owner, options, start, heat_ids, heat);
             }),
             py::keep_alive<1, 2>(), py::arg("problem"), py::arg("seed") = 0, py::arg("instance") = 0,
             py::arg("trajectory") = 0, py::arg("start") = py::none(), py::arg("time_limit") = py::none(),
             py::arg("max_actions") = py::none(), py::kw_only(), py::arg("heat_ids") = py::none(),
             py::arg("heat") = py::none(), py::arg("alpha") = 1.0, py::arg("beta") = 10.0,
             py::arg("param_h") = 10.0, py::arg("max_candidates") = 1000,
             py::arg("candidates_from_heatmap") = true, py::arg("max_depth") = 10,
             py::arg("exact_ucb") = false)
        .def(
            "run", [](Mcts& s, double seconds) { return s.search->run(seconds); }, py::arg("seconds"),
            py::call_guard<py::gil_scoped_release>())
        .def("best", [](const Mcts& s) { return s.owner.original(s.search->best()); })
        .def_property_readonly("best_length", read(&MctsState::best_length))
        .def_property_readonly("actions", read(&MctsState::actions))
        .def_property_readonly("accepted", read(&MctsState::accepted))
        .def_property_readonly("restarts", read(&MctsState::restarts))
        .def_property_readonly("rows_without_heat", read(&MctsState::rows_without_heat))
        .def_property_readonly("first_local_optimum", read(&MctsState::first_local_optimum))
        .def_property_readonly("elapsed", read(&MctsState::elapsed));
}

}  // namespace

void bind_search(py::module_& m) {
    py::class_<TourProblem>(m, "TourProblem", "An instance as the searches see it.")
        .def(py::init<const std::optional<Array<double>>&, const std::optional<Array<Edge>>&,
                      const std::string&, bool, const std::optional<Array<City>>&,
                      const std::optional<Array<City>>&, const std::optional<Array<float>>&,
                      std::optional<City>, std::optional<bool>, std::optional<double>>(),
             py::kw_only(), py::arg("coords") = py::none(), py::arg("matrix") = py::none(),
             py::arg("metric") = "euclidean", py::arg("open_path") = false, py::arg("fixed") = py::none(),
             py::arg("heat_ids") = py::none(), py::arg("heat") = py::none(),
             py::arg("candidates") = py::none(), py::arg("alpha") = py::none(),
             py::arg("seconds") = py::none())
        .def_property_readonly("n", &TourProblem::n)
        .def_property_readonly("unit", [](const TourProblem& p) { return p.problem.unit; })
        .def_property_readonly("lower_bound", &TourProblem::lower_bound)
        .def("candidate_ids", &TourProblem::candidate_ids)
        .def("greedy", [](const TourProblem& p) { return p.original(p.greedy()); })
        .def("tour_length",
             [](const TourProblem& p, const Order& order) { return p.length(p.numbered(order)); })
        .def("recombine",
             [](const TourProblem& p, const std::vector<Order>& tours) {
                 std::vector<std::vector<City>> cities;
                 for (const Order& tour : tours) cities.push_back(p.numbered(tour));
                 std::vector<City> child;
                 {
                     py::gil_scoped_release release;
                     child = recombine(p.problem, cities);
                 }
                 return p.original(std::move(child));
             })
        .def("optimise", [](const TourProblem& p, const Order& order) {
            IlsOptions options;
            options.max_kicks = 0;
            const auto search = make_ils(p, options, order);
            {
                py::gil_scoped_release release;
                search->run(kForever);
            }
            return p.original(search->best());
        });

    struct Ils {
        const TourProblem& owner;
        std::unique_ptr<IlsSearch> search;
    };
    const auto read = [](auto IlsState::* member) {
        return [member](const Ils& s) { return s.search->state().*member; };
    };
    py::class_<Ils>(m, "IlsSearch", "Iterated local search.")
        .def(py::init([](const TourProblem& owner, uint64_t seed, uint32_t instance, uint32_t trajectory,
                         const std::optional<Order>& start, std::optional<double> time_limit,
                         std::optional<int64_t> max_kicks, std::optional<int32_t> segment,
                         std::optional<double> hot, std::optional<double> cold) {
                 IlsOptions options;
                 options.seed = seed, options.instance = instance, options.trajectory = trajectory;
                 options.time_limit = time_limit.value_or(kForever);
                 options.max_kicks = max_kicks.value_or(-1);
                 options.segment = segment.value_or(0), options.hot = hot.value_or(0),
                 options.cold = cold.value_or(0);
                 return Ils{owner, make_ils(owner, options, start)};
             }),
             py::keep_alive<1, 2>(), py::arg("problem"), py::arg("seed") = 0, py::arg("instance") = 0,
             py::arg("trajectory") = 0, py::arg("start") = py::none(), py::arg("time_limit") = py::none(),
             py::arg("max_kicks") = py::none(), py::kw_only(), py::arg("segment") = py::none(),
             py::arg("hot") = py::none(), py::arg("cold") = py::none())
        .def(
            "run", [](Ils& s, double seconds) { return s.search->run(seconds); }, py::arg("seconds"),
            py::call_guard<py::gil_scoped_release>())
        .def("best", [](const Ils& s) { return s.owner.original(s.search->best()); })
        .def_property_readonly("best_length", read(&IlsState::best_length))
        .def_property_readonly("kicks", read(&IlsState::kicks))
        .def_property_readonly("accepted", read(&IlsState::accepted))
        .def_property_readonly("first_local_optimum", read(&IlsState::first_local_optimum))
        .def_property_readonly("elapsed", read(&IlsState::elapsed));
    bind_mcts(m);
}

}  // namespace fd::tsp
