/* shape_window.c - shape rules of what slides a window over a picture: convolution, pooling, col2im.
 *
 * A picture is [batch, channels, spatial...] with one to three spatial dimensions; pools also take
 * it without a batch. Kernel, stride, padding and dilation are constants of a model, so they are
 * structural; each is a list of one number a spatial dimension, or of one for all.
 *
 * The numbers are foreign and a window reaches far: products are saturated (times()), so that what
 * does not fit a limit is refused as too large and never wraps. */
#include "planner/shape.h"

#define SPATIAL_MAX 3
#define PARAMETER_MAX (1 << 30)
#define SATURATED (1ll << 60)

typedef struct window {
    uint32_t n;
    int64_t kernel[SPATIAL_MAX], stride[SPATIAL_MAX], padding[SPATIAL_MAX], dilation[SPATIAL_MAX];
    bool ceil;
} window_t;

/* a * b of numbers that are not negative; sums of a few of these stay in range. */
static int64_t times(int64_t a, int64_t b)
{
    int64_t product;
    return __builtin_mul_overflow(a, b, &product) || product > SATURATED ? SATURATED : product;
}

static dj_status_t fail_picture(const dj_view_t *view, const char *wanted)
{
    char text[DJ_VIEW_TEXT];
    return dj_fail(DJ_ERR_SHAPE, "a picture %s; %s", dj_view_format(view, text, sizeof text),
                   wanted);
}

/* One number a spatial dimension, each at least `least`. An absent list is `otherwise`, if any. */
static dj_status_t take(const dj_call_t *call, uint32_t arg, const char *what, uint32_t n,
                        int64_t least, const int64_t *otherwise, int64_t *numbers)
{
    const dj_arg_t *list = &call->args[arg];
    uint32_t count = list->kind == DJ_ARG_INTEGERS ? list->count : 0;
    if (count == 0 && otherwise != NULL) {
        memcpy(numbers, otherwise, n * sizeof numbers[0]);
        return DJ_OK;
    }
    if (count != 1 && count != n)
        return dj_fail(DJ_ERR_SHAPE, "%s lists %u numbers for %u spatial dimensions", what, count,
                       n);
    for (uint32_t i = 0; i < n; i++) {
        numbers[i] = list->integers[count == 1 ? 0 : i];
        if (numbers[i] < least || numbers[i] > PARAMETER_MAX)
            return dj_fail(DJ_ERR_SHAPE, "%s is %lld; it must be from %lld to %d", what,
                           (long long)numbers[i], (long long)least, PARAMETER_MAX);
    }
    return DJ_OK;
}

/* Elements that a kernel covers from its first to its last. */
static int64_t reach_of(int64_t kernel, int64_t dilation)
{
    return kernel > 0 ? times(dilation, kernel - 1) + 1 : 0;
}

static int64_t floor_divide(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

/* ---- convolution ---- */

typedef struct conv {
    const dj_view_t *input, *weight;
    window_t window;
    int64_t output_padding[SPATIAL_MAX];
    bool transposed;
    int64_t groups;
} conv_t;

/* stride, padding, dilation, transposed, output_padding, groups, from argument `first` on */
static dj_status_t take_conv(const dj_call_t *call, uint32_t input, uint32_t first, conv_t *conv)
{
    window_t *window = &conv->window;
    conv->input = dj_call_view(call, input);
    conv->weight = dj_call_view(call, input + 1);
    conv->transposed = call->args[first + 3].integer != 0;
    conv->groups = call->args[first + 5].integer;
    if (conv->input->rank < 3 || conv->input->rank > 2 + SPATIAL_MAX ||
        conv->weight->rank != conv->input->rank || conv->input->dtype != conv->weight->dtype)
        return dj_shape_misfit("weight", conv->weight, conv->input);
    uint32_t n = window->n = conv->input->rank - 2;
    memcpy(window->kernel, conv->weight->sizes + 2, n * sizeof window->kernel[0]);
    dj_status_t status = take(call, first, "stride", n, 1, NULL, window->stride);
    if (status == DJ_OK)
        status = take(call, first + 1, "padding", n, 0, NULL, window->padding);
    if (status == DJ_OK)
        status = take(call, first + 2, "dilation", n, 1, NULL, window->dilation);
    if (status == DJ_OK && conv->transposed)
        status = take(call, first + 4, "output_padding", n, 0, NULL, conv->output_padding);
    return status;
}

static dj_status_t check_channels(const conv_t *conv)
{
    const int64_t *weight = conv->weight->sizes, channels = conv->input->sizes[1];
    if (conv->groups <= 0 || conv->groups > PARAMETER_MAX)
        return dj_fail(DJ_ERR_SHAPE, "%lld groups", (long long)conv->groups);
    if (weight[0] % conv->groups != 0)
        return dj_fail(DJ_ERR_SHAPE, "%lld channels of the weight do not divide into %lld groups",
                       (long long)weight[0], (long long)conv->groups);
    if ((conv->transposed ? weight[0] : times(weight[1], conv->groups)) != channels)
        return dj_shape_misfit("weight", conv->weight, conv->input);
    return DJ_OK;
}

static int64_t conv_length(const conv_t *conv, uint32_t i)
{
    const window_t *window = &conv->window;
    int64_t length = conv->input->sizes[2 + i], padding = 2 * window->padding[i];
    int64_t reach = reach_of(window->kernel[i], window->dilation[i]);
    if (!conv->transposed)
        return length + padding < reach ? -1 : (length + padding - reach) / window->stride[i] + 1;
    /* A kernel of no elements reaches one backwards, as PyTorch counts. */
    if (window->kernel[i] == 0)
        reach = 1 - window->dilation[i];
    int64_t steps = length > 0 ? times(length - 1, window->stride[i]) : -window->stride[i];
    return steps - padding + reach + conv->output_padding[i];
}

static dj_status_t conv_sizes(const conv_t *conv, int64_t *sizes)
{
    const window_t *window = &conv->window;
    bool any = false;
    dj_status_t status = check_channels(conv);
    if (status != DJ_OK)
        return status;
    sizes[0] = conv->input->sizes[0];
    sizes[1] = conv->transposed ? times(conv->groups, conv->weight->sizes[1])
                                : conv->weight->sizes[0];
    if (conv->input->sizes[1] == 0)
        sizes[1] = 0;
    for (uint32_t i = 0; i < window->n; i++) {
        sizes[2 + i] = conv_length(conv, i);
        any |= sizes[2 + i] > 0;
        if (conv->transposed && conv->output_padding[i] >= window->stride[i] &&
            conv->output_padding[i] >= window->dilation[i])
            return dj_fail(DJ_ERR_SHAPE, "output_padding %lld is neither below stride %lld nor "
                           "below dilation %lld", (long long)conv->output_padding[i],
                           (long long)window->stride[i], (long long)window->dilation[i]);
        if (sizes[2 + i] < 0)
            return fail_picture(conv->input, "it is smaller than the kernel");
    }
    return any ? DJ_OK : fail_picture(conv->input, "nothing of it is left");
}

/* input, weight, bias, stride, padding, dilation, transposed, output_padding, groups */
dj_status_t dj_shape_convolution(const dj_call_t *call, dj_view_t *outs)
{
    conv_t conv;
    int64_t sizes[DJ_RANK_MAX];
    dj_status_t status = take_conv(call, 0, 3, &conv);
    if (status == DJ_OK)
        status = conv_sizes(&conv, sizes);
    if (status != DJ_OK)
        return status;
    if (dj_call_has(call, 2)) {
        const dj_view_t *bias = dj_call_view(call, 2);
        int64_t channels = conv.transposed ? times(conv.groups, conv.weight->sizes[1])
                                           : conv.weight->sizes[0];
        if (bias->dtype != conv.input->dtype || bias->rank != 1 || bias->sizes[0] != channels)
            return dj_shape_misfit("bias", bias, conv.input);
    }
    outs[0] = dj_view_contiguous(conv.input->dtype, conv.input->rank, sizes);
    return DJ_OK;
}

/* grad_output, input, weight, bias_sizes, stride, padding, dilation, transposed, output_padding,
 * groups, output_mask */
dj_status_t dj_shape_convolution_backward(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *grad = dj_call_view(call, 0);
    const dj_arg_t *bias = &call->args[3];
    conv_t conv;
    int64_t sizes[DJ_RANK_MAX];
    uint32_t mask;
    dj_status_t status = take_conv(call, 1, 4, &conv);
    if (status == DJ_OK)
        status = conv_sizes(&conv, sizes);
    if (status == DJ_OK)
        status = dj_shape_mask(call, 10, 3, &mask);
    if (status != DJ_OK)
        return status;
    if (grad->dtype != conv.input->dtype || grad->rank != conv.input->rank ||
        memcmp(grad->sizes, sizes, grad->rank * sizeof sizes[0]) != 0)
        return dj_shape_misfit("gradient", grad, conv.input);
    if ((mask & 4) && (bias->kind != DJ_ARG_INTEGERS || bias->count != 1 || bias->integers[0] < 0))
        return dj_fail(DJ_ERR_SHAPE, "a gradient of the bias is asked for, but not its size");
    bool last = dj_shape_channels_last(conv.input) || dj_shape_channels_last(conv.weight);
    outs[0] = outs[1] = outs[2] = dj_shape_absent(grad->dtype);
    if (mask & 1)
        outs[0] = dj_shape_formatted(grad->dtype, conv.input->rank, conv.input->sizes, last);
    if (mask & 2)
        outs[1] = dj_shape_formatted(grad->dtype, conv.weight->rank, conv.weight->sizes, last);
    if (mask & 4)
        outs[2] = dj_view_contiguous(grad->dtype, 1, bias->integers);
    return DJ_OK;
}

/* ---- pooling ---- */

/* kernel, stride (none: the kernel), padding and, with `dilated`, dilation from argument `first` */
static dj_status_t take_pool(const dj_call_t *call, uint32_t first, uint32_t n, bool dilated,
                             window_t *window)
{
    static const int64_t ones[SPATIAL_MAX] = {1, 1, 1};
    window->n = n;
    dj_status_t status = take(call, first, "kernel_size", n, 1, NULL, window->kernel);
    if (status == DJ_OK)
        status = take(call, first + 1, "stride", n, 1, window->kernel, window->stride);
    if (status == DJ_OK)
        status = take(call, first + 2, "padding", n, 0, NULL, window->padding);
    memcpy(window->dilation, ones, sizeof ones);
    if (status == DJ_OK && dilated)
        status = take(call, first + 3, "dilation", n, 1, NULL, window->dilation);
    window->ceil = call->args[first + 3 + dilated].integer != 0;
    for (uint32_t i = 0; i < n && status == DJ_OK; i++)
        if (window->padding[i] > window->kernel[i] / 2)
            return dj_fail(DJ_ERR_SHAPE, "padding %lld is more than half of kernel %lld",
                           (long long)window->padding[i], (long long)window->kernel[i]);
    return status;
}

static int64_t pool_length(const window_t *window, uint32_t i, int64_t length)
{
    int64_t stride = window->stride[i], padding = window->padding[i];
    int64_t free = length + 2 * padding - reach_of(window->kernel[i], window->dilation[i]);
    int64_t out = floor_divide(free + (window->ceil ? stride - 1 : 0), stride) + 1;
    /* The last window must begin inside the picture or its left padding. */
    return window->ceil && times(out > 0 ? out - 1 : 0, stride) >= length + padding ? out - 1 : out;
}

/* The sizes of the pooled picture: `input` with its last window->n dimensions made shorter. */
static dj_status_t pool_sizes(const dj_view_t *input, const window_t *window, int64_t *sizes)
{
    uint32_t n = window->n;
    for (uint32_t i = input->rank == n + 2; i < input->rank; i++)
        if (input->sizes[i] == 0)
            return fail_picture(input, "only its batch may be empty");
    memcpy(sizes, input->sizes, sizeof input->sizes);
    for (uint32_t i = 0; i < n; i++) {
        int64_t *size = &sizes[input->rank - n + i];
        *size = pool_length(window, i, *size);
        if (*size < 1)
            return fail_picture(input, "it is smaller than the window");
    }
    return DJ_OK;
}

static dj_status_t check_picture(const dj_view_t *input, uint32_t n)
{
    static const char *const wanted[] = {"2 or 3 dimensions are needed",
                                         "3 or 4 dimensions are needed",
                                         "4 or 5 dimensions are needed"};
    return input->rank == n + 1 || input->rank == n + 2 ? DJ_OK
                                                        : fail_picture(input, wanted[n - 1]);
}

/* self, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override */
static dj_status_t avg_pool(const dj_call_t *call, const dj_view_t *input, uint32_t first,
                            uint32_t n, int64_t *sizes)
{
    window_t window;
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
            return fail_picture(input, "it is smaller than the kernel");
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
        outs[0] = dj_shape_formatted(input->dtype, input->rank, sizes,
                                     dj_shape_channels_last(input));
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

/* The gradient of a pooled picture, or where its maxima lay: its last dimensions are the picture's. */
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
    window_t window;
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
    window_t window;
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
        outs[0] = dj_shape_formatted(input->dtype, input->rank, sizes,
                                     dj_shape_channels_last(input));
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
            return fail_picture(grad, "only its batch may be empty");
    if (grad->dtype != input->dtype || grad->rank != input->rank ||
        memcmp(grad->sizes, input->sizes, (grad->rank - 2u) * sizeof grad->sizes[0]) != 0)
        return dj_shape_misfit("gradient", grad, input);
    outs[0] = dj_shape_formatted(input->dtype, input->rank, input->sizes,
                                 dj_shape_channels_last(input));
    return DJ_OK;
}

/* ---- col2im ---- */

/* self [(batch,) channels * kernel elements, blocks], output_size, kernel_size, dilation, padding,
 * stride */
dj_status_t dj_shape_col2im(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *columns = dj_call_view(call, 0);
    const dj_arg_t *wanted = &call->args[1];
    window_t window = {.n = 2};
    int64_t sizes[4], blocks = 1;
    dj_status_t status = take(call, 2, "kernel_size", 2, 1, NULL, window.kernel);
    if (status == DJ_OK)
        status = take(call, 3, "dilation", 2, 1, NULL, window.dilation);
    if (status == DJ_OK)
        status = take(call, 4, "padding", 2, 0, NULL, window.padding);
    if (status == DJ_OK)
        status = take(call, 5, "stride", 2, 1, NULL, window.stride);
    if (status != DJ_OK)
        return status;
    if (wanted->count != 2)
        return dj_fail(DJ_ERR_SHAPE, "output_size lists %u numbers; 2 are needed", wanted->count);
    int64_t elements = times(window.kernel[0], window.kernel[1]);
    uint32_t lead = columns->rank == 3;
    if ((columns->rank != 2 && columns->rank != 3) || columns->sizes[lead] == 0 ||
        columns->sizes[lead + 1] == 0 || columns->sizes[lead] % elements != 0)
        return fail_picture(columns, "columns are [batch, channels times kernel, blocks]");
    for (uint32_t i = 0; i < 2; i++) {
        int64_t free = wanted->integers[i] + 2 * window.padding[i] -
                       reach_of(window.kernel[i], window.dilation[i]);
        blocks = times(blocks, free < 0 ? 0 : free / window.stride[i] + 1);
        if (wanted->integers[i] < 1 || free < 0)
            return dj_fail(DJ_ERR_SHAPE, "output_size %lld in dimension %u; the kernel reaches %lld",
                           (long long)wanted->integers[i], i,
                           (long long)reach_of(window.kernel[i], window.dilation[i]));
    }
    if (columns->sizes[lead + 1] != blocks)
        return dj_fail(DJ_ERR_SHAPE, "%lld blocks where the windows make %lld",
                       (long long)columns->sizes[lead + 1], (long long)blocks);
    sizes[0] = columns->sizes[0];
    sizes[lead] = columns->sizes[lead] / elements;
    sizes[lead + 1] = wanted->integers[0];
    sizes[lead + 2] = wanted->integers[1];
    outs[0] = dj_view_contiguous(columns->dtype, (uint8_t)(lead + 3), sizes);
    return DJ_OK;
}
