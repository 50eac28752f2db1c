/* gpu.c - checks of ranks that own a GPU: what matters there and not on a host.
 *
 * Large transfers go through pinned rings; a program that comes again is replayed as a graph, whose bytes must not
 * change and whose scalars must be the new ones; and memory of the GPU that sessions had must be free afterwards. */
#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "launcher/selftest/selftest.h"

enum {
    LARGE_BYTES = 64 << 20,
    HEADS = 4,
    PLACES = 64,
    DEPTH = 32,
    ROW = HEADS * DEPTH,
    CACHE = HEADS * PLACES * DEPTH,
    REPLAYS = 100,
    SESSIONS = 200,
    TELEMETRY_MS = 1000,
    SETTLE_MS = 8000,
};

/* A connection to the first rank with a GPU; NULL and the text set. */
static djinn_t *open_gpu(dj_selftest_t *self, const dj_check_t *check)
{
    djinn_options_t options = self->server;
    djinn_t *djinn = NULL;
    if (dj_selftest_workers(self, check->device, &options.rank, 1) < 1)
        return NULL;
    options.flags |= DJINN_CONNECT_RANK;
    if (djinn_connect(&options, &djinn) != DJINN_OK)
        dj_found_error(self, "a connection to a rank with a GPU");
    return djinn;
}

static void draw(float *values, size_t count, uint32_t seed)
{
    for (size_t i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        values[i] = ((float)(seed >> 24) - 128) / 64;
    }
}

static djinn_arg_t tensor_arg(const djinn_tensor_t *tensor)
{
    return (djinn_arg_t){.kind = DJINN_ARG_TENSOR, .value.tensors = tensor};
}

/* ---- transfers ---- */

static dj_verdict_t transfer(dj_selftest_t *self, djinn_t *djinn, uint32_t *up, uint32_t *down)
{
    int64_t size = LARGE_BYTES;
    size_t count = LARGE_BYTES / sizeof *up, at = 0;
    djinn_tensor_t tensor = {0};
    for (size_t i = 0; i < count; i++)
        up[i] = (uint32_t)i * 2654435761u;
    djinn_status_t status = djinn_upload(djinn, DJINN_UINT8, 1, &size, NULL, 0, &tensor);
    if (status == DJINN_OK)
        status = djinn_put(djinn, &tensor, up, LARGE_BYTES, NULL);
    if (status == DJINN_OK)
        status = djinn_fetch(djinn, &tensor, down, LARGE_BYTES);
    djinn_release(tensor.storage);
    if (status != DJINN_OK)
        return dj_found_error(self, "64 MiB");
    while (at < count && up[at] == down[at])
        at++;
    if (at < count)
        return dj_found(self, DJ_CHECK_FAIL, "64 MiB: bytes %zu to %zu came back as %08x, not %08x", 4 * at,
                        4 * at + 3, down[at], up[at]);
    return dj_found(self, DJ_CHECK_OK, "64 MiB up and down, every byte the same");
}

static dj_verdict_t check_transfer(dj_selftest_t *self, const dj_check_t *check)
{
    djinn_t *djinn = open_gpu(self, check);
    uint32_t *bytes = malloc(2 * (size_t)LARGE_BYTES);
    dj_verdict_t verdict = DJ_CHECK_FAIL;
    if (!bytes)
        dj_found(self, DJ_CHECK_FAIL, "no memory");
    else if (djinn)
        verdict = transfer(self, djinn, bytes, bytes + LARGE_BYTES / sizeof *bytes);
    free(bytes);
    djinn_close(djinn);
    return verdict;
}

/* ---- attention over a cache that fills ---- */

typedef struct cache {
    djinn_t *djinn;
    djinn_tensor_t keys, values;
    float key[CACHE], value[CACHE]; /* what is in it, [heads, places, depth] */
} cache_t;

/* A row of every head at `place`: the same program at every step, with another offset. */
static djinn_status_t write_row(cache_t *cache, const djinn_tensor_t *into, float *known, const float *row,
                                int64_t place)
{
    djinn_tensor_t fresh, window = *into;
    djinn_status_t status =
        djinn_upload(cache->djinn, DJINN_FLOAT32, 4, (int64_t[]){1, HEADS, 1, DEPTH}, row, 0, &fresh);
    if (status != DJINN_OK)
        return status;
    window.sizes[2] = 1;
    window.offset += place * window.strides[2];
    djinn_arg_t args[] = {tensor_arg(&fresh), {.kind = DJINN_ARG_INT_SCALAR, .value.integer = 0},
                          {.kind = DJINN_ARG_INT_SCALAR, .value.integer = 1}};
    status = djinn_record_into(cache->djinn, djinn_op("aten::add.Tensor"), args, 3, &window);
    djinn_release(fresh.storage);
    for (int64_t head = 0; head < HEADS; head++)
        memcpy(known + (head * PLACES + place) * DEPTH, row + head * DEPTH, DEPTH * sizeof *row);
    return status;
}

/* One query over the first `seen` places: a mask hides the others, so that no size changes. */
static djinn_status_t ask(cache_t *cache, const float *query, int64_t seen, float *got)
{
    float hidden[PLACES];
    djinn_tensor_t q = {0}, mask = {0}, out = {0};
    for (int64_t i = 0; i < PLACES; i++)
        hidden[i] = i < seen ? 0 : -INFINITY;
    djinn_status_t status =
        djinn_upload(cache->djinn, DJINN_FLOAT32, 4, (int64_t[]){1, HEADS, 1, DEPTH}, query, 0, &q);
    if (status == DJINN_OK)
        status = djinn_upload(cache->djinn, DJINN_FLOAT32, 4, (int64_t[]){1, 1, 1, PLACES}, hidden, 0, &mask);
    djinn_arg_t args[] = {tensor_arg(&q), tensor_arg(&cache->keys), tensor_arg(&cache->values), tensor_arg(&mask),
                          {.kind = DJINN_ARG_REAL_SCALAR}, {.kind = DJINN_ARG_INT}, {.kind = DJINN_ARG_NONE},
                          {.kind = DJINN_ARG_INT}};
    djinn_tensor_t outs[DJINN_MAX_OUTS] = {0};
    if (status == DJINN_OK)
        status = djinn_record(cache->djinn, djinn_op("djinn::attention"), args, 8, outs);
    out = outs[0];
    if (status == DJINN_OK)
        status = djinn_fetch(cache->djinn, &out, got, ROW * sizeof *got);
    for (int i = 0; i < DJINN_MAX_OUTS; i++)
        djinn_release(outs[i].storage);
    djinn_release(mask.storage);
    djinn_release(q.storage);
    return status;
}

/* The largest difference from plain C. */
static double judge(const cache_t *cache, const float *query, int64_t seen, const float *got)
{
    double worst = 0, scores[PLACES];
    for (int head = 0; head < HEADS; head++) {
        const float *key = cache->key + head * PLACES * DEPTH, *value = cache->value + head * PLACES * DEPTH;
        double top = -INFINITY, sum = 0;
        for (int64_t i = 0; i < seen; i++) {
            scores[i] = 0;
            for (int j = 0; j < DEPTH; j++)
                scores[i] += (double)query[head * DEPTH + j] * key[i * DEPTH + j] / sqrt(DEPTH);
            top = fmax(top, scores[i]);
        }
        for (int64_t i = 0; i < seen; i++)
            sum += scores[i] = exp(scores[i] - top);
        for (int j = 0; j < DEPTH; j++) {
            double want = 0;
            for (int64_t i = 0; i < seen; i++)
                want += scores[i] / sum * value[i * DEPTH + j];
            double error = fabs(want - got[head * DEPTH + j]);
            worst = isnan(error) ? INFINITY : fmax(worst, error);
        }
    }
    return worst;
}

static dj_verdict_t fill_cache(dj_selftest_t *self, cache_t *cache)
{
    const int64_t sizes[] = {1, HEADS, PLACES, DEPTH};
    float row[3][ROW], got[ROW];
    double worst = 0;
    djinn_status_t status = djinn_upload(cache->djinn, DJINN_FLOAT32, 4, sizes, cache->key, 0, &cache->keys);
    if (status == DJINN_OK)
        status = djinn_upload(cache->djinn, DJINN_FLOAT32, 4, sizes, cache->value, 0, &cache->values);
    for (int64_t place = 0; place < PLACES && status == DJINN_OK && worst < 1e-4; place++) {
        draw(row[0], 3 * ROW, (uint32_t)place);
        status = write_row(cache, &cache->keys, cache->key, row[0], place);
        if (status == DJINN_OK)
            status = write_row(cache, &cache->values, cache->value, row[1], place);
        if (status == DJINN_OK)
            status = ask(cache, row[2], place + 1, got);
        if (status == DJINN_OK)
            worst = fmax(worst, judge(cache, row[2], place + 1, got));
    }
    djinn_release(cache->keys.storage);
    djinn_release(cache->values.storage);
    if (status != DJINN_OK)
        return dj_found_error(self, "attention over a cache");
    if (!(worst < 1e-4))
        return dj_found(self, DJ_CHECK_FAIL, "attention over a cache that fills: off by %.2g", worst);
    return dj_found(self, DJ_CHECK_OK, "%d requests, worst error %.1e of 1e-04", PLACES, worst);
}

static dj_verdict_t check_cache(dj_selftest_t *self, const dj_check_t *check)
{
    cache_t *cache = calloc(1, sizeof *cache);
    if (!cache)
        return dj_found(self, DJ_CHECK_FAIL, "no memory");
    cache->djinn = open_gpu(self, check);
    dj_verdict_t verdict = cache->djinn ? fill_cache(self, cache) : DJ_CHECK_FAIL;
    djinn_close(cache->djinn);
    free(cache);
    return verdict;
}

/* ---- replays ---- */

enum { SIDE = 48, INPUTS = 3 };

/* softmax(x x^T) + x; `x` is SIDE by SIDE. */
static djinn_status_t compute(djinn_t *djinn, const djinn_tensor_t *x, float *got)
{
    djinn_tensor_t product = {0}, soft = {0}, sum = {0}, turned = *x;
    turned.strides[0] = 1, turned.strides[1] = SIDE;
    djinn_arg_t of_product[] = {tensor_arg(x), tensor_arg(&turned)};
    djinn_status_t status = djinn_record(djinn, djinn_op("aten::mm"), of_product, 2, &product);
    djinn_arg_t of_soft[] = {tensor_arg(&product), {.kind = DJINN_ARG_INT, .value.integer = -1},
                             {.kind = DJINN_ARG_INT}};
    if (status == DJINN_OK)
        status = djinn_record(djinn, djinn_op("aten::_softmax"), of_soft, 3, &soft);
    djinn_arg_t of_sum[] = {tensor_arg(&soft), tensor_arg(x), {.kind = DJINN_ARG_INT_SCALAR, .value.integer = 1}};
    if (status == DJINN_OK)
        status = djinn_record(djinn, djinn_op("aten::add.Tensor"), of_sum, 3, &sum);
    if (status == DJINN_OK)
        status = djinn_fetch(djinn, &sum, got, SIDE * SIDE * sizeof *got);
    djinn_release(product.storage);
    djinn_release(soft.storage);
    djinn_release(sum.storage);
    return status;
}

/* Of three inputs in turn: results lie in two places in turn, so what a run forgets to write is another's. */
static dj_verdict_t check_replays(dj_selftest_t *self, const dj_check_t *check)
{
    float x[SIDE * SIDE], first[INPUTS][SIDE * SIDE], got[SIDE * SIDE];
    djinn_t *djinn = open_gpu(self, check);
    djinn_tensor_t tensors[INPUTS] = {{0}};
    djinn_status_t status = DJINN_OK;
    int replays = 0, differ = 0;
    if (!djinn)
        return DJ_CHECK_FAIL;
    for (uint32_t i = 0; i < INPUTS && status == DJINN_OK; i++) {
        draw(x, SIDE * SIDE, 11 + i);
        status = djinn_upload(djinn, DJINN_FLOAT32, 2, (int64_t[]){SIDE, SIDE}, x, 0, &tensors[i]);
    }
    for (; status == DJINN_OK && replays < REPLAYS; replays++) {
        status = compute(djinn, &tensors[replays % INPUTS], replays < INPUTS ? first[replays] : got);
        differ += status == DJINN_OK && replays >= INPUTS && memcmp(first[replays % INPUTS], got, sizeof got) != 0;
    }
    differ += status == DJINN_OK && memcmp(first[0], first[INPUTS - 1], sizeof got) == 0;
    if (status != DJINN_OK)
        dj_found_error(self, "a program that comes again");
    for (int i = 0; i < INPUTS; i++)
        djinn_release(tensors[i].storage);
    djinn_close(djinn);
    if (status != DJINN_OK)
        return DJ_CHECK_FAIL;
    if (differ)
        return dj_found(self, DJ_CHECK_FAIL, "%d of %d runs of one program gave other bytes", differ, REPLAYS);
    return dj_found(self, DJ_CHECK_OK, "%d runs of one program on three inputs in turn, every byte as at first", REPLAYS);
}

/* ---- sessions ---- */

static djinn_status_t one_session(dj_selftest_t *self, int rank, float *got)
{
    static const float x[SIDE * SIDE];
    djinn_options_t options = self->server;
    djinn_t *djinn = NULL;
    djinn_tensor_t tensor = {0};
    options.flags |= DJINN_CONNECT_RANK;
    options.rank = rank;
    djinn_status_t status = djinn_connect(&options, &djinn);
    if (status != DJINN_OK)
        return status;
    status = djinn_upload(djinn, DJINN_FLOAT32, 2, (int64_t[]){SIDE, SIDE}, x, 0, &tensor);
    if (status == DJINN_OK)
        status = compute(djinn, &tensor, got);
    djinn_release(tensor.storage);
    djinn_close(djinn);
    return status;
}

/* What is in use, once it has stayed as it is for two looks of the rank at its GPU. */
static uint64_t used_bytes(dj_selftest_t *self, int rank)
{
    poll(NULL, 0, 2 * TELEMETRY_MS);
    return dj_selftest_number(self, rank, "gpu_memory_used_bytes");
}

/* Sessions end in their own time, and other processes of the GPU come and go. */
static uint64_t used_at_least(dj_selftest_t *self, int rank, uint64_t before)
{
    double end = dj_selftest_now_ms() + SETTLE_MS;
    uint64_t now;
    while ((now = used_bytes(self, rank)) > before && dj_selftest_now_ms() < end)
        continue;
    return now;
}

static dj_verdict_t check_sessions(dj_selftest_t *self, const dj_check_t *check)
{
    float got[SIDE * SIDE];
    int rank;
    uint64_t before = 0;
    if (dj_selftest_workers(self, check->device, &rank, 1) < 1)
        return DJ_CHECK_FAIL;
    for (int i = -8; i < SESSIONS; i++) {
        if (i == 0)
            before = used_bytes(self, rank); /* what the first ones took is for all */
        if (one_session(self, rank, got) != DJINN_OK)
            return dj_found_error(self, "one of many sessions");
    }
    if (before == UINT64_MAX)
        return dj_found(self, DJ_CHECK_SKIPPED, "the GPU does not say how much of its memory is in use");
    uint64_t after = used_at_least(self, rank, before);
    if (after > before)
        return dj_found(self, DJ_CHECK_FAIL, "%d sessions came and went, and %llu bytes of the GPU's are used, not %llu",
                        SESSIONS, (unsigned long long)after, (unsigned long long)before);
    return dj_found(self, DJ_CHECK_OK, "%d sessions came and went, %.1f MiB of the GPU's are used as before", SESSIONS,
                    (double)after / (1 << 20));
}

const dj_check_t dj_selftest_gpu[] = {
    {"gpu-transfer", "cuda", "64 MiB up and down", check_transfer, NULL},
    {"gpu-cache", "cuda", "attention over a cache that fills, step by step", check_cache, NULL},
    {"gpu-replays", "cuda", "one program many times", check_replays, NULL},
    {"gpu-sessions", "cuda", "sessions leave the GPU's memory as it was", check_sessions, NULL},
};
const size_t dj_selftest_n_gpu = sizeof dj_selftest_gpu / sizeof dj_selftest_gpu[0];
