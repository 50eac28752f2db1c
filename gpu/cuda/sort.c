/* sort.c - see sort.h. */
#include "gpu/cuda/sort.h"

#include "gpu/cuda/cuda_device.h"

#define THREADS 256
#define TILE_THREADS_MAX 512

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

dj_status_t dj_cuda_sort_make(dj_executable_t *exe, dj_cuda_sort_t *sort)
{
    dj_cuda_device_t *device = dj_cuda_device_of(exe);
    dj_scan_sort_t *p = &sort->params;
    p->is_wide = p->dtype == DJ_F64 || p->dtype == DJ_I64;
    int64_t tile = p->is_wide ? DJ_SORT_TILE_WIDE : DJ_SORT_TILE_NARROW, key_bytes = p->is_wide ? 16 : 8;
    if (p->n >= UINT32_MAX)
        return dj_fail(DJ_ERR_UNSUPPORTED, "a row of %lld elements to sort; CUDA kernels take fewer than %u",
                       (long long)p->n, UINT32_MAX);
    p->span = least(p->n, tile);
    p->runs = p->span ? (p->n + p->span - 1) / p->span : 0;
    if (p->runs > 1) {
        p->row_keys = (p->runs - 1) * least(p->span, p->k) + least(p->n - (p->runs - 1) * p->span, p->k);
        if (p->row_keys > (int64_t)(DJ_TENSOR_BYTES_MAX / 16) / p->rows.count)
            return dj_fail(DJ_ERR_UNSUPPORTED, "%lld rows of %lld keys to sort: no workspace is that large",
                           (long long)p->rows.count, (long long)p->row_keys);
        sort->buffer_bytes = (uint64_t)(p->rows.count * p->row_keys * key_bytes);
        sort->buffer_bytes = (sort->buffer_bytes + 255) / 256 * 256;
    }
    dj_status_t status = dj_cuda_function(device, "dj_scan_sort_tiles", &sort->tiles);
    return status != DJ_OK ? status : dj_cuda_function(device, "dj_scan_sort_merge", &sort->merge);
}

static dj_status_t emit_tiles(const dj_cuda_sort_t *sort, dj_cuda_emit_t *emit, const dj_cuda_device_t *device,
                              dj_scan_sort_t *p)
{
    uint32_t room = 2, threads = 32;
    while (room < p->span)
        room *= 2;
    while (threads < TILE_THREADS_MAX && threads < room / 2)
        threads *= 2;
    dj_cuda_grid_t grid = dj_cuda_grid_flat(device, p->rows.count * p->runs * threads, threads, 1);
    grid.shared_bytes = room * (p->is_wide ? 16 : 8);
    return dj_cuda_emit_kernel(emit, sort->tiles, &grid, p, sizeof(*p));
}

dj_status_t dj_cuda_sort_emit(const dj_cuda_sort_t *sort, dj_cuda_emit_t *emit, const dj_cuda_device_t *device,
                              dj_cuda_ref_t from, dj_cuda_ref_t values, dj_cuda_ref_t indices,
                              CUdeviceptr workspace)
{
    dj_scan_sort_t p = sort->params;
    uint64_t buffers[2] = {workspace, workspace + sort->buffer_bytes};
    if (p.rows.count == 0 || p.n == 0 || p.k == 0)
        return DJ_OK;
    p.from = from;
    p.values = values;
    p.indices = indices;
    p.target = p.runs > 1 ? buffers[0] : 0;
    dj_status_t status = emit_tiles(sort, emit, device, &p);
    for (uint32_t level = 0; status == DJ_OK && p.runs > 1; level++) {
        p.source = buffers[level % 2];
        p.target = p.runs > 2 ? buffers[(level + 1) % 2] : 0;
        int64_t keys = p.rows.count * p.runs * least(p.span, p.k);
        dj_cuda_grid_t grid = dj_cuda_grid_flat(device, keys, THREADS, 1);
        status = dj_cuda_emit_kernel(emit, sort->merge, &grid, &p, sizeof(p));
        p.runs = (p.runs + 1) / 2;
        p.span *= 2;
    }
    return status;
}
