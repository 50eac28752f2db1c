/* move.c - djinn_move(): a tensor's bytes go from rank to rank, this process only names them.
 *
 * The source's connection is synchronized first: what it has sent is done and answered before the target's
 * rank is told to pull, so no order number is needed between two connections; what is sent later may still
 * be overtaken by the pull or wait for it, but never changes bytes on their way. A window that is not dense
 * is made dense there before.
 *
 * The two connections have a lock each, and no call here holds both. */
#include <stdio.h>

#include "client/client.h"

/* What the target's rank has to know. */
typedef struct dj_move_source {
    djinn_storage_t *storage; /* one reference */
    uint64_t session, ref, offset, bytes;
    uint32_t generation, rank;
} dj_move_source_t;

/* A dense copy of the window, recorded; the caller's reference. */
static dj_status_t record_dense(dj_recorder_t *recorder, const djinn_tensor_t *window,
                                djinn_tensor_t *dense)
{
    dj_view_t wanted =
        dj_view_contiguous((uint8_t)window->dtype, (uint8_t)window->rank, window->sizes);
    djinn_arg_t empty[2] = {
        {.kind = DJINN_ARG_INTS, .count = wanted.rank, .value.integers = wanted.sizes},
        {.kind = DJINN_ARG_INT, .value.integer = wanted.dtype}};
    djinn_arg_t copied = {.kind = DJINN_ARG_TENSOR, .value.tensors = window};
    djinn_tensor_t fresh;
    dj_status_t status = dj_recorder_record(recorder, DJ_OP_EMPTY, empty, 2, NULL, &fresh);
    if (status != DJ_OK)
        return status;
    dj_tensor_of_view(&wanted, fresh.storage, dense);
    status = dj_recorder_record(recorder, DJ_OP_COPY, &copied, 1, dense, NULL);
    if (status != DJ_OK)
        dj_storage_put(fresh.storage);
    return status;
}

/* A dense tensor whose storage the rank has or gets with what is recorded; one reference. */
static dj_status_t prepare(dj_recorder_t *recorder, const djinn_tensor_t *window,
                           djinn_tensor_t *dense)
{
    dj_view_t view;
    uint32_t local;
    dj_status_t status;
    djinn_storage_t *storage = window->storage;
    dj_view_of_tensor(window, &view);
    if ((status = dj_view_check(&view, storage->bytes)) != DJ_OK)
        return status;
    if (storage->recorder && storage->recorder != recorder &&
        (status = dj_recorder_submit(storage->recorder, NULL, 0, NULL)) != DJ_OK)
        return status;
    if (!dj_view_is_contiguous(&view))
        return record_dense(recorder, window, dense);
    if (!storage->ref && (status = dj_recorder_localise(recorder, storage, false, &local)) != DJ_OK)
        return status;
    *dense = *window;
    djinn_retain(storage);
    return DJ_OK;
}

static dj_status_t synchronize(dj_recorder_t *recorder)
{
    djinn_t *djinn = recorder->djinn;
    djinn_request_t *request;
    dj_status_t status = dj_recorder_submit(recorder, NULL, 0, &request);
    if (status != DJ_OK)
        return status;
    atomic_fetch_sub(&djinn->references, 1); /* the request's: this thread holds a storage's */
    status = dj_request_await(request);
    dj_request_release(request);
    return status;
}

static dj_status_t find_source(const djinn_tensor_t *window, dj_move_source_t *source)
{
    djinn_t *djinn = window->storage->djinn;
    djinn_tensor_t dense;
    dj_recorder_t *recorder = dj_recorder_mine(djinn);
    dj_status_t status = dj_djinn_check(djinn);
    if (status != DJ_OK)
        return status;
    if (djinn->executor)
        return dj_fail(DJ_ERR_UNSUPPORTED, "a tensor of a connection without a rank cannot move");
    if (!recorder)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a recorder");
    if ((status = prepare(recorder, window, &dense)) != DJ_OK)
        return status;
    status = synchronize(recorder);
    if (status == DJ_OK && !dense.storage->ref)
        status = dj_fail(DJ_ERR_STALE, "the source is a tensor whose request failed");
    if (status != DJ_OK) {
        dj_storage_put(dense.storage);
        return status;
    }
    dj_view_t view;
    dj_view_of_tensor(&dense, &view);
    *source = (dj_move_source_t){
        .storage = dense.storage, .session = djinn->session, .ref = dense.storage->ref,
        .offset = (uint64_t)dense.offset * dj_dtype_bytes((uint8_t)dense.dtype),
        .bytes = dj_view_dense_bytes(&view), .generation = djinn->generation, .rank = djinn->rank};
    return DJ_OK;
}

static dj_status_t ask(djinn_t *djinn, djinn_storage_t *storage, const dj_move_source_t *source)
{
    djinn_request_t *request;
    dj_status_t status = dj_storage_assign_ref(storage);
    if (status == DJ_OK)
        status = dj_request_create(djinn, &request);
    if (status != DJ_OK)
        return status;
    request->message.move = (dj_move_t){.ref = storage->ref, .bytes = source->bytes,
                                        .source_session = source->session,
                                        .source_ref = source->ref,
                                        .source_offset = source->offset,
                                        .source_generation = source->generation,
                                        .source_rank = source->rank};
    status = dj_request_send(request, DJ_MESSAGE_MOVE, sizeof(dj_move_t));
    if (status == DJ_OK)
        status = dj_request_await(request);
    dj_request_release(request);
    return status;
}

static dj_status_t make_target(djinn_t *djinn, const djinn_tensor_t *window,
                               const dj_move_source_t *source, djinn_tensor_t *tensor)
{
    djinn_storage_t *storage;
    dj_status_t status = dj_djinn_check(djinn);
    if (status == DJ_OK && djinn->executor)
        status = dj_fail(DJ_ERR_UNSUPPORTED, "nothing can move to a connection without a rank");
    if (status == DJ_OK)
        status = dj_storage_create(djinn, source->bytes, &storage);
    if (status != DJ_OK)
        return status;
    status = ask(djinn, storage, source);
    if (status != DJ_OK) {
        dj_storage_put(storage); /* and its ref: the rank may have it, if only the answer is late */
        return status;
    }
    dj_view_t view = dj_view_contiguous((uint8_t)window->dtype, (uint8_t)window->rank, window->sizes);
    dj_tensor_of_view(&view, storage, tensor);
    return DJ_OK;
}

/* A source that died and was started again before it was asked says truly that it knows no such session: then its
 * death is what there is to tell. */
static dj_status_t look_for_death(djinn_t *from, char text[DJ_ERROR_TEXT_MAX])
{
    dj_djinn_lock(from);
    dj_status_t status = atomic_load(&from->dead);
    if (status != DJ_OK)
        snprintf(text, DJ_ERROR_TEXT_MAX, "%s", from->dead_text);
    dj_djinn_unlock(from);
    return status == DJ_OK ? DJ_ERR_STALE : status;
}

djinn_status_t djinn_move(djinn_t *target, const djinn_tensor_t *source, djinn_tensor_t *tensor)
{
    dj_move_source_t found = {0};
    if (!target || !source->storage)
        return (djinn_status_t)dj_fail(DJ_ERR_INVALID, "a move needs a target and a tensor");
    djinn_t *from = source->storage->djinn;
    dj_djinn_lock(from);
    dj_status_t status = find_source(source, &found);
    dj_djinn_unlock(from);
    if (status != DJ_OK)
        return (djinn_status_t)status;
    dj_djinn_lock(target);
    status = make_target(target, source, &found, tensor);
    dj_djinn_unlock(target);
    char text[DJ_ERROR_TEXT_MAX];
    snprintf(text, sizeof(text), "%s", dj_error_text());
    if (status == DJ_ERR_STALE)
        status = look_for_death(from, text);
    djinn_release(found.storage);
    return (djinn_status_t)(status == DJ_OK ? status : dj_fail(status, "%s", text));
}
