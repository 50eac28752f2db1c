/* reference_window.h - convolution and pooling, plainly: every place of every window is looked at. */
#ifndef DJ_TESTS_GPU_REFERENCE_WINDOW_H
#define DJ_TESTS_GPU_REFERENCE_WINDOW_H

#include "tests/gpu/reference.h"

/* A number of a list argument for spatial dimension d of n; `otherwise` where the list is absent. */
static inline int64_t ref_listed(const ref_call_t *call, uint32_t arg, uint32_t d, int64_t otherwise)
{
    const dj_arg_t *a = &call->c->args[arg];
    if (a->kind != DJ_ARG_INTEGERS || a->count == 0)
        return otherwise;
    return a->integers[a->count == 1 ? 0 : d];
}

/* out[place of a kernel element] += input * weight, over all inputs; so a transposed convolution is written as it is
 * meant, and a plain one gathers by the same relation. */
static inline void ref_convolution(const ref_call_t *call)
{
    ref_t *out = call->outs[0], *x = ref_arg(call, 0), *w = ref_arg(call, 1), *bias = ref_arg(call, 2);
    bool transposed = ref_flag(call, 6);
    int64_t groups = call->c->args[8].integer;
    ref_t *small = transposed ? x : out, *large = transposed ? out : x;
    int64_t per_group = w->view.sizes[0] / groups;
    for (int64_t i = 0; i < out->count; i++) {
        int64_t at[DJ_RANK_MAX];
        ref_unravel(out, i, at);
        out->real[i] = bias ? bias->real[at[1]] : 0;
    }
    for (int64_t i = 0; i < small->count; i++) {
        int64_t at[DJ_RANK_MAX], k[DJ_RANK_MAX], to[DJ_RANK_MAX];
        ref_unravel(small, i, at);
        for (int64_t j = 0; j < w->count; j++) {
            bool inside = true;
            ref_unravel(w, j, k);
            if (k[0] != at[1])
                continue;
            to[0] = at[0];
            to[1] = at[1] / per_group * w->view.sizes[1] + k[1];
            for (uint32_t d = 2; d < w->view.rank; d++) {
                to[d] = at[d] * ref_listed(call, 3, d - 2, 1) - ref_listed(call, 4, d - 2, 0) +
                        k[d] * ref_listed(call, 5, d - 2, 1);
                inside &= to[d] >= 0 && to[d] < large->view.sizes[d];
            }
            if (!inside)
                continue;
            int64_t other = ref_ravel(large, to);
            if (transposed)
                out->real[other] += x->real[i] * w->real[j];
            else
                out->real[i] += x->real[other] * w->real[j];
        }
    }
    for (int64_t i = 0; i < out->count; i++)
        ref_set(out, i, out->real[i], 0);
}

/* What a window saw. */
typedef struct ref_seen {
    double sum, best_real;
    int64_t best_integer, place, inside, covered;
} ref_seen_t;

static inline int64_t ref_least(uint8_t dtype)
{
    uint32_t bytes = dj_dtype_bytes(dtype);
    return dtype == DJ_U8 ? 0 : bytes == 8 ? INT64_MIN : -(1ll << (8 * bytes - 1));
}

static inline void ref_see(ref_seen_t *seen, const ref_t *x, const int64_t *at, int64_t y, int64_t z)
{
    uint32_t rank = x->view.rank;
    int64_t place[DJ_RANK_MAX];
    memcpy(place, at, sizeof(place));
    place[rank - 2] = y;
    place[rank - 1] = z;
    int64_t i = ref_ravel(x, place);
    bool greater = x->is_real ? x->real[i] > seen->best_real || isnan(x->real[i]) : x->integer[i] > seen->best_integer;
    seen->inside++;
    if (greater) {
        seen->best_real = x->real[i];
        seen->best_integer = x->integer[i];
        seen->place = y * x->view.sizes[rank - 1] + z;
    }
    seen->sum += x->real[i];
}

static inline void ref_slide(const ref_call_t *call, const ref_t *x, const int64_t *at, ref_seen_t *seen)
{
    bool max = call->c->op == DJ_OP_MAX_POOL2D;
    uint32_t rank = x->view.rank;
    const int64_t *sizes = &x->view.sizes[rank - 2], *out = &at[rank - 2];
    int64_t kernel[2], first[2], dilation[2], padding[2], from[2];
    for (uint32_t d = 0; d < 2; d++) {
        kernel[d] = ref_listed(call, 1, d, 1);
        padding[d] = ref_listed(call, 3, d, 0);
        first[d] = out[d] * ref_listed(call, 2, d, kernel[d]) - padding[d];
        dilation[d] = max ? ref_listed(call, 4, d, 1) : 1;
        for (from[d] = first[d]; from[d] < 0;)
            from[d] += dilation[d];
    }
    /* What a window that sees nothing says: the least value, and where it would have begun. */
    seen->best_real = -INFINITY;
    seen->best_integer = ref_least(x->view.dtype);
    seen->place = from[0] * sizes[1] + from[1];
    for (int64_t i = 0; i < kernel[0] * kernel[1]; i++) {
        int64_t y = first[0] + i / kernel[1] * dilation[0], z = first[1] + i % kernel[1] * dilation[1];
        seen->covered += y < sizes[0] + padding[0] && z < sizes[1] + padding[1];
        if (y >= 0 && y < sizes[0] && z >= 0 && z < sizes[1])
            ref_see(seen, x, at, y, z);
    }
}

static inline void ref_adapt(const ref_call_t *call, const ref_t *x, const int64_t *at, ref_seen_t *seen)
{
    uint32_t rank = x->view.rank;
    int64_t first[2], end[2];
    for (uint32_t d = 0; d < 2; d++) {
        int64_t size = x->view.sizes[rank - 2 + d], parts = call->outs[0]->view.sizes[rank - 2 + d];
        first[d] = (int64_t)floor((double)(at[rank - 2 + d] * size) / (double)parts);
        end[d] = (int64_t)ceil((double)((at[rank - 2 + d] + 1) * size) / (double)parts);
    }
    for (int64_t y = first[0]; y < end[0]; y++)
        for (int64_t z = first[1]; z < end[1]; z++)
            ref_see(seen, x, at, y, z);
}

static inline void ref_pool(const ref_call_t *call)
{
    ref_t *out = call->outs[0], *x = ref_arg(call, 0);
    for (int64_t i = 0; i < out->count; i++) {
        int64_t at[DJ_RANK_MAX] = {0};
        ref_seen_t seen = {.sum = 0};
        ref_unravel(out, i, at);
        if (call->c->op == DJ_OP_ADAPTIVE_AVG_POOL2D)
            ref_adapt(call, x, at, &seen);
        else
            ref_slide(call, x, at, &seen);
        if (call->c->op == DJ_OP_MAX_POOL2D) {
            ref_set(out, i, seen.best_real, seen.best_integer);
            ref_set(call->outs[1], i, (double)seen.place, seen.place);
            continue;
        }
        int64_t divisor = seen.inside;
        if (call->c->op == DJ_OP_AVG_POOL2D)
            divisor = ref_listed(call, 6, 0, ref_flag(call, 5) ? seen.covered : seen.inside);
        ref_set(out, i, seen.inside ? seen.sum / (double)divisor : 0, 0);
    }
}

/* False for any other op. */
static inline bool ref_windows(const ref_call_t *call)
{
    switch (call->c->op) {
    case DJ_OP_CONVOLUTION:
        ref_convolution(call);
        return true;
    case DJ_OP_MAX_POOL2D:
    case DJ_OP_AVG_POOL2D:
    case DJ_OP_ADAPTIVE_AVG_POOL2D:
        ref_pool(call);
        return true;
    default:
        return false;
    }
}

#endif
