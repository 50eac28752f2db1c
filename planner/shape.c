/* shape.c - what shape rules share: dimensions, broadcasting, promotion, layout of results. */
#include "planner/shape.h"

uint8_t dj_promote(uint8_t a, uint8_t b)
{
    if (a == b || b == DJ_DTYPE_NONE)
        return a;
    if (a == DJ_DTYPE_NONE)
        return b;
    uint8_t low = a < b ? a : b, high = a < b ? b : a;
    if (low == DJ_F16 && high == DJ_BF16)
        return DJ_F32;
    if (low == DJ_U8 && high == DJ_I8)
        return DJ_I16;
    return high; /* the list of types is in order of promotion but for these two pairs */
}

dj_status_t dj_shape_dim(int64_t dim, uint32_t rank, uint32_t *dim_p)
{
    int64_t limit = rank > 0 ? rank : 1;
    if (dim < -limit || dim >= limit)
        return dj_fail(DJ_ERR_SHAPE, "dimension %lld of a tensor of rank %u", (long long)dim, rank);
    *dim_p = (uint32_t)(dim < 0 ? dim + limit : dim);
    return DJ_OK;
}

static dj_status_t fail_broadcast(const dj_view_t *view, const int64_t *sizes, uint8_t rank)
{
    char own[DJ_VIEW_TEXT], other[DJ_VIEW_TEXT];
    dj_view_t wanted = dj_view_contiguous(view->dtype, rank, sizes);
    return dj_fail(DJ_ERR_SHAPE, "%s does not broadcast with %s",
                   dj_view_format(view, own, sizeof own),
                   dj_view_format(&wanted, other, sizeof other));
}

dj_status_t dj_shape_broadcast(const dj_view_t *view, int64_t *sizes, uint8_t *rank_p)
{
    uint8_t rank = *rank_p;
    if (view->rank > rank) {
        uint8_t more = view->rank - rank;
        memmove(sizes + more, sizes, rank * sizeof sizes[0]);
        for (uint8_t i = 0; i < more; i++)
            sizes[i] = 1;
        rank = view->rank;
    }
    uint8_t lead = rank - view->rank;
    for (uint8_t i = 0; i < view->rank; i++) {
        if (sizes[lead + i] == 1)
            sizes[lead + i] = view->sizes[i];
        else if (view->sizes[i] != 1 && view->sizes[i] != sizes[lead + i])
            return fail_broadcast(view, sizes, rank);
    }
    *rank_p = rank;
    return DJ_OK;
}

dj_status_t dj_shape_expands(const dj_view_t *view, const int64_t *sizes, uint8_t rank)
{
    if (view->rank > rank)
        return fail_broadcast(view, sizes, rank);
    for (uint8_t i = 0; i < view->rank; i++)
        if (view->sizes[i] != 1 && view->sizes[i] != sizes[rank - view->rank + i])
            return fail_broadcast(view, sizes, rank);
    return DJ_OK;
}

/* The stride of `view` in dimension `dim` of the broadcast shape; 0 where it says nothing. */
static int64_t broadcast_stride(const dj_view_t *view, uint8_t rank, uint32_t dim)
{
    uint32_t lead = rank - view->rank;
    if (dim < lead || view->sizes[dim - lead] == 1)
        return 0;
    return view->strides[dim - lead];
}

/* Above 0 when dimension a should vary slower than b, below 0 when faster, 0 when nothing says. */
static int compare_dims(const dj_view_t *const *inputs, uint32_t n_inputs, const int64_t *sizes,
                        uint8_t rank, uint32_t a, uint32_t b)
{
    for (uint32_t i = 0; i < n_inputs; i++) {
        int64_t stride_a = broadcast_stride(inputs[i], rank, a);
        int64_t stride_b = broadcast_stride(inputs[i], rank, b);
        if (stride_a == 0 || stride_b == 0)
            continue;
        if (stride_a != stride_b)
            return stride_a < stride_b ? -1 : 1;
        if (sizes[a] > sizes[b])
            return 1;
    }
    return 0;
}

/* An insertion sort that steps over undecided pairs: the comparison is no total order, so the
 * algorithm is part of the result and is the one PyTorch's iterator uses. */
static void sort_dims(const dj_view_t *const *inputs, uint32_t n_inputs, const int64_t *sizes,
                      uint8_t rank, uint8_t *order)
{
    for (uint8_t i = 0; i < rank; i++)
        order[i] = rank - 1 - i;
    for (int i = 1; i < rank; i++) {
        int at = i;
        for (int other = i - 1; other >= 0; other--) {
            int way = compare_dims(inputs, n_inputs, sizes, rank, order[other], order[at]);
            if (way < 0)
                break;
            if (way == 0)
                continue;
            uint8_t swap = order[other];
            order[other] = order[at];
            order[at] = swap;
            at = other;
        }
    }
}

dj_view_t dj_shape_dense_like(uint8_t dtype, const dj_view_t *const *inputs, uint32_t n_inputs,
                              const int64_t *sizes, uint8_t rank)
{
    dj_view_t view = dj_view_contiguous(dtype, rank, sizes);
    uint8_t order[DJ_RANK_MAX];
    bool plain = true;
    for (uint32_t i = 0; i < rank; i++)
        if (sizes[i] == 0)
            return view;
    for (uint32_t i = 0; i < n_inputs; i++)
        plain &= inputs[i]->rank == 0 || (inputs[i]->rank == rank &&
                                          dj_view_same_shape(inputs[i], &view) &&
                                          dj_view_is_contiguous(inputs[i]));
    if (plain)
        return view;
    sort_dims(inputs, n_inputs, sizes, rank, order);
    uint64_t stride = 1;
    for (uint32_t i = 0; i < rank; i++) {
        view.strides[order[i]] = (int64_t)(stride & INT64_MAX);
        stride *= (uint64_t)sizes[order[i]];
    }
    return view;
}

dj_view_t dj_shape_preserved(uint8_t dtype, const dj_view_t *view)
{
    return dj_shape_dense_like(dtype, &view, 1, view->sizes, view->rank);
}
