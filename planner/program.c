/* program.c - the recorder's side of a program: three streams that grow by one op at a time.
 *
 * This is the client's hot path (about a microsecond an op with everything around it), so it only
 * appends: shapes were inferred by the caller, and nothing is looked up. */
#include "planner/program.h"

#include "planner/decode.h"

void dj_program_reset(dj_program_t *program)
{
    dj_bytes_clear(&program->structure);
    dj_bytes_clear(&program->sizes);
    dj_bytes_clear(&program->scalars);
    program->n_storages = program->n_nodes = program->n_inputs = program->n_operands = 0;
    dj_bytes_put(&program->structure, "DJP", 3);
    dj_bytes_put_u8(&program->structure, DJ_PROGRAM_VERSION);
}

void dj_program_fini(dj_program_t *program)
{
    dj_bytes_fini(&program->structure);
    dj_bytes_fini(&program->sizes);
    dj_bytes_fini(&program->scalars);
    memset(program, 0, sizeof *program);
}

uint32_t dj_program_input(dj_program_t *program, dj_operand_class_t operand_class, uint64_t bytes)
{
    dj_bytes_put_u8(&program->structure, DJ_ITEM_INPUT);
    dj_bytes_put_u8(&program->structure, (uint8_t)operand_class);
    dj_bytes_put_varint(&program->sizes, bytes);
    program->n_inputs++;
    return program->n_storages++;
}

static void put_scalar(dj_program_t *program, const dj_scalar_t *scalar)
{
    uint64_t bits;
    memcpy(&bits, &scalar->integer, sizeof bits);
    dj_bytes_put_u64(&program->scalars, bits);
}

static void put_operand(dj_program_t *program, const dj_operand_t *operand)
{
    const dj_view_t *view = &operand->view;
    uint8_t flags = DJ_TENSOR_VIEW;
    program->n_operands++;
    if (operand->storage == DJ_STORAGE_NONE) {
        dj_bytes_put_u8(&program->structure, DJ_TENSOR_NONE);
        return;
    }
    if (dj_operand_is_scalar(operand)) {
        dj_bytes_put_u8(&program->structure, DJ_TENSOR_SCALAR);
        dj_bytes_put_u8(&program->structure, view->dtype);
        put_scalar(program, &operand->scalar);
        return;
    }
    flags |= dj_view_is_contiguous(view) ? 0 : DJ_TENSOR_STRIDED;
    flags |= view->offset != 0 ? DJ_TENSOR_OFFSET : 0;
    dj_bytes_put_u8(&program->structure, flags);
    dj_bytes_put_u8(&program->structure, view->dtype);
    dj_bytes_put_u8(&program->structure, view->rank);
    dj_bytes_put_varint(&program->structure, operand->storage);
    for (uint32_t i = 0; i < view->rank; i++)
        dj_bytes_put_varint(&program->sizes, (uint64_t)view->sizes[i]);
    for (uint32_t i = 0; (flags & DJ_TENSOR_STRIDED) && i < view->rank; i++)
        dj_bytes_put_varint(&program->sizes, (uint64_t)view->strides[i]);
    if (flags & DJ_TENSOR_OFFSET)
        dj_bytes_put_u64(&program->scalars, (uint64_t)view->offset);
}

static void put_tensors(dj_program_t *program, char letter, const dj_arg_t *arg)
{
    if (letter == 'l' || letter == 'L')
        dj_bytes_put_varint(&program->structure, arg->count);
    else if (arg->kind == DJ_ARG_NONE)
        dj_bytes_put_u8(&program->structure, DJ_TENSOR_NONE);
    for (uint32_t i = 0; arg->kind == DJ_ARG_TENSORS && i < arg->count; i++)
        put_operand(program, &arg->operands[i]);
}

static void put_integers(dj_program_t *program, char letter, const dj_arg_t *arg)
{
    bool present = arg->kind == DJ_ARG_INTEGERS;
    dj_bytes_put_varint(&program->structure, present ? arg->count + 1ull : 0);
    for (uint32_t i = 0; present && i < arg->count; i++) {
        if (letter == 'N')
            dj_bytes_put_varint(&program->sizes, (uint64_t)arg->integers[i]);
        else
            dj_bytes_put_signed(&program->structure, arg->integers[i]);
    }
}

static void put_argument(dj_program_t *program, char letter, const dj_arg_t *arg)
{
    switch (letter) {
    case 't':
    case 'T':
    case 'l':
    case 'L':
        put_tensors(program, letter, arg);
        break;
    case 'N':
    case 'D':
        put_integers(program, letter, arg);
        break;
    case 'n':
        dj_bytes_put_varint(&program->sizes, (uint64_t)arg->integer);
        break;
    case 's':
    case 'S':
        dj_bytes_put_u8(&program->structure,
                        arg->kind == DJ_ARG_SCALAR ? arg->scalar.dtype : DJ_DTYPE_NONE);
        if (arg->kind == DJ_ARG_SCALAR)
            put_scalar(program, &arg->scalar);
        break;
    case '-':
        break;
    default:
        dj_bytes_put_signed(&program->structure,
                            arg->kind == DJ_ARG_INTEGER ? arg->integer : DJ_DTYPE_NONE);
        break;
    }
}

/* The first tensor argument: what an op with '!' writes. */
static const dj_operand_t *first_tensor(const dj_call_t *call)
{
    for (uint32_t i = 0; i < call->n_args; i++)
        if (call->args[i].kind == DJ_ARG_TENSORS && call->args[i].count > 0)
            return &call->args[i].operands[0];
    return NULL;
}

static uint32_t put_target(dj_program_t *program, const dj_call_t *call, const dj_target_t *target)
{
    uint8_t kind = target != NULL ? target->kind : DJ_TARGET_NEW;
    dj_bytes_put_u8(&program->structure, kind);
    if (kind == DJ_TARGET_NEW)
        return program->n_storages++;
    if (kind == DJ_TARGET_VIEW) {
        put_operand(program, target->operand);
        return target->operand->storage;
    }
    dj_bytes_put_varint(&program->structure, target->arg);
    return call->args[target->arg].operands[0].storage;
}

dj_status_t dj_program_add(dj_program_t *program, const dj_call_t *call, const dj_target_t *targets,
                           uint32_t *out_storages)
{
    const dj_op_info_t *info = dj_op_info(call->op);
    if (info == NULL || call->n_args != info->n_args)
        return dj_fail(DJ_ERR_INVALID, "op %u with %u arguments", call->op, call->n_args);
    if (info->is_view)
        return dj_fail(DJ_ERR_INVALID, "%s gives a view, which is not recorded: use the window that "
                       "dj_op_infer() gives", info->name);
    if (program->n_nodes >= DJ_PROGRAM_NODES_MAX ||
        program->n_storages + DJ_OUTS_MAX > DJ_PROGRAM_STORAGES_MAX ||
        program->structure.size > DJ_PROGRAM_BYTES_MAX / 2 ||
        program->sizes.size > DJ_PROGRAM_BYTES_MAX / 2 ||
        program->n_operands + 2 * DJ_LIST_MAX > DJ_PROGRAM_OPERANDS_MAX ||
        program->scalars.size / 8 + 2 * DJ_LIST_MAX > DJ_PROGRAM_SCALARS_MAX)
        return dj_fail(DJ_ERR_LIMIT, "the program of %u ops is too long; submit it first",
                       program->n_nodes);
    dj_bytes_put_u8(&program->structure, DJ_ITEM_OP);
    dj_bytes_put_varint(&program->structure, call->op);
    for (uint32_t i = 0; i < call->n_args; i++)
        put_argument(program, info->signature[i], &call->args[i]);
    for (uint32_t i = 0; i < info->n_outs; i++)
        out_storages[i] = put_target(program, call, targets != NULL ? &targets[i] : NULL);
    if (info->n_outs == 0)
        out_storages[0] = first_tensor(call)->storage;
    program->n_nodes++;
    if (program->structure.failed || program->sizes.failed || program->scalars.failed)
        return dj_fail(DJ_ERR_MEMORY, "no memory for the program of %u ops", program->n_nodes);
    return DJ_OK;
}

dj_status_t dj_program_finish(dj_program_t *program, const uint32_t *outputs, uint32_t n_outputs,
                              dj_hash_t *program_key_p, dj_hash_t *exact_key_p)
{
    dj_bytes_put_u8(&program->structure, DJ_ITEM_END);
    dj_bytes_put_varint(&program->structure, n_outputs);
    for (uint32_t i = 0; i < n_outputs; i++)
        dj_bytes_put_varint(&program->structure, outputs[i]);
    if (program->structure.failed || program->sizes.failed || program->scalars.failed)
        return dj_fail(DJ_ERR_MEMORY, "no memory for the program of %u ops", program->n_nodes);
    if (!program_key_p)
        return DJ_OK;
    *program_key_p = dj_program_key(program->structure.data, program->structure.size);
    *exact_key_p =
        dj_program_exact_key(*program_key_p, program->sizes.data, program->sizes.size);
    return DJ_OK;
}

dj_hash_t dj_program_key(const void *structure, size_t size)
{
    return dj_hash_of(structure, size);
}

dj_hash_t dj_program_exact_key(dj_hash_t program_key, const void *sizes, size_t size)
{
    return dj_hash_pair(&program_key, sizeof program_key, sizes, size);
}
