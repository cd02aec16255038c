// What is fixed when the modules are compiled, apart from host.cpp so that another list of architectures does
// not recompile pybind11.
#pragma once

namespace fd {

const char* cuda_archs();    // "8.0;9.0", "" without CUDA kernels
const char* cuda_toolkit();  // "13.0", "" without CUDA kernels
const char* compiler();      // "g++ 12.2.0"

}  // namespace fd
