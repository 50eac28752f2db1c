/* exec.c - the payload of an EXEC: releases, segments, fetches, and the small tensors that travel along.
 *
 * A segment that the rank has seen goes by its keys alone; `shown` mirrors what the rank remembers. */
#include <string.h>

#include "client/client.h"

static bool shown(const djinn_t *djinn, dj_hash_t key)
{
    return dj_table_get(&djinn->shown.keys, key) != NULL;
}

/* As the rank does it (runtime/execute.c): the oldest key goes when the ring is full. */
static void show(djinn_t *djinn, dj_hash_t key)
{
    dj_shown_t *ring = &djinn->shown;
    dj_hash_t *slot = &ring->ring[ring->count % DJ_SHOWN_MAX];
    if (ring->count >= DJ_SHOWN_MAX)
        dj_table_remove(&ring->keys, *slot);
    *slot = key;
    ring->count++;
    dj_table_put(&ring->keys, key, slot);
}

static void put_segment(djinn_t *djinn, dj_bytes_t *meta, const dj_segment_record_t *segment)
{
    const dj_program_t *program = &segment->program;
    bool full = !shown(djinn, segment->exact_key);
    dj_segment_header_t header = {
        .program_key = segment->program_key,
        .exact_key = segment->exact_key,
        .structure_bytes = full ? (uint32_t)program->structure.size : 0,
        .sizes_bytes = full ? (uint32_t)program->sizes.size : 0,
        .n_inputs = segment->n_inputs,
        .n_outputs = segment->n_outputs,
        .n_scalars = (uint32_t)(program->scalars.size / 8),
        .flags = full ? DJ_SEGMENT_SIZES | DJ_SEGMENT_STRUCTURE : 0};
    dj_bytes_put(meta, &header, sizeof(header));
    dj_bytes_put(meta, segment->inputs, segment->n_inputs * sizeof(dj_binding_t));
    dj_bytes_put(meta, segment->outputs, segment->n_outputs * sizeof(uint64_t));
    dj_bytes_put(meta, program->scalars.data, program->scalars.size);
    if (!full)
        return;
    dj_bytes_put(meta, program->sizes.data, program->sizes.size);
    dj_bytes_align(meta, 8);
    dj_bytes_put(meta, program->structure.data, program->structure.size);
    dj_bytes_align(meta, 8);
    djinn->stats.program_bytes += program->structure.size + program->sizes.size;
    show(djinn, segment->exact_key);
}

/* Gives every immediate its place in the data region; returns the region's size. */
static uint64_t place_immediates(dj_segment_record_t *segments, uint32_t *count_p)
{
    uint64_t at = 0;
    *count_p = 0;
    for (dj_segment_record_t *segment = segments; segment; segment = segment->next)
        for (uint32_t i = 0; i < segment->n_inputs; i++)
            if (segment->immediates[i]) {
                segment->inputs[i].offset = at;
                at += (segment->inputs[i].bytes + 63) & ~63ull;
                (*count_p)++;
            }
    return at;
}

static void gather_immediates(djinn_request_t *request)
{
    for (dj_segment_record_t *segment = request->segments; segment; segment = segment->next)
        for (uint32_t i = 0; i < segment->n_inputs; i++)
            if (segment->immediates[i]) {
                dj_bytes_put(&request->meta, segment->immediates[i], segment->inputs[i].bytes);
                dj_bytes_align(&request->meta, 64);
            }
}

dj_status_t dj_request_build_exec(djinn_request_t *request, uint32_t n_segments)
{
    djinn_t *djinn = request->djinn;
    dj_bytes_t *meta = &request->meta;
    uint32_t n_immediates;
    dj_exec_t *exec = &request->message.exec;
    *exec = (dj_exec_t){.n_segments = n_segments, .n_fetches = request->n_fetches,
                        .n_releases = (uint32_t)(djinn->releases.size / 8),
                        .deadline_ms = djinn->deadline_ms};
    if (exec->n_releases > DJ_EXEC_RELEASES_MAX) /* the rest waits for the next request */
        exec->n_releases = DJ_EXEC_RELEASES_MAX;
    exec->data_bytes = place_immediates(request->segments, &n_immediates);
    dj_bytes_put(meta, djinn->releases.data, exec->n_releases * 8ull);
    for (dj_segment_record_t *segment = request->segments; segment; segment = segment->next)
        put_segment(djinn, meta, segment);
    for (uint32_t i = 0; i < request->n_fetches; i++) {
        const djinn_tensor_t *tensor = &request->fetches[i].tensor;
        dj_fetch_t fetch = {tensor->storage->ref,
                            (uint64_t)tensor->offset * dj_dtype_bytes((uint8_t)tensor->dtype),
                            request->fetches[i].bytes};
        dj_bytes_put(meta, &fetch, sizeof(fetch));
    }
    dj_bytes_align(meta, 64);
    exec->data_offset = meta->size;
    gather_immediates(request);
    if (meta->failed)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a request of %zu bytes", meta->size);
    uint64_t left = djinn->releases.size - exec->n_releases * 8ull;
    djinn->releases.size = exec->n_releases * 8ull;
    dj_refs_recycle(djinn);
    if (left)
        memmove(djinn->releases.data, djinn->releases.data + djinn->releases.size, left);
    djinn->releases.size = left;
    request->pieces[0] = (dj_piece_t){meta->data, meta->size};
    request->n_pieces = meta->size ? 1 : 0;
    if (djinn->collector)
        dj_collector_add(djinn->collector, request->segments);
    return DJ_OK;
}
