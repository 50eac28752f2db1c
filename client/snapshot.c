/* snapshot.c - what was recorded, as a file (planner/snapshot.h).
 *
 * Either what the calling thread has recorded and not sent, as it would leave now, or every program
 * that leaves the connection between begin and end. The latter is copied where a request is built,
 * under the connection's lock; when that fails the request goes on and the end tells why. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/client.h"
#include "planner/snapshot.h"

enum { COLLECTED_BYTES_MAX = DJ_SNAPSHOT_BYTES_MAX / 2 };

struct dj_collector {
    dj_arena_t *arena;
    dj_snapshot_program_t *programs;
    uint32_t n_programs, room;
    uint64_t bytes;
    dj_status_t status; /* of the first copy that failed; nothing is kept from then on */
    char text[DJ_ERROR_TEXT_MAX];
};

/* ---- copies ---- */

static void *copy_of(dj_collector_t *collector, const void *data, size_t size)
{
    void *copy = dj_arena_alloc(&collector->arena, size);
    if (!copy)
        dj_fail(DJ_ERR_MEMORY, "no memory for a snapshot of %llu bytes",
                (unsigned long long)collector->bytes);
    else if (size)
        memcpy(copy, data, size);
    return copy;
}

static dj_status_t copy_names(dj_collector_t *collector, const dj_segment_record_t *segment,
                              dj_snapshot_program_t *program)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < segment->n_storages; i++)
        count += segment->storages[i].storage->name != NULL;
    dj_snapshot_name_t *names = dj_arena_alloc(&collector->arena, count * sizeof(*names));
    if (!names)
        return dj_fail(DJ_ERR_MEMORY, "no memory for %u names", count);
    program->names = names;
    for (uint32_t i = 0; i < segment->n_storages; i++) {
        const char *name = segment->storages[i].storage->name;
        if (!name)
            continue;
        const char *copy = copy_of(collector, name, strlen(name) + 1);
        if (!copy)
            return DJ_ERR_MEMORY;
        names[program->n_names++] = (dj_snapshot_name_t){i, copy};
    }
    return DJ_OK;
}

static dj_status_t make_room(dj_collector_t *collector, uint64_t bytes)
{
    if (collector->n_programs == DJ_SNAPSHOT_PROGRAMS_MAX)
        return dj_fail(DJ_ERR_LIMIT, "a snapshot holds at most %d programs: end it sooner",
                       DJ_SNAPSHOT_PROGRAMS_MAX);
    if (collector->bytes + bytes > COLLECTED_BYTES_MAX)
        return dj_fail(DJ_ERR_LIMIT, "a snapshot holds at most %d bytes of programs: end it sooner",
                       COLLECTED_BYTES_MAX);
    if (collector->n_programs < collector->room)
        return DJ_OK;
    uint32_t room = collector->room ? collector->room * 2 : 16;
    void *grown = realloc(collector->programs, room * sizeof(*collector->programs));
    if (!grown)
        return dj_fail(DJ_ERR_MEMORY, "no memory for %u programs of a snapshot", room);
    collector->programs = grown;
    collector->room = room;
    return DJ_OK;
}

/* `structure` is complete; sizes, scalars and names are the segment's. */
static dj_status_t keep(dj_collector_t *collector, const dj_segment_record_t *segment,
                        const dj_bytes_t *structure)
{
    const dj_bytes_t *sizes = &segment->program.sizes, *scalars = &segment->program.scalars;
    uint64_t bytes = structure->size + sizes->size + scalars->size;
    dj_status_t status = make_room(collector, bytes);
    if (status != DJ_OK)
        return status;
    dj_snapshot_program_t program = {
        .structure = copy_of(collector, structure->data, structure->size),
        .structure_size = structure->size,
        .sizes = copy_of(collector, sizes->data, sizes->size),
        .sizes_size = sizes->size,
        .scalars = copy_of(collector, scalars->data, scalars->size),
        .n_scalars = (uint32_t)(scalars->size / 8),
    };
    if (!program.structure || !program.sizes || !program.scalars)
        return DJ_ERR_MEMORY;
    status = copy_names(collector, segment, &program);
    if (status != DJ_OK)
        return status;
    collector->bytes += bytes;
    collector->programs[collector->n_programs++] = program;
    return DJ_OK;
}

void dj_collector_add(dj_collector_t *collector, const dj_segment_record_t *segments)
{
    for (; segments && collector->status == DJ_OK; segments = segments->next) {
        collector->status = keep(collector, segments, &segments->program.structure);
        if (collector->status != DJ_OK)
            snprintf(collector->text, sizeof(collector->text), "%s", dj_error_text());
    }
}

/* The open segment goes on after this: a copy of its structure is closed. */
static dj_status_t keep_open(dj_collector_t *collector, const dj_segment_record_t *segment)
{
    dj_program_t copy = {.n_nodes = segment->program.n_nodes};
    uint32_t *outputs = malloc((segment->n_storages + 1) * sizeof(*outputs)), n_outputs = 0;
    if (!outputs)
        return dj_fail(DJ_ERR_MEMORY, "no memory for the outputs of a segment");
    for (uint32_t i = 0; i < segment->n_storages; i++)
        if (segment->storages[i].role == DJ_ROLE_PRODUCED &&
            dj_storage_outlives(segment->storages[i].storage))
            outputs[n_outputs++] = i;
    dj_bytes_put(&copy.structure, segment->program.structure.data, segment->program.structure.size);
    dj_status_t status = dj_program_finish(&copy, outputs, n_outputs, NULL, NULL);
    if (status == DJ_OK)
        status = keep(collector, segment, &copy.structure);
    dj_program_fini(&copy);
    free(outputs);
    return status;
}

static void collector_fini(dj_collector_t *collector)
{
    dj_arena_destroy(collector->arena);
    free(collector->programs);
}

void dj_collector_destroy(dj_collector_t *collector)
{
    if (!collector)
        return;
    collector_fini(collector);
    free(collector);
}

/* ---- files ---- */

static dj_status_t write_file(const dj_collector_t *collector, const char *path,
                              const djinn_snapshot_about_t *about)
{
    const char *name = about ? about->name : NULL;
    int phase = about ? about->phase : 0;
    char text[DJ_SNAPSHOT_TEXT_MAX + 1];
    const char *slash = strrchr(path, '/');
    if (phase < 0 || phase > UINT8_MAX)
        return dj_fail(DJ_ERR_INVALID, "a phase of %d", phase);
    snprintf(text, sizeof(text), "%s", name ? name : slash ? slash + 1 : path);
    dj_snapshot_t snapshot = {.name = text,
                              .phase = (uint8_t)phase,
                              .n_programs = collector->n_programs,
                              .programs = collector->programs};
    return dj_snapshot_write(path, &snapshot);
}

djinn_status_t djinn_snapshot_now(djinn_t *djinn, const char *path,
                                  const djinn_snapshot_about_t *about)
{
    dj_collector_t collector = {0};
    dj_djinn_lock(djinn);
    dj_recorder_t *recorder = dj_recorder_mine(djinn);
    dj_status_t status = recorder ? DJ_OK : dj_fail(DJ_ERR_MEMORY, "no memory for a recorder");
    if (status == DJ_OK) {
        dj_collector_add(&collector, recorder->closed);
        status = collector.status;
    }
    if (status == DJ_OK && recorder->open)
        status = keep_open(&collector, recorder->open);
    dj_djinn_unlock(djinn);
    if (status == DJ_OK)
        status = write_file(&collector, path, about);
    collector_fini(&collector);
    return (djinn_status_t)status;
}

djinn_status_t djinn_snapshot(djinn_t *djinn, const char *path)
{
    return djinn_snapshot_now(djinn, path, NULL);
}

djinn_status_t djinn_snapshot_begin(djinn_t *djinn)
{
    dj_status_t status = DJ_OK;
    dj_djinn_lock(djinn);
    if (djinn->collector)
        status = dj_fail(DJ_ERR_BUSY, "a snapshot of this connection has begun already: end it");
    else if (!(djinn->collector = calloc(1, sizeof(*djinn->collector))))
        status = dj_fail(DJ_ERR_MEMORY, "no memory for a snapshot");
    dj_djinn_unlock(djinn);
    return (djinn_status_t)status;
}

djinn_status_t djinn_snapshot_end(djinn_t *djinn, const char *path,
                                  const djinn_snapshot_about_t *about)
{
    dj_djinn_lock(djinn);
    dj_collector_t *collector = djinn->collector;
    djinn->collector = NULL;
    dj_djinn_unlock(djinn);
    if (!collector)
        return (djinn_status_t)dj_fail(DJ_ERR_INVALID, "no snapshot has begun");
    dj_status_t status = collector->status;
    if (status != DJ_OK)
        dj_fail(status, "%s", collector->text);
    else if (path)
        status = write_file(collector, path, about);
    dj_collector_destroy(collector);
    return (djinn_status_t)status;
}

djinn_status_t djinn_storage_set_name(djinn_storage_t *storage, const char *name)
{
    char *copy = NULL;
    size_t length = name ? strlen(name) : 0;
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)name[i] < ' ' || name[i] == 0x7f)
            return (djinn_status_t)dj_fail(DJ_ERR_INVALID, "a name with control characters");
    if (length > DJ_SNAPSHOT_TEXT_MAX)
        return (djinn_status_t)dj_fail(DJ_ERR_LIMIT, "a name of %zu bytes; at most %d", length,
                                       DJ_SNAPSHOT_TEXT_MAX);
    if (name && !(copy = strdup(name)))
        return (djinn_status_t)dj_fail(DJ_ERR_MEMORY, "no memory for a name");
    dj_djinn_lock(storage->djinn);
    free(storage->name);
    storage->name = copy;
    dj_djinn_unlock(storage->djinn);
    return DJINN_OK;
}
