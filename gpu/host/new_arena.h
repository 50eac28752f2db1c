/* new_arena.h - C++ allocations of a library call, taken from planned memory.
 *
 * oneDNN allocates a few hundred bytes with operator new at every execution, and a replay allocates
 * nothing. So this library defines the global allocation functions of C++: between open and close,
 * and on this thread only, `new` takes from the caller's bytes and `delete` of such a pointer does
 * nothing; at all other times, and for what does not fit, they are malloc and free. Every program
 * that links libdnnl and this library exports them to it by the ordinary rules of symbol lookup.
 *
 * Whatever the call allocates must be freed by the time it returns: the bytes are reused.
 * Threads: thread-local. */
#ifndef DJ_GPU_HOST_NEW_ARENA_H
#define DJ_GPU_HOST_NEW_ARENA_H

#include <stddef.h>
#include <stdint.h>

void dj_new_arena_open(void *memory, size_t bytes);
void dj_new_arena_close(void);
/* Over all threads since the start. */
typedef struct dj_new_arena_counters {
    uint64_t served;  /* allocations from an arena */
    uint64_t spilled; /* that did not fit and went to malloc */
    uint64_t kept;    /* that were not freed when their arena closed: must be 0 */
} dj_new_arena_counters_t;

void dj_new_arena_counters(dj_new_arena_counters_t *counters);

#endif
