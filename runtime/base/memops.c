/* memops.c - the memory-operation table: one row a kind of memory. */
#include "runtime/base/memops.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_BYTES 4096

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

/* Optional slots come in groups: half of one is a mistake of its author. */
static bool groups_are_whole(const dj_memops_t *ops)
{
    unsigned copy =
        !!ops->copy_prepare + !!ops->copy_start + !!ops->copy_test + !!ops->copy_unprepare;
    return (copy == 0 || copy == 4) && !ops->pin == !ops->unpin;
}

dj_status_t dj_memops_register(const dj_memops_t *ops)
{
    if (ops->kind <= DJ_MEMORY_HOST || ops->kind >= DJ_MEMORY_KIND_COUNT)
        return dj_fail(DJ_ERR_INVALID, "memory kind %d cannot be registered", (int)ops->kind);
    if (!ops->name || !ops->copy_in || !ops->copy_out || !ops->copy_between || !ops->owns ||
        !groups_are_whole(ops))
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

dj_status_t dj_memops_pin(const dj_memops_t *ops, size_t size, void **memory_p)
{
    if (size == 0)
        return dj_fail(DJ_ERR_INVALID, "0 bytes of pinned memory");
    if (ops->pin)
        return ops->pin(size, memory_p);
    if (size > SIZE_MAX - PAGE_BYTES)
        return dj_fail(DJ_ERR_MEMORY, "%zu bytes of pinned memory", size);
    void *memory = aligned_alloc(PAGE_BYTES, (size + PAGE_BYTES - 1) & ~(size_t)(PAGE_BYTES - 1));
    if (!memory)
        return dj_fail(DJ_ERR_MEMORY, "no memory for %zu bytes of copy buffers", size);
    *memory_p = memory;
    return DJ_OK;
}

void dj_memops_unpin(const dj_memops_t *ops, void *memory, size_t size)
{
    if (ops->unpin && memory)
        ops->unpin(memory, size);
    else
        free(memory);
}

dj_status_t dj_memcopy_init(dj_memcopy_t *copy, const dj_memops_t *ops)
{
    *copy = (dj_memcopy_t){.ops = ops};
    return ops->copy_prepare ? ops->copy_prepare(&copy->handle) : DJ_OK;
}

void dj_memcopy_fini(dj_memcopy_t *copy)
{
    if (copy->ops && copy->ops->copy_unprepare)
        copy->ops->copy_unprepare(copy->handle);
    *copy = (dj_memcopy_t){0};
}

dj_status_t dj_memcopy_start(dj_memcopy_t *copy, dj_copy_direction_t direction, void *target,
                             const void *source, size_t size)
{
    const dj_memops_t *ops = copy->ops;
    if (copy->under_way)
        return dj_fail(DJ_ERR_BUSY, "the last copy to or from %s memory is not over", ops->name);
    if (size == 0)
        return DJ_OK;
    if (!ops->copy_start)
        return (direction == DJ_COPY_IN ? ops->copy_in : ops->copy_out)(target, source, size);
    dj_status_t status = ops->copy_start(copy->handle, direction, target, source, size);
    copy->under_way = status == DJ_IN_PROGRESS;
    return status;
}

dj_status_t dj_memcopy_test(dj_memcopy_t *copy)
{
    if (!copy->under_way)
        return DJ_OK;
    dj_status_t status = copy->ops->copy_test(copy->handle);
    copy->under_way = status == DJ_IN_PROGRESS;
    return status;
}
