/* ops.h - a few ops in one call each, for tests that are about requests and not about ops. */
#ifndef TESTS_CLIENT_OPS_H
#define TESTS_CLIENT_OPS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "client/djinn.h"

#define assert_ok(call) assert_status(DJINN_OK, call)
#define assert_status(want, call)                                                                  \
    do {                                                                                           \
        int got_ = (call);                                                                         \
        if (got_ != (want))                                                                        \
            print_error("%s: %s (%s), not %s\n", #call, djinn_status_name(got_), djinn_error(),    \
                        djinn_status_name(want));                                                  \
        assert_int_equal(got_, want);                                                              \
    } while (0)
#define assert_told(word)                                                                          \
    do {                                                                                           \
        if (!strstr(djinn_error(), word))                                                          \
            print_error("'%s' is not in: %s\n", word, djinn_error());                              \
        assert_non_null(strstr(djinn_error(), word));                                              \
    } while (0)

static inline djinn_arg_t arg_tensor(const djinn_tensor_t *tensor)
{
    return (djinn_arg_t){.kind = DJINN_ARG_TENSOR, .value.tensors = tensor};
}

static inline djinn_arg_t arg_int(int64_t value)
{
    return (djinn_arg_t){.kind = DJINN_ARG_INT_SCALAR, .value.integer = value};
}

static inline djinn_tensor_t upload_vector(djinn_t *djinn, const float *values, int64_t n)
{
    djinn_tensor_t tensor;
    assert_ok(djinn_upload(djinn, DJINN_FLOAT32, 1, &n, values, 0, &tensor));
    return tensor;
}

static inline djinn_tensor_t record_binary(djinn_t *djinn, const char *name, djinn_tensor_t a,
                                           djinn_tensor_t b)
{
    djinn_arg_t args[] = {arg_tensor(&a), arg_tensor(&b), arg_int(1)};
    djinn_tensor_t out;
    int op = djinn_op(name);
    assert_ok(djinn_record(djinn, op, args, djinn_op_signature(op)[2] == '>' ? 2 : 3, &out));
    return out;
}

static inline djinn_tensor_t record_add(djinn_t *djinn, djinn_tensor_t a, djinn_tensor_t b)
{
    return record_binary(djinn, "aten::add.Tensor", a, b);
}

/* a += value, in place. */
static inline void record_add_into(djinn_t *djinn, djinn_tensor_t a, int64_t value)
{
    djinn_arg_t args[] = {arg_tensor(&a), arg_int(value), arg_int(1)};
    assert_ok(djinn_record_into(djinn, djinn_op("aten::add.Tensor"), args, 3, &a));
}

static inline djinn_tensor_t record_mm(djinn_t *djinn, djinn_tensor_t a, djinn_tensor_t b)
{
    return record_binary(djinn, "aten::mm", a, b);
}

#endif
