/* index.cu - kernels that follow index tensors.
 *
 * take and put are one engine: positions (the common shape of the index tensors) choose slices of the indexed
 * tensor, and each thread moves one piece of one slice. gather and scatter choose every element by itself.
 *
 * Where several positions write one slot, PyTorch leaves open which of them stays; here it is the last in order, as
 * on the host, so that results do not differ from run to run: a first pass makes the last position the slot's owner
 * (atomicMax), and only the owner writes. Where slots are far more than positions, positions are sorted by slot
 * instead, which takes memory by positions; so they are to be added up.
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
        int64_t value = dj_index_load(from, list.is_wide);
        int64_t inside = dj_index_clamp(head, value, list.size, positions.negative_allowed);
        found.self += inside * list.step_bytes;
        found.slot += inside * list.step_slots;
        found.inside &= list.size != 0;
    }
    return found;
}

/* Only its place in the other tensor. */
DJ_DEVICE int64_t position_other(const dj_index_positions_t &positions, int64_t position)
{
    int64_t offset = 0;
    for (int d = positions.rank - 1; d >= 0; --d) {
        int64_t at = position;
        if (d)
            position = dj_divide(position, positions.sizes[d], &at);
        offset += at * positions.other_strides[d];
    }
    return offset;
}

/* Work item i: which position's slice, and which piece of it. */
DJ_DEVICE int64_t position_of(const dj_index_slices_t &p, int64_t i, int64_t *piece_p)
{
    int64_t position;
    if (!p.position_fast)
        return dj_divide(i, p.slice.count, piece_p);
    *piece_p = dj_divide(i, p.positions.count, &position);
    return position;
}

/* One piece of one slice: its offsets in both tensors. */
DJ_DEVICE found_t piece_find(const dj_index_slices_t &p, int64_t position, int64_t piece)
{
    int64_t at[2];
    found_t found = position_find(p.head, p.positions, position);
    dj_loop_offsets<2>(p.slice, piece, at);
    found.self += at[0];
    found.other += at[1];
    return found;
}

DJ_KERNEL(dj_index_take, dj_index_slices_t)
{
    const char *self = dj_at(p.head, p.self);
    char *other = dj_at(p.head, p.other);
    uint32_t width = dj_move_width(self, other, p.item_bytes, p.wide_bytes);
    int64_t count = p.positions.count * p.slice.count;
    for (int64_t i = dj_grid_first(); i < count; i += dj_grid_stride()) {
        int64_t piece, position = position_of(p, i, &piece);
        found_t found = piece_find(p, position, piece);
        if (found.inside)
            dj_move_items(other + found.other, self + found.self, width, p.wide_bytes / width);
    }
}

/* --- index_copy, index_put --- */

DJ_KERNEL(dj_index_claim, dj_index_claim_t)
{
    unsigned int *owner = reinterpret_cast<unsigned int *>(p.owner);
    for (int64_t i = dj_grid_first(); i < p.positions.count; i += dj_grid_stride()) {
        found_t found = position_find(p.head, p.positions, i);
        if (found.inside)
            atomicMax(owner + found.slot, (unsigned int)(i + 1));
    }
}

DJ_DEVICE int64_t sorted_slot(const dj_index_slices_t &p, int64_t i)
{
    const char *slots = reinterpret_cast<const char *>(p.slots);
    return dj_index_load(slots + i * (p.slots_wide ? 8 : 4), p.slots_wide);
}

DJ_KERNEL(dj_index_put, dj_index_slices_t)
{
    alignas(16) uint64_t item[2] = {0, 0};
    const unsigned int *owner = reinterpret_cast<const unsigned int *>(p.owner);
    char *self = dj_at(p.head, p.self);
    const char *other = dj_at(p.head, p.other);
    uint32_t width = p.item_bytes;
    if (p.value.slot >= 0)
        dj_store_scalar(p.head, p.value, reinterpret_cast<char *>(item), p.dtype);
    else
        width = dj_move_width(self, other, p.item_bytes, p.wide_bytes);
    int64_t count = p.positions.count * p.slice.count;
    for (int64_t i = dj_grid_first(); i < count; i += dj_grid_stride()) {
        int64_t piece, position = position_of(p, i, &piece);
        if (p.order) { /* of equal slots the last */
            if (position + 1 < p.positions.count && sorted_slot(p, position) == sorted_slot(p, position + 1))
                continue;
            position = reinterpret_cast<const int64_t *>(p.order)[position];
        }
        found_t found = piece_find(p, position, piece);
        if (!found.inside || (owner && owner[found.slot] != (unsigned int)(position + 1)))
            continue;
        const char *from = p.value.slot >= 0 ? reinterpret_cast<const char *>(item) : other + found.other;
        dj_move_items(self + found.self, from, width, p.wide_bytes / width);
    }
}

DJ_KERNEL(dj_index_slots, dj_index_slots_t)
{
    for (int64_t i = dj_grid_first(); i < p.positions.count; i += dj_grid_stride()) {
        int64_t slot = position_find(p.head, p.positions, i).slot;
        if (p.is_wide)
            reinterpret_cast<int64_t *>(p.slots)[i] = slot;
        else
            reinterpret_cast<int32_t *>(p.slots)[i] = (int32_t)slot;
    }
}

/* What a sum is after it was stored as `dtype`: only the half floats lose anything on the way. */
DJ_DEVICE float sum_round(float sum, uint32_t dtype)
{
    dj_f16 half;
    dj_bf16 brain;
    if (dtype == DJ_CUDA_F16) {
        dj_put(&half, sum);
        return dj_float(half);
    }
    if (dtype == DJ_CUDA_BF16) {
        dj_put(&brain, sum);
        return dj_float(brain);
    }
    return sum;
}

DJ_DEVICE double sum_round(double sum, uint32_t)
{
    return sum;
}

DJ_DEVICE int64_t sum_round(int64_t sum, uint32_t)
{
    return sum;
}

/* Each run of equal slots is one thread's, which adds in the order of positions: the sum does not depend on chance,
 * and equals the host's. */
template <typename C> DJ_DEVICE void runs_add(const dj_index_slices_t &p, const char *value)
{
    const int64_t *order = reinterpret_cast<const int64_t *>(p.order);
    char *self = dj_at(p.head, p.self);
    const char *other = dj_at(p.head, p.other);
    int64_t count = p.positions.count * p.slice.count;
    for (int64_t i = dj_grid_first(); i < count; i += dj_grid_stride()) {
        int64_t piece, first = dj_divide(i, p.slice.count, &piece), at[2];
        int64_t slot = sorted_slot(p, first);
        if (first > 0 && sorted_slot(p, first - 1) == slot)
            continue;
        dj_loop_offsets<2>(p.slice, piece, at);
        char *target = self + position_find(p.head, p.positions, order[first]).self + at[0];
        C sum = dj_load<C>(target, p.dtype);
        for (int64_t j = first; j < p.positions.count; ++j) {
            if (sorted_slot(p, j) != slot)
                break;
            const char *from = value;
            if (!from)
                from = other + position_other(p.positions, order[j]) + at[1];
            sum = sum_round(dj_add(sum, dj_load<C>(from, p.dtype)), p.dtype);
        }
        dj_store(target, p.dtype, sum);
    }
}

DJ_KERNEL(dj_index_accumulate, dj_index_slices_t)
{
    alignas(8) char item[8];
    const char *value = nullptr;
    if (p.value.slot >= 0) {
        dj_store_scalar(p.head, p.value, item, p.dtype);
        value = item;
    }
    if (p.dtype == DJ_CUDA_F64)
        runs_add<double>(p, value);
    else if (dj_is_floating(p.dtype))
        runs_add<float>(p, value);
    else
        runs_add<int64_t>(p, value);
}

/* --- gather, scatter --- */

typedef struct picked {
    int64_t at[4]; /* self, other, slot, index */
    bool inside;
} picked_t;

DJ_DEVICE picked_t picked_find(const dj_index_picked_t &p, const char *index, int64_t i)
{
    picked_t picked;
    dj_loop_offsets<4>(p.loop, i, picked.at);
    int64_t chosen = dj_index_clamp(p.head, dj_index_load(index + picked.at[3], p.is_wide), p.size, false);
    picked.at[0] += chosen * p.step_bytes;
    picked.at[2] += chosen * p.step_slots;
    picked.inside = p.size != 0;
    return picked;
}

DJ_KERNEL(dj_index_gather, dj_index_picked_t)
{
    const char *self = dj_at(p.head, p.self), *index = dj_at(p.head, p.index);
    char *other = dj_at(p.head, p.other);
    for (int64_t i = dj_grid_first(); i < p.loop.count; i += dj_grid_stride()) {
        picked_t picked = picked_find(p, index, i);
        if (picked.inside)
            dj_move_items(other + picked.at[1], self + picked.at[0], p.item_bytes, 1);
    }
}

DJ_KERNEL(dj_index_scatter_claim, dj_index_picked_t)
{
    const char *index = dj_at(p.head, p.index);
    unsigned int *owner = reinterpret_cast<unsigned int *>(p.owner);
    for (int64_t i = dj_grid_first(); i < p.loop.count; i += dj_grid_stride()) {
        picked_t picked = picked_find(p, index, i);
        if (picked.inside)
            atomicMax(owner + picked.at[2], (unsigned int)(i + 1));
    }
}

DJ_KERNEL(dj_index_scatter, dj_index_picked_t)
{
    alignas(16) uint64_t item[2] = {0, 0};
    const unsigned int *owner = reinterpret_cast<const unsigned int *>(p.owner);
    char *self = dj_at(p.head, p.self);
    const char *index = dj_at(p.head, p.index), *other = dj_at(p.head, p.other);
    if (p.value.slot >= 0)
        dj_store_scalar(p.head, p.value, reinterpret_cast<char *>(item), p.dtype);
    for (int64_t i = dj_grid_first(); i < p.loop.count; i += dj_grid_stride()) {
        picked_t picked = picked_find(p, index, i);
        if (!picked.inside || (owner && owner[picked.at[2]] != (unsigned int)(i + 1)))
            continue;
        const char *from = p.value.slot >= 0 ? reinterpret_cast<const char *>(item) : other + picked.at[1];
        dj_move_items(self + picked.at[0], from, p.item_bytes, 1);
    }
}

/* --- isin: a block's elements against tile after tile of the tests --- */

template <typename C> DJ_DEVICE void tests_compare(const dj_index_isin_t &p, C *tile)
{
    const char *elements = dj_at(p.head, p.elements), *tests = dj_at(p.head, p.tests);
    char *to = dj_at(p.head, p.to);
    int64_t per_block = blockDim.x;
    for (int64_t base = blockIdx.x * per_block; base < p.loop.count; base += gridDim.x * per_block) {
        int64_t i = base + threadIdx.x, at[2] = {0, 0};
        bool there = i < p.loop.count, found = false;
        C element = 0;
        if (there) {
            dj_loop_offsets<2>(p.loop, i, at);
            element = dj_load<C>(elements + at[0], p.dtype);
        }
        for (int64_t first = 0; first < p.test_loop.count; first += DJ_ISIN_TILE) {
            int64_t left = p.test_loop.count - first, n = left < DJ_ISIN_TILE ? left : DJ_ISIN_TILE;
            for (int64_t j = threadIdx.x; j < n; j += blockDim.x) {
                int64_t test_at[1];
                dj_loop_offsets<1>(p.test_loop, first + j, test_at);
                tile[j] = dj_load<C>(tests + test_at[0], p.test_dtype);
            }
            __syncthreads();
            for (int64_t j = 0; j < n; ++j)
                found |= tile[j] == element;
            __syncthreads();
        }
        if (there)
            dj_store(to + at[1], p.to_dtype, (int64_t)(found != (p.invert != 0)));
    }
}

DJ_KERNEL(dj_index_isin, dj_index_isin_t)
{
    __shared__ double reals[DJ_ISIN_TILE];
    __shared__ int64_t integers[DJ_ISIN_TILE];
    if (p.is_real)
        tests_compare<double>(p, reals);
    else
        tests_compare<int64_t>(p, integers);
}
