/* fake_device.h - a device whose memory is plain memory and whose copies end when the test says so.
 *
 * Bytes move at the end of a copy and not before, so who uses them early finds old ones. A copy
 * ends by fake_end(), or by itself after fake.patience questions. Pinned memory is counted, and
 * spoilt when it is given back. Nothing here allocates but pin. One device a program. */
#ifndef DJ_TESTS_COMM_FAKE_DEVICE_H
#define DJ_TESTS_COMM_FAKE_DEVICE_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/memops.h"

enum { FAKE_COPIES_MAX = 256, FAKE_NEVER = -1 };

typedef struct fake_copy {
    bool prepared, under_way, over;
    void *target;
    const void *source;
    size_t size;
    int patience;
    dj_status_t outcome;
} fake_copy_t;

static struct {
    fake_copy_t copies[FAKE_COPIES_MAX];
    unsigned started, ended, waited; /* waited: by the end of their owner */
    uint64_t pinned;
    int patience;        /* questions until a new copy ends; 0: at once; FAKE_NEVER */
    unsigned fail_start; /* the start that fails, counted down; 0: none */
    unsigned fail_prepare;
    bool fail_pin;
    void (*on_start)(unsigned number, const void *source, size_t size);
} fake;

static inline void fake_reset(void)
{
    memset(&fake, 0, sizeof(fake));
}

/* Moves the bytes, unless the copy is to fail. */
static inline void fake_end(fake_copy_t *copy, dj_status_t outcome)
{
    if (!copy->under_way || copy->over)
        return;
    if (outcome == DJ_OK)
        memcpy(copy->target, copy->source, copy->size);
    copy->over = true;
    copy->outcome = outcome;
    ++fake.ended;
}

/* The copy under way from or to this address. */
static inline fake_copy_t *fake_find(const void *address)
{
    for (unsigned i = 0; i < FAKE_COPIES_MAX; ++i)
        if (fake.copies[i].under_way &&
            (fake.copies[i].source == address || fake.copies[i].target == address))
            return &fake.copies[i];
    return NULL;
}

static inline unsigned fake_under_way(void)
{
    unsigned count = 0;
    for (unsigned i = 0; i < FAKE_COPIES_MAX; ++i)
        count += fake.copies[i].under_way && !fake.copies[i].over;
    return count;
}

static inline unsigned fake_prepared(void)
{
    unsigned count = 0;
    for (unsigned i = 0; i < FAKE_COPIES_MAX; ++i)
        count += fake.copies[i].prepared;
    return count;
}

static dj_status_t fake_copy_now(void *target, const void *source, size_t size)
{
    memcpy(target, source, size);
    return DJ_OK;
}

static bool fake_owns(const void *address)
{
    (void)address;
    return false;
}

static dj_status_t fake_prepare(void **handle_p)
{
    if (fake.fail_prepare > 0 && --fake.fail_prepare == 0)
        return dj_fail(DJ_ERR_RESOURCE, "the fake device has no stream left");
    for (unsigned i = 0; i < FAKE_COPIES_MAX; ++i) {
        if (fake.copies[i].prepared)
            continue;
        fake.copies[i] = (fake_copy_t){.prepared = true};
        *handle_p = &fake.copies[i];
        return DJ_OK;
    }
    return dj_fail(DJ_ERR_LIMIT, "the fake device has %d copies", FAKE_COPIES_MAX);
}

static dj_status_t fake_start(void *handle, dj_copy_direction_t direction, void *target,
                              const void *source, size_t size)
{
    fake_copy_t *copy = handle;
    (void)direction;
    if (fake.on_start)
        fake.on_start(fake.started, source, size);
    ++fake.started;
    if (fake.fail_start > 0 && --fake.fail_start == 0)
        return dj_fail(DJ_ERR_SYSTEM, "the fake device starts no copy");
    copy->target = target;
    copy->source = source;
    copy->size = size;
    copy->patience = fake.patience;
    copy->under_way = true;
    copy->over = false;
    return DJ_IN_PROGRESS;
}

static dj_status_t fake_test(void *handle)
{
    fake_copy_t *copy = handle;
    if (copy->patience == 0)
        fake_end(copy, DJ_OK);
    else if (copy->patience > 0)
        --copy->patience;
    if (!copy->over)
        return DJ_IN_PROGRESS;
    copy->under_way = false;
    return copy->outcome;
}

static void fake_unprepare(void *handle)
{
    fake_copy_t *copy = handle;
    if (copy->under_way && !copy->over) {
        fake_end(copy, DJ_OK);
        ++fake.waited;
    }
    copy->prepared = copy->under_way = false;
}

static dj_status_t fake_pin(size_t size, void **memory_p)
{
    void *memory = fake.fail_pin ? NULL : malloc(size);
    if (!memory)
        return dj_fail(DJ_ERR_MEMORY, "the fake device pins nothing");
    fake.pinned += size;
    *memory_p = memory;
    return DJ_OK;
}

static void fake_unpin(void *memory, size_t size)
{
    memset(memory, 0xdd, size);
    fake.pinned -= size;
    free(memory);
}

static const dj_memops_t fake_ops = {.kind = DJ_MEMORY_CUDA,
                                     .name = "fake",
                                     .copy_in = fake_copy_now,
                                     .copy_out = fake_copy_now,
                                     .copy_between = fake_copy_now,
                                     .owns = fake_owns,
                                     .copy_prepare = fake_prepare,
                                     .copy_start = fake_start,
                                     .copy_test = fake_test,
                                     .copy_unprepare = fake_unprepare,
                                     .pin = fake_pin,
                                     .unpin = fake_unpin};

#endif
