/* translate.c - one walk over a structure (translate.h). Snapshots are written with the numbers of
 * their own list of ops and read back with this build's. Every turn takes at least one byte of the
 * structure, so the walk is linear in it; that the rest makes sense is the decoder's to say
 * (graph_read.c). */
#include "planner/translate.h"

#include "planner/decode.h"

static dj_status_t fail_short(void)
{
    return dj_fail(DJ_ERR_PROTOCOL, "the structure ends in the middle of an op");
}

static dj_status_t skip_tensor(dj_reader_t *reader)
{
    uint8_t flags = dj_reader_u8(reader);
    if (flags == DJ_TENSOR_SCALAR)
        dj_reader_u8(reader); /* dtype */
    else if (flags & DJ_TENSOR_VIEW) {
        dj_reader_u8(reader); /* dtype */
        dj_reader_u8(reader); /* rank */
        dj_reader_varint(reader);
    } else if (flags != DJ_TENSOR_NONE)
        return dj_fail(DJ_ERR_PROTOCOL, "a tensor begins with byte 0x%02x", flags);
    return reader->failed ? fail_short() : DJ_OK;
}

static dj_status_t skip_tensors(dj_reader_t *reader)
{
    uint64_t count = dj_reader_varint(reader);
    if (count > DJ_LIST_MAX)
        return dj_fail(DJ_ERR_LIMIT, "a list of %llu tensors; at most %d",
                       (unsigned long long)count, DJ_LIST_MAX);
    for (uint64_t i = 0; i < count; i++) {
        dj_status_t status = skip_tensor(reader);
        if (status != DJ_OK)
            return status;
    }
    return DJ_OK;
}

static dj_status_t skip_integers(dj_reader_t *reader, bool in_structure)
{
    uint64_t count = dj_reader_varint(reader);
    if (count > DJ_LIST_MAX)
        return dj_fail(DJ_ERR_LIMIT, "a list of %llu integers", (unsigned long long)count - 1);
    for (uint64_t i = 1; in_structure && i < count; i++)
        dj_reader_signed(reader);
    return DJ_OK;
}

static dj_status_t skip_argument(dj_reader_t *reader, char letter)
{
    switch (letter) {
    case '-':
    case 'n':
        return DJ_OK;
    case 't':
    case 'T':
        return skip_tensor(reader);
    case 'l':
    case 'L':
        return skip_tensors(reader);
    case 'N':
    case 'D':
        return skip_integers(reader, letter == 'D');
    case 's':
    case 'S':
        dj_reader_u8(reader);
        return DJ_OK;
    default:
        dj_reader_signed(reader);
        return DJ_OK;
    }
}

static dj_status_t skip_target(dj_reader_t *reader)
{
    uint8_t kind = dj_reader_u8(reader);
    if (kind == DJ_TARGET_VIEW)
        return skip_tensor(reader);
    if (kind == DJ_TARGET_ARGUMENT)
        dj_reader_varint(reader);
    else if (kind != DJ_TARGET_NEW)
        return dj_fail(DJ_ERR_PROTOCOL, "a target of kind %u", kind);
    return DJ_OK;
}

/* Behind the op's number. */
static dj_status_t skip_op(dj_reader_t *reader, const dj_op_info_t *info)
{
    dj_status_t status = DJ_OK;
    for (uint32_t i = 0; i < info->n_args && status == DJ_OK; i++)
        status = skip_argument(reader, info->signature[i]);
    for (uint32_t i = 0; i < info->n_outs && status == DJ_OK; i++)
        status = skip_target(reader);
    if (status == DJ_OK && reader->failed)
        status = fail_short();
    return status == DJ_OK ? status : dj_fail_prefix(status, "%s", info->name);
}

static dj_status_t translate_op(dj_reader_t *reader, dj_renumber_t renumber, void *context,
                                dj_bytes_t *to)
{
    uint16_t op;
    uint64_t number, from = dj_reader_varint(reader);
    if (reader->failed)
        return fail_short();
    dj_status_t status = renumber(context, from, &number, &op);
    if (status != DJ_OK)
        return status;
    dj_bytes_put_u8(to, DJ_ITEM_OP);
    dj_bytes_put_varint(to, number);
    size_t begin = reader->at;
    status = skip_op(reader, dj_op_info(op));
    if (status == DJ_OK)
        dj_bytes_put(to, reader->data + begin, reader->at - begin);
    return status;
}

static dj_status_t translate_items(dj_reader_t *reader, dj_renumber_t renumber, void *context,
                                   dj_bytes_t *to)
{
    for (;;) {
        dj_status_t status = DJ_OK;
        uint8_t item = dj_reader_u8(reader);
        if (reader->failed)
            return dj_fail(DJ_ERR_PROTOCOL, "the structure has no end");
        if (item == DJ_ITEM_END)
            return DJ_OK;
        if (item == DJ_ITEM_INPUT) {
            dj_bytes_put_u8(to, item);
            dj_bytes_put_u8(to, dj_reader_u8(reader));
        } else if (item == DJ_ITEM_OP) {
            status = translate_op(reader, renumber, context, to);
        } else {
            status = dj_fail(DJ_ERR_PROTOCOL, "an item begins with byte 0x%02x", item);
        }
        if (status != DJ_OK)
            return status;
    }
}

dj_status_t dj_structure_translate(const void *structure, size_t size, dj_renumber_t renumber,
                                   void *context, dj_bytes_t *to)
{
    dj_reader_t reader;
    dj_reader_init(&reader, structure, size);
    const uint8_t *head = dj_reader_take(&reader, 4);
    if (head == NULL || memcmp(head, "DJP", 3) != 0)
        return dj_fail(DJ_ERR_PROTOCOL, "not a program");
    if (head[3] != DJ_PROGRAM_VERSION)
        return dj_fail(DJ_ERR_VERSION, "a program of version %u, this build reads %d", head[3],
                       DJ_PROGRAM_VERSION);
    dj_bytes_put(to, head, 4);
    dj_status_t status = translate_items(&reader, renumber, context, to);
    if (status != DJ_OK)
        return status;
    dj_bytes_put_u8(to, DJ_ITEM_END);
    dj_bytes_put(to, reader.data + reader.at, dj_reader_left(&reader));
    return to->failed ? dj_fail(DJ_ERR_MEMORY, "no memory for a structure of %zu bytes", size)
                      : DJ_OK;
}
