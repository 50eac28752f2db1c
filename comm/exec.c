/* exec.c - takes the payload of an EXEC apart without believing a byte of it.
 *
 * One pass with a cursor; every count is checked against its limit before it is multiplied, every
 * product against what is left of the payload before a pointer is made. Nothing is copied: the
 * decoded pointers lead into the payload. Called by the worker for each request, so it also is on
 * the hot path: a null request costs a few compares. */
#include <stddef.h>

#include "comm/messages.h"

typedef struct cursor {
    const uint8_t *data;
    uint64_t size, at;
} cursor_t;

/* `count` items of `item_bytes`, then padding to 8. Counts are under 2^32 and items small, so the
 * product cannot overflow. */
static const void *take(cursor_t *cursor, uint64_t count, uint64_t item_bytes)
{
    uint64_t bytes = (count * item_bytes + 7) & ~7ull;
    if (bytes > cursor->size - cursor->at)
        return NULL;
    const void *found = cursor->data + cursor->at;
    cursor->at += bytes;
    return found;
}

static dj_status_t too_short(const char *what, uint32_t segment, const cursor_t *cursor)
{
    return dj_fail(DJ_ERR_PROTOCOL, "EXEC: the payload of %llu bytes ends inside %s of segment %u",
                   (unsigned long long)cursor->size, what, segment);
}

static dj_status_t over(const char *what, uint64_t value, uint64_t limit)
{
    return dj_fail(DJ_ERR_LIMIT, "EXEC: %s is %llu, but the limit is %llu", what,
                   (unsigned long long)value, (unsigned long long)limit);
}

static dj_status_t check_counts(const dj_exec_t *exec, uint32_t segments_room)
{
    if (exec->n_segments > DJ_EXEC_SEGMENTS_MAX)
        return over("n_segments", exec->n_segments, DJ_EXEC_SEGMENTS_MAX);
    if (exec->n_segments > segments_room)
        return over("n_segments", exec->n_segments, segments_room);
    if (exec->n_releases > DJ_EXEC_RELEASES_MAX)
        return over("n_releases", exec->n_releases, DJ_EXEC_RELEASES_MAX);
    if (exec->n_fetches > DJ_EXEC_FETCHES_MAX)
        return over("n_fetches", exec->n_fetches, DJ_EXEC_FETCHES_MAX);
    if (exec->deadline_ms > DJ_DEADLINE_MS_MAX)
        return over("deadline_ms", exec->deadline_ms, DJ_DEADLINE_MS_MAX);
    if (exec->flags & ~(uint32_t)DJ_EXEC_QUIET)
        return dj_fail(DJ_ERR_PROTOCOL, "EXEC: unknown flags 0x%x", exec->flags);
    if ((exec->flags & DJ_EXEC_QUIET) && (exec->n_segments > 0 || exec->n_fetches > 0))
        return dj_fail(DJ_ERR_PROTOCOL, "EXEC: without a reply it may only release refs");
    return DJ_OK;
}

static dj_status_t check_segment_header(const dj_segment_header_t *header, uint32_t segment)
{
    if (header->n_inputs > DJ_EXEC_BINDINGS_MAX)
        return over("n_inputs of a segment", header->n_inputs, DJ_EXEC_BINDINGS_MAX);
    if (header->n_outputs > DJ_EXEC_BINDINGS_MAX)
        return over("n_outputs of a segment", header->n_outputs, DJ_EXEC_BINDINGS_MAX);
    if (header->n_scalars > DJ_PROGRAM_SCALARS_MAX)
        return over("n_scalars of a segment", header->n_scalars, DJ_PROGRAM_SCALARS_MAX);
    if (header->structure_bytes > DJ_PROGRAM_BYTES_MAX)
        return over("structure_bytes", header->structure_bytes, DJ_PROGRAM_BYTES_MAX);
    if (header->sizes_bytes > DJ_PROGRAM_BYTES_MAX)
        return over("sizes_bytes", header->sizes_bytes, DJ_PROGRAM_BYTES_MAX);
    bool has_structure = header->flags & DJ_SEGMENT_STRUCTURE;
    bool has_sizes = header->flags & DJ_SEGMENT_SIZES;
    if ((header->flags & ~(uint32_t)(DJ_SEGMENT_STRUCTURE | DJ_SEGMENT_SIZES)) ||
        has_structure != (header->structure_bytes > 0) || (header->sizes_bytes > 0 && !has_sizes) ||
        (has_structure && !has_sizes))
        return dj_fail(DJ_ERR_PROTOCOL,
                       "EXEC: flags 0x%x of segment %u do not fit its %u structure and %u size "
                       "bytes",
                       header->flags, segment, header->structure_bytes, header->sizes_bytes);
    return DJ_OK;
}

static dj_status_t decode_segment(cursor_t *cursor, uint32_t number, dj_exec_segment_t *segment)
{
    const dj_segment_header_t *header = take(cursor, 1, sizeof(*header));
    if (!header)
        return too_short("the header", number, cursor);
    segment->header = *header;
    dj_status_t status = check_segment_header(header, number);
    if (status != DJ_OK)
        return status;
    if (!(segment->inputs = take(cursor, header->n_inputs, sizeof(dj_binding_t))))
        return too_short("the inputs", number, cursor);
    if (!(segment->outputs = take(cursor, header->n_outputs, sizeof(uint64_t))))
        return too_short("the outputs", number, cursor);
    if (!(segment->scalars = take(cursor, header->n_scalars, sizeof(uint64_t))))
        return too_short("the scalars", number, cursor);
    if (!(segment->sizes = take(cursor, header->sizes_bytes, 1)))
        return too_short("the sizes", number, cursor);
    if (!(segment->structure = take(cursor, header->structure_bytes, 1)))
        return too_short("the structure", number, cursor);
    return DJ_OK;
}

static dj_status_t check_inputs(const dj_exec_t *exec, const dj_exec_segment_t *segment,
                                uint32_t number)
{
    for (uint32_t i = 0; i < segment->header.n_inputs; ++i) {
        const dj_binding_t *input = &segment->inputs[i];
        if (input->offset == DJ_BINDING_REF) {
            if (input->ref == 0)
                return dj_fail(DJ_ERR_PROTOCOL, "EXEC: input %u of segment %u names no ref", i,
                               number);
            continue;
        }
        if (input->offset > exec->data_bytes || input->bytes > exec->data_bytes - input->offset)
            return dj_fail(DJ_ERR_PROTOCOL,
                           "EXEC: input %u of segment %u takes %llu bytes at %llu of %llu "
                           "immediate bytes",
                           i, number, (unsigned long long)input->bytes,
                           (unsigned long long)input->offset, (unsigned long long)exec->data_bytes);
    }
    return DJ_OK;
}

static dj_status_t check_refs(const dj_exec_t *exec, const dj_exec_body_t *body)
{
    for (uint32_t i = 0; i < exec->n_releases; ++i)
        if (body->releases[i] == 0)
            return dj_fail(DJ_ERR_PROTOCOL, "EXEC: release %u names no ref", i);
    for (uint32_t i = 0; i < exec->n_fetches; ++i) {
        const dj_fetch_t *fetch = &body->fetches[i];
        if (fetch->ref == 0)
            return dj_fail(DJ_ERR_PROTOCOL, "EXEC: fetch %u names no ref", i);
        if (fetch->bytes > DJ_TENSOR_BYTES_MAX || fetch->offset > DJ_TENSOR_BYTES_MAX)
            return over("bytes or offset of a fetch",
                        fetch->bytes > fetch->offset ? fetch->bytes : fetch->offset,
                        DJ_TENSOR_BYTES_MAX);
    }
    return DJ_OK;
}

/* The immediate bytes reach from data_offset to the payload's end; before them only padding. */
static dj_status_t check_data(const dj_exec_t *exec, const cursor_t *cursor)
{
    if (cursor->at > DJ_EXEC_META_BYTES_MAX)
        return over("the part before the immediate bytes", cursor->at, DJ_EXEC_META_BYTES_MAX);
    if (exec->data_bytes == 0 && exec->data_offset == 0 && cursor->size - cursor->at < 64)
        return DJ_OK;
    if (exec->data_offset % 64 == 0 && exec->data_offset >= cursor->at &&
        exec->data_offset - cursor->at < 64 && exec->data_offset <= cursor->size &&
        exec->data_bytes == cursor->size - exec->data_offset)
        return DJ_OK;
    return dj_fail(DJ_ERR_PROTOCOL,
                   "EXEC: %llu immediate bytes at offset %llu do not fit a payload of %llu bytes "
                   "whose first %llu are taken",
                   (unsigned long long)exec->data_bytes, (unsigned long long)exec->data_offset,
                   (unsigned long long)cursor->size, (unsigned long long)cursor->at);
}

dj_status_t dj_exec_decode(const dj_exec_t *exec, const void *payload, uint64_t payload_bytes,
                           dj_exec_segment_t *segments, uint32_t segments_room,
                           dj_exec_body_t *body)
{
    cursor_t cursor = {payload_bytes > 0 ? payload : (const void *)"", payload_bytes, 0};
    dj_exec_body_t found;
    dj_status_t status = check_counts(exec, segments_room);
    if (status != DJ_OK)
        return status;
    if (!(found.releases = take(&cursor, exec->n_releases, sizeof(uint64_t))))
        return dj_fail(DJ_ERR_PROTOCOL, "EXEC: a payload of %llu bytes cannot hold %u releases",
                       (unsigned long long)payload_bytes, exec->n_releases);
    for (uint32_t i = 0; i < exec->n_segments; ++i) {
        status = decode_segment(&cursor, i, &segments[i]);
        if (status == DJ_OK)
            status = check_inputs(exec, &segments[i], i);
        if (status != DJ_OK)
            return status;
    }
    if (!(found.fetches = take(&cursor, exec->n_fetches, sizeof(dj_fetch_t))))
        return dj_fail(DJ_ERR_PROTOCOL, "EXEC: a payload of %llu bytes cannot hold %u fetches",
                       (unsigned long long)payload_bytes, exec->n_fetches);
    status = check_data(exec, &cursor);
    if (status == DJ_OK)
        status = check_refs(exec, &found);
    if (status != DJ_OK)
        return status;
    found.data = exec->data_bytes > 0 ? cursor.data + exec->data_offset : NULL;
    *body = found;
    return DJ_OK;
}
