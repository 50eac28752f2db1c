/* shape_resample.c - shape rules of what makes a picture larger or samples it anew: padding,
 * upsampling, grids. */
#include "planner/shape_window.h"

/* ---- padding ---- */

#define PAD_MAX (1ll << 46)

/* sizes[d] += both pads of dimension d; the list goes from the last dimension to the first. */
static dj_status_t add_pads(const dj_arg_t *pads, uint32_t rank, int64_t *sizes)
{
    for (uint32_t i = 0; i < pads->count; i++) {
        int64_t pad = pads->integers[i];
        if (pad < -PAD_MAX || pad > PAD_MAX)
            return dj_fail(DJ_ERR_LIMIT, "padding by %lld", (long long)pad);
        sizes[rank - 1 - i / 2] += pad;
    }
    return DJ_OK;
}

/* self, pads, value */
dj_status_t dj_shape_constant_pad(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *self = dj_call_view(call, 0);
    const dj_arg_t *pads = &call->args[1];
    int64_t sizes[DJ_RANK_MAX];
    bool rises = false;
    if (pads->count % 2 != 0 || pads->count > 2u * self->rank)
        return dj_fail(DJ_ERR_SHAPE, "%u pads for a tensor of rank %u", pads->count, self->rank);
    memcpy(sizes, self->sizes, sizeof sizes);
    dj_status_t status = add_pads(pads, self->rank, sizes);
    if (status != DJ_OK)
        return status;
    for (uint32_t i = 0; i < pads->count; i += 2) {
        uint32_t dim = self->rank - 1 - i / 2;
        int64_t low = pads->integers[i] < 0 ? pads->integers[i] : 0;
        int64_t high = pads->integers[i + 1] < 0 ? pads->integers[i + 1] : 0;
        if (self->sizes[dim] + low + high < 0)
            return dj_fail(DJ_ERR_SHAPE, "dimension %u of size %lld cut by %lld", dim,
                           (long long)self->sizes[dim], (long long)-(low + high));
    }
    for (uint32_t i = 0; i < pads->count; i++)
        rises |= pads->integers[i] > 0;
    /* Without anything to add PyTorch copies a slice, which keeps its order of dimensions. */
    if (rises)
        outs[0] = dj_shape_formatted(self->dtype, self->rank, sizes, dj_shape_channels_last(self));
    else {
        dj_view_t slice = *self;
        memcpy(slice.sizes, sizes, sizeof sizes);
        outs[0] = dj_shape_preserved(self->dtype, &slice);
    }
    return DJ_OK;
}

/* The picture, with or without a batch, padded in its last n dimensions. */
static dj_status_t pad_picture(const dj_call_t *call, uint32_t n, bool reflects, int64_t *sizes)
{
    const dj_view_t *self = dj_call_view(call, 0);
    const dj_arg_t *pads = &call->args[1];
    bool any = false;
    if (pads->kind != DJ_ARG_INTEGERS || pads->count != 2 * n)
        return dj_fail(DJ_ERR_SHAPE, "%u pads; %u are needed", pads->count, 2 * n);
    if (self->rank != n + 1 && self->rank != n + 2)
        return dj_window_misfit(self, "channels, and perhaps a batch, are needed");
    for (uint32_t i = self->rank == n + 2; i < self->rank; i++)
        if (self->sizes[i] == 0)
            return dj_window_misfit(self, "only its batch may be empty");
    for (uint32_t i = 0; reflects && i < pads->count; i++)
        if (pads->integers[i] >= self->sizes[self->rank - 1 - i / 2])
            return dj_fail(DJ_ERR_SHAPE, "%lld reflected elements of dimension %u, which has %lld",
                           (long long)pads->integers[i], self->rank - 1 - i / 2,
                           (long long)self->sizes[self->rank - 1 - i / 2]);
    memcpy(sizes, self->sizes, sizeof self->sizes);
    dj_status_t status = add_pads(pads, self->rank, sizes);
    for (uint32_t i = self->rank - n; i < self->rank && status == DJ_OK; i++) {
        any |= sizes[i] > 0;
        if (sizes[i] < 0)
            return dj_window_misfit(self, "the padding takes more than there is");
    }
    return status == DJ_OK && !any ? dj_window_misfit(self, "the padding leaves nothing") : status;
}

static dj_status_t pad(const dj_call_t *call, uint32_t n, bool reflects, dj_view_t *outs)
{
    const dj_view_t *self = dj_call_view(call, 0);
    int64_t sizes[DJ_RANK_MAX];
    dj_status_t status = pad_picture(call, n, reflects, sizes);
    if (status == DJ_OK)
        outs[0] = dj_view_contiguous(self->dtype, self->rank, sizes);
    return status;
}

dj_status_t dj_shape_reflection_pad1d(const dj_call_t *call, dj_view_t *outs)
{
    return pad(call, 1, true, outs);
}

dj_status_t dj_shape_reflection_pad2d(const dj_call_t *call, dj_view_t *outs)
{
    return pad(call, 2, true, outs);
}

dj_status_t dj_shape_reflection_pad3d(const dj_call_t *call, dj_view_t *outs)
{
    return pad(call, 3, true, outs);
}

dj_status_t dj_shape_replication_pad2d(const dj_call_t *call, dj_view_t *outs)
{
    return pad(call, 2, false, outs);
}

dj_status_t dj_shape_replication_pad3d(const dj_call_t *call, dj_view_t *outs)
{
    return pad(call, 3, false, outs);
}

/* ---- upsampling, grids ---- */

/* input, output_size, (align_corners,) scales: the scales only say how to sample. */
dj_status_t dj_shape_upsample2d(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *input = dj_call_view(call, 0);
    const dj_arg_t *wanted = &call->args[1];
    if (input->rank != 4)
        return dj_window_misfit(input, "batch, channels, height and width are needed");
    if (wanted->count != 2)
        return dj_fail(DJ_ERR_SHAPE, "output_size lists %u numbers; 2 are needed", wanted->count);
    for (uint32_t i = 0; i < 2; i++)
        if (input->sizes[2 + i] == 0 || wanted->integers[i] <= 0)
            return dj_fail(DJ_ERR_SHAPE, "from %lld to %lld in dimension %u; neither may be empty",
                           (long long)input->sizes[2 + i], (long long)wanted->integers[i], 2 + i);
    if (input->sizes[1] == 0)
        return dj_window_misfit(input, "only its batch may be empty");
    int64_t sizes[4] = {input->sizes[0], input->sizes[1], wanted->integers[0], wanted->integers[1]};
    outs[0] = dj_shape_formatted(input->dtype, 4, sizes, dj_shape_channels_last(input));
    return DJ_OK;
}

/* input, grid, interpolation_mode, padding_mode, align_corners */
dj_status_t dj_shape_grid_sampler_2d(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *input = dj_call_view(call, 0), *grid = dj_call_view(call, 1);
    if (input->rank != 4 || grid->rank != 4 || grid->sizes[0] != input->sizes[0] ||
        grid->sizes[3] != 2 || grid->dtype != input->dtype)
        return dj_shape_misfit("grid", grid, input);
    if (input->sizes[2] == 0 || input->sizes[3] == 0)
        return dj_window_misfit(input, "height and width may not be empty");
    int64_t sizes[4] = {input->sizes[0], input->sizes[1], grid->sizes[1], grid->sizes[2]};
    outs[0] = dj_view_contiguous(input->dtype, 4, sizes);
    return DJ_OK;
}
