/* shape_pool.c - shape rules of pooling, with a window that slides and with a size that is given.
 */
#include "planner/shape_window.h"

static int64_t floor_divide(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

/* kernel, stride (none: the kernel), padding and, with `dilated`, dilation from argument `first` */
static dj_status_t take_pool(const dj_call_t *call, uint32_t first, uint32_t n, bool dilated,
                             dj_window_t *window)
{
    static const int64_t ones[DJ_SPATIAL_MAX] = {1, 1, 1};
    window->n = n;
    dj_status_t status = dj_window_take(call, first, "kernel_size", n, 1, NULL, window->kernel);
    if (status == DJ_OK)
        status = dj_window_take(call, first + 1, "stride", n, 1, window->kernel, window->stride);
    if (status == DJ_OK)
        status = dj_window_take(call, first + 2, "padding", n, 0, NULL, window->padding);
    memcpy(window->dilation, ones, sizeof ones);
    if (status == DJ_OK && dilated)
        status = dj_window_take(call, first + 3, "dilation", n, 1, NULL, window->dilation);
    window->ceil = call->args[first + 3 + dilated].integer != 0;
    for (uint32_t i = 0; i < n && status == DJ_OK; i++)
        if (window->padding[i] > window->kernel[i] / 2)
            return dj_fail(DJ_ERR_SHAPE, "padding %lld is more than half of kernel %lld",
                           (long long)window->padding[i], (long long)window->kernel[i]);
    return status;
}

static int64_t pool_length(const dj_window_t *window, uint32_t i, int64_t length)
{
    int64_t stride = window->stride[i], padding = window->padding[i];
    int64_t free = length + 2 * padding - dj_window_reach(window->kernel[i], window->dilation[i]);
    int64_t out = floor_divide(free + (window->ceil ? stride - 1 : 0), stride) + 1;
    /* The last window must begin inside the picture or its left padding. */
    return window->ceil && dj_window_times(out > 0 ? out - 1 : 0, stride) >= length + padding
               ? out - 1
               : out;
}

/* The sizes of the pooled picture: `input` with its last window->n dimensions made shorter. */
static dj_status_t pool_sizes(const dj_view_t *input, const dj_window_t *window, int64_t *sizes)
{
    uint32_t n = window->n;
    for (uint32_t i = input->rank == n + 2; i < input->rank; i++)
        if (input->sizes[i] == 0)
            return dj_window_misfit(input, "only its batch may be empty");
    memcpy(sizes, input->sizes, sizeof input->sizes);
    for (uint32_t i = 0; i < n; i++) {
        int64_t *size = &sizes[input->rank - n + i];
        *size = pool_length(window, i, *size);
        if (*size < 1)
            return dj_window_misfit(input, "it is smaller than the window");
    }
    return DJ_OK;
}

static dj_status_t check_picture(const dj_view_t *input, uint32_t n)
{
    static const char *const wanted[] = {"2 or 3 dimensions are needed",
                                         "3 or 4 dimensions are needed",
                                         "4 or 5 dimensions are needed"};
    return input->rank == n + 1 || input->rank == n + 2 ? DJ_OK
                                                        : dj_window_misfit(input, wanted[n - 1]);
}

/* self, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override */
static dj_status_t avg_pool(const dj_call_t *call, const dj_view_t *input, uint32_t first,
                            uint32_t n, int64_t *sizes)
{
    dj_window_t window;
    dj_status_t status = check_picture(input, n);
    if (status == DJ_OK)
        status = take_pool(call, first, n, false, &window);
    if (status == DJ_OK)
        status = pool_sizes(input, &window, sizes);
    if (status != DJ_OK)
        return status;
    if (input->dtype == DJ_U8)
        return dj_fail(DJ_ERR_DTYPE, "an average of uint8");
    const dj_arg_t *divisor = call->n_args > first + 5 ? &call->args[first + 5] : NULL;
    if (divisor != NULL && divisor->kind == DJ_ARG_INTEGERS &&
        (divisor->count != 1 || divisor->integers[0] == 0))
        return dj_fail(DJ_ERR_SHAPE, "divisor_override must be one number that is not 0");
    for (uint32_t i = 0; n == 3 && i < n; i++)
        if (input->sizes[input->rank - n + i] < window.kernel[i])
            return dj_window_misfit(input, "it is smaller than the kernel");
    return DJ_OK;
}

/* One spatial dimension is pooled as a picture of one row, whose layout the result keeps. */
static dj_view_t pooled_row(const dj_view_t *input, const int64_t *sizes)
{
    dj_view_t row = *input, out;
    uint32_t last = input->rank - 1u;
    row.rank++;
    row.sizes[last + 1] = sizes[last], row.strides[last + 1] = input->strides[last];
    row.sizes[last] = 1, row.strides[last] = input->sizes[last] * input->strides[last];
    bool channels_last = row.rank == 4 && !dj_view_is_contiguous(input);
    if (channels_last) {
        dj_view_t before = row;
        before.sizes[last + 1] = input->sizes[last];
        channels_last = dj_shape_channels_last(&before);
    }
    out = dj_shape_formatted(input->dtype, row.rank, row.sizes, channels_last);
    out.sizes[last] = out.sizes[last + 1], out.strides[last] = out.strides[last + 1];
    out.rank--;
    return out;
}

dj_status_t dj_shape_avg_pool1d(const dj_call_t *call, dj_view_t *outs)
{
    int64_t sizes[DJ_RANK_MAX];
    const dj_view_t *input = dj_call_view(call, 0);
    dj_status_t status = avg_pool(call, input, 1, 1, sizes);
    if (status == DJ_OK)
        outs[0] = pooled_row(input, sizes);
    return status;
}

dj_status_t dj_shape_avg_pool2d(const dj_call_t *call, dj_view_t *outs)
{
    int64_t sizes[DJ_RANK_MAX];
    const dj_view_t *input = dj_call_view(call, 0);
    dj_status_t status = avg_pool(call, input, 1, 2, sizes);
    if (status == DJ_OK)
        outs[0] =
            dj_shape_formatted(input->dtype, input->rank, sizes, dj_shape_channels_last(input));
    return status;
}

dj_status_t dj_shape_avg_pool3d(const dj_call_t *call, dj_view_t *outs)
{
    int64_t sizes[DJ_RANK_MAX];
    const dj_view_t *input = dj_call_view(call, 0);
    dj_status_t status = avg_pool(call, input, 1, 3, sizes);
    if (status == DJ_OK)
        outs[0] = dj_view_contiguous(input->dtype, input->rank, sizes);
    return status;
}

/* The gradient of a pooled picture, or where its maxima lay: its last dimensions are the picture's.
 */
static dj_status_t check_gradient(const dj_view_t *grad, const dj_view_t *input,
                                  const int64_t *sizes)
{
    dj_view_t pooled = dj_view_contiguous(grad->dtype, input->rank, sizes);
    uint32_t first = input->rank - 3u;
    if (grad->rank == input->rank &&
        memcmp(grad->sizes + first, sizes + first, 3 * sizeof sizes[0]) == 0)
        return DJ_OK;
    return dj_shape_misfit("gradient or indices", grad, &pooled);
}

/* grad_output, self, then as avg_pool2d */
dj_status_t dj_shape_avg_pool2d_backward(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *grad = dj_call_view(call, 0), *input = dj_call_view(call, 1);
    int64_t sizes[DJ_RANK_MAX];
    dj_status_t status = avg_pool(call, input, 2, 2, sizes);
    if (status == DJ_OK)
        status = check_gradient(grad, input, sizes);
    if (status == DJ_OK)
        outs[0] = dj_shape_formatted(input->dtype, input->rank, input->sizes,
                                     dj_shape_channels_last(input));
    return status;
}

/* self, kernel_size, stride, padding, dilation, ceil_mode */
static dj_status_t max_pool(const dj_call_t *call, uint32_t n, dj_view_t *outs)
{
    const dj_view_t *input = dj_call_view(call, 0);
    int64_t sizes[DJ_RANK_MAX];
    dj_window_t window;
    dj_status_t status = check_picture(input, n);
    if (status == DJ_OK)
        status = take_pool(call, 1, n, true, &window);
    if (status == DJ_OK)
        status = pool_sizes(input, &window, sizes);
    if (status != DJ_OK)
        return status;
    bool last = input->rank == n + 2 && dj_shape_channels_last(input);
    outs[0] = dj_shape_formatted(input->dtype, input->rank, sizes, last);
    outs[1] = dj_shape_formatted(DJ_I64, input->rank, sizes, last);
    return DJ_OK;
}

dj_status_t dj_shape_max_pool2d(const dj_call_t *call, dj_view_t *outs)
{
    return max_pool(call, 2, outs);
}

dj_status_t dj_shape_max_pool3d(const dj_call_t *call, dj_view_t *outs)
{
    return max_pool(call, 3, outs);
}

/* grad_output, self, kernel_size, stride, padding, dilation, ceil_mode, indices */
dj_status_t dj_shape_max_pool2d_backward(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *grad = dj_call_view(call, 0), *input = dj_call_view(call, 1);
    int64_t sizes[DJ_RANK_MAX];
    dj_window_t window;
    dj_status_t status = check_picture(input, 2);
    if (status == DJ_OK)
        status = take_pool(call, 2, 2, true, &window);
    if (status == DJ_OK)
        status = pool_sizes(input, &window, sizes);
    if (status == DJ_OK && grad->dtype != input->dtype)
        return dj_fail(DJ_ERR_DTYPE, "a gradient of %s for a picture of %s",
                       dj_dtype_name(grad->dtype), dj_dtype_name(input->dtype));
    if (status == DJ_OK)
        status = check_gradient(grad, input, sizes);
    if (status == DJ_OK)
        status = check_gradient(dj_call_view(call, 7), input, sizes);
    if (status == DJ_OK)
        outs[0] = dj_shape_formatted(input->dtype, input->rank, input->sizes,
                                     dj_shape_channels_last(input));
    return status;
}

/* ---- adaptive pooling: the output's size is given ---- */

static dj_status_t adaptive_sizes(const dj_call_t *call, uint32_t n, int64_t *sizes)
{
    const dj_view_t *input = dj_call_view(call, 0);
    const dj_arg_t *wanted = &call->args[1];
    dj_status_t status = check_picture(input, n);
    if (status != DJ_OK)
        return status;
    if (wanted->count != n)
        return dj_fail(DJ_ERR_SHAPE, "output_size lists %u numbers for %u spatial dimensions",
                       wanted->count, n);
    memcpy(sizes, input->sizes, sizeof input->sizes);
    memcpy(sizes + input->rank - n, wanted->integers, n * sizeof sizes[0]);
    return DJ_OK;
}

dj_status_t dj_shape_adaptive_avg_pool1d(const dj_call_t *call, dj_view_t *outs)
{
    int64_t sizes[DJ_RANK_MAX];
    dj_status_t status = adaptive_sizes(call, 1, sizes);
    if (status == DJ_OK)
        outs[0] = pooled_row(dj_call_view(call, 0), sizes);
    return status;
}

dj_status_t dj_shape_adaptive_avg_pool2d(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *input = dj_call_view(call, 0);
    int64_t sizes[DJ_RANK_MAX];
    dj_status_t status = adaptive_sizes(call, 2, sizes);
    if (status == DJ_OK)
        outs[0] =
            dj_shape_formatted(input->dtype, input->rank, sizes, dj_shape_channels_last(input));
    return status;
}

dj_status_t dj_shape_adaptive_avg_pool3d(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *input = dj_call_view(call, 0);
    int64_t sizes[DJ_RANK_MAX];
    dj_status_t status = adaptive_sizes(call, 3, sizes);
    if (status == DJ_OK)
        outs[0] = dj_view_contiguous(input->dtype, input->rank, sizes);
    return status;
}

/* grad_output, self */
dj_status_t dj_shape_adaptive_avg_pool2d_backward(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *grad = dj_call_view(call, 0), *input = dj_call_view(call, 1);
    dj_status_t status = check_picture(grad, 2);
    if (status != DJ_OK)
        return status;
    for (uint32_t i = 1; i < grad->rank; i++)
        if (grad->sizes[i] == 0)
            return dj_window_misfit(grad, "only its batch may be empty");
    if (grad->dtype != input->dtype || grad->rank != input->rank ||
        memcmp(grad->sizes, input->sizes, (grad->rank - 2u) * sizeof grad->sizes[0]) != 0)
        return dj_shape_misfit("gradient", grad, input);
    outs[0] =
        dj_shape_formatted(input->dtype, input->rank, input->sizes, dj_shape_channels_last(input));
    return DJ_OK;
}
