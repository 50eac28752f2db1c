/* index.cu - kernels that follow index tensors.
 *
 * take and put are one engine: positions (the common shape of the index tensors) choose slices of the indexed
 * tensor, and each thread moves one piece of one slice. gather and scatter choose every element by itself.
 *
 * Where several positions write one slot, PyTorch leaves open which of them stays; here it is the last in order, as
 * on the host, so that results do not differ from run to run: a first pass makes the last position the slot's owner
 * (atomicMax), and only the owner writes.
 *
 * An index out of range is clamped to 0 and reported as a fault; none leaves the tensor. */
#include "gpu/cuda/kernels/index.h"
#include "gpu/cuda/kernels/move.cuh"
#include "gpu/cuda/kernels/values.cuh"

typedef struct found {
    int64_t self, other, slot; /* bytes, bytes, number */
    bool inside;               /* there is an element to access at all */
} found_t;

DJ_DEVICE found_t position_find(const dj_cuda_head_t &head, const dj_index_positions_t &positions, int64_t position)
{
    int64_t at[DJ_CUDA_RANK_MAX];
    found_t found = {0, 0, 0, true};
#pragma unroll
    for (int d = DJ_CUDA_RANK_MAX - 1; d >= 0; --d) {
        if (d >= positions.rank)
            continue;
        at[d] = position;
        if (d)
            position = dj_divide(position, positions.sizes[d], &at[d]);
        found.other += at[d] * positions.other_strides[d];
    }
    for (int k = 0; k < positions.n; ++k) {
        const dj_index_list_t &list = positions.list[k];
        const char *from = dj_at(head, list.ref);
#pragma unroll
        for (int d = 0; d < DJ_CUDA_RANK_MAX; ++d)
            if (d < positions.rank)
                from += at[d] * list.strides[d];
        int64_t inside = dj_index_clamp(head, dj_index_load(from, list.is_wide), list.size, positions.negative_allowed);
        found.self += inside * list.step_bytes;
        found.slot += inside * list.step_slots;
        found.inside &= list.size != 0;
    }
    return found;
}

/* One piece of one slice: position, and its offsets in both tensors. */
DJ_DEVICE found_t piece_find(const dj_index_slices_t &p, int64_t i, int64_t *position_p)
{
    int64_t at[2], position, piece;
    if (p.position_fast) {
        piece = dj_divide(i, p.positions.count, &position);
    } else {
        position = dj_divide(i, p.slice.count, &piece);
    }
    found_t found = position_find(p.head, p.positions, position);
    dj_loop_offsets<2>(p.slice, piece, at);
    found.self += at[0];
    found.other += at[1];
    *position_p = position;
    return found;
}

DJ_KERNEL(dj_index_take, dj_index_slices_t)
{
    const char *self = dj_at(p.head, p.self);
    char *other = dj_at(p.head, p.other);
    uint32_t width = dj_move_width(self, other, p.item_bytes, p.wide_bytes);
    int64_t count = p.positions.count * p.slice.count;
    for (int64_t i = dj_grid_first(); i < count; i += dj_grid_stride()) {
        int64_t position;
        found_t found = piece_find(p, i, &position);
        if (found.inside)
            dj_move_items(other + found.other, self + found.self, width, p.wide_bytes / width);
    }
}

/* --- gather --- */

DJ_KERNEL(dj_index_gather, dj_index_picked_t)
{
    const char *self = dj_at(p.head, p.self), *index = dj_at(p.head, p.index);
    char *other = dj_at(p.head, p.other);
    for (int64_t i = dj_grid_first(); i < p.loop.count; i += dj_grid_stride()) {
        int64_t at[3];
        dj_loop_offsets<3>(p.loop, i, at);
        int64_t chosen = dj_index_clamp(p.head, dj_index_load(index + at[2], p.is_wide), p.size, false);
        if (p.size)
            dj_move_items(other + at[1], self + at[0] + chosen * p.step_bytes, p.item_bytes, 1);
    }
}
