/* shape_window.c - what windows have in common, and the shape rules of convolution and col2im. */
#include "planner/shape_window.h"

#define SATURATED (1ll << 60)

int64_t dj_window_times(int64_t a, int64_t b)
{
    int64_t product;
    return __builtin_mul_overflow(a, b, &product) || product > SATURATED ? SATURATED : product;
}

dj_status_t dj_window_misfit(const dj_view_t *view, const char *wanted)
{
    char text[DJ_VIEW_TEXT];
    return dj_fail(DJ_ERR_SHAPE, "a picture %s; %s", dj_view_format(view, text, sizeof text),
                   wanted);
}

dj_status_t dj_window_take(const dj_call_t *call, uint32_t arg, const char *what, uint32_t n,
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
        if (numbers[i] < least || numbers[i] > DJ_WINDOW_MAX)
            return dj_fail(DJ_ERR_SHAPE, "%s is %lld; it must be from %lld to %d", what,
                           (long long)numbers[i], (long long)least, DJ_WINDOW_MAX);
    }
    return DJ_OK;
}

int64_t dj_window_reach(int64_t kernel, int64_t dilation)
{
    return kernel > 0 ? dj_window_times(dilation, kernel - 1) + 1 : 0;
}

/* ---- convolution ---- */

typedef struct conv {
    const dj_view_t *input, *weight;
    dj_window_t window;
    int64_t output_padding[DJ_SPATIAL_MAX];
    bool transposed;
    int64_t groups;
} conv_t;

/* stride, padding, dilation, transposed, output_padding, groups, from argument `first` on */
static dj_status_t take_conv(const dj_call_t *call, uint32_t input, uint32_t first, conv_t *conv)
{
    dj_window_t *window = &conv->window;
    conv->input = dj_call_view(call, input);
    conv->weight = dj_call_view(call, input + 1);
    conv->transposed = call->args[first + 3].integer != 0;
    conv->groups = call->args[first + 5].integer;
    if (conv->input->rank < 3 || conv->input->rank > 2 + DJ_SPATIAL_MAX ||
        conv->weight->rank != conv->input->rank || conv->input->dtype != conv->weight->dtype)
        return dj_shape_misfit("weight", conv->weight, conv->input);
    uint32_t n = window->n = conv->input->rank - 2;
    memcpy(window->kernel, conv->weight->sizes + 2, n * sizeof window->kernel[0]);
    dj_status_t status = dj_window_take(call, first, "stride", n, 1, NULL, window->stride);
    if (status == DJ_OK)
        status = dj_window_take(call, first + 1, "padding", n, 0, NULL, window->padding);
    if (status == DJ_OK)
        status = dj_window_take(call, first + 2, "dilation", n, 1, NULL, window->dilation);
    if (status == DJ_OK && conv->transposed)
        status =
            dj_window_take(call, first + 4, "output_padding", n, 0, NULL, conv->output_padding);
    return status;
}

static dj_status_t check_channels(const conv_t *conv)
{
    const int64_t *weight = conv->weight->sizes, channels = conv->input->sizes[1];
    if (conv->groups <= 0 || conv->groups > DJ_WINDOW_MAX)
        return dj_fail(DJ_ERR_SHAPE, "%lld groups", (long long)conv->groups);
    if (weight[0] % conv->groups != 0)
        return dj_fail(DJ_ERR_SHAPE, "%lld channels of the weight do not divide into %lld groups",
                       (long long)weight[0], (long long)conv->groups);
    if ((conv->transposed ? weight[0] : dj_window_times(weight[1], conv->groups)) != channels)
        return dj_shape_misfit("weight", conv->weight, conv->input);
    return DJ_OK;
}

static int64_t conv_length(const conv_t *conv, uint32_t i)
{
    const dj_window_t *window = &conv->window;
    int64_t length = conv->input->sizes[2 + i], padding = 2 * window->padding[i];
    int64_t reach = dj_window_reach(window->kernel[i], window->dilation[i]);
    if (!conv->transposed)
        return length + padding < reach ? -1 : (length + padding - reach) / window->stride[i] + 1;
    /* A kernel of no elements reaches one backwards, as PyTorch counts. */
    if (window->kernel[i] == 0)
        reach = 1 - window->dilation[i];
    int64_t steps =
        length > 0 ? dj_window_times(length - 1, window->stride[i]) : -window->stride[i];
    return steps - padding + reach + conv->output_padding[i];
}

static dj_status_t conv_sizes(const conv_t *conv, int64_t *sizes)
{
    const dj_window_t *window = &conv->window;
    bool any = false;
    dj_status_t status = check_channels(conv);
    if (status != DJ_OK)
        return status;
    sizes[0] = conv->input->sizes[0];
    sizes[1] = conv->transposed ? dj_window_times(conv->groups, conv->weight->sizes[1])
                                : conv->weight->sizes[0];
    if (conv->input->sizes[1] == 0)
        sizes[1] = 0;
    for (uint32_t i = 0; i < window->n; i++) {
        sizes[2 + i] = conv_length(conv, i);
        any |= sizes[2 + i] > 0;
        if (conv->transposed && conv->output_padding[i] >= window->stride[i] &&
            conv->output_padding[i] >= window->dilation[i])
            return dj_fail(DJ_ERR_SHAPE,
                           "output_padding %lld is neither below stride %lld nor "
                           "below dilation %lld",
                           (long long)conv->output_padding[i], (long long)window->stride[i],
                           (long long)window->dilation[i]);
        if (sizes[2 + i] < 0)
            return dj_window_misfit(conv->input, "it is smaller than the kernel");
    }
    return any ? DJ_OK : dj_window_misfit(conv->input, "nothing of it is left");
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
        int64_t channels = conv.transposed ? dj_window_times(conv.groups, conv.weight->sizes[1])
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

/* ---- col2im ---- */

/* self [(batch,) channels * kernel elements, blocks], output_size, kernel_size, dilation, padding,
 * stride */
dj_status_t dj_shape_col2im(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *columns = dj_call_view(call, 0);
    const dj_arg_t *wanted = &call->args[1];
    dj_window_t window = {.n = 2};
    int64_t sizes[4], blocks = 1;
    dj_status_t status = dj_window_take(call, 2, "kernel_size", 2, 1, NULL, window.kernel);
    if (status == DJ_OK)
        status = dj_window_take(call, 3, "dilation", 2, 1, NULL, window.dilation);
    if (status == DJ_OK)
        status = dj_window_take(call, 4, "padding", 2, 0, NULL, window.padding);
    if (status == DJ_OK)
        status = dj_window_take(call, 5, "stride", 2, 1, NULL, window.stride);
    if (status != DJ_OK)
        return status;
    if (wanted->count != 2)
        return dj_fail(DJ_ERR_SHAPE, "output_size lists %u numbers; 2 are needed", wanted->count);
    int64_t elements = dj_window_times(window.kernel[0], window.kernel[1]);
    uint32_t lead = columns->rank == 3;
    if ((columns->rank != 2 && columns->rank != 3) || columns->sizes[lead] == 0 ||
        columns->sizes[lead + 1] == 0 || columns->sizes[lead] % elements != 0)
        return dj_window_misfit(columns, "columns are [batch, channels times kernel, blocks]");
    for (uint32_t i = 0; i < 2; i++) {
        int64_t free = wanted->integers[i] + 2 * window.padding[i] -
                       dj_window_reach(window.kernel[i], window.dilation[i]);
        blocks = dj_window_times(blocks, free < 0 ? 0 : free / window.stride[i] + 1);
        if (wanted->integers[i] < 1 || free < 0)
            return dj_fail(DJ_ERR_SHAPE,
                           "output_size %lld in dimension %u; the kernel reaches %lld",
                           (long long)wanted->integers[i], i,
                           (long long)dj_window_reach(window.kernel[i], window.dilation[i]));
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
