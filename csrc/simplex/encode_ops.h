// The ten operators as torch calls them, over what a backend computes: `features` for E and J,
// `points_gradient` for V, `table_gradient` for S and S'. A backend registers those it has.
#pragma once

#include "simplex/encode_args.h"

namespace fd::encoding {

using Numbers = std::vector<double>;
using Integers = std::vector<int64_t>;

template <class Backend, Lattice lattice>
struct GatherOps {
    static Tensor encode(const Tensor& x, const Tensor& table, const Numbers& scales, const Numbers& shifts,
                         const Integers& layout, int64_t bounds, int64_t max_level, bool,
                         std::optional<ScalarType> out_dtype) {
        return Backend::features(lattice, x, table, nullptr, {scales, shifts, layout}, bounds, max_level,
                                 out_dtype);
    }

    static Tensor jvp(const Tensor& x, const Tensor& table, const Tensor& u, const Numbers& scales,
                      const Numbers& shifts, const Integers& layout, int64_t bounds, int64_t max_level, bool,
                      std::optional<ScalarType> out_dtype) {
        return Backend::features(lattice, x, table, &u, {scales, shifts, layout}, bounds, max_level,
                                 out_dtype);
    }

    static Tensor vjp_x(const Tensor& x, const Tensor& table, const Tensor& grad, const Numbers& scales,
                        const Numbers& shifts, const Integers& layout, int64_t bounds, int64_t max_level,
                        bool) {
        return Backend::points_gradient(lattice, x, table, grad, {scales, shifts, layout}, bounds, max_level);
    }
};

template <class Backend, Lattice lattice>
struct ScatterOps {
    static Tensor vjp_table(const Tensor& x, const Tensor& grad, const Numbers& scales, const Numbers& shifts,
                            const Integers& layout, int64_t n_entries, int64_t bounds, int64_t max_level,
                            bool deterministic) {
        return Backend::table_gradient(lattice, x, nullptr, grad, {scales, shifts, layout}, n_entries, bounds,
                                       max_level, deterministic);
    }

    static Tensor vjp_table_u(const Tensor& x, const Tensor& u, const Tensor& grad, const Numbers& scales,
                              const Numbers& shifts, const Integers& layout, int64_t n_entries,
                              int64_t bounds, int64_t max_level, bool deterministic) {
        return Backend::table_gradient(lattice, x, &u, grad, {scales, shifts, layout}, n_entries, bounds,
                                       max_level, deterministic);
    }
};

template <class Backend, class Library>
void register_gather_ops(Library& m) {
    using Simplex = GatherOps<Backend, Lattice::simplex>;
    using Grid = GatherOps<Backend, Lattice::grid>;
    m.impl("simplex_encode", TORCH_BOX(&Simplex::encode));
    m.impl("simplex_encode_jvp", TORCH_BOX(&Simplex::jvp));
    m.impl("simplex_encode_vjp_x", TORCH_BOX(&Simplex::vjp_x));
    m.impl("grid_encode", TORCH_BOX(&Grid::encode));
    m.impl("grid_encode_jvp", TORCH_BOX(&Grid::jvp));
    m.impl("grid_encode_vjp_x", TORCH_BOX(&Grid::vjp_x));
}

template <class Backend, class Library>
void register_scatter_ops(Library& m) {
    using Simplex = ScatterOps<Backend, Lattice::simplex>;
    using Grid = ScatterOps<Backend, Lattice::grid>;
    m.impl("simplex_encode_vjp_table", TORCH_BOX(&Simplex::vjp_table));
    m.impl("simplex_encode_vjp_table_u", TORCH_BOX(&Simplex::vjp_table_u));
    m.impl("grid_encode_vjp_table", TORCH_BOX(&Grid::vjp_table));
    m.impl("grid_encode_vjp_table_u", TORCH_BOX(&Grid::vjp_table_u));
}

}  // namespace fd::encoding
