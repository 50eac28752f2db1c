/* arena.c - chunks that double in size up to a mebibyte, so that small graphs cost little and large
 * ones few calls. The list's head is the newest chunk; a piece larger than a chunk gets its own. */
#include "planner/arena.h"

#include <stdlib.h>

#define CHUNK_MIN 8192u
#define CHUNK_MAX (1u << 20)

struct dj_arena {
    dj_arena_t *older;
    size_t used, size;
    max_align_t data[];
};

void *dj_arena_alloc(dj_arena_t **arena_p, size_t bytes)
{
    dj_arena_t *arena = *arena_p;
    bytes = (bytes + 15) & ~(size_t)15;
    if (arena == NULL || arena->size - arena->used < bytes) {
        size_t size = arena == NULL ? CHUNK_MIN : arena->size * 2;
        size = size > CHUNK_MAX ? CHUNK_MAX : size;
        size = size < bytes ? bytes : size;
        arena = calloc(1, sizeof *arena + size);
        if (arena == NULL)
            return NULL;
        arena->size = size;
        arena->older = *arena_p;
        *arena_p = arena;
    }
    void *piece = (char *)arena->data + arena->used;
    arena->used += bytes;
    return piece;
}

void dj_arena_destroy(dj_arena_t *arena)
{
    while (arena != NULL) {
        dj_arena_t *older = arena->older;
        free(arena);
        arena = older;
    }
}

uint64_t dj_arena_bytes(const dj_arena_t *arena)
{
    uint64_t bytes = 0;
    for (; arena != NULL; arena = arena->older)
        bytes += sizeof *arena + arena->size;
    return bytes;
}
