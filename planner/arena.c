/* arena.c - chunks that double in size, then of a mebibyte each, so that small graphs cost little and large
 * ones few calls. The list's head is the newest chunk; a piece larger than a chunk gets its own.
 *
 * Chunks of full size are kept for the next arena, KEPT_MAX of them in the process: a fresh mebibyte
 * costs 256 page faults, which is a third of what decoding a graph takes. Pieces are zeroed when they
 * are given, so a kept chunk shows nothing of what lay there. */
#include "planner/arena.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_MIN 8192u
#define CHUNK_SMALL (64u << 10) /* beyond it at once to the full size, which can be kept */
#define CHUNK_MAX (1u << 20)
#define KEPT_MAX 16u

struct dj_arena {
    dj_arena_t *older;
    size_t used, size;
    max_align_t data[];
};

static pthread_mutex_t kept_lock = PTHREAD_MUTEX_INITIALIZER;
static dj_arena_t *kept;
static uint32_t n_kept;

static dj_arena_t *take_chunk(size_t size)
{
    dj_arena_t *chunk = NULL;
    if (size == CHUNK_MAX) {
        pthread_mutex_lock(&kept_lock);
        chunk = kept;
        if (chunk != NULL) {
            kept = chunk->older;
            n_kept--;
        }
        pthread_mutex_unlock(&kept_lock);
    }
    return chunk != NULL ? chunk : malloc(sizeof *chunk + size);
}

static void give_chunk(dj_arena_t *chunk)
{
    bool keeps = false;
    if (chunk->size == CHUNK_MAX) {
        pthread_mutex_lock(&kept_lock);
        keeps = n_kept < KEPT_MAX;
        if (keeps) {
            chunk->older = kept;
            kept = chunk;
            n_kept++;
        }
        pthread_mutex_unlock(&kept_lock);
    }
    if (!keeps)
        free(chunk);
}

void *dj_arena_alloc(dj_arena_t **arena_p, size_t bytes)
{
    dj_arena_t *arena = *arena_p;
    bytes = (bytes + 15) & ~(size_t)15;
    if (arena == NULL || arena->size - arena->used < bytes) {
        size_t size = arena == NULL ? CHUNK_MIN : arena->size * 2;
        size = size > CHUNK_SMALL ? CHUNK_MAX : size;
        size = size < bytes ? bytes : size;
        arena = take_chunk(size);
        if (arena == NULL)
            return NULL;
        arena->used = 0;
        arena->size = size;
        arena->older = *arena_p;
        *arena_p = arena;
    }
    void *piece = (char *)arena->data + arena->used;
    arena->used += bytes;
    return memset(piece, 0, bytes);
}

void dj_arena_destroy(dj_arena_t *arena)
{
    while (arena != NULL) {
        dj_arena_t *older = arena->older;
        give_chunk(arena);
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
