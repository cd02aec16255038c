#include "build_info.h"

namespace fd {

// FD_CUDA_*: setup.py defines them

const char* cuda_archs() { return FD_CUDA_ARCHS; }
const char* cuda_toolkit() { return FD_CUDA_TOOLKIT; }

const char* compiler() {
#if defined(__clang__)
    return "clang " __clang_version__;
#else
    return "g++ " __VERSION__;
#endif
}

}  // namespace fd
