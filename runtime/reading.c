/* reading.c - parts of weights, read side by side (reading.h).
 *
 * A part is what Text hashes at a time. Readers take the next one until none is left: into the draft itself
 * where the host may write it; else into a slot of page-locked memory, past the page cache where the file system
 * allows (the bytes are wanted once, and not here), and from there the device fetches them on a stream of its own
 * while the reader fills its next slot. The hash is made of the slot, so nothing is read back.
 *
 * pread(), never mmap(): a file truncated behind our back is a short read, not a SIGBUS. */
#include "runtime/reading.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "comm/messages.h"

enum {
    READERS = 4,
    SLOTS = 2,                    /* a reader */
    ALONE_BYTES = 8 << 20,        /* not worth a thread */
    READ_BYTES = 1 << 30,         /* at most, of one call */
    BLOCK_BYTES = DJ_BOUNCE_ALIGN /* of reads past the page cache */
};
_Static_assert(DJ_BOUNCE_SLACK >= 2 * BLOCK_BYTES, "a slot takes a part and the blocks around it");

typedef struct reading_all {
    const dj_reading_file_t *file;
    dj_reading_t *readings;
    uint32_t n;
    dj_hash_t *parts;
    uint64_t n_parts;
    int direct_fd;      /* past the page cache; -1: not here */
    atomic_bool direct; /* it has not refused yet */
    _Atomic uint64_t next;
    atomic_bool stop;
    pthread_mutex_t lock;
    dj_status_t status; /* the first failure */
    char text[DJ_ERROR_TEXT_MAX];
} reading_all_t;

typedef struct slot {
    dj_bounce_t bounce;
    uint64_t ticket; /* 0: no copy under way */
} slot_t;

typedef struct part {
    const dj_reading_t *reading;
    uint64_t offset, bytes;
} part_t;

static void fail(reading_all_t *all, dj_status_t status)
{
    pthread_mutex_lock(&all->lock);
    if (all->status == DJ_OK) {
        all->status = status;
        snprintf(all->text, sizeof(all->text), "%s", dj_error_text());
    }
    pthread_mutex_unlock(&all->lock);
    atomic_store(&all->stop, true);
}

/* ---- reading ---- */

/* At least `wanted` bytes at `at`, and at most `room`. */
static dj_status_t read_range(const dj_reading_file_t *file, int fd, uint8_t *to, uint64_t wanted,
                              uint64_t room, uint64_t at)
{
    uint64_t got = 0;
    while (got < wanted) {
        uint64_t left = room - got;
        ssize_t n = pread(fd, to + got, left < READ_BYTES ? left : READ_BYTES, (off_t)(at + got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return dj_fail(DJ_ERR_FILE, "%s: reading %llu bytes at %llu: %s", file->path,
                           (unsigned long long)(wanted - got), (unsigned long long)(at + got),
                           strerror(errno));
        if (n == 0)
            return dj_fail(DJ_ERR_FILE, "%s ends before byte %llu, where weights go on to: copy it again",
                           file->path, (unsigned long long)(at + wanted));
        got += (uint64_t)n;
    }
    return DJ_OK;
}

/* Into a slot; the bytes are then at *data_p. A refusal of direct reading is believed for good. */
static dj_status_t read_into_slot(reading_all_t *all, const slot_t *slot, const part_t *part,
                                  const uint8_t **data_p)
{
    uint64_t begin = part->reading->begin + part->offset, end = begin + part->bytes;
    uint64_t from = begin & ~(uint64_t)(BLOCK_BYTES - 1);
    uint64_t to = (end + BLOCK_BYTES - 1) & ~(uint64_t)(BLOCK_BYTES - 1);
    uint8_t *memory = slot->bounce.memory;
    if (slot->bounce.pinned && all->direct_fd >= 0 && atomic_load(&all->direct)) {
        if (read_range(all->file, all->direct_fd, memory, end - from, to - from, from) == DJ_OK) {
            *data_p = memory + (begin - from);
            return DJ_OK;
        }
        atomic_store(&all->direct, false);
    }
    *data_p = memory;
    return read_range(all->file, all->file->fd, memory, part->bytes, part->bytes, begin);
}

static dj_status_t wait_for_slot(const reading_all_t *all, slot_t *slot)
{
    dj_device_t *device = all->file->device;
    uint64_t ticket = slot->ticket;
    slot->ticket = 0;
    return ticket ? device->ops->memory.copy_in_finish(device, ticket) : DJ_OK;
}

static dj_status_t send_slot(const reading_all_t *all, slot_t *slot, void *target, const uint8_t *data,
                             uint64_t bytes)
{
    dj_device_t *device = all->file->device;
    if (bytes && slot->bounce.pinned && device->ops->memory.copy_in_start)
        return device->ops->memory.copy_in_start(device, target, data, bytes, &slot->ticket);
    return device->ops->memory.copy_in(device, target, data, bytes);
}

static dj_status_t read_beside(reading_all_t *all, slot_t *slot, const part_t *part, dj_hash_t *hash_p)
{
    const uint8_t *data;
    dj_status_t status = wait_for_slot(all, slot);
    if (status == DJ_OK && !slot->bounce.memory)
        status = dj_bounce_take(all->file->bounce, DJ_TEXT_PART_BYTES + DJ_BOUNCE_SLACK, &slot->bounce);
    if (status == DJ_OK)
        status = read_into_slot(all, slot, part, &data);
    if (status != DJ_OK)
        return status;
    status = send_slot(all, slot, (uint8_t *)part->reading->draft->data + part->offset, data, part->bytes);
    *hash_p = dj_hash_of(data, part->bytes); /* the copy goes on meanwhile */
    return status;
}

static dj_status_t read_in_place(const reading_all_t *all, const part_t *part, dj_hash_t *hash_p)
{
    uint8_t *target = (uint8_t *)part->reading->draft->data + part->offset;
    dj_status_t status = read_range(all->file, all->file->fd, target, part->bytes, part->bytes,
                                    part->reading->begin + part->offset);
    if (status == DJ_OK)
        *hash_p = dj_hash_of(target, part->bytes);
    return status;
}

/* ---- readers ---- */

static part_t part_at(const reading_all_t *all, uint64_t number)
{
    uint32_t low = 0, high = all->n;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (all->readings[middle].first_part <= number)
            low = middle;
        else
            high = middle;
    }
    const dj_reading_t *reading = &all->readings[low];
    uint64_t offset = (number - reading->first_part) * DJ_TEXT_PART_BYTES;
    uint64_t left = reading->draft->bytes - offset;
    return (part_t){reading, offset, left < DJ_TEXT_PART_BYTES ? left : DJ_TEXT_PART_BYTES};
}

static void *reader_main(void *argument)
{
    reading_all_t *all = argument;
    slot_t slots[SLOTS] = {0};
    uint64_t number, turn = 0;
    dj_status_t status = DJ_OK;
    while (status == DJ_OK && !atomic_load(&all->stop) &&
           (number = atomic_fetch_add(&all->next, 1)) < all->n_parts) {
        part_t part = part_at(all, number);
        status = all->file->bounce ? read_beside(all, &slots[turn++ % SLOTS], &part, &all->parts[number])
                                   : read_in_place(all, &part, &all->parts[number]);
    }
    for (uint32_t i = 0; i < SLOTS; i++) {
        dj_status_t finished = wait_for_slot(all, &slots[i]);
        status = status == DJ_OK ? finished : status;
        dj_bounce_give(all->file->bounce, &slots[i].bounce);
    }
    if (status != DJ_OK)
        fail(all, status);
    return NULL;
}

static void *thread_main(void *argument)
{
    pthread_setname_np(pthread_self(), "dj-reader");
    return reader_main(argument);
}

/* This thread and as many others as may help. */
static void run_readers(reading_all_t *all, uint64_t bytes)
{
    pthread_t threads[READERS - 1];
    uint32_t n = 0;
    while (bytes > ALONE_BYTES && n < READERS - 1 && n + 1 < all->n_parts &&
           pthread_create(&threads[n], NULL, thread_main, all) == 0)
        n++;
    reader_main(all);
    while (n)
        pthread_join(threads[--n], NULL);
}

static int open_direct(const dj_reading_file_t *file)
{
    char path[64];
    if (!file->bounce)
        return -1;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", file->fd);
    return open(path, O_RDONLY | O_CLOEXEC | O_DIRECT);
}

dj_status_t dj_readings_read(const dj_reading_file_t *file, dj_reading_t *readings, uint32_t n)
{
    reading_all_t all = {.file = file, .readings = readings, .n = n, .lock = PTHREAD_MUTEX_INITIALIZER,
                         .direct = true, .direct_fd = -1};
    uint64_t bytes = 0;
    if (n == 0)
        return DJ_OK;
    for (uint32_t i = 0; i < n; i++) {
        readings[i].first_part = all.n_parts;
        all.n_parts += dj_text_parts(readings[i].draft->bytes);
        bytes += readings[i].draft->bytes;
    }
    all.parts = malloc(all.n_parts * sizeof(*all.parts));
    if (!all.parts)
        return dj_fail(DJ_ERR_MEMORY, "no memory to read %u weights", n);
    all.direct_fd = open_direct(file);
    run_readers(&all, bytes);
    for (uint32_t i = 0; i < n && all.status == DJ_OK; i++)
        readings[i].content = dj_text_name(&all.parts[readings[i].first_part], readings[i].draft->bytes);
    if (all.direct_fd >= 0)
        close(all.direct_fd);
    free(all.parts);
    pthread_mutex_destroy(&all.lock);
    return all.status == DJ_OK ? DJ_OK : dj_fail(all.status, "%s", all.text);
}
