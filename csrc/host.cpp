// Module fastdiff_ops._host: what is no tensor operator. Only this file and *_bind_host.cpp include
// pybind11, which takes seconds to compile.
#include <pybind11/pybind11.h>

#include "build_info.h"
#include "common/simd.h"
#include "tsp/search_bind.h"

namespace py = pybind11;

PYBIND11_MODULE(_host, m) {
    m.doc() = "Build information and host objects of fastdiff_ops.";
    m.def("compiler", &fd::compiler, "C++ compiler and its version.");
    m.def("cuda_archs", &fd::cuda_archs, "CUDA architectures compiled, '8.0;9.0'; '' without CUDA kernels.");
    m.def("cuda_toolkit", &fd::cuda_toolkit, "Version of the CUDA toolkit; '' without CUDA kernels.");
    m.def("simd_level", &fd::simd::level_name, "SIMD level in use: 'scalar', 'avx2' or 'avx512'.");
    fd::tsp::bind_search(m);
}
