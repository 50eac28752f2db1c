/* strided.c - copies the elements of one window into another (strided.h).
 *
 * replay.c calls it for staged outputs: results that could not be written where they belong because
 * the same step still read from there; matmul.c for operands whose strides no library takes.
 * Dimensions that merge are merged, so the usual case is one memcpy. */
#include "gpu/host/strided.h"

#include <string.h>

typedef struct loop {
    int64_t size, to, from; /* strides in bytes */
} loop_t;

/* The loops from outermost in; what lies dense at the inner end on both sides becomes *run_p bytes.
 */
static uint32_t collapse(const dj_view_t *to, const dj_view_t *from, loop_t *loops, uint64_t *run_p)
{
    int64_t item = dj_dtype_bytes(to->dtype), run = item;
    uint32_t n = 0;
    loop_t reversed[DJ_RANK_MAX];
    for (int d = to->rank - 1; d >= 0; d--) {
        loop_t loop = {to->sizes[d], to->strides[d] * item, from->strides[d] * item};
        if (loop.size == 1)
            continue;
        if (n == 0 && loop.to == run && loop.from == run)
            run *= loop.size;
        else
            reversed[n++] = loop;
    }
    for (uint32_t i = 0; i < n; i++)
        loops[i] = reversed[n - 1 - i];
    *run_p = (uint64_t)run;
    return n;
}

static void copy_run(uint8_t *target, const uint8_t *source, const loop_t *loop, uint64_t run)
{
    for (int64_t i = 0; i < loop->size; i++) {
        if (run == 4)
            memcpy(target, source, 4);
        else if (run == 8)
            memcpy(target, source, 8);
        else
            memcpy(target, source, run);
        target += loop->to;
        source += loop->from;
    }
}

static void copy_level(uint8_t *target, const uint8_t *source, const loop_t *loops, uint32_t n,
                       uint64_t run)
{
    if (n == 1) {
        copy_run(target, source, loops, run);
        return;
    }
    for (int64_t i = 0; i < loops->size; i++)
        copy_level(target + i * loops->to, source + i * loops->from, loops + 1, n - 1, run);
}

void dj_host_copy_view(void *target, const dj_view_t *target_view, const void *source,
                       const dj_view_t *source_view)
{
    loop_t loops[DJ_RANK_MAX];
    uint64_t run;
    if (dj_view_count(target_view) == 0)
        return;
    uint32_t n = collapse(target_view, source_view, loops, &run);
    if (n == 0)
        memcpy(target, source, run);
    else
        copy_level(target, source, loops, n, run);
}
