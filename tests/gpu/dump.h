/* dump.h - "--dump" of the tests of kernels: what went into each case and what came out, a JSON object a row, for
 * kernel_cases.py. */
#ifndef DJ_TESTS_GPU_DUMP_H
#define DJ_TESTS_GPU_DUMP_H

#include "tests/gpu/recorded.h"
#include "tests/gpu/rows.h"

static void dump_tensor(const uint8_t *data, const dj_view_t *view)
{
    ref_t *r = ref_read(data, view);
    printf("{\"dtype\": \"%s\", \"sizes\": [", dj_dtype_name(view->dtype));
    for (uint32_t d = 0; d < view->rank; d++)
        printf("%s%lld", d ? ", " : "", (long long)view->sizes[d]);
    printf("], \"data\": [");
    for (int64_t i = 0; i < r->count; i++) {
        double x = r->real[i];
        const char *comma = i ? ", " : "";
        if (!r->is_real)
            printf("%s%lld", comma, (long long)r->integer[i]);
        else if (isfinite(x))
            printf("%s%.17g", comma, x);
        else
            printf("%s%s", comma, isnan(x) ? "NaN" : x > 0 ? "Infinity" : "-Infinity");
    }
    printf("]}");
    ref_free(r);
}

static void dump_scalar(dj_scalar_t scalar)
{
    if (scalar.dtype == DJ_BOOL)
        printf("%s", scalar.integer ? "true" : "false");
    else if (scalar.dtype == DJ_I64)
        printf("%lld", (long long)scalar.integer);
    else if (isfinite(scalar.real))
        printf("%.17e", scalar.real);
    else
        printf("%sInfinity", scalar.real < 0 ? "-" : "");
}

static void dump_operand(const op_case_t *c, uint32_t operand)
{
    int tensor = c->tensor_of[operand];
    if (tensor >= 0)
        dump_tensor(c->tensors[tensor].data, &c->tensors[tensor].view);
    else if (c->operands[operand].storage == DJ_STORAGE_SCALAR)
        dump_scalar(c->operands[operand].scalar);
    else
        printf("null");
}

static void dump_argument(const op_case_t *c, uint32_t arg)
{
    const dj_arg_t *a = &c->args[arg];
    char letter = dj_op_info(c->op)->signature[arg];
    bool is_list = letter == 'l' || letter == 'L' || a->kind == DJ_ARG_INTEGERS;
    printf("%s%s", arg ? ", " : "", is_list ? "[" : "");
    if (a->kind == DJ_ARG_TENSORS) {
        for (uint32_t i = 0; i < a->count; i++) {
            printf("%s", i ? ", " : "");
            dump_operand(c, (uint32_t)(a->operands - c->operands) + i);
        }
    } else if (a->kind == DJ_ARG_INTEGERS) {
        for (uint32_t i = 0; i < a->count; i++)
            printf("%s%lld", i ? ", " : "", (long long)a->integers[i]);
    } else if (a->kind == DJ_ARG_SCALAR) {
        dump_scalar(a->scalar);
    } else if (a->kind == DJ_ARG_INTEGER && letter == 'y') {
        printf("\"%s\"", dj_dtype_name((uint8_t)a->integer));
    } else if (a->kind == DJ_ARG_INTEGER && letter == 'b') {
        printf("%s", a->integer ? "true" : "false");
    } else if (a->kind == DJ_ARG_INTEGER) {
        printf("%lld", (long long)a->integer);
    } else {
        printf("null");
    }
    printf("%s", is_list ? "]" : "");
}

/* `replay` replays it and brings the results into its tensors. A case that is refused is told so. */
static void dump_row(const row_t *row, dj_device_t *device, dj_status_t (*replay)(recorded_t *r))
{
    recorded_t r;
    ref_call_t none = {.c = &r.c};
    dj_status_t status = record_try(&r, device, row->op, row->text);
    printf("{\"op\": \"%s\", \"text\": \"%s\", \"signature\": \"%s\", \"args\": [",
           dj_op_info(row->op)->name, row->text, dj_op_info(row->op)->signature);
    for (uint32_t arg = 0; arg < r.c.n_args; arg++)
        dump_argument(&r.c, arg);
    if (status == DJ_OK)
        status = replay(&r);
    if (status != DJ_OK)
        printf("], \"refused\": \"%s: %s\", \"outs\": [", dj_status_name(status), dj_error_text());
    else
        printf("], \"outs\": [");
    for (uint32_t i = 0; i < r.n_outs && status == DJ_OK; i++) {
        const case_tensor_t *t = i == 0 && r.target >= 0 ? &r.c.tensors[r.target] : &r.results[i];
        printf("%s", i ? ", " : "");
        dump_tensor(t->data, &t->view);
    }
    printf("]}\n");
    recorded_free(&r, &none);
}

static int dump_rows(const rows_t *rows, dj_device_t *device, dj_status_t (*replay)(recorded_t *r))
{
    for (size_t i = 0; i < rows->n; i++)
        if (!rows->row[i].is_bad)
            dump_row(&rows->row[i], device, replay);
    return rows->n == 0;
}

#endif
