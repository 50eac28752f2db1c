/* memops.h - what can be done with an address, by the kind of memory behind it.
 *
 * comm must move tensors that may lie in GPU memory without knowing CUDA, and gpu/cuda/ knows CUDA
 * but nothing of the wire. They meet in this table: base brings the row of host memory, a device
 * room registers its own row at start. A kind without a row is not used on this machine.
 *
 * A copy may also run while its caller does something else: dj_memcopy_t is what one such copy at a
 * time needs (for CUDA a stream and an event), made once and used again and again. A row without
 * the slots for it copies at once, so callers are written once, for copies that take their time.
 *
 * Threads: dj_memops_register() at start, before other threads; a dj_memcopy_t by one thread at a
 * time; everything else from any thread. */
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

typedef enum dj_copy_direction {
    DJ_COPY_IN,  /* host to device */
    DJ_COPY_OUT, /* device to host */
} dj_copy_direction_t;

/* The first three are complete on return; ranges do not overlap; sizes in bytes. */
typedef struct dj_memops {
    dj_memory_kind_t kind;
    const char *name; /* "host", "cuda" */
    dj_status_t (*copy_in)(void *target, const void *host, size_t size);
    dj_status_t (*copy_out)(void *host, const void *source, size_t size);
    dj_status_t (*copy_between)(void *target, const void *source, size_t size); /* same kind */
    bool (*owns)(const void *address); /* never asked of the host row */

    /* Optional, all four or none: copies that go on alone. `start` answers DJ_OK (over already),
     * DJ_IN_PROGRESS or an error; `test` the same of the copy under way, and allocates nothing;
     * `unprepare` waits for a copy under way. */
    dj_status_t (*copy_prepare)(void **handle_p);
    dj_status_t (*copy_start)(void *handle, dj_copy_direction_t direction, void *target,
                              const void *source, size_t size);
    dj_status_t (*copy_test)(void *handle);
    void (*copy_unprepare)(void *handle);

    /* Optional, both or none: host memory that the device copies from and to at full speed. */
    dj_status_t (*pin)(size_t size, void **memory_p);
    void (*unpin)(void *memory, size_t size);
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

/* Host memory for copies to and from this kind: pinned where the row can, else aligned to a page.
 * Contents undefined. The caller unpins it with the same `ops` and size. ERR_MEMORY, ERR_INVALID
 * (size 0), or the row's error. */
dj_status_t dj_memops_pin(const dj_memops_t *ops, size_t size, void **memory_p);
void dj_memops_unpin(const dj_memops_t *ops, void *memory, size_t size);

/* One copy at a time that may go on alone. */
typedef struct dj_copy {
    const dj_memops_t *ops;
    void *handle; /* the row's */
    bool under_way;
} dj_memcopy_t;

dj_status_t dj_memcopy_init(dj_memcopy_t *copy, const dj_memops_t *ops);
/* Waits for a copy under way, whose outcome is lost. */
void dj_memcopy_fini(dj_memcopy_t *copy);
/* DJ_OK: it is over. DJ_IN_PROGRESS: dj_memcopy_test() tells; both ranges are in use until then.
 * Else an error, and nothing is under way. ERR_BUSY: the last copy is not over. */
dj_status_t dj_memcopy_start(dj_memcopy_t *copy, dj_copy_direction_t direction, void *target,
                             const void *source, size_t size);
/* DJ_IN_PROGRESS until the copy is over, then once its outcome; DJ_OK when nothing is under way. */
dj_status_t dj_memcopy_test(dj_memcopy_t *copy);

#endif
