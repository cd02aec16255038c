// Found before the toolkit's header of this name, so that .cu files compile for the emulation unchanged.
#pragma once
#include "../cuda_emulation.h"
