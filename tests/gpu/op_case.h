/* op_case.h - one row of op_cases.def, read from its text into operands with data.
 *
 * A row is CASE(ID, "arguments"), the arguments as the op's signature lists them, apart by spaces:
 *   f32[2,3]            a tensor; after ':' letters choose its layout and its values:
 *     t  last two dimensions exchanged in memory   s  every second element
 *     o  begins at element 5                       e  expanded: first dimension's stride 0
 *     p  positive values                           q  quarters, so that equal ones meet
 *     n  with NaN and infinities                   m  minus infinities at random (an additive mask)
 *     l  the same with nearly the lowest numbers   c  second dimension innermost (channels last)
 *   i64[3]<10           indices in 0..9; <-10 also counted from the end
 *   {f32[2] _}          a list of tensors or nones
 *   2, 0.5, true        a scalar, also in place of a tensor; or an integer, a flag
 *   (0,-1)              integers;  i64 a dtype;  _ none
 *   >0                  output 0 goes into the tensor of argument 0
 *   >f64:s              output 0 goes into a view of this dtype and layout
 * Data is the same in every run: a generator seeded by the row. */
#ifndef DJ_TESTS_GPU_OP_CASE_H
#define DJ_TESTS_GPU_OP_CASE_H

#include "tests/gpu/fixture.h"

#include <ctype.h>
#include <math.h>

#define CASE_TENSORS_MAX 12
#define CASE_MARGIN 64 /* poisoned bytes before and after each tensor's storage */

typedef struct case_tensor {
    uint32_t arg;
    dj_view_t view;
    uint64_t bytes; /* of the storage */
    int64_t limit;  /* of index values; 0: not an index */
    bool negative;
    char letters[8];
    uint8_t *memory, *data; /* data: CASE_MARGIN inside */
} case_tensor_t;

typedef struct op_case {
    uint16_t op;
    const char *text;
    uint32_t n_tensors, n_operands, n_args;
    case_tensor_t tensors[CASE_TENSORS_MAX];
    dj_operand_t operands[CASE_TENSORS_MAX];
    int tensor_of[CASE_TENSORS_MAX]; /* of each operand; -1: none or a scalar */
    dj_arg_t args[DJ_ARGS_MAX];
    int64_t integers[DJ_ARGS_MAX][DJ_RANK_MAX];
    int target_arg; /* -1: none */
    char target[16];
} op_case_t;

static uint64_t case_seed;

static inline uint64_t case_random(void)
{
    case_seed = case_seed * 6364136223846793005ull + 1442695040888963407ull;
    return case_seed >> 33;
}

static inline double case_unit(void)
{
    return (double)case_random() / (double)(1ull << 31);
}

static inline uint8_t case_dtype(const char *text, size_t length)
{
    static const struct {
        const char *name;
        uint8_t dtype;
    } names[] = {{"bool", DJ_BOOL}, {"u8", DJ_U8},   {"i8", DJ_I8},   {"i16", DJ_I16},
                 {"i32", DJ_I32},   {"i64", DJ_I64}, {"f16", DJ_F16}, {"bf16", DJ_BF16},
                 {"f32", DJ_F32},   {"f64", DJ_F64}};
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (strlen(names[i].name) == length && strncmp(names[i].name, text, length) == 0)
            return names[i].dtype;
    return DJ_DTYPE_NONE;
}

/* One element of a dtype, from a real and an integer of the same meaning. */
static inline void case_put(uint8_t dtype, void *at, double real, int64_t integer)
{
    union {
        float f;
        uint32_t bits;
    } wide = {.f = (float)real};
    switch (dtype) {
    case DJ_BOOL:
        *(uint8_t *)at = integer != 0;
        break;
    case DJ_U8:
    case DJ_I8:
        *(uint8_t *)at = (uint8_t)integer;
        break;
    case DJ_I16:
        *(int16_t *)at = (int16_t)integer;
        break;
    case DJ_I32:
        *(int32_t *)at = (int32_t)integer;
        break;
    case DJ_I64:
        *(int64_t *)at = integer;
        break;
    case DJ_F16:
        *(_Float16 *)at = (_Float16)real;
        break;
    case DJ_BF16:
        *(uint16_t *)at = (uint16_t)(wide.bits >> 16);
        break;
    case DJ_F32:
        *(float *)at = (float)real;
        break;
    default:
        *(double *)at = real;
    }
}

static inline void case_get(uint8_t dtype, const void *at, double *real_p, int64_t *integer_p)
{
    union {
        uint32_t bits;
        float f;
    } wide = {.bits = 0};
    bool is_real = dtype >= DJ_F16;
    switch (dtype) {
    case DJ_BOOL:
    case DJ_U8:
        *integer_p = *(const uint8_t *)at;
        break;
    case DJ_I8:
        *integer_p = *(const int8_t *)at;
        break;
    case DJ_I16:
        *integer_p = *(const int16_t *)at;
        break;
    case DJ_I32:
        *integer_p = *(const int32_t *)at;
        break;
    case DJ_I64:
        *integer_p = *(const int64_t *)at;
        break;
    case DJ_F16:
        *real_p = (double)*(const _Float16 *)at;
        break;
    case DJ_BF16:
        wide.bits = (uint32_t) * (const uint16_t *)at << 16;
        *real_p = wide.f;
        break;
    case DJ_F32:
        *real_p = *(const float *)at;
        break;
    default:
        *real_p = *(const double *)at;
    }
    if (is_real)
        *integer_p = isfinite(*real_p) ? (int64_t)*real_p : 0;
    else
        *real_p = (double)*integer_p;
}

/* Strides of a layout for the view's sizes; returns the elements its storage needs. */
static inline int64_t case_lay(dj_view_t *view, const char *letters)
{
    int64_t step = strchr(letters, 's') ? 2 : 1, extent = 1;
    uint32_t order[DJ_RANK_MAX];
    for (uint32_t d = 0; d < view->rank; d++)
        order[d] = d;
    if (strchr(letters, 't') && view->rank >= 2) {
        order[view->rank - 2] = view->rank - 1u;
        order[view->rank - 1] = view->rank - 2u;
    }
    for (uint32_t d = 1; strchr(letters, 'c') && d < view->rank; d++)
        order[d] = d + 1u < view->rank ? d + 1 : 1;
    for (uint32_t i = view->rank; i-- > 0;) {
        bool expanded = order[i] == 0 && strchr(letters, 'e');
        view->strides[order[i]] = expanded ? 0 : step;
        step *= expanded || view->sizes[order[i]] == 0 ? 1 : view->sizes[order[i]];
    }
    view->offset = strchr(letters, 'o') ? 5 : 0;
    for (uint32_t d = 0; d < view->rank; d++)
        extent += view->sizes[d] ? (view->sizes[d] - 1) * view->strides[d] : 0;
    return dj_view_count(view) == 0 ? view->offset : view->offset + extent;
}

static inline void case_allocate(case_tensor_t *tensor, int64_t elements)
{
    tensor->bytes = (uint64_t)elements * dj_dtype_bytes(tensor->view.dtype);
    tensor->memory = malloc(tensor->bytes + 2 * CASE_MARGIN);
    assert_non_null(tensor->memory);
    memset(tensor->memory, 0xa5, tensor->bytes + 2 * CASE_MARGIN);
    tensor->data = tensor->memory + CASE_MARGIN;
}

static inline void case_fill(case_tensor_t *tensor)
{
    uint32_t item = dj_dtype_bytes(tensor->view.dtype);
    for (uint64_t i = 0; i < tensor->bytes / item; i++) {
        double real = case_unit() * 6 - 3;
        int64_t integer = (int64_t)(case_random() % 13) - 6;
        if (strchr(tensor->letters, 'p'))
            real = fabs(real) + 0.01, integer = 1 + (integer < 0 ? -integer : integer);
        if (strchr(tensor->letters, 'q'))
            real = floor(real * 4) / 4;
        uint64_t special = case_random() % 16;
        if (strchr(tensor->letters, 'n') && special < 3)
            real = special == 0 ? NAN : special == 1 ? INFINITY : -INFINITY;
        if (strchr(tensor->letters, 'm') && special < 6)
            real = -INFINITY;
        if (strchr(tensor->letters, 'l') && special < 6)
            real = tensor->view.dtype == DJ_F16 ? -65504 : -3.38e38;
        if (tensor->view.dtype == DJ_U8)
            integer += 6;
        if (tensor->view.dtype == DJ_BOOL)
            integer = case_random() & 1;
        if (tensor->limit)
            integer = (int64_t)(case_random() % (uint64_t)tensor->limit) -
                      (tensor->negative && case_random() % 2 ? tensor->limit : 0);
        case_put(tensor->view.dtype, tensor->data + i * item, real, integer);
    }
}

/* --- the reader; a row that does not parse fails the test --- */

static inline void case_expect(bool holds, const op_case_t *c, const char *at)
{
    if (!holds)
        fail_msg("op_cases.def: \"%s\" does not parse at \"%s\"", c->text, at);
}

static inline const char *case_tensor_read(op_case_t *c, uint32_t arg, const char *at)
{
    case_tensor_t *tensor = &c->tensors[c->n_tensors];
    size_t name = strcspn(at, "[ ");
    uint32_t n_letters = 0;
    tensor->arg = arg;
    tensor->view = (dj_view_t){.dtype = case_dtype(at, name)};
    case_expect(tensor->view.dtype != DJ_DTYPE_NONE && at[name] == '[', c, at);
    at += name + 1;
    while (*at != ']') {
        char *end;
        tensor->view.sizes[tensor->view.rank++] = strtoll(at, &end, 10);
        case_expect(end != at && (*end == ',' || *end == ']'), c, at);
        at = *end == ',' ? end + 1 : end;
    }
    at++;
    if (*at == ':')
        for (at++; islower((unsigned char)*at); at++)
            tensor->letters[n_letters++] = *at;
    if (*at == '<') {
        char *end;
        int64_t limit = strtoll(at + 1, &end, 10);
        tensor->negative = limit < 0;
        tensor->limit = limit < 0 ? -limit : limit;
        at = end;
    }
    case_allocate(tensor, case_lay(&tensor->view, tensor->letters));
    case_fill(tensor);
    c->tensor_of[c->n_operands] = (int)c->n_tensors++;
    c->operands[c->n_operands++].view = tensor->view;
    return at;
}

static inline const char *case_scalar_read(const op_case_t *c, const char *at, dj_scalar_t *scalar)
{
    size_t length = strcspn(at, " }");
    char *end;
    *scalar = (dj_scalar_t){.dtype = DJ_I64};
    if (strncmp(at, "true", 4) == 0 || strncmp(at, "false", 5) == 0) {
        *scalar = (dj_scalar_t){.dtype = DJ_BOOL, .integer = *at == 't'};
        return at + length;
    }
    if (memchr(at, '.', length) || memchr(at, 'f', length) || memchr(at, 'e', length))
        *scalar = (dj_scalar_t){.dtype = DJ_F64, .real = strtod(at, &end)};
    else
        scalar->integer = strtoll(at, &end, 10);
    case_expect(end == at + length, c, at);
    return end;
}

/* A tensor, a scalar standing in for one, or none. */
static inline const char *case_operand_read(op_case_t *c, uint32_t arg, const char *at)
{
    dj_operand_t *operand = &c->operands[c->n_operands];
    *operand = (dj_operand_t){.slot = DJ_SLOT_NONE, .storage = DJ_STORAGE_NONE};
    c->tensor_of[c->n_operands] = -1;
    size_t length = strcspn(at, " }");
    if (*at == '_') {
        c->n_operands++;
        return at + 1;
    }
    if (memchr(at, '[', length))
        return case_tensor_read(c, arg, at);
    operand->storage = DJ_STORAGE_SCALAR;
    at = case_scalar_read(c, at, &operand->scalar);
    operand->view = (dj_view_t){.dtype = operand->scalar.dtype};
    c->n_operands++;
    return at;
}

static inline const char *case_integers_read(op_case_t *c, uint32_t arg, const char *at)
{
    dj_arg_t *a = &c->args[arg];
    *a = (dj_arg_t){.kind = DJ_ARG_INTEGERS, .integers = c->integers[arg]};
    case_expect(*at == '(', c, at);
    for (at++; *at != ')';) {
        char *end;
        c->integers[arg][a->count++] = strtoll(at, &end, 10);
        case_expect(end != at && (*end == ',' || *end == ')'), c, at);
        at = *end == ',' ? end + 1 : end;
    }
    return at + 1;
}

static inline const char *case_attribute_read(op_case_t *c, char letter, uint32_t arg,
                                              const char *at)
{
    dj_arg_t *a = &c->args[arg];
    *a = (dj_arg_t){.kind = DJ_ARG_NONE, .slot = DJ_SLOT_NONE};
    if (*at == '_')
        return at + 1;
    if (letter == 'N' || letter == 'D')
        return case_integers_read(c, arg, at);
    if (letter == 's' || letter == 'S') {
        a->kind = DJ_ARG_SCALAR;
        return case_scalar_read(c, at, &a->scalar);
    }
    a->kind = DJ_ARG_INTEGER;
    size_t length = strcspn(at, " ");
    if (letter == 'y') {
        a->integer = case_dtype(at, length);
        return at + length;
    }
    if (letter == 'b') {
        a->integer = strncmp(at, "true", 4) == 0;
        case_expect(a->integer || strncmp(at, "false", 5) == 0, c, at);
        return at + length;
    }
    char *end;
    a->integer = strtoll(at, &end, 10);
    case_expect(end == at + length, c, at);
    return end;
}

static inline const char *case_list_read(op_case_t *c, uint32_t arg, const char *at)
{
    case_expect(*at == '{', c, at);
    for (at++; *at != '}';) {
        at = case_operand_read(c, arg, at);
        at += *at == ' ';
    }
    return at + 1;
}

static inline void case_read(op_case_t *c, uint16_t op, const char *text)
{
    const char *signature = dj_op_info(op)->signature, *at = text;
    memset(c, 0, sizeof(*c));
    c->op = op;
    c->text = text;
    c->target_arg = -1;
    c->n_args = dj_op_info(op)->n_args;
    case_seed = 1469598103934665603ull ^ op;
    for (uint32_t arg = 0; arg < c->n_args; arg++) {
        char letter = signature[arg];
        uint32_t first = c->n_operands;
        if (letter == '-')
            continue;
        at += *at == ' ';
        case_expect(*at != 0 && *at != '>', c, at);
        if (letter == 'T' && *at == '_') {
            c->args[arg] = (dj_arg_t){.kind = DJ_ARG_NONE, .slot = DJ_SLOT_NONE};
            at++;
            continue;
        }
        if (!strchr("tTlL", letter)) {
            at = case_attribute_read(c, letter, arg, at);
            continue;
        }
        at = islower((unsigned char)letter) && letter == 't' ? case_operand_read(c, arg, at)
             : letter == 'T'                                 ? case_operand_read(c, arg, at)
                                                             : case_list_read(c, arg, at);
        c->args[arg] = (dj_arg_t){.kind = DJ_ARG_TENSORS,
                                  .count = c->n_operands - first,
                                  .operands = &c->operands[first]};
    }
    at += *at == ' ';
    if (*at == '>' && isdigit((unsigned char)at[1]))
        c->target_arg = atoi(at + 1);
    else if (*at == '>')
        snprintf(c->target, sizeof(c->target), "%s", at + 1);
    else
        case_expect(*at == 0, c, at);
}

static inline void case_free(op_case_t *c)
{
    for (uint32_t i = 0; i < c->n_tensors; i++)
        free(c->tensors[i].memory);
}

static inline bool case_margins_hold(const case_tensor_t *tensor)
{
    for (uint32_t i = 0; i < CASE_MARGIN; i++)
        if (tensor->memory[i] != 0xa5 || tensor->data[tensor->bytes + i] != 0xa5)
            return false;
    return true;
}

#endif
