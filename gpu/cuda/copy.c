/* copy.c - see copy.h. */
#include "gpu/cuda/copy.h"

#include "gpu/cuda/cuda_device.h"

#define THREADS 256
#define PER_THREAD 4
#define TURN_MIN 8 /* both sides of a matrix that goes through tiles */

#define SAME_VALUE(name, value) _Static_assert(DJ_##name == (value), "dtypes.h: " #name);
DJ_CUDA_DTYPES(SAME_VALUE)
_Static_assert(DJ_RANK_MAX == DJ_CUDA_RANK_MAX && DJ_LOOP_MAX == DJ_CUDA_VIEWS_MAX, "params.h");

void dj_cuda_loop_put(dj_cuda_loop_t *to, const dj_loop_t *from)
{
    *to = (dj_cuda_loop_t){.count = from->count, .rank = (int32_t)from->rank, .views = (int32_t)from->n};
    for (uint32_t d = 0; d < from->rank; d++) {
        to->sizes[d] = from->sizes[d];
        for (uint32_t k = 0; k < from->n; k++)
            to->strides[k][d] = from->strides[k][d];
    }
}

uint32_t dj_cuda_loop_widen(dj_loop_t *loop, uint32_t item_bytes, const int64_t *steps, uint32_t n_steps)
{
    uint32_t inner = loop->rank - 1, wide = 16;
    int64_t row_bytes = loop->sizes[inner] * (int64_t)item_bytes, all = row_bytes;
    for (uint32_t k = 0; k < loop->n; k++) {
        if (loop->strides[k][inner] != (int64_t)item_bytes)
            return item_bytes;
        for (uint32_t d = 0; d < inner; d++)
            all |= loop->strides[k][d];
    }
    for (uint32_t i = 0; i < n_steps; i++)
        all |= steps[i];
    while (wide > item_bytes && all & (wide - 1))
        wide /= 2;
    if (wide <= item_bytes || loop->count == 0)
        return item_bytes;
    loop->count = loop->count / loop->sizes[inner] * (row_bytes / wide);
    loop->sizes[inner] = row_bytes / wide;
    for (uint32_t k = 0; k < loop->n; k++)
        loop->strides[k][inner] = wide;
    return wide;
}

static void dims_swap(dj_loop_t *loop, uint32_t a, uint32_t b)
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

/* Brings the dimension along which the source is dense next to the last, where the target is dense. */
static bool transposition_find(dj_loop_t *loop, int64_t item_bytes)
{
    uint32_t inner = loop->rank - 1;
    if (item_bytes > 8 || loop->strides[1][inner] != item_bytes || loop->sizes[inner] < TURN_MIN)
        return false;
    for (uint32_t d = 0; d < inner; d++) {
        if (loop->strides[0][d] != item_bytes || loop->sizes[d] < TURN_MIN)
            continue;
        for (uint32_t i = d; i + 1 < inner; i++)
            dims_swap(loop, i, i + 1);
        return true;
    }
    return false;
}

dj_status_t dj_cuda_copy_make_loop(dj_executable_t *exe, dj_cuda_copy_t *copy, const dj_loop_t *loop,
                                   uint32_t item_bytes)
{
    static const char *const turns[] = {[1] = "dj_layout_transpose_1", [2] = "dj_layout_transpose_2",
                                        [4] = "dj_layout_transpose_4", [8] = "dj_layout_transpose_8"};
    const char *name = "dj_layout_copy";
    int64_t item = item_bytes;
    copy->loop = *loop;
    copy->item_bytes = copy->wide_bytes = item_bytes;
    copy->mode = DJ_CUDA_COPY_ITEMS;
    if (loop->count == 0) {
        copy->mode = DJ_CUDA_COPY_NOTHING;
        return DJ_OK;
    }
    if (loop->rank == 1 && loop->strides[0][0] == item && loop->strides[1][0] == item) {
        copy->mode = DJ_CUDA_COPY_BYTES;
        name = "dj_layout_bytes";
    } else if (transposition_find(&copy->loop, item)) {
        copy->mode = DJ_CUDA_COPY_TRANSPOSE;
        name = turns[item_bytes];
    } else {
        copy->wide_bytes = dj_cuda_loop_widen(&copy->loop, item_bytes, NULL, 0);
    }
    return dj_cuda_function(dj_cuda_device_of(exe), name, &copy->function);
}

dj_status_t dj_cuda_copy_make(dj_executable_t *exe, dj_cuda_copy_t *copy, const dj_view_t *from, const dj_view_t *to)
{
    const dj_view_t *views[2] = {from, to};
    dj_loop_t loop;
    dj_status_t status = dj_loop_make(&loop, views, 2);
    if (status != DJ_OK)
        return status;
    copy->from_dtype = from->dtype;
    copy->to_dtype = to->dtype;
    if (from->dtype == to->dtype)
        return dj_cuda_copy_make_loop(exe, copy, &loop, dj_dtype_bytes(to->dtype));
    if (dj_dtype_is_complex(from->dtype) || dj_dtype_is_complex(to->dtype))
        return dj_fail(DJ_ERR_UNSUPPORTED, "a copy from %s to %s has no CUDA kernel; convert the parts",
                       dj_dtype_name(from->dtype), dj_dtype_name(to->dtype));
    copy->loop = loop;
    copy->mode = loop.count ? DJ_CUDA_COPY_CONVERT : DJ_CUDA_COPY_NOTHING;
    return dj_cuda_function(dj_cuda_device_of(exe), "dj_layout_convert", &copy->function);
}

static dj_status_t emit_bytes(const dj_cuda_copy_t *copy, dj_cuda_emit_t *emit, const dj_cuda_device_t *device,
                              dj_cuda_ref_t from, dj_cuda_ref_t to)
{
    dj_layout_bytes_t p = {.from = from, .to = to, .item_bytes = copy->item_bytes};
    p.bytes = (uint64_t)copy->loop.count * copy->item_bytes;
    dj_cuda_grid_t grid = dj_cuda_grid_flat(device, (int64_t)(p.bytes / 16 + 1), THREADS, PER_THREAD);
    return dj_cuda_emit_kernel(emit, copy->function, &grid, &p, sizeof(p));
}

static dj_status_t emit_items(const dj_cuda_copy_t *copy, dj_cuda_emit_t *emit, const dj_cuda_device_t *device,
                              dj_cuda_ref_t from, dj_cuda_ref_t to)
{
    dj_layout_copy_t p = {.from = from, .to = to, .item_bytes = copy->item_bytes, .wide_bytes = copy->wide_bytes};
    dj_cuda_loop_put(&p.loop, &copy->loop);
    dj_cuda_grid_t grid = dj_cuda_grid_flat(device, p.loop.count, THREADS, PER_THREAD);
    return dj_cuda_emit_kernel(emit, copy->function, &grid, &p, sizeof(p));
}

static dj_status_t emit_transpose(const dj_cuda_copy_t *copy, dj_cuda_emit_t *emit, const dj_cuda_device_t *device,
                                  dj_cuda_ref_t from, dj_cuda_ref_t to)
{
    dj_layout_transpose_t p = {.from = from, .to = to};
    const dj_loop_t *loop = &copy->loop;
    int64_t rows = loop->sizes[loop->rank - 2], columns = loop->sizes[loop->rank - 1];
    dj_cuda_loop_put(&p.loop, loop);
    p.tile_rows = (rows + DJ_LAYOUT_TILE - 1) / DJ_LAYOUT_TILE;
    p.tile_columns = (columns + DJ_LAYOUT_TILE - 1) / DJ_LAYOUT_TILE;
    p.tiles = loop->count / (rows * columns) * p.tile_rows * p.tile_columns;
    dj_cuda_grid_t grid = dj_cuda_grid_flat(device, p.tiles * THREADS, THREADS, 1);
    return dj_cuda_emit_kernel(emit, copy->function, &grid, &p, sizeof(p));
}

static dj_status_t emit_convert(const dj_cuda_copy_t *copy, dj_cuda_emit_t *emit, const dj_cuda_device_t *device,
                                dj_cuda_ref_t from, dj_cuda_ref_t to)
{
    dj_layout_convert_t p = {.from = from, .to = to, .from_dtype = copy->from_dtype, .to_dtype = copy->to_dtype};
    dj_cuda_loop_put(&p.loop, &copy->loop);
    dj_cuda_grid_t grid = dj_cuda_grid_flat(device, p.loop.count, THREADS, PER_THREAD);
    return dj_cuda_emit_kernel(emit, copy->function, &grid, &p, sizeof(p));
}

dj_status_t dj_cuda_copy_emit(const dj_cuda_copy_t *copy, dj_cuda_emit_t *emit, const dj_cuda_device_t *device,
                              dj_cuda_ref_t from, dj_cuda_ref_t to)
{
    switch (copy->mode) {
    case DJ_CUDA_COPY_BYTES:
        return emit_bytes(copy, emit, device, from, to);
    case DJ_CUDA_COPY_ITEMS:
        return emit_items(copy, emit, device, from, to);
    case DJ_CUDA_COPY_TRANSPOSE:
        return emit_transpose(copy, emit, device, from, to);
    case DJ_CUDA_COPY_CONVERT:
        return emit_convert(copy, emit, device, from, to);
    default:
        return DJ_OK;
    }
}

dj_status_t dj_cuda_zero_make(dj_executable_t *exe, dj_cuda_zero_t *zero, uint64_t bytes)
{
    zero->bytes = bytes;
    return dj_cuda_function(dj_cuda_device_of(exe), "dj_layout_fill", &zero->function);
}

dj_status_t dj_cuda_zero_emit(const dj_cuda_zero_t *zero, dj_cuda_emit_t *emit, const dj_cuda_device_t *device,
                              dj_cuda_ref_t to)
{
    dj_layout_fill_t p = {.to = to, .value = {.slot = DJ_CUDA_NONE}, .dtype = DJ_U8, .item_bytes = 1};
    dj_loop_t loop = {.n = 1, .rank = 1, .count = (int64_t)zero->bytes};
    if (zero->bytes == 0)
        return DJ_OK;
    loop.sizes[0] = loop.count;
    loop.strides[0][0] = 1;
    p.wide_bytes = dj_cuda_loop_widen(&loop, 1, NULL, 0);
    dj_cuda_loop_put(&p.loop, &loop);
    dj_cuda_grid_t grid = dj_cuda_grid_flat(device, loop.count, THREADS, PER_THREAD);
    return dj_cuda_emit_kernel(emit, zero->function, &grid, &p, sizeof(p));
}
