/* reading.h - weights from a file into drafts of Text: several threads read, hash and copy parts of them.
 *
 * Threads: the device thread, which is one of the readers. */
#ifndef DJ_RUNTIME_READING_H
#define DJ_RUNTIME_READING_H

#include "gpu/bounce.h"
#include "gpu/text.h"

typedef struct dj_reading_file {
    dj_device_t *device;
    dj_bounce_pool_t *bounce; /* NULL: the host reads the device's memory */
    int fd;
    const char *path;
} dj_reading_file_t;

typedef struct dj_reading {
    dj_text_t *draft;
    uint64_t begin;    /* of its bytes in the file */
    dj_hash_t content; /* out: their name */
    uint64_t first_part; /* reading.c's */
} dj_reading_t;

/* All or nothing: after a failure drafts hold anything. The bytes that were hashed are those that were copied,
 * whatever becomes of the file meanwhile. DJ_ERR_FILE, DJ_ERR_MEMORY, DJ_ERR_DEVICE. */
dj_status_t dj_readings_read(const dj_reading_file_t *file, dj_reading_t *readings, uint32_t n);

#endif
