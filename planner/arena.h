/* arena.h - memory that is given piece by piece and freed at once.
 *
 * A decoded graph has thousands of small arrays with one lifetime; they live in one of these.
 *
 * Ownership: dj_arena_destroy() frees every piece. Threads: the caller's lock. */
#ifndef DJ_PLANNER_ARENA_H
#define DJ_PLANNER_ARENA_H

#include <stddef.h>
#include <stdint.h>

typedef struct dj_arena dj_arena_t;

/* NULL is an empty arena. Zeroed memory aligned to 16 bytes; NULL when memory is short. */
void *dj_arena_alloc(dj_arena_t **arena_p, size_t bytes);
void dj_arena_destroy(dj_arena_t *arena);
uint64_t dj_arena_bytes(const dj_arena_t *arena); /* of memory behind it */

#endif
