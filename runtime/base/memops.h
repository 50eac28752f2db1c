/* memops.h - what can be done with an address, by the kind of memory behind it.
 *
 * comm must move tensors that may lie in GPU memory without knowing CUDA, and gpu/cuda/ knows CUDA
 * but nothing of the wire. They meet in this table: base brings the row of host memory, a device
 * room registers its own row at start. A kind without a row is not used on this machine.
 *
 * Threads: dj_memops_register() at start, before other threads; everything else from any thread. */
#ifndef DJ_BASE_MEMOPS_H
#define DJ_BASE_MEMOPS_H

#include <stdbool.h>
#include <stddef.h>

#include "runtime/base/status.h"

typedef enum dj_memory_kind {
    DJ_MEMORY_HOST,
    DJ_MEMORY_CUDA,
    DJ_MEMORY_KIND_COUNT,
} dj_memory_kind_t;

/* Copies are complete on return; ranges do not overlap; sizes in bytes. */
typedef struct dj_memops {
    dj_memory_kind_t kind;
    const char *name; /* "host", "cuda" */
    dj_status_t (*copy_in)(void *target, const void *host, size_t size);
    dj_status_t (*copy_out)(void *host, const void *source, size_t size);
    dj_status_t (*copy_between)(void *target, const void *source, size_t size); /* same kind */
    bool (*owns)(const void *address); /* never asked of the host row */
} dj_memops_t;

/* `ops` must live as long as the process. ERR_INVALID: the kind is the host's or out of range, a
 * slot is missing, or another table has the kind. */
dj_status_t dj_memops_register(const dj_memops_t *ops);
/* NULL when nothing is registered for the kind. */
const dj_memops_t *dj_memops_get(dj_memory_kind_t kind);
/* The kind of memory behind an address: host unless a registered row owns it. */
dj_memory_kind_t dj_memops_query(const void *address);
/* Between any two kinds of which at most one is a device's. ERR_UNSUPPORTED otherwise. */
dj_status_t dj_memops_copy(dj_memory_kind_t target_kind, void *target, dj_memory_kind_t source_kind,
                           const void *source, size_t size);

#endif
