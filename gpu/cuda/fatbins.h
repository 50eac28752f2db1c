/* fatbins.h - the device code of every kernel family, which lies in a shared object of its own: many programs hold the
 * CUDA device, and 5 MB of kernels each would be too many. */
#ifndef DJ_GPU_CUDA_FATBINS_H
#define DJ_GPU_CUDA_FATBINS_H

enum { DJ_CUDA_FATBINS_MAX = 32 };

typedef struct dj_cuda_fatbin {
    const char *family; /* NULL: the end */
    const unsigned char *image;
} dj_cuda_fatbin_t;

/* DJ_CUDA_FATBINS_MAX rows. */
const dj_cuda_fatbin_t *dj_cuda_fatbins(void);

#endif
