/* shape_fft.c - shape rules of Fourier transforms between real and complex numbers.
 *
 * The last listed dimension is the one that is halved; the others are transformed in full. The
 * layout is the one that PyTorch's meta functions foresee, which is cuFFT's: transformed dimensions
 * lie inside, the others around them in the order of the input's strides. */
#include "planner/shape.h"

static dj_status_t take_dims(const dj_call_t *call, uint32_t rank, uint32_t *dims)
{
    const dj_arg_t *list = &call->args[1];
    uint32_t seen = 0;
    if (list->kind != DJ_ARG_INTEGERS || list->count == 0)
        return dj_fail(DJ_ERR_SHAPE, "no dimension to transform");
    for (uint32_t i = 0; i < list->count; i++) {
        uint32_t dim = 0;
        dj_status_t status = rank > 0 ? dj_shape_dim(list->integers[i], rank, &dim)
                                      : dj_fail(DJ_ERR_SHAPE, "a tensor without dimensions");
        if (status != DJ_OK)
            return status;
        if (seen & 1u << dim)
            return dj_fail(DJ_ERR_SHAPE, "dimension %u is listed twice", dim);
        seen |= 1u << dim;
        dims[i] = dim;
    }
    return DJ_OK;
}

/* Sorts dims by the input's strides, the longest first; equals stay in their order. */
static void sort_dims(const dj_view_t *view, uint32_t *dims, uint32_t n)
{
    for (uint32_t i = 1; i < n; i++) {
        uint32_t dim = dims[i], at = i;
        for (; at > 0 && view->strides[dims[at - 1]] < view->strides[dim]; at--)
            dims[at] = dims[at - 1];
        dims[at] = dim;
    }
}

/* Rows of the transformed dimensions, in their order, one behind the other for all the rest. */
static dj_view_t transformed(const dj_view_t *view, uint8_t dtype, const int64_t *sizes,
                             const uint32_t *dims, uint32_t n)
{
    dj_view_t out = dj_view_contiguous(dtype, view->rank, sizes);
    uint32_t order[DJ_RANK_MAX], inside = 0, n_rest = 0;
    uint64_t stride = 1; /* unsigned: sizes may not have been checked yet */
    for (uint32_t i = 0; i < n; i++)
        inside |= 1u << dims[i];
    for (uint32_t i = 0; i < view->rank; i++)
        if (!(inside & 1u << i))
            order[n_rest++] = i;
    sort_dims(view, order, n_rest);
    for (uint32_t i = 0; i < n; i++)
        order[n_rest + i] = dims[i];
    for (uint32_t i = view->rank; i-- > 0;) {
        out.strides[order[i]] = (int64_t)(stride & INT64_MAX);
        stride *= sizes[order[i]] > 0 ? (uint64_t)sizes[order[i]] : 1;
    }
    return out;
}

/* A library that takes at most three dimensions at once, and not the first two in this order. */
static bool at_once(const uint32_t *dims, uint32_t n)
{
    return n <= 3 && !(n >= 2 && dims[0] == 0 && dims[1] == 1);
}

/* Complex to complex, three dimensions at a time, innermost first. */
static dj_view_t staged(dj_view_t view, uint8_t dtype, const int64_t *sizes, uint32_t *dims,
                        uint32_t n)
{
    while (n > 0) {
        uint32_t taken = n < 3 ? n : 3;
        sort_dims(&view, dims, n);
        n -= taken;
        view = transformed(&view, dtype, sizes, dims + n, taken);
    }
    return view;
}

/* self, dims, normalization, onesided */
dj_status_t dj_shape_fft_r2c(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *self = dj_call_view(call, 0);
    uint32_t dims[2 * DJ_RANK_MAX], n = call->args[1].count;
    bool onesided = call->args[3].integer != 0;
    int64_t half[DJ_RANK_MAX];
    if (!dj_dtype_is_float(self->dtype))
        return dj_fail(DJ_ERR_DTYPE, "a real input of type %s", dj_dtype_name(self->dtype));
    dj_status_t status = take_dims(call, self->rank, dims);
    if (status != DJ_OK)
        return status;
    uint8_t dtype = dj_dtype_to_complex(self->dtype);
    uint32_t last = dims[n - 1];
    memcpy(half, self->sizes, sizeof half);
    half[last] = half[last] / 2 + 1;
    const int64_t *sizes = onesided ? half : self->sizes;
    if (at_once(dims, n)) {
        outs[0] = transformed(self, dtype, sizes, dims, n);
        return DJ_OK;
    }
    outs[0] = transformed(self, dtype, half, &last, 1);
    outs[0] = staged(outs[0], dtype, half, dims, n - 1);
    if (!onesided && half[last] != self->sizes[last]) /* mirrored into a new tensor */
        outs[0] = dj_view_contiguous(dtype, self->rank, self->sizes);
    return DJ_OK;
}

/* self, dims, normalization, last_dim_size */
dj_status_t dj_shape_fft_c2r(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *self = dj_call_view(call, 0);
    uint32_t dims[2 * DJ_RANK_MAX], n = call->args[1].count;
    int64_t sizes[DJ_RANK_MAX];
    if (!dj_dtype_is_complex(self->dtype))
        return dj_fail(DJ_ERR_DTYPE, "a complex input of type %s", dj_dtype_name(self->dtype));
    dj_status_t status = take_dims(call, self->rank, dims);
    if (status == DJ_OK && call->args[3].integer < 1)
        status = dj_fail(DJ_ERR_SHAPE, "a last dimension of %lld elements",
                         (long long)call->args[3].integer);
    if (status != DJ_OK)
        return status;
    uint32_t last = dims[n - 1];
    uint8_t dtype = dj_dtype_to_real(self->dtype);
    dj_view_t inner = dj_view_contiguous(self->dtype, self->rank, self->sizes);
    memcpy(sizes, self->sizes, sizeof sizes);
    sizes[last] = call->args[3].integer;
    if (at_once(dims, n)) {
        outs[0] = transformed(&inner, dtype, sizes, dims, n);
        return DJ_OK;
    }
    inner = staged(*self, self->dtype, self->sizes, dims, n - 1);
    outs[0] = transformed(&inner, dtype, sizes, &last, 1);
    return DJ_OK;
}
