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
    if (dj_dtype_is_complex(high) && dj_dtype_is_float(low) && dj_dtype_to_complex(low) > high)
        return dj_dtype_to_complex(low);
    return high; /* the list of types is in order of promotion but for these pairs */
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

const dj_view_t *dj_shape_as_sent(const dj_view_t *view, dj_view_t *room)
{
    int64_t expected = 1;
    uint32_t i = view->rank;
    while (i > 0 && view->strides[i - 1] == expected)
        expected *= view->sizes[--i] > 0 ? view->sizes[i] : 1;
    if (i == 0 || !dj_view_is_contiguous(view)) /* as it should be, or something else altogether */
        return view;
    *room = dj_view_contiguous(view->dtype, view->rank, view->sizes);
    return room;
}

/* The strides of `view` in the broadcast shape; 0 where it says nothing. PyTorch lets the stride of
 * a dimension of size 1 speak where nothing is broadcast along it. */
static void broadcast_strides(const dj_view_t *view, const int64_t *sizes, uint8_t rank,
                              int64_t *strides)
{
    uint32_t lead = rank - view->rank;
    for (uint32_t i = 0; i < rank; i++)
        strides[i] =
            i < lead || (view->sizes[i - lead] == 1 && sizes[i] != 1) ? 0 : view->strides[i - lead];
}

/* Above 0 when dimension a should vary slower than b, below 0 when faster, 0 when nothing says. */
static int compare_dims(int64_t (*strides)[DJ_RANK_MAX], uint32_t n_inputs, const int64_t *sizes,
                        uint32_t a, uint32_t b)
{
    for (uint32_t i = 0; i < n_inputs; i++) {
        int64_t stride_a = strides[i][a], stride_b = strides[i][b];
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
    int64_t strides[DJ_ARGS_MAX][DJ_RANK_MAX];
    for (uint32_t i = 0; i < n_inputs; i++)
        broadcast_strides(inputs[i], sizes, rank, strides[i]);
    for (uint8_t i = 0; i < rank; i++)
        order[i] = rank - 1 - i;
    for (int i = 1; i < rank; i++) {
        int at = i;
        for (int other = i - 1; other >= 0; other--) {
            int way = compare_dims(strides, n_inputs, sizes, order[other], order[at]);
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
    dj_view_t view;
    uint8_t order[DJ_RANK_MAX];
    for (uint32_t i = 0; i < rank; i++)
        if (sizes[i] == 0)
            return dj_view_contiguous(dtype, rank, sizes);
    sort_dims(inputs, n_inputs, sizes, rank, order);
    view = (dj_view_t){.dtype = dtype, .rank = rank};
    uint64_t stride = 1; /* unsigned: the sizes may not have been checked yet */
    for (uint32_t i = 0; i < rank; i++) {
        view.sizes[i] = sizes[i];
        view.strides[order[i]] = (int64_t)(stride & INT64_MAX);
        stride *= (uint64_t)sizes[order[i]];
    }
    return view;
}

dj_view_t dj_shape_preserved(uint8_t dtype, const dj_view_t *view)
{
    if (dj_view_is_contiguous(view))
        return dj_view_contiguous(dtype, view->rank, view->sizes);
    if (dj_view_is_dense(view)) { /* with what its dimensions of size 1 say */
        dj_view_t same = *view;
        same.dtype = dtype;
        same.offset = 0;
        return same;
    }
    return dj_shape_dense_like(dtype, &view, 1, view->sizes, view->rank);
}

bool dj_shape_channels_last(const dj_view_t *view)
{
    static const uint8_t orders[2][5] = {{1, 3, 2, 0}, {1, 4, 3, 2, 0}};
    int64_t least = 0;
    if ((view->rank != 4 && view->rank != 5) || view->strides[1] == 0 ||
        dj_view_is_contiguous(view))
        return false;
    for (uint32_t i = 0; i < view->rank; i++) {
        uint32_t d = orders[view->rank - 4][i];
        if (view->sizes[d] == 0 || view->strides[d] < least)
            return false;
        if (d == 0 && least == view->strides[1]) /* nothing tells the two orders apart */
            return false;
        least = view->strides[d] * view->sizes[d];
    }
    return true;
}

dj_view_t dj_shape_formatted(uint8_t dtype, uint8_t rank, const int64_t *sizes, bool channels_last)
{
    dj_view_t view = dj_view_contiguous(dtype, rank, sizes);
    uint64_t stride = 1; /* unsigned: sizes may not have been checked yet */
    if (!channels_last || (rank != 4 && rank != 5))
        return view;
    for (uint32_t i = 0; i < rank; i++) {
        uint32_t d = i == 0 ? 1 : i == rank - 1u ? 0 : rank - i;
        view.strides[d] = (int64_t)(stride & INT64_MAX);
        stride *= sizes[d] > 0 ? (uint64_t)sizes[d] : 1;
    }
    return view;
}

dj_view_t dj_shape_absent(uint8_t dtype)
{
    int64_t none = 0;
    return dj_view_contiguous(dtype, 1, &none);
}

dj_status_t dj_shape_mask(const dj_call_t *call, uint32_t arg, uint32_t n, uint32_t *mask_p)
{
    const dj_arg_t *list = &call->args[arg];
    if (list->kind != DJ_ARG_INTEGERS || list->count != n)
        return dj_fail(DJ_ERR_SHAPE, "the output mask must list %u flags", n);
    *mask_p = 0;
    for (uint32_t i = 0; i < n; i++)
        *mask_p |= (list->integers[i] != 0 ? 1u : 0u) << i;
    return DJ_OK;
}

dj_status_t dj_shape_misfit(const char *what, const dj_view_t *view, const dj_view_t *other)
{
    char left[DJ_VIEW_TEXT], right[DJ_VIEW_TEXT];
    return dj_fail(view->dtype != other->dtype ? DJ_ERR_DTYPE : DJ_ERR_SHAPE,
                   "%s %s does not fit %s", what, dj_view_format(view, left, sizeof left),
                   dj_view_format(other, right, sizeof right));
}

dj_view_t dj_shape_spread(const dj_view_t *view)
{
    if (!dj_view_is_spread(view))
        return dj_shape_preserved(view->dtype, view);
    dj_view_t out = *view;
    out.offset = 0;
    return out;
}
