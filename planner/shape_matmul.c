/* shape_matmul.c - shape rules of matrix products and attention. Results are contiguous, but for
 * attention, whose heads lie inside the rows as the transpose that follows wants them. */
#include "planner/shape.h"

static dj_status_t fail_pair(const dj_view_t *a, const dj_view_t *b)
{
    char left[DJ_VIEW_TEXT], right[DJ_VIEW_TEXT];
    dj_status_t status = a->dtype != b->dtype ? DJ_ERR_DTYPE : DJ_ERR_SHAPE;
    return dj_fail(status, "%s and %s do not fit", dj_view_format(a, left, sizeof left),
                   dj_view_format(b, right, sizeof right));
}

static dj_status_t product(const dj_view_t *a, const dj_view_t *b, uint8_t rank, dj_view_t *out)
{
    int64_t sizes[3] = {0};
    if (a->rank != rank || b->rank != rank || a->dtype != b->dtype || a->dtype == DJ_BOOL ||
        a->sizes[rank - 1] != b->sizes[rank - 2] || (rank == 3 && a->sizes[0] != b->sizes[0]))
        return fail_pair(a, b);
    sizes[0] = a->sizes[0]; /* the batch of rank 3 */
    sizes[rank - 2] = a->sizes[rank - 2];
    sizes[rank - 1] = b->sizes[rank - 1];
    *out = dj_view_contiguous(a->dtype, rank, sizes);
    return DJ_OK;
}

/* beta * self + alpha * (a @ b) */
static dj_status_t add_product(const dj_call_t *call, uint8_t rank, dj_view_t *out)
{
    const dj_view_t *self = dj_call_view(call, 0);
    dj_status_t status = product(dj_call_view(call, 1), dj_call_view(call, 2), rank, out);
    if (status != DJ_OK)
        return status;
    if (self->dtype != out->dtype)
        return fail_pair(self, out);
    return dj_shape_expands(self, out->sizes, rank);
}

dj_status_t dj_shape_mm(const dj_call_t *call, dj_view_t *outs)
{
    return product(dj_call_view(call, 0), dj_call_view(call, 1), 2, outs);
}

dj_status_t dj_shape_bmm(const dj_call_t *call, dj_view_t *outs)
{
    return product(dj_call_view(call, 0), dj_call_view(call, 1), 3, outs);
}

dj_status_t dj_shape_addmm(const dj_call_t *call, dj_view_t *outs)
{
    return add_product(call, 2, outs);
}

dj_status_t dj_shape_baddbmm(const dj_call_t *call, dj_view_t *outs)
{
    return add_product(call, 3, outs);
}

dj_status_t dj_shape_linear(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *input = dj_call_view(call, 0), *weight = dj_call_view(call, 1);
    int64_t sizes[DJ_RANK_MAX];
    uint8_t rank = input->rank;
    if (rank < 1 || weight->rank != 2 || input->dtype != weight->dtype || input->dtype == DJ_BOOL ||
        input->sizes[rank - 1] != weight->sizes[1])
        return fail_pair(input, weight);
    memcpy(sizes, input->sizes, sizeof sizes);
    sizes[rank - 1] = weight->sizes[0];
    if (dj_call_has(call, 2)) {
        const dj_view_t *bias = dj_call_view(call, 2);
        if (bias->dtype != weight->dtype || bias->rank != 1 || bias->sizes[0] != weight->sizes[0])
            return fail_pair(weight, bias);
    }
    outs[0] = dj_view_contiguous(input->dtype, rank, sizes);
    return DJ_OK;
}

static dj_status_t check_heads(const dj_call_t *call, const dj_view_t *q, const dj_view_t *k,
                               const dj_view_t *v)
{
    bool grouped = call->args[7].integer != 0;
    if (q->rank != 4 || k->rank != 4 || q->dtype != k->dtype || !dj_dtype_is_float(q->dtype) ||
        q->sizes[0] != k->sizes[0] || q->sizes[3] != k->sizes[3])
        return fail_pair(q, k);
    if (v->rank != 4 || k->dtype != v->dtype || memcmp(k->sizes, v->sizes, 3 * sizeof(int64_t)))
        return fail_pair(k, v);
    if (q->sizes[1] != k->sizes[1] &&
        (!grouped || k->sizes[1] == 0 || q->sizes[1] % k->sizes[1] != 0))
        return fail_pair(q, k);
    return DJ_OK;
}

dj_status_t dj_shape_attention(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *q = dj_call_view(call, 0), *k = dj_call_view(call, 1);
    const dj_view_t *v = dj_call_view(call, 2);
    dj_status_t status = check_heads(call, q, k, v);
    if (status == DJ_OK && dj_call_has(call, 3)) {
        const dj_view_t *mask = dj_call_view(call, 3);
        int64_t scores[4] = {q->sizes[0], q->sizes[1], q->sizes[2], k->sizes[2]};
        if (mask->dtype != DJ_BOOL && mask->dtype != q->dtype)
            return fail_pair(q, mask);
        status = dj_shape_expands(mask, scores, 4);
    }
    if (status != DJ_OK)
        return status;
    int64_t rows[4] = {q->sizes[0], q->sizes[2], q->sizes[1], v->sizes[3]};
    dj_view_t out = dj_view_contiguous(q->dtype, 4, rows);
    outs[0] = out;
    outs[0].sizes[1] = out.sizes[2], outs[0].strides[1] = out.strides[2];
    outs[0].sizes[2] = out.sizes[1], outs[0].strides[2] = out.strides[1];
    return DJ_OK;
}

/* ---- distances ---- */

/* x1, x2, p, compute_mode */
dj_status_t dj_shape_cdist(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *a = dj_call_view(call, 0), *b = dj_call_view(call, 1);
    const dj_arg_t *mode = &call->args[3];
    int64_t sizes[DJ_RANK_MAX];
    uint8_t rank = 0;
    if (a->rank < 2 || b->rank < 2 || !dj_dtype_is_float(a->dtype) ||
        !dj_dtype_is_float(b->dtype) || a->sizes[a->rank - 1] != b->sizes[b->rank - 1])
        return fail_pair(a, b);
    if (mode->kind == DJ_ARG_INTEGERS &&
        (mode->count != 1 || mode->integers[0] < 0 || mode->integers[0] > 2))
        return dj_fail(DJ_ERR_INVALID, "compute_mode is 0, 1 or 2");
    dj_view_t left = *a, right = *b;
    left.rank -= 2, right.rank -= 2;
    dj_status_t status = dj_shape_broadcast(&left, sizes, &rank);
    if (status == DJ_OK)
        status = dj_shape_broadcast(&right, sizes, &rank);
    if (status != DJ_OK)
        return status;
    sizes[rank] = a->sizes[a->rank - 2];
    sizes[rank + 1] = b->sizes[b->rank - 2];
    outs[0] = dj_view_contiguous(a->dtype, rank + 2, sizes);
    return DJ_OK;
}

/* self, p: every pair of rows once */
dj_status_t dj_shape_pdist(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *self = dj_call_view(call, 0);
    char text[DJ_VIEW_TEXT];
    if (self->rank != 2 || !dj_dtype_is_float(self->dtype) || !dj_view_is_contiguous(self))
        return dj_fail(DJ_ERR_SHAPE, "%s; a contiguous floating-point matrix is needed",
                       dj_view_format(self, text, sizeof text));
    int64_t rows = self->sizes[0], even = rows % 2 == 0 ? rows / 2 : rows, pairs = 0;
    int64_t odd = rows % 2 == 0 ? rows - 1 : (rows - 1) / 2;
    if (rows > 0 && __builtin_mul_overflow(even, odd, &pairs))
        return dj_fail(DJ_ERR_LIMIT, "the pairs of %lld rows", (long long)rows);
    outs[0] = dj_view_contiguous(self->dtype, 1, &pairs);
    return DJ_OK;
}
