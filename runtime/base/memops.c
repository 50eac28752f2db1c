/* memops.c - the memory-operation table: one row a kind of memory. */
#include "runtime/base/memops.h"

#include <string.h>

static dj_status_t host_copy(void *target, const void *source, size_t size)
{
    if (size > 0)
        memcpy(target, source, size);
    return DJ_OK;
}

static const dj_memops_t host_ops = {
    .kind = DJ_MEMORY_HOST,
    .name = "host",
    .copy_in = host_copy,
    .copy_out = host_copy,
    .copy_between = host_copy,
};

static const dj_memops_t *rows[DJ_MEMORY_KIND_COUNT] = {[DJ_MEMORY_HOST] = &host_ops};

dj_status_t dj_memops_register(const dj_memops_t *ops)
{
    if (ops->kind <= DJ_MEMORY_HOST || ops->kind >= DJ_MEMORY_KIND_COUNT)
        return dj_fail(DJ_ERR_INVALID, "memory kind %d cannot be registered", (int)ops->kind);
    if (!ops->name || !ops->copy_in || !ops->copy_out || !ops->copy_between || !ops->owns)
        return dj_fail(DJ_ERR_INVALID, "memory kind %d lacks an operation", (int)ops->kind);
    if (rows[ops->kind] && rows[ops->kind] != ops)
        return dj_fail(DJ_ERR_INVALID, "memory kind %s is registered already", ops->name);
    rows[ops->kind] = ops;
    return DJ_OK;
}

const dj_memops_t *dj_memops_get(dj_memory_kind_t kind)
{
    return (unsigned)kind < DJ_MEMORY_KIND_COUNT ? rows[kind] : NULL;
}

dj_memory_kind_t dj_memops_query(const void *address)
{
    for (unsigned kind = DJ_MEMORY_HOST + 1; kind < DJ_MEMORY_KIND_COUNT; kind++) {
        if (rows[kind] && rows[kind]->owns(address))
            return (dj_memory_kind_t)kind;
    }
    return DJ_MEMORY_HOST;
}

dj_status_t dj_memops_copy(dj_memory_kind_t target_kind, void *target, dj_memory_kind_t source_kind,
                           const void *source, size_t size)
{
    const dj_memops_t *to = dj_memops_get(target_kind), *from = dj_memops_get(source_kind);
    if (!to || !from)
        return dj_fail(DJ_ERR_UNSUPPORTED, "no operations for memory kind %d here",
                       (int)(to ? source_kind : target_kind));
    if (target_kind == source_kind)
        return to->copy_between(target, source, size);
    if (source_kind == DJ_MEMORY_HOST)
        return to->copy_in(target, source, size);
    if (target_kind == DJ_MEMORY_HOST)
        return from->copy_out(target, source, size);
    return dj_fail(DJ_ERR_UNSUPPORTED, "no direct copy from %s to %s memory", from->name, to->name);
}
