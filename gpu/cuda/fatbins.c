/* fatbins.c - libdjinn_kernels: the fatbins that the build made, as they are (fatbins.def lists them). */
#include "gpu/cuda/fatbins.h"

#include <stddef.h>

#define FATBIN(family, path)                                                                       \
    __asm__(".pushsection .rodata\n"                                                               \
            ".balign 64\n"                                                                         \
            ".globl dj_fatbin_" #family "\n"                                                       \
            ".hidden dj_fatbin_" #family "\n"                                                      \
            "dj_fatbin_" #family ":\n"                                                             \
            ".incbin \"" path "\"\n"                                                               \
            ".byte 0\n"                                                                            \
            ".popsection\n");                                                                      \
    extern const unsigned char dj_fatbin_##family[];
#include "fatbins.def"
#undef FATBIN

static const dj_cuda_fatbin_t rows[DJ_CUDA_FATBINS_MAX] = {
#define FATBIN(family, path) {#family, dj_fatbin_##family},
#include "fatbins.def"
#undef FATBIN
};

const dj_cuda_fatbin_t *dj_cuda_fatbins(void)
{
    return rows;
}
