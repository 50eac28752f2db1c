/* loop.c - joint walks over views (loop.h): broadcast, order, merge. Compiled once: it runs when
 * a kernel is prepared, never in a replay. */
#include "gpu/loop.h"

static int64_t broadcast_stride(const dj_view_t *view, const dj_view_t *shape, uint32_t d,
                                bool *ok_p)
{
    if (!view)
        return 0;
    uint32_t lead = shape->rank - view->rank;
    if (view->rank > shape->rank || d < lead)
        return 0;
    if (view->sizes[d - lead] == 1)
        return 0;
    if (view->sizes[d - lead] != shape->sizes[d])
        *ok_p = false;
    return view->strides[d - lead] * (int64_t)dj_dtype_bytes(view->dtype);
}

static void swap_dims(dj_loop_t *loop, uint32_t a, uint32_t b)
{
    int64_t size = loop->sizes[a];
    loop->sizes[a] = loop->sizes[b];
    loop->sizes[b] = size;
    for (uint32_t k = 0; k < loop->n; k++) {
        int64_t stride = loop->strides[k][a];
        loop->strides[k][a] = loop->strides[k][b];
        loop->strides[k][b] = stride;
    }
}

/* Larger strides outside, so that the innermost dimension is the one the output lies along. */
static void order_dims(dj_loop_t *loop)
{
    for (uint32_t i = 1; i < loop->rank; i++)
        for (uint32_t d = i; d > 0; d--) {
            int64_t outer = loop->strides[loop->n - 1][d - 1],
                    inner = loop->strides[loop->n - 1][d];
            if (inner == 0 || outer >= inner)
                break;
            swap_dims(loop, d - 1, d);
        }
}

static bool dims_merge(const dj_loop_t *loop, uint32_t outer, uint32_t inner)
{
    for (uint32_t k = 0; k < loop->n; k++)
        if (loop->strides[k][outer] != loop->strides[k][inner] * loop->sizes[inner])
            return false;
    return true;
}

static void merge_dims(dj_loop_t *loop)
{
    uint32_t kept = 0;
    for (uint32_t d = 1; d < loop->rank; d++) {
        if (dims_merge(loop, kept, d)) {
            loop->sizes[kept] *= loop->sizes[d];
        } else {
            kept++;
            loop->sizes[kept] = loop->sizes[d];
        }
        for (uint32_t k = 0; k < loop->n; k++)
            loop->strides[k][kept] = loop->strides[k][d];
    }
    loop->rank = kept + 1;
}

dj_status_t dj_loop_make(dj_loop_t *loop, const dj_view_t *const *views, uint32_t n)
{
    const dj_view_t *shape = views[n - 1];
    *loop = (dj_loop_t){.n = n, .count = dj_view_count(shape)};
    bool ok = true;
    for (uint32_t k = 0; k < n; k++)
        ok &= !views[k] || views[k]->rank <= shape->rank;
    for (uint32_t d = 0; d < shape->rank && ok; d++) {
        for (uint32_t k = 0; k < n; k++)
            loop->strides[k][loop->rank] = broadcast_stride(views[k], shape, d, &ok);
        if (shape->sizes[d] != 1)
            loop->sizes[loop->rank++] = shape->sizes[d];
    }
    if (!ok) {
        char text[160];
        return dj_fail(DJ_ERR_SHAPE, "an operand does not broadcast to the output %s",
                       dj_view_format(shape, text, sizeof(text)));
    }
    if (loop->rank == 0) {
        loop->rank = 1;
        loop->sizes[0] = 1;
        for (uint32_t k = 0; k < n; k++)
            loop->strides[k][0] = views[k] ? (int64_t)dj_dtype_bytes(views[k]->dtype) : 0;
    }
    order_dims(loop);
    if (loop->count > 0)
        merge_dims(loop);
    return DJ_OK;
}

void dj_views_widen(dj_view_t *common, const dj_view_t *view)
{
    dj_view_t wide = view->rank > common->rank ? *view : *common;
    const dj_view_t *narrow = view->rank > common->rank ? common : view;
    for (uint32_t d = 0; d < narrow->rank; d++) {
        int64_t *size = &wide.sizes[wide.rank - narrow->rank + d];
        *size = *size == 1 ? narrow->sizes[d] : *size;
    }
    *common = wide;
}

dj_status_t dj_view_expand(const dj_view_t *other, const dj_view_t *shape, dj_view_t *expanded)
{
    *expanded = *shape;
    expanded->dtype = other->dtype;
    if (other->rank > shape->rank)
        return dj_fail(DJ_ERR_SHAPE, "values have more dimensions than their target");
    uint32_t lead = shape->rank - other->rank;
    for (uint32_t d = 0; d < shape->rank; d++) {
        bool single = d < lead || other->sizes[d - lead] == 1;
        if (!single && other->sizes[d - lead] != shape->sizes[d])
            return dj_fail(DJ_ERR_SHAPE, "values do not broadcast to their target");
        expanded->strides[d] = single ? 0 : other->strides[d - lead];
    }
    return DJ_OK;
}
