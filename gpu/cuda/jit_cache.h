/* jit_cache.h - compiled kernels on disk, one file a key, shared by the user's ranks.
 *
 * A file is a header (magic, key, size, hash of what follows) and the cubin. Machine code of a stranger would run with
 * our rights, so the folder must be ours with mode 0700, or it is not used at all; files have mode 0600 and are
 * read only when they are ours, regular and nobody else's to write. A file is written beside and renamed, so that
 * ranks that write at once leave a whole one, and what its header does not vouch for is as good as absent.
 *
 * Threads: any; a folder is only a descriptor. */
#ifndef DJ_GPU_CUDA_JIT_CACHE_H
#define DJ_GPU_CUDA_JIT_CACHE_H

#include "runtime/base/hash.h"
#include "runtime/base/status.h"

#define DJ_JIT_CACHE_BYTES_MAX (256ull << 20) /* of the folder: the oldest go */
#define DJ_JIT_CUBIN_BYTES_MAX (64ull << 20)  /* of one file */

/* Opens `path`, made with mode 0700 where it is missing ("": $XDG_CACHE_HOME/djinn/kernels, else
 * ~/.cache/djinn/kernels). -1: not used, and the sentence (dj_error_text()) says why. */
int dj_jit_cache_open(const char *path);
void dj_jit_cache_close(int folder);

/* The cubin of a key, malloc'ed; NULL when there is none that holds. */
void *dj_jit_cache_read(int folder, dj_hash_t key, size_t *bytes_p);
/* Best effort: what cannot be kept is compiled again. DJ_ERR_FILE. */
dj_status_t dj_jit_cache_write(int folder, dj_hash_t key, const void *cubin, size_t bytes);
void dj_jit_cache_remove(int folder, dj_hash_t key);
/* Removes the oldest files until at most `bytes_max` are left, and what a writer left behind an hour ago. */
void dj_jit_cache_trim(int folder, uint64_t bytes_max);

#endif
