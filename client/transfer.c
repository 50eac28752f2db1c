/* transfer.c - bytes over tensors that exist, and requests that are more than one message.
 *
 * A transfer is what the user holds; messages are what travels. A large put or fetch is cut into parts,
 * a few of them under way at a time, so that progress can be told and a cancel is quick. Small ones ride
 * in a message together (gather.c).
 *
 * What was asked for first reaches the rank first: every other request sends what waits here before it
 * takes its own number (dj_gather_flush()). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/client.h"
#include "runtime/base/clock.h"

enum {
    PART_BYTES = 4 << 20,
    PARTS_OPEN = 4,
};

bool dj_transfer_is_large(uint64_t bytes)
{
    return bytes > PART_BYTES;
}

/* ---- transfers in parts ---- */

static void unlink_transfer(djinn_request_t *transfer)
{
    djinn_request_t **at = &transfer->djinn->transfers;
    while (*at && *at != transfer)
        at = &(*at)->next_rider;
    if (*at)
        *at = transfer->next_rider;
}

static void complete(djinn_request_t *transfer)
{
    struct dj_transfer *t = &transfer->transfer;
    if (t->open || transfer->status != DJ_IN_PROGRESS)
        return;
    bool whole = t->next_bytes == t->total_bytes;
    if (!whole && !t->cancelled && t->first == DJ_OK)
        return;
    unlink_transfer(transfer);
    if (t->first != DJ_OK)
        dj_request_finish(transfer, t->first, transfer->text);
    else if (!whole)
        dj_request_finish(transfer, DJ_ERR_CANCELLED, "the transfer was cancelled");
    else
        dj_request_finish(transfer, DJ_OK, "");
}

static void note_failure(djinn_request_t *transfer, dj_status_t status, const char *text)
{
    if (transfer->transfer.first != DJ_OK)
        return;
    transfer->transfer.first = status;
    snprintf(transfer->text, sizeof(transfer->text), "%s", text);
}

static dj_status_t send_part(djinn_request_t *transfer, uint64_t bytes, bool wait)
{
    struct dj_transfer *t = &transfer->transfer;
    djinn_t *djinn = transfer->djinn;
    uint64_t offset = t->offset + t->next_bytes;
    uint8_t *host = t->host + t->next_bytes;
    djinn_request_t *message = t->kind == DJ_TRANSFER_PUT
                                   ? dj_put_take(djinn, t->storage->ref, offset, host, bytes)
                                   : dj_request_take(djinn);
    if (!message)
        return DJ_ERR_MEMORY;
    message->owner = transfer;
    message->detached = true;
    t->open++;
    t->next_bytes += bytes;
    dj_status_t status;
    if (t->kind == DJ_TRANSFER_PUT)
        status = dj_put_send(message, wait);
    else if ((status = dj_request_number(message, wait)) == DJ_OK)
        dj_request_send_fetch(message, t->storage, offset, host, bytes);
    if (status == DJ_OK)
        return DJ_OK;
    t->open--;
    t->next_bytes -= bytes;
    message->owner = NULL;
    dj_request_recycle(message);
    return status;
}

/* Sends parts, at most `open_max` under way at a time. */
static void pump(djinn_request_t *transfer, uint32_t open_max, bool wait)
{
    struct dj_transfer *t = &transfer->transfer;
    while (t->next_bytes < t->total_bytes && t->open < open_max && !t->cancelled &&
           t->first == DJ_OK) {
        uint64_t left = t->total_bytes - t->next_bytes;
        uint64_t bytes = left < PART_BYTES + PART_BYTES / 2 ? left : PART_BYTES;
        dj_status_t status = send_part(transfer, bytes, wait);
        if (status == DJ_ERR_BUSY && t->open)
            return; /* the next answer comes here again */
        if (status != DJ_OK)
            note_failure(transfer, status, dj_error_text());
    }
    complete(transfer);
}

static djinn_request_t *take_transfer(djinn_storage_t *storage, uint8_t kind, uint64_t offset,
                                      void *host, uint64_t bytes)
{
    djinn_t *djinn = storage->djinn;
    djinn_request_t *transfer = dj_request_take(djinn);
    if (!transfer)
        return NULL;
    atomic_fetch_add(&storage->references, 1);
    transfer->transfer = (struct dj_transfer){.kind = kind, .total_bytes = bytes, .host = host,
                                              .offset = offset, .storage = storage};
    transfer->next_rider = djinn->transfers;
    djinn->transfers = transfer;
    return transfer;
}

void dj_transfer_release(djinn_request_t *transfer)
{
    unlink_transfer(transfer);
    if (transfer->transfer.storage)
        dj_storage_put(transfer->transfer.storage);
    transfer->transfer.kind = DJ_TRANSFER_NONE;
}

dj_status_t dj_transfer_put(djinn_storage_t *storage, uint64_t offset, const void *data,
                            uint64_t bytes, djinn_request_t **transfer_p)
{
    dj_status_t status = dj_gather_flush(storage->djinn, true);
    if (status != DJ_OK)
        return status;
    djinn_request_t *transfer = take_transfer(storage, DJ_TRANSFER_PUT, offset,
                                              (void *)(uintptr_t)data, bytes);
    if (!transfer)
        return DJ_ERR_MEMORY;
    pump(transfer, PARTS_OPEN, true);
    *transfer_p = transfer;
    return DJ_OK;
}

dj_status_t dj_transfer_fetch(djinn_request_t *message, djinn_request_t **transfer_p)
{
    djinn_fetch_t *fetch = &message->fetches[0];
    uint64_t offset = (uint64_t)fetch->tensor.offset * dj_dtype_bytes((uint8_t)fetch->tensor.dtype);
    djinn_request_t *transfer = take_transfer(fetch->tensor.storage, DJ_TRANSFER_FETCH, offset,
                                              fetch->target, fetch->bytes);
    if (!transfer)
        return DJ_ERR_MEMORY;
    transfer->transfer.open = 1;
    transfer->transfer.next_bytes = PART_BYTES;
    message->owner = transfer;
    message->detached = true;
    message->fetch_bytes = fetch->bytes = PART_BYTES;
    *transfer_p = transfer;
    return DJ_OK;
}

void dj_transfer_follow(djinn_request_t *transfer)
{
    pump(transfer, PARTS_OPEN, false);
}

/* ---- the end of a message ---- */

static void part_over(djinn_request_t *transfer, uint64_t bytes, dj_status_t status,
                      const char *text)
{
    struct dj_transfer *t = &transfer->transfer;
    t->open--;
    if (status == DJ_OK)
        t->done_bytes += bytes;
    else
        note_failure(transfer, status, text);
    transfer->deadline_ns = dj_clock_ns() + transfer->djinn->deadline_ms * DJ_NS_PER_MS;
    pump(transfer, PARTS_OPEN, false);
}

static void defer(djinn_t *djinn, dj_status_t status, const char *text)
{
    if (djinn->deferred != DJ_OK)
        return;
    djinn->deferred = status;
    snprintf(djinn->deferred_text, sizeof(djinn->deferred_text), "%s", text);
}

void dj_transfer_note(djinn_request_t *message, dj_status_t status, const char *text)
{
    djinn_t *djinn = message->djinn;
    bool put = message->message.header.type == DJ_MESSAGE_PUT;
    djinn_request_t *rider = message->riders, *owner = message->owner;
    if (put && !message->quiet)
        djinn->loud_puts--;
    if (put && !rider && !owner && status < 0)
        defer(djinn, status, text);
    message->riders = message->owner = NULL;
    for (djinn_request_t *next; rider; rider = next) {
        next = rider->next_rider;
        part_over(rider, rider->transfer.total_bytes, status, text);
    }
    if (owner)
        part_over(owner, put ? message->message.put.bytes : message->fetch_bytes, status, text);
    if (put && djinn->loud_puts == 0)
        dj_gather_flush(djinn, false);
}

/* The one transfer that still has parts to send, if any: each is begun after the one before has sent all. */
static djinn_request_t *unsent(djinn_t *djinn)
{
    for (djinn_request_t *at = djinn->transfers; at; at = at->next_rider)
        if (at->transfer.next_bytes < at->transfer.total_bytes && !at->transfer.cancelled &&
            at->transfer.first == DJ_OK)
            return at;
    return NULL;
}

/* Until all parts of what was begun have been sent. */
static dj_status_t wait_for_parts(djinn_t *djinn)
{
    djinn_request_t *transfer;
    while (djinn->comm && !atomic_load(&djinn->dead) && (transfer = unsent(djinn))) {
        if (dj_clock_ns() > transfer->deadline_ns)
            return dj_fail(DJ_ERR_DEADLINE, "an earlier transfer did not go on within the deadline");
        dj_request_look_at_rank(djinn);
        dj_comm_wait(djinn->comm, 50000, 5);
    }
    return DJ_OK;
}

dj_status_t dj_gather_flush(djinn_t *djinn, bool wait)
{
    if (__builtin_expect(!djinn->gather && !djinn->transfers, 1))
        return DJ_OK;
    dj_status_t status = dj_gather_flush_small(djinn, wait), parts = DJ_OK;
    if (wait)
        parts = wait_for_parts(djinn);
    return parts != DJ_OK ? parts : status;
}

/* ---- the public face ---- */

static dj_status_t check_put(djinn_t *djinn, const djinn_tensor_t *target, uint64_t bytes,
                             dj_view_t *view)
{
    dj_status_t status = dj_djinn_check(djinn);
    if (status != DJ_OK)
        return status;
    if (!target->storage || target->storage->djinn != djinn)
        return dj_fail(DJ_ERR_INVALID, "a put over a tensor that is not of this connection");
    dj_view_of_tensor(target, view);
    if ((status = dj_view_check(view, target->storage->bytes)) != DJ_OK)
        return status;
    if (!dj_view_is_contiguous(view))
        return dj_fail(DJ_ERR_SHAPE, "a put over a strided window: only dense ones can be written");
    if (bytes != dj_view_dense_bytes(view))
        return dj_fail(DJ_ERR_INVALID, "the tensor has %llu bytes, the data %llu",
                       (unsigned long long)dj_view_dense_bytes(view), (unsigned long long)bytes);
    return DJ_OK;
}

/* The rank must know the storage, and what was recorded with it must run before. */
static dj_status_t settle_storage(djinn_storage_t *storage)
{
    djinn_t *djinn = storage->djinn;
    dj_status_t status = DJ_OK;
    if (storage->recorder)
        status = dj_recorder_submit(storage->recorder, NULL, 0, NULL);
    if (status != DJ_OK || storage->ref)
        return status;
    dj_recorder_t *recorder = dj_recorder_mine(djinn);
    uint32_t local; /* an upload that nothing has used yet: it travels as an input of a segment */
    if (!recorder)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a recorder");
    status = dj_recorder_localise(recorder, storage, false, &local);
    if (status == DJ_OK)
        status = dj_recorder_submit(recorder, NULL, 0, NULL);
    if (status == DJ_OK && !storage->ref)
        status = dj_fail(DJ_ERR_STALE, "a put over a tensor whose request failed");
    return status;
}

/* A rank accepts so many bytes that it has not answered; what is more waits here. */
static dj_status_t wait_for_credit(djinn_t *djinn, uint64_t bytes)
{
    djinn_request_t *request;
    if (djinn->executor || djinn->unanswered_bytes == 0 ||
        djinn->unanswered_bytes + bytes <= djinn->credit_bytes)
        return DJ_OK;
    dj_status_t status = dj_request_create(djinn, &request);
    if (status != DJ_OK)
        return status;
    status = dj_request_build_exec(request, 0);
    if (status == DJ_OK)
        status = dj_request_send(request, DJ_MESSAGE_EXEC, sizeof(dj_exec_t));
    if (status == DJ_OK)
        status = dj_request_await(request);
    dj_request_release(request);
    return status;
}

static dj_status_t put(djinn_t *djinn, const djinn_tensor_t *target, const void *data,
                       uint64_t bytes, djinn_request_t **transfer_p)
{
    dj_view_t view;
    dj_status_t status = check_put(djinn, target, bytes, &view);
    if (status == DJ_OK)
        status = settle_storage(target->storage);
    if (status == DJ_OK)
        status = wait_for_credit(djinn, bytes);
    if (status != DJ_OK)
        return status;
    uint64_t offset = (uint64_t)view.offset * dj_dtype_bytes(view.dtype);
    if (dj_gather_wants(djinn, bytes) && djinn->transfers) /* it must not overtake their last parts */
        status = wait_for_parts(djinn);
    if (status != DJ_OK)
        return status;
    if (dj_gather_wants(djinn, bytes))
        return dj_gather_put(target->storage, offset, data, bytes, transfer_p);
    djinn_request_t *transfer;
    status = dj_transfer_put(target->storage, offset, data, bytes, &transfer);
    if (status != DJ_OK || transfer_p) {
        if (status == DJ_OK)
            *transfer_p = transfer;
        return status;
    }
    status = dj_request_await(transfer);
    dj_request_recycle(transfer);
    return status;
}

djinn_status_t djinn_put(djinn_t *djinn, const djinn_tensor_t *target, const void *data,
                         uint64_t bytes, djinn_request_t **request_p)
{
    dj_djinn_lock(djinn);
    dj_status_t status = put(djinn, target, data, bytes, request_p);
    if (status == DJ_OK && request_p)
        atomic_fetch_add(&djinn->references, 1);
    dj_djinn_unlock(djinn);
    return (djinn_status_t)status;
}

djinn_status_t djinn_progress(djinn_request_t *request, djinn_transfer_t *transfer)
{
    djinn_t *djinn = request->djinn;
    dj_djinn_lock(djinn);
    bool parts = request->transfer.total_bytes > 0;
    bool over = request->status == DJ_OK;
    transfer->total_bytes = parts ? request->transfer.total_bytes : request->fetch_bytes;
    transfer->done_bytes = parts ? request->transfer.done_bytes : over ? request->fetch_bytes : 0;
    dj_djinn_unlock(djinn);
    return DJINN_OK;
}

djinn_status_t djinn_cancel(djinn_request_t *request)
{
    djinn_t *djinn = request->djinn;
    dj_djinn_lock(djinn);
    dj_status_t status = request->status;
    if (status == DJ_IN_PROGRESS) {
        request->transfer.cancelled = true;
        status = dj_request_await(request);
    }
    dj_djinn_unlock(djinn);
    return (djinn_status_t)status;
}

djinn_status_t djinn_when_done(djinn_request_t *request, djinn_done_t done, void *argument)
{
    djinn_t *djinn = request->djinn;
    dj_djinn_lock(djinn);
    dj_status_t status = request->status;
    request->done = done;
    request->done_argument = argument;
    dj_djinn_unlock(djinn);
    if (status != DJ_IN_PROGRESS)
        done(argument, request, (djinn_status_t)status);
    return DJINN_OK;
}
