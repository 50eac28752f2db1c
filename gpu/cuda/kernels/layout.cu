/* layout.cu - kernels that move or make elements without arithmetic. All but the conversions move bytes by size.
 *
 * A thread keeps several loads in flight before it stores: what limits these kernels is memory alone. */
#include "gpu/cuda/kernels/layout.h"
#include "gpu/cuda/kernels/move.cuh"
#include "gpu/cuda/kernels/values.cuh"

#define IN_FLIGHT 4

/* Pieces of sizeof(T) from one dense range to another. */
template <typename T> DJ_DEVICE void range_copy(char *to, const char *from, int64_t n)
{
    int64_t stride = dj_grid_stride();
    T value[IN_FLIGHT];
    for (int64_t i = dj_grid_first(); i < n; i += IN_FLIGHT * stride) {
#pragma unroll
        for (int k = 0; k < IN_FLIGHT; ++k)
            if (i + k * stride < n)
                value[k] = reinterpret_cast<const T *>(from)[i + k * stride];
#pragma unroll
        for (int k = 0; k < IN_FLIGHT; ++k)
            if (i + k * stride < n)
                reinterpret_cast<T *>(to)[i + k * stride] = value[k];
    }
}

DJ_KERNEL(dj_layout_bytes, dj_layout_bytes_t)
{
    const char *from = dj_at(p.head, p.from);
    char *to = dj_at(p.head, p.to);
    int64_t n = (int64_t)(p.bytes / p.item_bytes);
    if (dj_move_width(from, to, p.item_bytes, 16) == 16) {
        range_copy<dj_item16>(to, from, (int64_t)(p.bytes / 16));
        int64_t tail = (int64_t)(p.bytes / 16 * 16) + dj_grid_first();
        if (tail < (int64_t)p.bytes)
            to[tail] = from[tail];
    } else if (p.item_bytes == 1) {
        range_copy<uint8_t>(to, from, n);
    } else if (p.item_bytes == 2) {
        range_copy<uint16_t>(to, from, n);
    } else if (p.item_bytes == 4) {
        range_copy<uint32_t>(to, from, n);
    } else {
        range_copy<uint64_t>(to, from, (int64_t)(p.bytes / 8));
    }
}

template <typename T> DJ_DEVICE void loop_copy(const dj_cuda_loop_t &loop, char *to, const char *from)
{
    int64_t stride = dj_grid_stride(), target[2];
    T value[2];
    for (int64_t i = dj_grid_first(); i < loop.count; i += 2 * stride) {
#pragma unroll
        for (int k = 0; k < 2; ++k) {
            int64_t at[2];
            if (i + k * stride >= loop.count)
                break;
            dj_loop_offsets<2>(loop, i + k * stride, at);
            value[k] = *reinterpret_cast<const T *>(from + at[0]);
            target[k] = at[1];
        }
#pragma unroll
        for (int k = 0; k < 2; ++k)
            if (i + k * stride < loop.count)
                *reinterpret_cast<T *>(to + target[k]) = value[k];
    }
}

/* Pieces whose addresses are not aligned for their width: an item at a time. */
DJ_DEVICE void loop_copy_narrow(const dj_layout_copy_t &p, char *to, const char *from)
{
    for (int64_t i = dj_grid_first(); i < p.loop.count; i += dj_grid_stride()) {
        int64_t at[2];
        dj_loop_offsets<2>(p.loop, i, at);
        dj_move_items(to + at[1], from + at[0], p.item_bytes, p.wide_bytes / p.item_bytes);
    }
}

DJ_KERNEL(dj_layout_copy, dj_layout_copy_t)
{
    const char *from = dj_at(p.head, p.from);
    char *to = dj_at(p.head, p.to);
    if (dj_move_width(from, to, p.item_bytes, p.wide_bytes) != p.wide_bytes)
        return loop_copy_narrow(p, to, from);
    switch (p.wide_bytes) {
    case 1: return loop_copy<uint8_t>(p.loop, to, from);
    case 2: return loop_copy<uint16_t>(p.loop, to, from);
    case 4: return loop_copy<uint32_t>(p.loop, to, from);
    case 8: return loop_copy<uint64_t>(p.loop, to, from);
    case 16: return loop_copy<dj_item16>(p.loop, to, from);
    }
}

/* Tiles through shared memory: 32 columns of 8 rows of threads, so that reads and writes are both dense. One column
 * more than needed keeps a tile's column in different banks. */
template <typename T> DJ_DEVICE void tiles_turn(const dj_layout_transpose_t &p, T (*tile)[DJ_LAYOUT_TILE + 1])
{
    const dj_cuda_loop_t &loop = p.loop;
    const int d = loop.rank - 1;
    const int64_t rows = loop.sizes[d - 1], columns = loop.sizes[d];
    const char *from = dj_at(p.head, p.from);
    char *to = dj_at(p.head, p.to);
    int x = threadIdx.x % DJ_LAYOUT_TILE, y = threadIdx.x / DJ_LAYOUT_TILE, step = blockDim.x / DJ_LAYOUT_TILE;
    for (int64_t i = blockIdx.x; i < p.tiles; i += gridDim.x) {
        int64_t column = i % p.tile_columns * DJ_LAYOUT_TILE, rest = i / p.tile_columns, at[2];
        int64_t row = rest % p.tile_rows * DJ_LAYOUT_TILE, matrix = rest / p.tile_rows;
        dj_loop_offsets<2>(loop, matrix * rows * columns, at);
        for (int j = y; j < DJ_LAYOUT_TILE; j += step)
            if (row + x < rows && column + j < columns)
                tile[j][x] = *reinterpret_cast<const T *>(from + at[0] + (row + x) * (int64_t)sizeof(T) +
                                                          (column + j) * loop.strides[0][d]);
        __syncthreads();
        for (int j = y; j < DJ_LAYOUT_TILE; j += step)
            if (row + j < rows && column + x < columns)
                *reinterpret_cast<T *>(to + at[1] + (row + j) * loop.strides[1][d - 1] +
                                       (column + x) * (int64_t)sizeof(T)) = tile[x][j];
        __syncthreads();
    }
}

#define TRANSPOSE(bytes, T)                                                                        \
    DJ_KERNEL(dj_layout_transpose_##bytes, dj_layout_transpose_t)                                  \
    {                                                                                              \
        __shared__ T tile[DJ_LAYOUT_TILE][DJ_LAYOUT_TILE + 1];                                     \
        tiles_turn<T>(p, tile);                                                                    \
    }
TRANSPOSE(1, uint8_t)
TRANSPOSE(2, uint16_t)
TRANSPOSE(4, uint32_t)
TRANSPOSE(8, uint64_t)

/* Through C, the type in which the source's class computes. */
template <typename C> DJ_DEVICE void loop_convert(const dj_layout_convert_t &p)
{
    const char *from = dj_at(p.head, p.from);
    char *to = dj_at(p.head, p.to);
    int64_t stride = dj_grid_stride(), target[2];
    C value[2];
    for (int64_t i = dj_grid_first(); i < p.loop.count; i += 2 * stride) {
#pragma unroll
        for (int k = 0; k < 2; ++k) {
            int64_t at[2];
            if (i + k * stride >= p.loop.count)
                break;
            dj_loop_offsets<2>(p.loop, i + k * stride, at);
            value[k] = dj_load<C>(from + at[0], p.from_dtype);
            target[k] = at[1];
        }
#pragma unroll
        for (int k = 0; k < 2; ++k)
            if (i + k * stride < p.loop.count)
                dj_store(to + target[k], p.to_dtype, value[k]);
    }
}

DJ_KERNEL(dj_layout_convert, dj_layout_convert_t)
{
    if (p.from_dtype == DJ_CUDA_F64)
        loop_convert<double>(p);
    else if (dj_is_floating(p.from_dtype))
        loop_convert<float>(p);
    else
        loop_convert<int64_t>(p);
}

/* A piece of 16 bytes of equal items. */
DJ_DEVICE dj_item16 item_spread(uint64_t item, uint32_t item_bytes)
{
    for (uint32_t bits = item_bytes * 8; bits < 64; bits *= 2)
        item |= item << bits;
    return dj_item16{item, item};
}

DJ_KERNEL(dj_layout_fill, dj_layout_fill_t)
{
    alignas(16) uint64_t item[2] = {0, 0};
    char *to = dj_at(p.head, p.to);
    if (p.value.slot >= 0)
        dj_store_scalar(p.head, p.value, reinterpret_cast<char *>(item), p.dtype);
    if (p.item_bytes < 16) {
        dj_item16 wide = item_spread(item[0], p.item_bytes);
        item[0] = wide.low;
        item[1] = wide.high;
    }
    uint32_t width = dj_move_width(to, to, p.item_bytes, p.wide_bytes), pieces = p.wide_bytes / width;
    for (int64_t i = dj_grid_first(); i < p.loop.count; i += dj_grid_stride()) {
        int64_t at[1];
        dj_loop_offsets<1>(p.loop, i, at);
        for (uint32_t j = 0; j < pieces; ++j)
            dj_move_items(to + at[0] + j * width, reinterpret_cast<const char *>(item), width, 1);
    }
}

DJ_KERNEL(dj_layout_arange, dj_layout_arange_t)
{
    char *to = dj_at(p.head, p.to);
    int64_t start = dj_scalar_as_integer(p.head, p.start), step = dj_scalar_as_integer(p.head, p.step);
    double real_start = dj_scalar_as_real(p.head, p.start), real_step = dj_scalar_as_real(p.head, p.step);
    for (int64_t i = dj_grid_first(); i < p.count; i += dj_grid_stride()) {
        char *at = to + i * p.stride_bytes;
        if (p.is_real)
            dj_store(at, p.dtype, real_start + (double)i * real_step);
        else
            dj_store(at, p.dtype, (int64_t)((uint64_t)start + (uint64_t)i * (uint64_t)step));
    }
}

DJ_KERNEL(dj_layout_cat, dj_layout_cat_t)
{
    const dj_layout_segment_t &segment = p.segment[blockIdx.y];
    const char *from = dj_at(p.head, segment.from);
    char *to = dj_at(p.head, p.to) + segment.to_offset;
    uint32_t wide = segment.wide_bytes, width = dj_move_width(from, to, segment.item_bytes, wide);
    int64_t row_pieces = segment.row_bytes / wide, n = segment.rows * row_pieces;
    for (int64_t i = dj_grid_first(); i < n; i += dj_grid_stride()) {
        int64_t row = i / row_pieces, at = (i - row * row_pieces) * wide;
        dj_move_items(to + row * segment.to_stride + at, from + row * segment.from_stride + at, width,
                      wide / width);
    }
}

DJ_KERNEL(dj_layout_triangle, dj_layout_triangle_t)
{
    const dj_item16 zero = {0, 0};
    const char *from = dj_at(p.head, p.from);
    char *to = dj_at(p.head, p.to);
    int64_t columns = p.loop.sizes[p.loop.rank - 1], rows = p.loop.sizes[p.loop.rank - 2];
    for (int64_t i = dj_grid_first(); i < p.loop.count; i += dj_grid_stride()) {
        int64_t at[2], column = i % columns, row = i / columns % rows, edge = column - row;
        dj_loop_offsets<2>(p.loop, i, at);
        bool kept = p.upper ? edge >= p.diagonal : edge <= p.diagonal;
        dj_move_items(to + at[1], kept ? from + at[0] : reinterpret_cast<const char *>(&zero), p.item_bytes, 1);
    }
}

DJ_KERNEL(dj_layout_repeat, dj_layout_repeat_t)
{
    const char *from = dj_at(p.head, p.from);
    char *to = dj_at(p.head, p.to);
    for (int64_t i = dj_grid_first(); i < p.loop.count; i += dj_grid_stride()) {
        int64_t rest = i, in = 0, out = 0;
        for (int d = p.loop.rank - 1; d >= 0; --d) {
            int64_t at = rest % p.loop.sizes[d];
            rest /= p.loop.sizes[d];
            in += at % p.from_sizes[d] * p.loop.strides[0][d];
            out += at * p.loop.strides[1][d];
        }
        dj_move_items(to + out, from + in, p.item_bytes, 1);
    }
}
