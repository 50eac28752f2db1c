/* graph_read.c - from bytes to the arguments of one op.
 *
 * The bytes are foreign: every count is held against what is left of its stream before memory is
 * asked for, every storage number against those that appeared, every view against its storage. */
#include "planner/decode.h"

void *dj_decoder_alloc(dj_decoder_t *decoder, size_t count, size_t size)
{
    void *piece = dj_arena_alloc(&decoder->arena, count * size);
    if (piece == NULL)
        dj_fail(DJ_ERR_MEMORY, "no memory for %zu bytes of a graph", count * size);
    return piece;
}

void *dj_vector_add(dj_decoder_t *decoder, dj_vector_t *vector, size_t size)
{
    if (vector->count == vector->capacity) {
        uint32_t capacity = vector->capacity > 0 ? vector->capacity * 2 : 16;
        void *data = dj_decoder_alloc(decoder, capacity, size);
        if (data == NULL)
            return NULL;
        if (vector->count > 0)
            memcpy(data, vector->data, vector->count * size);
        vector->data = data;
        vector->capacity = capacity;
    }
    return (char *)vector->data + size * vector->count++;
}

static dj_status_t fail_short(void)
{
    return dj_fail(DJ_ERR_PROTOCOL, "the program ends in the middle of an op");
}

static dj_status_t take_slot(dj_decoder_t *decoder, uint8_t dtype, uint32_t *slot_p)
{
    if (decoder->next_scalar >= decoder->n_scalars)
        return dj_fail(DJ_ERR_PROTOCOL, "the program uses more scalars than the %u that came",
                       decoder->n_scalars);
    decoder->scalar_dtypes[decoder->next_scalar] = dtype;
    *slot_p = decoder->next_scalar++;
    return DJ_OK;
}

static dj_status_t take_scalar(dj_decoder_t *decoder, uint8_t dtype, uint32_t *slot_p)
{
    if (dtype != DJ_BOOL && dtype != DJ_I64 && dtype != DJ_F64)
        return dj_fail(DJ_ERR_PROTOCOL, "a number of type %u", dtype);
    return take_slot(decoder, dtype, slot_p);
}

static dj_status_t take_sizes(dj_decoder_t *decoder, int64_t *values, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint64_t value = dj_reader_varint(&decoder->sizes);
        if (value > DJ_TENSOR_BYTES_MAX)
            return dj_fail(DJ_ERR_LIMIT, "a size of %llu", (unsigned long long)value);
        values[i] = (int64_t)value;
    }
    if (decoder->sizes.failed)
        return dj_fail(DJ_ERR_PROTOCOL, "the program uses more sizes than came");
    return DJ_OK;
}

/* The strides of a dense row-major view, in place. */
static void fill_strides(dj_view_t *view)
{
    uint64_t stride = 1; /* unsigned: the sizes have not been checked yet */
    for (uint32_t i = view->rank; i-- > 0;) {
        view->strides[i] = (int64_t)(stride & INT64_MAX);
        stride *= view->sizes[i] > 0 ? (uint64_t)view->sizes[i] : 1;
    }
}

static dj_status_t read_view(dj_decoder_t *decoder, bool strided, dj_operand_t *operand)
{
    dj_view_t *view = &operand->view;
    view->dtype = dj_reader_u8(&decoder->structure);
    view->rank = dj_reader_u8(&decoder->structure);
    uint64_t storage = dj_reader_varint(&decoder->structure);
    if (decoder->structure.failed)
        return fail_short();
    if (view->rank > DJ_RANK_MAX)
        return dj_fail(DJ_ERR_LIMIT, "rank %u is above the limit of %d", view->rank, DJ_RANK_MAX);
    if (storage >= decoder->storages.count)
        return dj_fail(DJ_ERR_PROTOCOL, "storage %llu has not appeared yet",
                       (unsigned long long)storage);
    operand->storage = (uint32_t)storage;
    dj_status_t status = take_sizes(decoder, view->sizes, view->rank);
    if (status == DJ_OK && strided)
        status = take_sizes(decoder, view->strides, view->rank);
    else if (status == DJ_OK)
        fill_strides(view);
    return status;
}

static dj_status_t add_offset(dj_decoder_t *decoder, dj_operand_t *operand)
{
    dj_status_t status = take_slot(decoder, DJ_I64, &operand->slot);
    if (status != DJ_OK)
        return status;
    dj_offset_slot_t *slot = dj_vector_add(decoder, &decoder->offsets, sizeof *slot);
    if (slot == NULL)
        return DJ_ERR_MEMORY;
    *slot = (dj_offset_slot_t){
        .slot = operand->slot,
        .storage = operand->storage,
        .item_bytes = dj_dtype_bytes(operand->view.dtype),
        .extent_bytes = dj_view_extent_bytes(&operand->view),
    };
    return DJ_OK;
}

static dj_status_t read_tensor(dj_decoder_t *decoder, uint8_t flags, dj_operand_t *operand)
{
    dj_status_t status = read_view(decoder, flags & DJ_TENSOR_STRIDED, operand);
    if (status != DJ_OK)
        return status;
    const dj_storage_t *storage = dj_decoder_storage(decoder, operand->storage);
    operand->version = storage->n_versions - 1;
    status = dj_view_check(&operand->view, storage->bytes);
    if (status == DJ_OK && (flags & DJ_TENSOR_OFFSET))
        status = add_offset(decoder, operand);
    return status;
}

dj_status_t dj_decode_operand(dj_decoder_t *decoder, dj_operand_t *operand)
{
    uint8_t flags = dj_reader_u8(&decoder->structure);
    operand->storage = DJ_STORAGE_NONE; /* all else is zero */
    operand->slot = DJ_SLOT_NONE;
    if (decoder->structure.failed)
        return fail_short();
    if (++decoder->n_operands > DJ_PROGRAM_OPERANDS_MAX)
        return dj_fail(DJ_ERR_LIMIT, "more than %d operands", DJ_PROGRAM_OPERANDS_MAX);
    if (flags == DJ_TENSOR_NONE)
        return DJ_OK;
    if (flags == DJ_TENSOR_SCALAR) {
        operand->storage = DJ_STORAGE_SCALAR;
        operand->view.dtype = operand->scalar.dtype = dj_reader_u8(&decoder->structure);
        return take_scalar(decoder, operand->view.dtype, &operand->slot);
    }
    if ((flags & ~(DJ_TENSOR_STRIDED | DJ_TENSOR_OFFSET)) != DJ_TENSOR_VIEW)
        return dj_fail(DJ_ERR_PROTOCOL, "a tensor begins with byte 0x%02x", flags);
    return read_tensor(decoder, flags, operand);
}

static dj_status_t read_tensors(dj_decoder_t *decoder, bool list, dj_arg_t *arg)
{
    uint64_t count = list ? dj_reader_varint(&decoder->structure) : 1;
    if (count > DJ_LIST_MAX)
        return dj_fail(DJ_ERR_LIMIT, "a list of %llu tensors; at most %d",
                       (unsigned long long)count, DJ_LIST_MAX);
    if (count > dj_reader_left(&decoder->structure))
        return fail_short();
    dj_operand_t *operands = dj_decoder_alloc(decoder, count, sizeof *operands);
    if (operands == NULL)
        return DJ_ERR_MEMORY;
    *arg = (dj_arg_t){.kind = DJ_ARG_TENSORS, .count = (uint32_t)count, .slot = DJ_SLOT_NONE};
    arg->operands = operands;
    for (uint32_t i = 0; i < count; i++) {
        dj_status_t status = dj_decode_operand(decoder, &operands[i]);
        if (status != DJ_OK)
            return status;
    }
    return DJ_OK;
}

static dj_status_t read_integers(dj_decoder_t *decoder, bool shaping, dj_arg_t *arg)
{
    uint64_t count = dj_reader_varint(&decoder->structure);
    dj_status_t status = DJ_OK;
    if (decoder->structure.failed)
        return fail_short();
    if (count == 0)
        return DJ_OK; /* none: the argument is zeroed */
    uint32_t limit = shaping ? DJ_RANK_MAX : DJ_STRUCTURAL_MAX;
    if (--count > limit)
        return dj_fail(DJ_ERR_LIMIT, "a list of %llu integers; at most %u",
                       (unsigned long long)count, limit);
    int64_t *values = dj_decoder_alloc(decoder, count, sizeof *values);
    if (values == NULL)
        return DJ_ERR_MEMORY;
    if (shaping)
        status = take_sizes(decoder, values, (uint32_t)count);
    for (uint32_t i = 0; !shaping && i < count; i++)
        values[i] = dj_reader_signed(&decoder->structure);
    *arg = (dj_arg_t){.kind = DJ_ARG_INTEGERS, .count = (uint32_t)count, .slot = DJ_SLOT_NONE};
    arg->integers = values;
    return status;
}

static dj_status_t read_number(dj_decoder_t *decoder, dj_arg_t *arg)
{
    uint8_t dtype = dj_reader_u8(&decoder->structure);
    if (decoder->structure.failed)
        return fail_short();
    if (dtype == DJ_DTYPE_NONE)
        return DJ_OK;
    arg->kind = DJ_ARG_SCALAR;
    arg->scalar.dtype = dtype;
    return take_scalar(decoder, dtype, &arg->slot);
}

dj_status_t dj_decode_argument(dj_decoder_t *decoder, char letter, dj_arg_t *arg)
{
    *arg = (dj_arg_t){.kind = DJ_ARG_NONE, .slot = DJ_SLOT_NONE};
    switch (letter) {
    case '-':
        return DJ_OK;
    case 't':
    case 'T':
        return read_tensors(decoder, false, arg);
    case 'l':
    case 'L':
        return read_tensors(decoder, true, arg);
    case 'N':
    case 'D':
        return read_integers(decoder, letter == 'N', arg);
    case 's':
    case 'S':
        return read_number(decoder, arg);
    case 'n':
        arg->kind = DJ_ARG_INTEGER;
        return take_sizes(decoder, &arg->integer, 1);
    default:
        arg->kind = DJ_ARG_INTEGER;
        arg->integer = dj_reader_signed(&decoder->structure);
        return decoder->structure.failed ? fail_short() : DJ_OK;
    }
}
