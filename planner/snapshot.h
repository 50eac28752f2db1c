/* snapshot.h - recorded graphs as a file: what djinn_snapshot() writes, and `djinn plan show`,
 * `djinn plan replay`, the tests and the benchmarks read.
 *
 * A snapshot holds what the planner needs to plan again what a client recorded, and nothing that is
 * secret or large: programs with the sizes and scalars of one request, names, and no tensor's
 * bytes. It outlives the build that wrote it: a program names ops by their numbers in the table of
 * one build (ops.def), so the file carries names and signatures of the ops it uses, and a reader
 * translates. A program read back may therefore have another program key than when it was recorded;
 * equal programs still have equal keys.
 *
 * File (little-endian; `v` is a varint; a text is length:v and bytes without control characters):
 *   file    := "DJSN" version:u8 name:text phase:u8 n_ops:v op* n_programs:v program* hash:16
 *   op      := name:text signature:text            as ops.def has them
 *   program := structure_bytes:v structure sizes_bytes:v sizes n_scalars:v scalar:u64*
 *              n_names:v name*
 *   name    := storage:v text                      storages ascending; not every one has a name
 * The structure is program.h's, with ops numbered as the file lists them. The phase is a user's
 * hint (0: none). The hash is dj_hash_of() everything before it.
 *
 * A file is foreign: reading it gives a snapshot or a status, in time and memory linear in its
 * length. What a program says is dj_graph_decode()'s to check: dj_snapshot_graph().
 *
 * Ownership: dj_snapshot_destroy() frees what decode and read gave. One that a caller fills to
 * encode it points at the caller's memory.
 * Threads: immutable once read. */
#ifndef DJ_PLANNER_SNAPSHOT_H
#define DJ_PLANNER_SNAPSHOT_H

#include "planner/arena.h"
#include "planner/graph.h"

#define DJ_SNAPSHOT_VERSION 1

enum {
    DJ_SNAPSHOT_BYTES_MAX = 256 << 20,
    DJ_SNAPSHOT_PROGRAMS_MAX = 1 << 16,
    DJ_SNAPSHOT_TEXT_MAX = 255, /* bytes of a name */
};

typedef struct dj_snapshot_name {
    uint32_t storage; /* of the program; ascending */
    const char *text;
} dj_snapshot_name_t;

typedef struct dj_snapshot_program {
    const uint8_t *structure, *sizes;
    size_t structure_size, sizes_size;
    const uint64_t *scalars;
    uint32_t n_scalars;
    const dj_snapshot_name_t *names;
    uint32_t n_names;
} dj_snapshot_program_t;

typedef struct dj_snapshot {
    const char *name;
    uint8_t phase; /* what the user called it; 0: nothing */
    uint32_t n_programs;
    const dj_snapshot_program_t *programs; /* in the order sent */
    dj_arena_t *arena; /* where decode put all of the above; NULL in a caller's own */
} dj_snapshot_t;

/* Appends the file to `bytes`. Structures must be what this process's recorder makes.
 * DJ_ERR_LIMIT, DJ_ERR_INVALID (names), DJ_ERR_PROTOCOL (no structure), DJ_ERR_MEMORY. */
dj_status_t dj_snapshot_encode(const dj_snapshot_t *snapshot, dj_bytes_t *bytes);

/* DJ_ERR_PROTOCOL, DJ_ERR_VERSION, DJ_ERR_CORRUPT (the hash), DJ_ERR_UNSUPPORTED (an op that this
 * build does not have), DJ_ERR_LIMIT, DJ_ERR_MEMORY. */
dj_status_t dj_snapshot_decode(const void *data, size_t size, dj_snapshot_t **snapshot_p);
void dj_snapshot_destroy(dj_snapshot_t *snapshot);

/* A regular file of at most DJ_SNAPSHOT_BYTES_MAX. DJ_ERR_FILE and as above; it is named. */
dj_status_t dj_snapshot_read(const char *path, dj_snapshot_t **snapshot_p);
/* In place of what was there, whole or not at all. */
dj_status_t dj_snapshot_write(const char *path, const dj_snapshot_t *snapshot);

/* dj_graph_decode() of one program, offsets checked; the sentence names file and program. */
dj_status_t dj_snapshot_graph(const dj_snapshot_t *snapshot, uint32_t program,
                              dj_graph_t **graph_p);
/* The name of a storage of the program; NULL when it has none. */
const char *dj_snapshot_name(const dj_snapshot_program_t *program, uint32_t storage);

#endif
