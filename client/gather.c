/* gather.c - small transfers that travel together.
 *
 * Small puts that follow one another in memory become one while an earlier put is unanswered; a lone one
 * leaves at once. Small uploads of weights are gathered with a table of their refs: nobody can need them
 * before the next request, which sends them first. What is gathered is copied, and a failure is kept for
 * the next call that waits. */
#include <string.h>

#include "client/client.h"

enum {
    GATHER_BYTES = 64 << 10, /* over shared memory, where a message costs little, */
    GATHER_WIRE_BYTES = 256 << 10, /* and elsewhere */
    DIRECT_BYTES = 2 << 10, /* over shared memory, larger puts are not gathered */
    EACH_BYTES = 32 << 10, /* puts from here on travel alone; */
    EACH_WIRE_BYTES = 256 << 10, /* elsewhere */
    UPLOADS_BYTES = 1 << 20, /* a transfer of uploads is at least that large, if there is so much */
    QUIET_EACH_BYTES = 1 << 20,
    QUIET_RUN = 32, /* an answer is asked for at least this often, */
    QUIET_BYTES = 8 << 20, /* and after so many bytes */
};

/* ---- messages ---- */

dj_status_t dj_put_send(djinn_request_t *message, bool wait)
{
    djinn_t *djinn = message->djinn;
    dj_put_t *put = &message->message.put;
    uint64_t bytes = message->pieces[0].bytes;
    dj_status_t status = dj_request_number(message, wait);
    if (status != DJ_OK)
        return status;
    /* A quiet one leaves room for a request behind it, which asks for the answer (want_answer()). */
    bool room = !djinn->requests[(message->id + 1) % DJ_REQUESTS_MAX];
    message->quiet = djinn->loud_puts > 0 && bytes < QUIET_EACH_BYTES && room &&
                     djinn->quiet_run < QUIET_RUN &&
                     djinn->quiet_bytes + bytes < QUIET_BYTES;
    djinn->quiet_bytes = message->quiet ? djinn->quiet_bytes + bytes : 0;
    djinn->loud_puts += !message->quiet;
    put->flags = message->quiet ? DJ_PUT_QUIET : 0;
    dj_request_send(message, DJ_MESSAGE_PUT, sizeof(*put));
    return DJ_OK; /* a failure was noted by dj_request_finish() */
}

djinn_request_t *dj_put_take(djinn_t *djinn, uint64_t ref, uint64_t offset, const void *data,
                             uint64_t bytes)
{
    djinn_request_t *message = dj_request_take(djinn);
    if (!message)
        return NULL;
    message->detached = true;
    message->message.put = (dj_put_t){.ref = ref, .offset = offset, .bytes = bytes};
    message->pieces[0] = (dj_piece_t){data, bytes};
    message->n_pieces = 1;
    return message;
}

static bool shares_memory(const djinn_t *djinn)
{
    return djinn->path.carrier == DJ_CARRIER_SHM;
}

static uint64_t gather_bytes(const djinn_t *djinn)
{
    return shares_memory(djinn) ? GATHER_BYTES : GATHER_WIRE_BYTES;
}

bool dj_gather_wants(const djinn_t *djinn, uint64_t bytes)
{
    return bytes < (shares_memory(djinn) ? EACH_BYTES : EACH_WIRE_BYTES);
}

/* ---- gathering ---- */

/* The bytes of small uploads, behind a table of whose they are. */
static dj_status_t join_parts(djinn_request_t *message)
{
    dj_bytes_t *table = &message->parts;
    message->message.put = (dj_put_t){.n_parts = (uint32_t)(table->size / sizeof(dj_put_part_t))};
    dj_bytes_align(table, 64);
    dj_bytes_put(table, message->meta.data, message->meta.size);
    if (table->failed)
        return dj_fail(DJ_ERR_MEMORY, "no memory for %zu bytes of uploads", message->meta.size);
    message->pieces[0] = (dj_piece_t){table->data, table->size};
    return DJ_OK;
}

dj_status_t dj_gather_flush_small(djinn_t *djinn, bool wait)
{
    djinn_request_t *message = djinn->gather;
    if (!message || (!wait && message->parts.size > 0)) /* uploads leave with the next request */
        return DJ_OK;
    djinn->gather = NULL;
    message->pieces[0] = (dj_piece_t){message->meta.data, message->meta.size};
    dj_status_t status = message->parts.size > 0 ? join_parts(message) : DJ_OK;
    if (status == DJ_OK)
        status = dj_put_send(message, wait);
    if (status == DJ_ERR_BUSY && !wait) {
        djinn->gather = message;
        return DJ_OK;
    }
    if (status != DJ_OK) {
        dj_transfer_note(message, status, dj_error_text());
        dj_request_recycle(message);
    }
    return status;
}

static djinn_request_t *open_gather(djinn_t *djinn, uint64_t ref, uint64_t offset, uint64_t bytes)
{
    djinn_request_t *message;
    while ((message = djinn->gather)) { /* another thread may begin one while this one waits */
        if (message->parts.size == 0 && message->message.put.ref == ref &&
            message->message.put.offset + message->message.put.bytes == offset &&
            message->message.put.bytes + bytes <= gather_bytes(djinn))
            return message;
        if (dj_gather_flush_small(djinn, true) != DJ_OK)
            return NULL;
    }
    message = dj_put_take(djinn, ref, offset, NULL, 0);
    if (message && !dj_bytes_reserve(&message->meta, gather_bytes(djinn))) {
        dj_request_recycle(message);
        dj_fail(DJ_ERR_MEMORY, "no memory for %llu bytes", (unsigned long long)bytes);
        return NULL;
    }
    djinn->gather = message;
    return message;
}

/* Copies the bytes; `rider`, if any, is done when they are there. */
static dj_status_t gather(djinn_storage_t *storage, uint64_t offset, const void *data,
                          uint64_t bytes, djinn_request_t *rider)
{
    djinn_t *djinn = storage->djinn;
    djinn_request_t *message = open_gather(djinn, storage->ref, offset, bytes);
    if (!message)
        return DJ_ERR_MEMORY;
    dj_bytes_put(&message->meta, data, bytes);
    message->message.put.bytes += bytes;
    if (rider) {
        rider->transfer.open = 1;
        rider->next_rider = message->riders;
        message->riders = rider;
    }
    if (djinn->loud_puts == 0 || message->message.put.bytes == gather_bytes(djinn))
        return dj_gather_flush_small(djinn, true);
    return DJ_OK;
}

/* Without a copy: shared memory takes one of its own at once, or as soon as the rank has made room. */
static dj_status_t send_directly(djinn_storage_t *storage, uint64_t offset, const void *data,
                                 uint64_t bytes, djinn_request_t *rider)
{
    djinn_t *djinn = storage->djinn;
    bool left = false;
    dj_status_t status = dj_gather_flush_small(djinn, true);
    djinn_request_t *message =
        status == DJ_OK ? dj_put_take(djinn, storage->ref, offset, data, bytes) : NULL;
    if (!message)
        return status == DJ_OK ? DJ_ERR_MEMORY : status;
    message->riders = rider;
    if (rider)
        rider->transfer.open = 1;
    status = dj_put_send(message, true);
    if (status != DJ_OK)
        dj_request_recycle(message);
    else if (message->sending) {
        message->left_p = &left;
        uint64_t deadline_ns = message->deadline_ns;
        while (!left)
            dj_request_make_progress(djinn, deadline_ns);
    }
    return status;
}

dj_status_t dj_gather_put(djinn_storage_t *storage, uint64_t offset, const void *data,
                          uint64_t bytes, djinn_request_t **transfer_p)
{
    djinn_request_t *rider = NULL;
    if (transfer_p) {
        if (!(rider = dj_request_take(storage->djinn)))
            return DJ_ERR_MEMORY;
        rider->transfer = (struct dj_transfer){.kind = DJ_TRANSFER_PUT, .total_bytes = bytes,
                                               .next_bytes = bytes};
    }
    bool direct = shares_memory(storage->djinn) && bytes >= DIRECT_BYTES;
    dj_status_t status = (direct ? send_directly : gather)(storage, offset, data, bytes, rider);
    if (status != DJ_OK && rider) {
        dj_request_recycle(rider);
        return status;
    }
    if (rider)
        *transfer_p = rider;
    return status;
}

/* ---- uploads ---- */

static djinn_request_t *open_uploads(djinn_t *djinn)
{
    djinn_request_t *message;
    while ((message = djinn->gather)) {
        if (message->parts.size > 0 && message->meta.size <= UPLOADS_BYTES &&
            message->parts.size / sizeof(dj_put_part_t) < DJ_PUT_PARTS_MAX)
            return message;
        if (dj_gather_flush_small(djinn, true) != DJ_OK)
            return NULL;
    }
    return djinn->gather = dj_put_take(djinn, 0, 0, NULL, 0);
}

dj_status_t dj_gather_upload(djinn_storage_t *storage, const void *data, bool weight)
{
    djinn_t *djinn = storage->djinn;
    dj_status_t status = dj_storage_assign_ref(storage);
    djinn_request_t *message = status == DJ_OK ? open_uploads(djinn) : NULL;
    if (!message)
        return status == DJ_OK ? DJ_ERR_MEMORY : status;
    const dj_put_part_t part = {.ref = storage->ref, .bytes = storage->bytes,
                                .flags = DJ_PART_NEW | (weight ? DJ_PART_WEIGHT : 0)};
    dj_bytes_put(&message->parts, &part, sizeof(part));
    dj_bytes_align(&message->meta, 64);
    dj_bytes_put(&message->meta, data, storage->bytes);
    if (message->parts.failed || message->meta.failed)
        return dj_fail(DJ_ERR_MEMORY, "no memory for an upload of %llu bytes",
                       (unsigned long long)storage->bytes);
    return DJ_OK;
}
