/* scan.cu - cumsum, and the sorts behind sort, topk and index_put's accumulation.
 *
 * cumsum adds in double, or in int64. A row is one block's, or cut into chunks: sums of chunks, sums of those before
 * each, then every chunk by itself. Many rows side by side are one thread's each.
 *
 * A sort makes runs: tiles sorted in shared memory, then merged two by two, where each key finds its place in the
 * merged run by counting the keys of the other run before it. topk is the same with runs cut to k keys. Equal
 * elements stay in order, a NaN is greater than everything. */
#include "gpu/cuda/kernels/move.cuh"
#include "gpu/cuda/kernels/scan.h"
#include "gpu/cuda/kernels/sorting.cuh"

/* --- cumsum --- */

#define SCAN_ITEMS 4
#define SCAN_WARPS_MAX 32

/* One chunk of one row by one block: its running sums from `carry` on, or (`to` null) only their end. */
template <typename C>
DJ_DEVICE C chunk_scan(const dj_scan_cumsum_t &p, const char *from, char *to, int64_t n, C carry, C *warps)
{
    const int64_t step = (int64_t)blockDim.x * SCAN_ITEMS;
    for (int64_t base = 0; base < n; base += step) {
        int64_t first = base + (int64_t)threadIdx.x * SCAN_ITEMS;
        C value[SCAN_ITEMS], own = 0, total;
#pragma unroll
        for (int j = 0; j < SCAN_ITEMS; ++j) {
            value[j] = first + j < n ? dj_load<C>(from + (first + j) * p.from_stride, p.dtype) : (C)0;
            own = dj_add(own, value[j]);
        }
        C sum = dj_add(carry, dj_block_sums(own, warps, &total));
#pragma unroll
        for (int j = 0; j < SCAN_ITEMS; ++j) {
            sum = dj_add(sum, value[j]);
            if (to && first + j < n)
                dj_store(to + (first + j) * p.to_stride, p.to_dtype, sum);
        }
        carry = dj_add(carry, total);
    }
    return carry;
}

template <typename C> DJ_DEVICE void chunks_scan(const dj_scan_cumsum_t &p, bool only_sums, C *warps)
{
    C *sums = reinterpret_cast<C *>(p.sums);
    const char *from = dj_at(p.head, p.from);
    char *to = dj_at(p.head, p.to);
    for (int64_t unit = blockIdx.x; unit < p.rows.count * p.chunks; unit += gridDim.x) {
        int64_t chunk, row = dj_divide(unit, p.chunks, &chunk), first = chunk * p.chunk, left = p.n - first, at[2];
        dj_loop_offsets<2>(p.rows, row, at);
        C carry = sums && !only_sums ? sums[unit] : (C)0;
        C end = chunk_scan<C>(p, from + at[0] + first * p.from_stride,
                              only_sums ? nullptr : to + at[1] + first * p.to_stride,
                              left < p.chunk ? left : p.chunk, carry, warps);
        if (only_sums && threadIdx.x == 0)
            sums[unit] = end;
    }
}

/* Sums of chunks into sums of all chunks before: a row a block. */
template <typename C> DJ_DEVICE void sums_scan(const dj_scan_cumsum_t &p, C *warps)
{
    for (int64_t row = blockIdx.x; row < p.rows.count; row += gridDim.x) {
        C *sums = reinterpret_cast<C *>(p.sums) + row * p.chunks, carry = 0;
        for (int64_t base = 0; base < p.chunks; base += blockDim.x) {
            int64_t i = base + threadIdx.x;
            C total, before = dj_block_sums(i < p.chunks ? sums[i] : (C)0, warps, &total);
            if (i < p.chunks)
                sums[i] = dj_add(carry, before);
            carry = dj_add(carry, total);
        }
    }
}

#define SCAN_BY_CLASS(call_real, call_integer)                                                     \
    __shared__ double reals[SCAN_WARPS_MAX];                                                       \
    __shared__ int64_t integers[SCAN_WARPS_MAX];                                                   \
    if (p.is_real)                                                                                 \
        call_real;                                                                                 \
    else                                                                                           \
        call_integer

DJ_KERNEL(dj_scan_cumsum_sums, dj_scan_cumsum_t)
{
    SCAN_BY_CLASS(chunks_scan<double>(p, true, reals), chunks_scan<int64_t>(p, true, integers));
}

DJ_KERNEL(dj_scan_cumsum_carries, dj_scan_cumsum_t)
{
    SCAN_BY_CLASS(sums_scan<double>(p, reals), sums_scan<int64_t>(p, integers));
}

DJ_KERNEL(dj_scan_cumsum_rows, dj_scan_cumsum_t)
{
    SCAN_BY_CLASS(chunks_scan<double>(p, false, reals), chunks_scan<int64_t>(p, false, integers));
}

/* A row a thread: neighbours read neighbours where the scanned dimension is an outer one. */
template <typename C> DJ_DEVICE void columns_scan(const dj_scan_cumsum_t &p)
{
    const char *from = dj_at(p.head, p.from);
    char *to = dj_at(p.head, p.to);
    for (int64_t row = dj_grid_first(); row < p.rows.count; row += dj_grid_stride()) {
        int64_t at[2];
        C sum = 0;
        dj_loop_offsets<2>(p.rows, row, at);
        for (int64_t i = 0; i < p.n; ++i) {
            sum = dj_add(sum, dj_load<C>(from + at[0] + i * p.from_stride, p.dtype));
            dj_store(to + at[1] + i * p.to_stride, p.to_dtype, sum);
        }
    }
}

DJ_KERNEL(dj_scan_cumsum_columns, dj_scan_cumsum_t)
{
    if (p.is_real)
        columns_scan<double>(p);
    else
        columns_scan<int64_t>(p);
}

/* --- sort --- */

DJ_DEVICE int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* The key that comes `rank`-th of its row is final: its element and its index go out. */
template <typename K>
DJ_DEVICE void key_finish(const dj_scan_sort_t &p, const int64_t *row_at, int64_t rank, const K &key)
{
    int64_t index = (int64_t)dj_key_index(key);
    if (p.values.present)
        dj_move_items(dj_at(p.head, p.values) + row_at[1] + rank * p.value_stride,
                      dj_at(p.head, p.from) + row_at[0] + index * p.from_stride, p.item_bytes, 1);
    *reinterpret_cast<int64_t *>(dj_at(p.head, p.indices) + row_at[2] + rank * p.index_stride) = index;
}

/* Tiles of a row, each sorted by a block; `room` is a power of two not below a tile. */
template <typename K> DJ_DEVICE void tiles_sort(const dj_scan_sort_t &p, K *keys)
{
    uint32_t room = 2;
    while (room < p.span)
        room *= 2;
    for (int64_t unit = blockIdx.x; unit < p.rows.count * p.runs; unit += gridDim.x) {
        int64_t run, row = dj_divide(unit, p.runs, &run), at[3], first = run * p.span;
        int64_t n = least(p.span, p.n - first), kept = least(n, p.k);
        dj_loop_offsets<3>(p.rows, row, at);
        const char *from = dj_at(p.head, p.from) + at[0];
        for (uint32_t i = threadIdx.x; i < room; i += blockDim.x) {
            if (i < n)
                dj_key_make(&keys[i], from + (first + i) * p.from_stride, p.dtype, (uint64_t)(first + i),
                            p.descending);
            else
                dj_key_last(&keys[i]);
        }
        __syncthreads();
        dj_block_sort(keys, room);
        K *target = reinterpret_cast<K *>(p.target) + row * p.row_keys + run * least(p.span, p.k);
        for (uint32_t i = threadIdx.x; i < kept; i += blockDim.x) {
            if (p.target)
                target[i] = keys[i];
            else
                key_finish(p, at, i, keys[i]);
        }
        __syncthreads();
    }
}

DJ_KERNEL(dj_scan_sort_tiles, dj_scan_sort_t)
{
    if (p.is_wide) {
        DJ_SHARED(dj_wide_key, keys);
        tiles_sort(p, keys);
    } else {
        DJ_SHARED(dj_narrow_key, keys);
        tiles_sort(p, keys);
    }
}

/* Runs of p.span into runs of twice that: a key's rank is its own place and the keys before it in the other run. */
template <typename K> DJ_DEVICE void runs_merge(const dj_scan_sort_t &p)
{
    const int64_t room = least(p.span, p.k), merged_room = least(2 * p.span, p.k), row_room = p.runs * room;
    for (int64_t i = dj_grid_first(); i < p.rows.count * row_room; i += dj_grid_stride()) {
        int64_t place, row = dj_divide(i, row_room, &place), own, run = dj_divide(place, room, &own);
        int64_t n = least(room, p.n - run * p.span), other = run ^ 1;
        const K *source = reinterpret_cast<const K *>(p.source) + row * p.row_keys;
        if (own >= n)
            continue;
        K key = source[run * room + own];
        int64_t rank = own;
        if (other < p.runs)
            rank += dj_keys_below(source + other * room, least(room, p.n - other * p.span), key);
        if (rank >= p.k)
            continue;
        if (p.target) {
            K *target = reinterpret_cast<K *>(p.target) + row * p.row_keys;
            target[run / 2 * merged_room + rank] = key;
        } else {
            int64_t at[3];
            dj_loop_offsets<3>(p.rows, row, at);
            key_finish(p, at, rank, key);
        }
    }
}

DJ_KERNEL(dj_scan_sort_merge, dj_scan_sort_t)
{
    if (p.is_wide)
        runs_merge<dj_wide_key>(p);
    else
        runs_merge<dj_narrow_key>(p);
}
