/* recorded.h - an op case recorded as a program of one node, with its tensors in host memory, and what must hold
 * after a replay: values near the reference's, margins untouched, inputs as they were, and in a strided
 * target the elements between. */
#ifndef DJ_TESTS_GPU_RECORDED_H
#define DJ_TESTS_GPU_RECORDED_H

#include "tests/gpu/program.h"
#include "tests/gpu/reference_layout.h"

static inline double tolerance_of(uint8_t dtype)
{
    return dtype == DJ_F16    ? 1e-3
           : dtype == DJ_BF16 ? 1e-2
           : dtype == DJ_F64  ? 1e-12
           : dtype == DJ_F32  ? 2e-6
                              : 0;
}

/* What rounding in the operands' and the output's types allows. */
static inline double tolerance(const op_case_t *c, uint8_t out)
{
    double allowed = tolerance_of(out);
    for (uint32_t i = 0; i < c->n_tensors && dj_dtype_is_float(out); i++)
        allowed = fmax(allowed, tolerance_of(c->tensors[i].view.dtype));
    /* Sums of many products: the size of the terms counts, not that of the sum. */
    bool products = (c->op >= DJ_OP_MM && c->op <= DJ_OP_LINEAR) || c->op == DJ_OP_SDPA ||
                    c->op == DJ_OP_CONVOLUTION;
    return products ? 10 * allowed : allowed;
}

static inline void compare(const op_case_t *c, const ref_t *want, const ref_t *got, uint32_t out)
{
    double allowed = tolerance(c, want->view.dtype);
    for (int64_t i = 0; i < want->count && c->op != DJ_OP_EMPTY; i++) {
        double x = want->real[i], y = got->real[i];
        bool same = (isnan(x) && isnan(y)) || x == y ||
                    (isfinite(x) && fabs(x - y) <= allowed * (1 + fabs(x)));
        if (!want->is_real)
            same = want->integer[i] == got->integer[i];
        if (!same)
            fail_msg("output %u, element %lld: %.9g, expected %.9g", out, (long long)i, y, x);
    }
}

/* One recorded case: its tensors, a snapshot of their memory, and where the outputs are. */
typedef struct recorded {
    op_case_t c;
    test_case_t program;
    dj_view_t inferred[DJ_OUTS_MAX];
    case_tensor_t results[DJ_OUTS_MAX];
    uint32_t n_outs;
    int target; /* the case's tensor that output 0 goes into; -1: new */
    uint8_t *before[CASE_TENSORS_MAX];
} recorded_t;

static inline void tensors_add(recorded_t *r)
{
    uint32_t storages[CASE_TENSORS_MAX];
    op_case_t *c = &r->c;
    for (uint32_t i = 0; i < c->n_tensors; i++) {
        case_tensor_t *t = &c->tensors[i];
        storages[i] = case_input(&r->program, DJ_CLASS_STATE, t->data, t->bytes, t->view).storage;
        r->before[i] = malloc(t->bytes + 1);
        memcpy(r->before[i], t->data, t->bytes);
    }
    for (uint32_t i = 0; i < c->n_operands; i++)
        if (c->tensor_of[i] >= 0)
            c->operands[i].storage = storages[c->tensor_of[i]];
}

/* ">f64:s": another input that output 0 goes into. */
static inline dj_operand_t target_add(recorded_t *r)
{
    op_case_t *c = &r->c;
    case_tensor_t *t = &c->tensors[c->n_tensors];
    size_t name = strcspn(c->target, ":");
    t->view = r->inferred[0];
    t->view.dtype = case_dtype(c->target, name);
    if (c->target[name] == ':')
        snprintf(t->letters, sizeof(t->letters), "%s", c->target + name + 1);
    case_allocate(t, case_lay(&t->view, t->letters));
    r->before[c->n_tensors] = malloc(t->bytes + 1);
    memcpy(r->before[c->n_tensors], t->data, t->bytes);
    r->target = (int)c->n_tensors++;
    return case_input(&r->program, DJ_CLASS_STATE, t->data, t->bytes, t->view);
}

static inline void expect_ok(dj_status_t status)
{
    if (status != DJ_OK)
        fail_msg("%s: %s", dj_status_name(status), dj_error_text());
}

/* As record(), but what refuses the case is returned. */
static inline dj_status_t record_try(recorded_t *r, dj_device_t *device, uint16_t op, const char *text)
{
    dj_target_t targets[DJ_OUTS_MAX] = {{0}};
    dj_operand_t target;
    uint32_t storages[DJ_OUTS_MAX], listed[DJ_OUTS_MAX], n_listed = 0;
    memset(r, 0, sizeof(*r));
    case_read(&r->c, op, text);
    case_open(&r->program, device);
    tensors_add(r);
    dj_call_t call = {.op = op, .n_args = (uint16_t)r->c.n_args, .args = r->c.args};
    dj_status_t status = dj_op_infer(&call, r->inferred);
    if (status != DJ_OK)
        return status;
    const dj_op_info_t *info = dj_op_info(op);
    r->n_outs = info->n_outs ? info->n_outs : 1;
    r->target = info->n_outs ? -1 : 0;
    if (r->c.target_arg >= 0) {
        targets[0] = (dj_target_t){.kind = DJ_TARGET_ARGUMENT, .arg = (uint8_t)r->c.target_arg};
        const dj_operand_t *into = r->c.args[r->c.target_arg].operands;
        r->target = r->c.tensor_of[into - r->c.operands];
    } else if (r->c.target[0]) {
        target = target_add(r);
        targets[0] = (dj_target_t){.kind = DJ_TARGET_VIEW, .operand = &target};
    }
    expect_ok(dj_program_add(&r->program.program, &call, targets, storages));
    for (uint32_t i = 0; i < r->n_outs; i++) {
        if (i == 0 && r->target >= 0)
            continue;
        r->results[i].view = r->inferred[i];
        int64_t elements =
            (int64_t)(dj_view_extent_bytes(&r->inferred[i]) / dj_dtype_bytes(r->inferred[i].dtype));
        case_allocate(&r->results[i], elements);
        listed[n_listed++] = storages[i];
    }
    status = case_build(&r->program, listed, n_listed);
    for (uint32_t i = 0, next = r->program.n_inputs; i < r->n_outs; i++)
        if (r->results[i].data)
            r->program.bindings[next++] = r->results[i].data;
    return status;
}

static inline void record(recorded_t *r, dj_device_t *device, uint16_t op, const char *text)
{
    expect_ok(record_try(r, device, op, text));
}

static inline void check_memory(const recorded_t *r)
{
    for (uint32_t i = 0; i < r->c.n_tensors; i++) {
        const case_tensor_t *t = &r->c.tensors[i];
        uint32_t item = dj_dtype_bytes(t->view.dtype);
        assert_true(case_margins_hold(t));
        for (int64_t e = 0; (int)i == r->target && e < dj_view_count(&t->view); e++) {
            int64_t rest = e, offset = t->view.offset;
            for (uint32_t d = t->view.rank; d-- > 0; rest /= t->view.sizes[d])
                offset += rest % t->view.sizes[d] * t->view.strides[d];
            memcpy(r->before[i] + offset * item, t->data + offset * item, item);
        }
        assert_memory_equal(r->before[i], t->data, t->bytes);
    }
    for (uint32_t i = 0; i < r->n_outs; i++)
        assert_true(!r->results[i].data || case_margins_hold(&r->results[i]));
}

/* The shape that self[indices] has, from the index op's own rule. */
static inline dj_view_t indexed_shape(const op_case_t *c)
{
    dj_view_t outs[DJ_OUTS_MAX] = {{0}};
    if (c->op == DJ_OP_INDEX_COPY)
        return c->args[3].operands[0].view;
    if (c->op == DJ_OP_INDEX_PUT) {
        dj_call_t call = {.op = DJ_OP_INDEX, .n_args = 2, .args = c->args};
        expect_ok(dj_op_infer(&call, outs));
    }
    return outs[0];
}

static inline void check_values(const recorded_t *r, ref_call_t *call)
{
    dj_view_t shape = indexed_shape(&r->c);
    for (uint32_t i = 0; i < r->n_outs; i++) {
        const case_tensor_t *t =
            i == 0 && r->target >= 0 ? &r->c.tensors[r->target] : &r->results[i];
        call->outs[i] = ref_create(&t->view);
    }
    assert_true(reference(call, &shape));
    for (uint32_t i = 0; i < r->n_outs; i++) {
        const case_tensor_t *t =
            i == 0 && r->target >= 0 ? &r->c.tensors[r->target] : &r->results[i];
        ref_t *got = ref_read(t->data, &t->view);
        compare(&r->c, call->outs[i], got, i);
        ref_free(got);
        ref_free(call->outs[i]);
    }
}

static inline void read_operands(const recorded_t *r, ref_call_t *call)
{
    for (uint32_t i = 0; i < r->c.n_operands; i++) {
        int tensor = r->c.tensor_of[i];
        if (tensor >= 0)
            call->operands[i] = ref_read(r->c.tensors[tensor].data, &r->c.tensors[tensor].view);
        else if (r->c.operands[i].storage == DJ_STORAGE_SCALAR)
            call->operands[i] = ref_scalar(r->c.operands[i].scalar);
    }
}

/* Of a case with a bad index. */
static inline void check_refused(const recorded_t *r, dj_status_t status)
{
    assert_int_equal(status, DJ_ERR_INVALID);
    assert_non_null(strstr(dj_error_text(), dj_op_info(r->c.op)->name));
    for (uint32_t i = 0; i < r->c.n_tensors; i++)
        assert_true(case_margins_hold(&r->c.tensors[i]));
    for (uint32_t i = 0; i < r->n_outs; i++)
        assert_true(!r->results[i].data || case_margins_hold(&r->results[i]));
}

static inline void recorded_free(recorded_t *r, ref_call_t *call)
{
    for (uint32_t i = 0; i < r->c.n_operands; i++)
        ref_free(call->operands[i]);
    for (uint32_t i = 0; i < r->c.n_tensors; i++)
        free(r->before[i]);
    for (uint32_t i = 0; i < r->n_outs; i++)
        free(r->results[i].memory);
    case_close(&r->program);
    case_free(&r->c);
}

#endif
