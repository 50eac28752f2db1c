/* tensors.c - tensors come to be: uploads of host memory, weights loaded by the rank itself. */
#include <stdlib.h>
#include <string.h>

#include "client/client.h"
#include "runtime/base/clock.h"

static dj_status_t check_upload(djinn_t *djinn, djinn_dtype_t dtype, int rank,
                                const int64_t *sizes, const void *data, uint32_t flags,
                                dj_view_t *view)
{
    dj_status_t status = dj_djinn_check(djinn);
    if (status != DJ_OK)
        return status;
    if (rank < 0 || rank > DJ_RANK_MAX)
        return dj_fail(DJ_ERR_LIMIT, "rank %d: at most %d dimensions", rank, DJ_RANK_MAX);
    *view = dj_view_contiguous((uint8_t)dtype, (uint8_t)rank, sizes);
    if (!data && flags & DJINN_UPLOAD_WEIGHT && dj_view_dense_bytes(view) > 0)
        return dj_fail(DJ_ERR_INVALID, "a weight without bytes");
    return dj_view_check(view, UINT64_MAX);
}

/* One UPLOAD, landing in Data or Text. Nothing recorded before can concern the new ref, so nothing else has
 * to leave first. */
static dj_status_t send_upload(djinn_t *djinn, djinn_storage_t *storage, const void *data,
                               uint32_t flags)
{
    djinn_request_t *request;
    dj_status_t status = dj_storage_assign_ref(storage);
    if (status == DJ_OK)
        status = dj_request_create(djinn, &request);
    if (status != DJ_OK)
        return status;
    request->message.upload = (dj_upload_t){storage->ref, storage->bytes, flags, 0};
    request->pieces[0] = (dj_piece_t){data, storage->bytes};
    request->n_pieces = storage->bytes && data ? 1 : 0;
    status = dj_request_send(request, DJ_MESSAGE_UPLOAD, sizeof(dj_upload_t));
    if (status == DJ_OK)
        status = dj_request_await(request);
    uint64_t until_ns = dj_clock_ns() + 2 * DJ_NS_PER_S;
    while (request->sending && dj_clock_ns() < until_ns)
        dj_comm_progress(djinn->comm); /* the outcome is known: only UCX's own completion is missing */
    dj_request_release(request);
    return status;
}

/* In parts: an empty ref, then puts over it. */
static dj_status_t upload_large(djinn_t *djinn, djinn_storage_t *storage, const void *data)
{
    djinn_request_t *transfer;
    dj_status_t status = send_upload(djinn, storage, NULL, DJ_UPLOAD_EMPTY);
    if (status == DJ_OK)
        status = dj_transfer_put(storage, 0, data, storage->bytes, &transfer);
    if (status != DJ_OK)
        return status;
    status = dj_request_await(transfer);
    dj_request_recycle(transfer);
    return status;
}

static dj_status_t keep_immediate(djinn_storage_t *storage, const void *data)
{
    storage->immediate = malloc(storage->bytes ? storage->bytes : 1);
    if (!storage->immediate)
        return dj_fail(DJ_ERR_MEMORY, "no memory for %llu bytes",
                       (unsigned long long)storage->bytes);
    if (storage->bytes > 0)
        memcpy(storage->immediate, data, storage->bytes);
    return DJ_OK;
}

static dj_status_t upload(djinn_t *djinn, djinn_storage_t *storage, const void *data,
                          uint32_t flags)
{
    bool small = storage->bytes <= DJ_IMMEDIATE_BYTES_MAX;
    storage->weight = (flags & DJINN_UPLOAD_WEIGHT) != 0;
    if (!data && storage->bytes > 0)
        return send_upload(djinn, storage, NULL, DJ_UPLOAD_EMPTY);
    if (storage->weight && small && !djinn->executor)
        return dj_gather_upload(storage, data, true);
    if (storage->weight)
        return send_upload(djinn, storage, data, DJ_UPLOAD_WEIGHT);
    if (small)
        return keep_immediate(storage, data);
    if (dj_transfer_is_large(storage->bytes) && !djinn->executor)
        return upload_large(djinn, storage, data);
    return send_upload(djinn, storage, data, 0);
}

djinn_status_t djinn_upload(djinn_t *djinn, djinn_dtype_t dtype, int rank, const int64_t *sizes,
                            const void *data, uint32_t flags, djinn_tensor_t *tensor)
{
    dj_view_t view;
    djinn_storage_t *storage;
    dj_djinn_lock(djinn);
    dj_status_t status = check_upload(djinn, dtype, rank, sizes, data, flags, &view);
    if (status == DJ_OK)
        status = dj_storage_create(djinn, dj_view_dense_bytes(&view), &storage);
    if (status != DJ_OK)
        goto out;
    status = upload(djinn, storage, data, flags);
    if (status != DJ_OK) {
        dj_storage_put(storage); /* and its ref: the rank may have it, if only the answer is late */
        goto out;
    }
    dj_tensor_of_view(&view, storage, tensor);
out:
    dj_djinn_unlock(djinn);
    return (djinn_status_t)status;
}

/* ---- loading ---- */

static dj_status_t build_load(djinn_request_t *request, const char *path, int count,
                              const char *const *names, djinn_storage_t **storages)
{
    dj_bytes_t *meta = &request->meta;
    request->message.load = (dj_load_t){(uint32_t)strlen(path), (uint32_t)count};
    dj_bytes_put(meta, path, strlen(path));
    for (int i = 0; i < count; i++) {
        dj_bytes_put_u64(meta, storages[i]->ref);
        dj_bytes_put_u32(meta, (uint32_t)strlen(names[i]));
        dj_bytes_put(meta, names[i], strlen(names[i]));
    }
    if (meta->failed)
        return dj_fail(DJ_ERR_MEMORY, "no memory for the names of %d tensors", count);
    request->pieces[0] = (dj_piece_t){meta->data, meta->size};
    request->n_pieces = 1;
    return DJ_OK;
}

static dj_status_t take_loaded(const dj_loaded_t *loaded, const char *name,
                               djinn_storage_t *storage, djinn_tensor_t *tensor)
{
    dj_view_t view;
    if (loaded->rank > DJ_RANK_MAX)
        return dj_fail(DJ_ERR_PROTOCOL, "%s came back with rank %u", name, loaded->rank);
    view = dj_view_contiguous((uint8_t)loaded->dtype, (uint8_t)loaded->rank, loaded->sizes);
    dj_status_t status = dj_view_check(&view, loaded->bytes);
    if (status != DJ_OK)
        return status;
    storage->bytes = loaded->bytes;
    storage->weight = true;
    dj_tensor_of_view(&view, storage, tensor);
    return DJ_OK;
}

static dj_status_t load_exchange(djinn_t *djinn, const char *path, int count,
                                 const char *const *names, djinn_storage_t **storages,
                                 dj_loaded_t *loaded)
{
    djinn_request_t *request;
    dj_status_t status = dj_request_create(djinn, &request);
    if (status != DJ_OK)
        return status;
    request->raw_reply = loaded;
    request->raw_bytes = (uint64_t)count * sizeof(*loaded);
    status = build_load(request, path, count, names, storages);
    if (status == DJ_OK)
        status = dj_request_send(request, DJ_MESSAGE_LOAD, sizeof(dj_load_t));
    if (status == DJ_OK)
        status = dj_request_await(request);
    dj_request_release(request);
    return status;
}

static dj_status_t check_load(djinn_t *djinn, const char *path, int count, const char *const *names)
{
    dj_status_t status = dj_djinn_check(djinn);
    if (status != DJ_OK)
        return status;
    if (path[0] != '/' || strlen(path) > DJ_LOAD_PATH_MAX)
        return dj_fail(DJ_ERR_FILE, "%s: the path must be absolute, at most %u bytes, and is read "
                                    "on the rank's machine", path, (unsigned)DJ_LOAD_PATH_MAX);
    if (count < 1 || count > DJ_LOAD_TENSORS_MAX)
        return dj_fail(DJ_ERR_LIMIT, "%d tensors in one load, 1 to %u are possible", count,
                       (unsigned)DJ_LOAD_TENSORS_MAX);
    for (int i = 0; i < count; i++)
        if (strlen(names[i]) > DJ_LOAD_NAME_MAX)
            return dj_fail(DJ_ERR_LIMIT, "a tensor name of %zu bytes, at most %u",
                           strlen(names[i]), (unsigned)DJ_LOAD_NAME_MAX);
    return DJ_OK;
}

djinn_status_t djinn_load_many(djinn_t *djinn, const char *path, int count,
                               const char *const *names, djinn_tensor_t *tensors)
{
    djinn_storage_t **storages = NULL;
    dj_loaded_t *loaded = NULL;
    int made = 0;
    dj_djinn_lock(djinn);
    dj_status_t status = check_load(djinn, path, count, names);
    if (status != DJ_OK)
        goto out;
    storages = calloc((size_t)count, sizeof(*storages));
    loaded = calloc((size_t)count, sizeof(*loaded));
    if (!storages || !loaded)
        status = dj_fail(DJ_ERR_MEMORY, "no memory for %d tensors", count);
    for (; made < count && status == DJ_OK; made++) {
        status = dj_storage_create(djinn, 0, &storages[made]);
        if (status != DJ_OK)
            break;
        status = dj_storage_assign_ref(storages[made]);
    }
    if (status == DJ_OK)
        status = load_exchange(djinn, path, count, names, storages, loaded);
    for (int i = 0; i < count && status == DJ_OK; i++)
        status = take_loaded(&loaded[i], names[i], storages[i], &tensors[i]);
    for (int i = 0; i < made && status != DJ_OK; i++)
        dj_storage_put(storages[i]); /* and its ref: the rank may have it, if only the answer is late */
out:
    dj_djinn_unlock(djinn);
    free(storages);
    free(loaded);
    return (djinn_status_t)status;
}

djinn_status_t djinn_load(djinn_t *djinn, const char *path, const char *name,
                          djinn_tensor_t *tensor)
{
    return djinn_load_many(djinn, path, 1, &name, tensor);
}

/* ---- recording, the public face ---- */

static djinn_status_t record(djinn_t *djinn, int op, const djinn_arg_t *args, int n_args,
                             const djinn_tensor_t *target, djinn_tensor_t *outs)
{
    dj_djinn_lock(djinn);
    dj_recorder_t *recorder = dj_recorder_mine(djinn);
    dj_status_t status = DJ_OK;
    if (!recorder)
        status = dj_fail(DJ_ERR_MEMORY, "no memory for a recorder");
    else if (djinn->closed || atomic_load(&djinn->dead) || atomic_load(&djinn->ending))
        status = dj_djinn_check(djinn);
    if (status == DJ_OK)
        status = dj_recorder_record(recorder, op, args, n_args, target, outs);
    dj_djinn_unlock(djinn);
    return (djinn_status_t)status;
}

djinn_status_t djinn_record(djinn_t *djinn, int op, const djinn_arg_t *args, int n_args,
                            djinn_tensor_t *outs)
{
    return record(djinn, op, args, n_args, NULL, outs);
}

djinn_status_t djinn_record_into(djinn_t *djinn, int op, const djinn_arg_t *args, int n_args,
                                 const djinn_tensor_t *target)
{
    return record(djinn, op, args, n_args, target, NULL);
}

djinn_status_t djinn_boundary(djinn_t *djinn)
{
    dj_djinn_lock(djinn);
    dj_recorder_t *recorder = dj_recorder_mine(djinn);
    dj_status_t status = recorder ? dj_recorder_close_segment(recorder)
                                  : dj_fail(DJ_ERR_MEMORY, "no memory for a recorder");
    if (status == DJ_OK && recorder->n_closed >= DJ_EXEC_SEGMENTS_MAX)
        status = dj_recorder_submit(recorder, NULL, 0, NULL);
    dj_djinn_unlock(djinn);
    return (djinn_status_t)status;
}
