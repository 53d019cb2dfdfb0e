#pragma once

#include "kernels.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define POCKETLIC_X86 1
#else
#define POCKETLIC_X86 0
#endif

#if POCKETLIC_X86
namespace pocketlic {
extern const Kernels kAvx2, kVnni;
}
#endif
