/* ops.c - the op table, generated from ops.def, and the checks that every call passes first.
 *
 * The recorder of the client and the decoder of the rank both come here, with arguments that nobody
 * has looked at: dj_op_infer() holds every argument against its letter of the signature, then lets
 * the row's shape rule speak, then holds the result against the limits. */
#include <pthread.h>
#include <stdio.h>

#include "planner/shape.h"

#define TEXT_OF(...) #__VA_ARGS__
/* An expression of one character is the '-' of rows without one. */
#define IS_POINTWISE(text) (sizeof(text) > 2)

static const dj_op_info_t ops[DJ_OP_COUNT] = {
#define OP(id, op_name, op_signature, rule, ...)                                                   \
    [DJ_OP_##id] = {                                                                               \
        .name = op_name,                                                                           \
        .signature = op_signature,                                                                 \
        .expression = IS_POINTWISE(TEXT_OF(__VA_ARGS__)) ? TEXT_OF(__VA_ARGS__) : "",              \
        .shape = dj_shape_##rule,                                                                  \
        .n_args = sizeof(op_signature) - 3,                                                        \
        .n_outs = op_signature[sizeof(op_signature) - 2] > '9' ||                                  \
                          op_signature[sizeof(op_signature) - 2] < '0'                             \
                      ? 0                                                                          \
                      : op_signature[sizeof(op_signature) - 2] - '0',                              \
        .pointwise = IS_POINTWISE(TEXT_OF(__VA_ARGS__)),                                           \
        .broadcasts = #rule[0] == 'p' && #rule[1] == 'w',                                          \
        .is_view = op_signature[sizeof(op_signature) - 2] == 'v',                                  \
    },
#include "planner/ops.def"
#undef OP
};

static const char *const rules[DJ_OP_COUNT] = {
#define OP(id, name, signature, rule, ...) [DJ_OP_##id] = #rule,
#include "planner/ops.def"
#undef OP
};

/* Names by hash, open addressing; filled once. Entries are op + 1. */
#define SLOTS 1024
static uint16_t slots[SLOTS];
static pthread_once_t slots_once = PTHREAD_ONCE_INIT;

_Static_assert(DJ_OP_COUNT < SLOTS / 2, "the name table must stay sparse");

static const char *short_name(const char *name)
{
    return strncmp(name, "aten::", 6) == 0 ? name + 6 : name;
}

static uint32_t name_hash(const char *name)
{
    uint32_t hash = 2166136261u;
    for (; *name != '\0'; name++)
        hash = (hash ^ (uint8_t)*name) * 16777619u;
    return hash ^ hash >> 15;
}

static void fill_slots(void)
{
    for (uint32_t op = 0; op < DJ_OP_COUNT; op++) {
        uint32_t at = name_hash(short_name(ops[op].name)) % SLOTS;
        while (slots[at] != 0)
            at = (at + 1) % SLOTS;
        slots[at] = (uint16_t)(op + 1);
    }
}

const dj_op_info_t *dj_op_info(uint16_t op)
{
    return op < DJ_OP_COUNT ? &ops[op] : NULL;
}

uint16_t dj_op_find(const char *name)
{
    pthread_once(&slots_once, fill_slots);
    name = short_name(name);
    for (uint32_t at = name_hash(name) % SLOTS; slots[at] != 0; at = (at + 1) % SLOTS)
        if (strcmp(short_name(ops[slots[at] - 1].name), name) == 0)
            return slots[at] - 1;
    return DJ_OP_COUNT;
}

dj_hash_t dj_op_table_hash(void)
{
    dj_hash_t hash = {{0, 0}};
    dj_hash_setup();
    for (uint32_t op = 0; op < DJ_OP_COUNT; op++) {
        char row[512];
        int size = snprintf(row, sizeof row, "%016llx%016llx|%s|%s|%s|%s",
                            (unsigned long long)hash.word[0], (unsigned long long)hash.word[1],
                            ops[op].name, ops[op].signature, rules[op], ops[op].expression);
        hash = dj_hash_of(row, (size_t)size < sizeof row ? (size_t)size : sizeof row);
    }
    return hash;
}

bool dj_op_is_elementwise(uint16_t op)
{
    const dj_op_info_t *info = dj_op_info(op);
    return info != NULL &&
           (info->broadcasts || info->shape == dj_shape_copy || info->shape == dj_shape_to_copy);
}

static bool random_ops[DJ_OP_COUNT];
static pthread_once_t random_once = PTHREAD_ONCE_INIT;

static void fill_random(void)
{
    static const char *const words[] = {"rand", "bernoulli", "dropout", "multinomial", "normal_"};
    for (uint32_t op = 0; op < DJ_OP_COUNT; op++)
        for (uint32_t i = 0; i < sizeof words / sizeof words[0]; i++)
            random_ops[op] |= strstr(ops[op].name, words[i]) != NULL;
}

bool dj_op_is_random(uint16_t op)
{
    pthread_once(&random_once, fill_random);
    return op < DJ_OP_COUNT && random_ops[op];
}

static bool scalar_dtype_known(uint8_t dtype)
{
    return dtype == DJ_BOOL || dtype == DJ_I64 || dtype == DJ_F64;
}

static dj_status_t fail_argument(uint32_t arg, char letter, const char *why)
{
    return dj_fail(DJ_ERR_INVALID, "argument %u ('%c') %s", arg, letter, why);
}

/* A plain number may stand in for a tensor of pointwise ops, and be the values of index_put_. */
static bool takes_number(const dj_call_t *call, uint32_t arg)
{
    return ops[call->op].broadcasts || (call->op == DJ_OP_INDEX_PUT && arg == 2);
}

static dj_status_t check_operand(const dj_call_t *call, uint32_t arg, char letter,
                                 const dj_operand_t *operand)
{
    if (operand->storage == DJ_STORAGE_NONE)
        return letter == 'T' || letter == 'L' ? DJ_OK : fail_argument(arg, letter, "is missing");
    if (dj_operand_is_scalar(operand)) {
        if (letter != 't' || !takes_number(call, arg))
            return fail_argument(arg, letter, "must be a tensor, not a number");
        if (operand->view.rank != 0 || !scalar_dtype_known(operand->view.dtype))
            return fail_argument(arg, letter, "is a number of a type that is none");
        return DJ_OK;
    }
    dj_status_t status = dj_view_check(&operand->view, UINT64_MAX);
    return status == DJ_OK ? status : dj_fail_prefix(status, "argument %u", arg);
}

static dj_status_t check_tensors(const dj_call_t *call, uint32_t i, char letter)
{
    const dj_arg_t *arg = &call->args[i];
    bool list = letter == 'l' || letter == 'L';
    if (arg->kind == DJ_ARG_NONE && letter == 'T')
        return DJ_OK;
    if (arg->kind != DJ_ARG_TENSORS || (!list && arg->count != 1))
        return fail_argument(i, letter, "must be a tensor");
    if (arg->count == 0 || arg->count > DJ_LIST_MAX)
        return dj_fail(DJ_ERR_LIMIT, "argument %u lists %u tensors; 1 to %d are allowed", i,
                       arg->count, DJ_LIST_MAX);
    for (uint32_t j = 0; j < arg->count; j++) {
        dj_status_t status = check_operand(call, i, letter, &arg->operands[j]);
        if (status != DJ_OK)
            return status;
    }
    return DJ_OK;
}

static dj_status_t check_size(uint32_t arg, int64_t size)
{
    if (size >= 0 && (uint64_t)size <= DJ_TENSOR_BYTES_MAX)
        return DJ_OK;
    return dj_fail(DJ_ERR_LIMIT, "argument %u has a size of %lld", arg, (long long)size);
}

/* A list that shapes something has one integer a dimension. */
static uint32_t integers_max(const dj_call_t *call, char letter)
{
    if (letter == 'N')
        return DJ_RANK_MAX;
    return ops[call->op].is_view ? DJ_LIST_MAX : DJ_STRUCTURAL_MAX;
}

static dj_status_t check_integers(const dj_call_t *call, uint32_t i, char letter)
{
    const dj_arg_t *arg = &call->args[i];
    uint32_t limit = integers_max(call, letter);
    if (arg->kind == DJ_ARG_NONE && letter == 'D')
        return DJ_OK;
    if (arg->kind != DJ_ARG_INTEGERS)
        return fail_argument(i, letter, "must be a list of integers");
    if (arg->count > limit)
        return dj_fail(DJ_ERR_LIMIT, "argument %u lists %u integers; at most %u", i, arg->count,
                       limit);
    for (uint32_t j = 0; letter == 'N' && j < arg->count; j++)
        if (check_size(i, arg->integers[j]) != DJ_OK)
            return DJ_ERR_LIMIT;
    return DJ_OK;
}

static dj_status_t check_integer(const dj_arg_t *arg, uint32_t i, char letter)
{
    if (letter == 'y' && arg->kind == DJ_ARG_NONE)
        return DJ_OK;
    if (arg->kind != DJ_ARG_INTEGER)
        return fail_argument(i, letter, "must be an integer");
    if (letter == 'n')
        return check_size(i, arg->integer);
    if (letter == 'b' && arg->integer != 0 && arg->integer != 1)
        return fail_argument(i, letter, "must be 0 or 1");
    if (letter == 'y' && arg->integer != DJ_DTYPE_NONE &&
        (arg->integer < 0 || arg->integer >= DJ_DTYPE_COUNT))
        return dj_fail(DJ_ERR_DTYPE, "argument %u: data type %lld is not known", i,
                       (long long)arg->integer);
    return DJ_OK;
}

static dj_status_t check_argument(const dj_call_t *call, uint32_t i, char letter)
{
    const dj_arg_t *arg = &call->args[i];
    switch (letter) {
    case 't':
    case 'T':
    case 'l':
    case 'L':
        return check_tensors(call, i, letter);
    case 'N':
    case 'D':
        return check_integers(call, i, letter);
    case 's':
    case 'S':
        if (arg->kind == DJ_ARG_NONE && letter == 'S')
            return DJ_OK;
        if (arg->kind != DJ_ARG_SCALAR || !scalar_dtype_known(arg->scalar.dtype))
            return fail_argument(i, letter, "must be a number");
        return DJ_OK;
    case '-':
        return DJ_OK;
    default:
        return check_integer(arg, i, letter);
    }
}

static dj_status_t infer(const dj_call_t *call, const dj_op_info_t *info, dj_view_t *outs)
{
    dj_status_t status = DJ_OK;
    if (call->n_args != info->n_args)
        return dj_fail(DJ_ERR_INVALID, "%u arguments; the signature %s has %u", call->n_args,
                       info->signature, info->n_args);
    for (uint32_t i = 0; i < call->n_args && status == DJ_OK; i++)
        status = check_argument(call, i, info->signature[i]);
    if (status == DJ_OK)
        status = info->shape(call, outs);
    uint32_t n_outs = info->is_view ? 1 : info->n_outs;
    for (uint32_t i = 0; i < n_outs && status == DJ_OK; i++)
        status = dj_view_check(&outs[i], UINT64_MAX);
    return status;
}

dj_status_t dj_op_infer(const dj_call_t *call, dj_view_t *outs)
{
    const dj_op_info_t *info = dj_op_info(call->op);
    if (info == NULL)
        return dj_fail(DJ_ERR_UNSUPPORTED, "op %u is not in the op table", call->op);
    dj_status_t status = infer(call, info, outs);
    return status == DJ_OK ? status : dj_fail_prefix(status, "%s", info->name);
}

/* torch.can_cast */
static bool can_cast(uint8_t from, uint8_t to)
{
    if (dj_dtype_is_complex(from) && !dj_dtype_is_complex(to))
        return false;
    if (dj_dtype_is_float(from) && !dj_dtype_is_float(to) && !dj_dtype_is_complex(to))
        return false;
    return from == DJ_BOOL || to != DJ_BOOL;
}

static dj_status_t fail_target(const dj_view_t *inferred, const dj_view_t *target)
{
    char from[DJ_VIEW_TEXT], to[DJ_VIEW_TEXT];
    return dj_fail(dj_view_same_shape(inferred, target) ? DJ_ERR_DTYPE : DJ_ERR_SHAPE,
                   "a result of %s cannot be written into %s",
                   dj_view_format(inferred, from, sizeof from),
                   dj_view_format(target, to, sizeof to));
}

dj_status_t dj_op_check_target(uint16_t op, const dj_view_t *inferred, const dj_view_t *target)
{
    char to[DJ_VIEW_TEXT];
    bool converts = dj_op_is_elementwise(op) &&
                    (!ops[op].broadcasts || can_cast(inferred->dtype, target->dtype));
    if (!dj_view_same_shape(inferred, target) || (inferred->dtype != target->dtype && !converts))
        return fail_target(inferred, target);
    if (!dj_view_is_spread(target))
        return dj_fail(DJ_ERR_SHAPE, "%s has several elements at one place and cannot be written",
                       dj_view_format(target, to, sizeof to));
    return DJ_OK;
}
