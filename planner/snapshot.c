/* snapshot.c - snapshots to bytes and back (snapshot.h). Files are snapshot_file.c's.
 *
 * Whatever is read is copied into one arena, and every copy is paid with bytes of the file: counts
 * are held against what is left before anything is allocated for them. */
#include "planner/snapshot.h"

#include "planner/decode.h"
#include "planner/translate.h"

enum { HEAD_BYTES = 5, HASH_BYTES = sizeof(dj_hash_t), OPS_MAX = 1 << 12 };

/* ---- writing ---- */

/* The ops a file uses, in order of appearance. */
typedef struct dj_op_list {
    uint16_t number[DJ_OP_COUNT]; /* in the file, from 1; 0: not used */
    uint16_t ops[DJ_OP_COUNT];
    uint32_t count;
} dj_op_list_t;

static dj_status_t number_for_file(void *context, uint64_t from, uint64_t *to_p, uint16_t *op_p)
{
    dj_op_list_t *list = context;
    if (from >= DJ_OP_COUNT)
        return dj_fail(DJ_ERR_PROTOCOL, "op %llu is not in the table", (unsigned long long)from);
    if (list->number[from] == 0) {
        list->ops[list->count] = (uint16_t)from;
        list->number[from] = (uint16_t)++list->count;
    }
    *op_p = (uint16_t)from;
    *to_p = list->number[from] - 1u;
    return DJ_OK;
}

static bool is_plain(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if ((uint8_t)text[i] < ' ' || text[i] == 0x7f)
            return false;
    return length <= DJ_SNAPSHOT_TEXT_MAX;
}

static dj_status_t put_text(dj_bytes_t *bytes, const char *text)
{
    size_t length = text == NULL ? 0 : strlen(text);
    if (!is_plain(text, length))
        return dj_fail(DJ_ERR_INVALID,
                       "a name in a snapshot has at most %d bytes and no control "
                       "characters; this one has %zu",
                       DJ_SNAPSHOT_TEXT_MAX, length);
    dj_bytes_put_varint(bytes, length);
    dj_bytes_put(bytes, text, length);
    return DJ_OK;
}

static dj_status_t put_names(dj_bytes_t *bytes, const dj_snapshot_program_t *program)
{
    dj_bytes_put_varint(bytes, program->n_names);
    for (uint32_t i = 0; i < program->n_names; i++) {
        const dj_snapshot_name_t *name = &program->names[i];
        if (i > 0 && name->storage <= name[-1].storage)
            return dj_fail(DJ_ERR_INVALID, "names of storages must ascend: %u behind %u",
                           name->storage, name[-1].storage);
        dj_bytes_put_varint(bytes, name->storage);
        dj_status_t status = put_text(bytes, name->text);
        if (status != DJ_OK)
            return status;
    }
    return DJ_OK;
}

static dj_status_t put_program(dj_bytes_t *bytes, const dj_snapshot_program_t *program,
                               dj_op_list_t *list)
{
    dj_bytes_t structure = {0};
    if (program->structure_size > DJ_PROGRAM_BYTES_MAX ||
        program->sizes_size > DJ_PROGRAM_BYTES_MAX)
        return dj_fail(DJ_ERR_LIMIT, "a program of %zu + %zu bytes", program->structure_size,
                       program->sizes_size);
    dj_status_t status = dj_structure_translate(program->structure, program->structure_size,
                                                number_for_file, list, &structure);
    if (status == DJ_OK) {
        dj_bytes_put_varint(bytes, structure.size);
        dj_bytes_put(bytes, structure.data, structure.size);
        dj_bytes_put_varint(bytes, program->sizes_size);
        dj_bytes_put(bytes, program->sizes, program->sizes_size);
        dj_bytes_put_varint(bytes, program->n_scalars);
        for (uint32_t i = 0; i < program->n_scalars; i++)
            dj_bytes_put_u64(bytes, program->scalars[i]);
        status = put_names(bytes, program);
    }
    dj_bytes_fini(&structure);
    return status;
}

static dj_status_t put_head(const dj_snapshot_t *snapshot, const dj_op_list_t *list,
                            dj_bytes_t *bytes)
{
    dj_bytes_put(bytes, "DJSN", 4);
    dj_bytes_put_u8(bytes, DJ_SNAPSHOT_VERSION);
    dj_status_t status = put_text(bytes, snapshot->name);
    dj_bytes_put_u8(bytes, snapshot->phase);
    dj_bytes_put_varint(bytes, list->count);
    for (uint32_t i = 0; i < list->count && status == DJ_OK; i++) {
        const dj_op_info_t *info = dj_op_info(list->ops[i]);
        status = put_text(bytes, info->name);
        if (status == DJ_OK)
            status = put_text(bytes, info->signature);
    }
    dj_bytes_put_varint(bytes, snapshot->n_programs);
    return status;
}

dj_status_t dj_snapshot_encode(const dj_snapshot_t *snapshot, dj_bytes_t *bytes)
{
    dj_op_list_t list = {0};
    dj_bytes_t programs = {0};
    dj_status_t status = DJ_OK;
    size_t begin = bytes->size;
    if (snapshot->n_programs > DJ_SNAPSHOT_PROGRAMS_MAX)
        return dj_fail(DJ_ERR_LIMIT, "a snapshot of %u programs; at most %d", snapshot->n_programs,
                       DJ_SNAPSHOT_PROGRAMS_MAX);
    for (uint32_t i = 0; i < snapshot->n_programs && status == DJ_OK; i++) {
        status = put_program(&programs, &snapshot->programs[i], &list);
        if (status != DJ_OK)
            dj_fail_prefix(status, "program %u", i);
        else if (programs.size > DJ_SNAPSHOT_BYTES_MAX / 2)
            status = dj_fail(DJ_ERR_LIMIT, "a snapshot of more than %d bytes: record less",
                             DJ_SNAPSHOT_BYTES_MAX / 2);
    }
    if (status == DJ_OK)
        status = put_head(snapshot, &list, bytes);
    if (status == DJ_OK) {
        dj_bytes_put(bytes, programs.data, programs.size);
        dj_hash_t hash = dj_hash_of(bytes->data + begin, bytes->size - begin);
        dj_bytes_put(bytes, &hash, sizeof hash);
        if (bytes->failed || programs.failed)
            status = dj_fail(DJ_ERR_MEMORY, "no memory for a snapshot");
    }
    dj_bytes_fini(&programs);
    return status;
}

/* ---- reading ---- */

typedef struct dj_snapshot_decoder {
    dj_reader_t reader;
    dj_arena_t *arena;
    uint16_t *ops; /* of this build, by number in the file */
    uint32_t n_ops;
    dj_bytes_t structure; /* scratch */
} dj_snapshot_decoder_t;

static void *allocate(dj_snapshot_decoder_t *decoder, size_t bytes)
{
    void *piece = dj_arena_alloc(&decoder->arena, bytes);
    if (piece == NULL)
        dj_fail(DJ_ERR_MEMORY, "no memory for %zu bytes of a snapshot", bytes);
    return piece;
}

/* A count of things that take at least `least` bytes each. */
static dj_status_t read_count(dj_snapshot_decoder_t *decoder, const char *what, uint64_t limit,
                              size_t least, uint32_t *count_p)
{
    uint64_t count = dj_reader_varint(&decoder->reader);
    if (count > limit)
        return dj_fail(DJ_ERR_LIMIT, "%llu %s; at most %llu", (unsigned long long)count, what,
                       (unsigned long long)limit);
    if (decoder->reader.failed || count > dj_reader_left(&decoder->reader) / least)
        return dj_fail(DJ_ERR_PROTOCOL, "the snapshot ends before its %s", what);
    *count_p = (uint32_t)count;
    return DJ_OK;
}

static dj_status_t read_text(dj_snapshot_decoder_t *decoder, const char **text_p)
{
    uint32_t length;
    dj_status_t status = read_count(decoder, "bytes of a name", DJ_SNAPSHOT_TEXT_MAX, 1, &length);
    if (status != DJ_OK)
        return status;
    const char *from = dj_reader_take(&decoder->reader, length);
    if (!is_plain(from, length))
        return dj_fail(DJ_ERR_PROTOCOL, "a name has control characters");
    char *text = allocate(decoder, length + 1);
    if (text == NULL)
        return DJ_ERR_MEMORY;
    for (uint32_t i = 0; i < length; i++)
        text[i] = from[i];
    *text_p = text;
    return DJ_OK;
}

static dj_status_t read_op(dj_snapshot_decoder_t *decoder, uint16_t *op_p)
{
    const char *name, *signature;
    dj_status_t status = read_text(decoder, &name);
    if (status == DJ_OK)
        status = read_text(decoder, &signature);
    if (status != DJ_OK)
        return status;
    *op_p = dj_op_find(name);
    if (*op_p == DJ_OP_COUNT)
        return dj_fail(DJ_ERR_UNSUPPORTED, "%s is not in this build's op table", name);
    const dj_op_info_t *info = dj_op_info(*op_p);
    if (strcmp(info->signature, signature) != 0)
        return dj_fail(DJ_ERR_UNSUPPORTED,
                       "%s was written with signature %s, here it has %s: "
                       "take the snapshot again",
                       name, signature, info->signature);
    return DJ_OK;
}

static dj_status_t read_ops(dj_snapshot_decoder_t *decoder)
{
    dj_status_t status = read_count(decoder, "ops", OPS_MAX, 2, &decoder->n_ops);
    if (status != DJ_OK)
        return status;
    decoder->ops = allocate(decoder, decoder->n_ops * sizeof decoder->ops[0]);
    if (decoder->ops == NULL)
        return DJ_ERR_MEMORY;
    for (uint32_t i = 0; i < decoder->n_ops && status == DJ_OK; i++)
        status = read_op(decoder, &decoder->ops[i]);
    return status;
}

static dj_status_t number_here(void *context, uint64_t from, uint64_t *to_p, uint16_t *op_p)
{
    const dj_snapshot_decoder_t *decoder = context;
    if (from >= decoder->n_ops)
        return dj_fail(DJ_ERR_PROTOCOL, "op %llu is not in the file's list of %u",
                       (unsigned long long)from, decoder->n_ops);
    *to_p = *op_p = decoder->ops[from];
    return DJ_OK;
}

static dj_status_t read_structure(dj_snapshot_decoder_t *decoder, dj_snapshot_program_t *program)
{
    uint32_t size;
    dj_status_t status = read_count(decoder, "bytes of structure", DJ_PROGRAM_BYTES_MAX, 1, &size);
    if (status != DJ_OK)
        return status;
    const void *from = dj_reader_take(&decoder->reader, size);
    dj_bytes_clear(&decoder->structure);
    status = dj_structure_translate(from, size, number_here, decoder, &decoder->structure);
    if (status != DJ_OK)
        return status;
    program->structure_size = decoder->structure.size;
    program->structure = allocate(decoder, program->structure_size);
    if (program->structure == NULL)
        return DJ_ERR_MEMORY;
    memcpy((void *)program->structure, decoder->structure.data, program->structure_size);
    return DJ_OK;
}

static dj_status_t read_sizes(dj_snapshot_decoder_t *decoder, dj_snapshot_program_t *program)
{
    uint32_t size;
    dj_status_t status = read_count(decoder, "bytes of sizes", DJ_PROGRAM_BYTES_MAX, 1, &size);
    if (status != DJ_OK)
        return status;
    uint8_t *sizes = allocate(decoder, size);
    if (sizes == NULL)
        return DJ_ERR_MEMORY;
    dj_reader_copy(&decoder->reader, sizes, size);
    program->sizes = sizes;
    program->sizes_size = size;
    return DJ_OK;
}

static dj_status_t read_scalars(dj_snapshot_decoder_t *decoder, dj_snapshot_program_t *program)
{
    dj_status_t status =
        read_count(decoder, "scalars", DJ_PROGRAM_SCALARS_MAX, 8, &program->n_scalars);
    if (status != DJ_OK)
        return status;
    uint64_t *scalars = allocate(decoder, program->n_scalars * sizeof *scalars);
    if (scalars == NULL)
        return DJ_ERR_MEMORY;
    for (uint32_t i = 0; i < program->n_scalars; i++)
        scalars[i] = dj_reader_u64(&decoder->reader);
    program->scalars = scalars;
    return DJ_OK;
}

static dj_status_t read_names(dj_snapshot_decoder_t *decoder, dj_snapshot_program_t *program)
{
    uint64_t least = 0; /* the next storage's number */
    dj_status_t status =
        read_count(decoder, "names", DJ_PROGRAM_STORAGES_MAX, 2, &program->n_names);
    if (status != DJ_OK)
        return status;
    dj_snapshot_name_t *names = allocate(decoder, program->n_names * sizeof *names);
    if (names == NULL)
        return DJ_ERR_MEMORY;
    for (uint32_t i = 0; i < program->n_names && status == DJ_OK; i++) {
        uint64_t storage = dj_reader_varint(&decoder->reader);
        if (storage < least || storage >= DJ_PROGRAM_STORAGES_MAX)
            return dj_fail(DJ_ERR_PROTOCOL, "name %u is of storage %llu", i,
                           (unsigned long long)storage);
        names[i].storage = (uint32_t)storage;
        least = storage + 1;
        status = read_text(decoder, &names[i].text);
    }
    program->names = names;
    return status;
}

static dj_status_t read_program(dj_snapshot_decoder_t *decoder, dj_snapshot_program_t *program)
{
    dj_status_t status = read_structure(decoder, program);
    if (status == DJ_OK)
        status = read_sizes(decoder, program);
    if (status == DJ_OK)
        status = read_scalars(decoder, program);
    return status == DJ_OK ? read_names(decoder, program) : status;
}

static dj_status_t read_programs(dj_snapshot_decoder_t *decoder, dj_snapshot_t *snapshot)
{
    dj_status_t status =
        read_count(decoder, "programs", DJ_SNAPSHOT_PROGRAMS_MAX, 4, &snapshot->n_programs);
    if (status != DJ_OK)
        return status;
    dj_snapshot_program_t *programs = allocate(decoder, snapshot->n_programs * sizeof *programs);
    if (programs == NULL)
        return DJ_ERR_MEMORY;
    for (uint32_t i = 0; i < snapshot->n_programs; i++) {
        status = read_program(decoder, &programs[i]);
        if (status != DJ_OK)
            return dj_fail_prefix(status, "program %u", i);
    }
    if (dj_reader_left(&decoder->reader) > 0)
        return dj_fail(DJ_ERR_PROTOCOL, "%zu bytes too many in the snapshot",
                       dj_reader_left(&decoder->reader));
    snapshot->programs = programs;
    return DJ_OK;
}

static dj_status_t check_head(const uint8_t *data, size_t size)
{
    dj_hash_t hash;
    if (size < HEAD_BYTES + HASH_BYTES || memcmp(data, "DJSN", 4) != 0)
        return dj_fail(DJ_ERR_PROTOCOL, "not a snapshot");
    if (data[4] != DJ_SNAPSHOT_VERSION)
        return dj_fail(DJ_ERR_VERSION, "a snapshot of version %u, this build reads %d", data[4],
                       DJ_SNAPSHOT_VERSION);
    memcpy(&hash, data + size - HASH_BYTES, HASH_BYTES);
    if (!dj_hash_equal(hash, dj_hash_of(data, size - HASH_BYTES)))
        return dj_fail(DJ_ERR_CORRUPT, "the snapshot is not what was written: its hash differs");
    return DJ_OK;
}

dj_status_t dj_snapshot_decode(const void *data, size_t size, dj_snapshot_t **snapshot_p)
{
    dj_snapshot_decoder_t decoder = {0};
    dj_snapshot_t *snapshot = NULL;
    dj_status_t status = check_head(data, size);
    if (status != DJ_OK)
        return status;
    dj_reader_init(&decoder.reader, (const uint8_t *)data + HEAD_BYTES,
                   size - HEAD_BYTES - HASH_BYTES);
    if ((snapshot = allocate(&decoder, sizeof *snapshot)) == NULL)
        return DJ_ERR_MEMORY;
    status = read_text(&decoder, &snapshot->name);
    snapshot->phase = dj_reader_u8(&decoder.reader);
    if (status == DJ_OK)
        status = read_ops(&decoder);
    if (status == DJ_OK)
        status = read_programs(&decoder, snapshot);
    dj_bytes_fini(&decoder.structure);
    if (status != DJ_OK) {
        dj_arena_destroy(decoder.arena);
        return status;
    }
    snapshot->arena = decoder.arena;
    *snapshot_p = snapshot;
    return DJ_OK;
}

void dj_snapshot_destroy(dj_snapshot_t *snapshot)
{
    if (snapshot != NULL)
        dj_arena_destroy(snapshot->arena); /* it lives there itself */
}

/* ---- what is in it ---- */

dj_status_t dj_snapshot_graph(const dj_snapshot_t *snapshot, uint32_t program, dj_graph_t **graph_p)
{
    dj_graph_t *graph;
    if (program >= snapshot->n_programs)
        return dj_fail(DJ_ERR_INVALID, "%s has %u programs, none is %u", snapshot->name,
                       snapshot->n_programs, program);
    const dj_snapshot_program_t *p = &snapshot->programs[program];
    dj_status_t status = dj_graph_decode(p->structure, p->structure_size, p->sizes, p->sizes_size,
                                         p->n_scalars, &graph);
    if (status == DJ_OK && (status = dj_graph_check_offsets(graph, p->scalars)) != DJ_OK)
        dj_graph_destroy(graph);
    if (status != DJ_OK)
        return dj_fail_prefix(status, "%s, program %u", snapshot->name, program);
    *graph_p = graph;
    return DJ_OK;
}

const char *dj_snapshot_name(const dj_snapshot_program_t *program, uint32_t storage)
{
    uint32_t low = 0, high = program->n_names;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (program->names[middle].storage == storage)
            return program->names[middle].text;
        if (program->names[middle].storage < storage)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}
