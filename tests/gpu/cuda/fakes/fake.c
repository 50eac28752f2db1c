/* fake.c - a shared object that has every symbol of one of CUDA's libraries, none of which does anything. What it lacks
 * is taken out by the linker's version script (fakes.cmake). FAKE_LIST names the library's list in gpu/cuda/api.h. */
#include "gpu/cuda/api.h"

#define DEFINE(name) DEFINE_EXPANDED(name)
#define DEFINE_EXPANDED(name)                                                                      \
    int fake_##name(void) __asm__(#name);                                                          \
    __attribute__((weak)) int fake_##name(void)                                                    \
    {                                                                                              \
        return 0;                                                                                  \
    }
FAKE_LIST(DEFINE)

#ifdef FAKE_OLDER
/* Before CUDA 12.8. */
int fake_older(void) __asm__("cuEventElapsedTime");
int fake_older(void)
{
    return 0;
}
#endif
