/* attention.c - scaled dot product attention, float32, forward.
 *
 * A unit of work is a run of query rows of one head. Its keys are turned once into [depth, length]
 * in the thread's workspace, so that both products (queries * keys, weights * values) are one small
 * product C = A * B with a broadcast A and dense rows of B: ROWS rows by two vectors stay in
 * registers. Between them each row is softmaxed in cache. The output is scaled by 1 / sum at the
 * end, when it is written with whatever strides it has.
 *
 * Few query rows (decoding) skip the turning: there the dot products read the keys where they lie,
 * and memory is the bound.
 *
 * A row that may attend to nothing gives zeros, as PyTorch's does. */
#include "gpu/host/convert.h"
#include "gpu/host/prepare.h"
#include "gpu/host/vector.h"

#if DJ_LANES == 16
#define ROWS 8
#else
#define ROWS 4
#endif
#define BLOCK_ROWS 32 /* query rows that share one pass; a multiple of ROWS */
#define FEW_ROWS 3    /* up to here the keys are not turned */
#define PAD (2 * DJ_LANES)
#define INLINE static inline __attribute__((always_inline))

typedef struct matrix {
    uint32_t place;
    int64_t strides[4]; /* batch, head, row, column; elements */
} matrix_t;

typedef struct attention {
    int64_t batch, heads, length, keys, depth, value_depth; /* `keys`: how many */
    int64_t group;                                          /* query heads a key head */
    matrix_t query, key, value, mask, out;
    bool has_mask, mask_is_bool, is_causal;
    bool key_dense, value_direct; /* rows dense in memory; values need no copy */
    dj_node_scalar_t scale;
    int64_t keys_padded, value_padded;
    int64_t splits; /* units a head */
    int64_t split_rows;
    uint64_t thread_bytes;
} attention_t;

/* What one thread works in. */
typedef struct scratch {
    float *turned;  /* [depth][keys_padded] */
    float *values;  /* [keys][value_padded], unless direct */
    float *scores;  /* [BLOCK_ROWS][keys_padded] */
    float *queries; /* [BLOCK_ROWS][depth], scaled */
    float *result;  /* [BLOCK_ROWS][value_padded] */
    float *added;   /* [keys_padded]: a row of the mask */
} scratch_t;

static int64_t round_up(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

/* --- the small product --- */

/* rows x (n_vectors * DJ_LANES) of C = A * B over k; constants for rows and n_vectors. */
INLINE void product_block(int rows, int n_vectors, int64_t k, const float *a, int64_t a_row,
                          const float *b, int64_t b_row, float *c, int64_t c_row)
{
    dj_vector_t acc[ROWS][2];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < n_vectors; v++)
            acc[r][v] = (dj_vector_t){0};
    for (int64_t i = 0; i < k; i++) {
        dj_vector_t x[2];
        for (int v = 0; v < n_vectors; v++)
            x[v] = *(const dj_vector_t *)(b + i * b_row + v * DJ_LANES);
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < n_vectors; v++)
                acc[r][v] += x[v] * a[r * a_row + i];
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < n_vectors; v++)
            *(dj_vector_t *)(c + r * c_row + v * DJ_LANES) = acc[r][v];
}

/* C[rows][n] = A[rows][k] * B[k][n]; n a multiple of DJ_LANES, rows <= ROWS. */
static void product_rows(int64_t rows, int64_t n, int64_t k, const float *a, int64_t a_row,
                         const float *b, int64_t b_row, float *c, int64_t c_row)
{
#define CASE(r)                                                                                    \
    case r:                                                                                        \
        for (; j + 2 * DJ_LANES <= n; j += 2 * DJ_LANES)                                           \
            product_block(r, 2, k, a, a_row, b + j, b_row, c + j, c_row);                          \
        for (; j < n; j += DJ_LANES)                                                               \
            product_block(r, 1, k, a, a_row, b + j, b_row, c + j, c_row);                          \
        break;
    int64_t j = 0;
    switch (rows) {
        CASE(1)
        CASE(2)
        CASE(3)
        CASE(4)
#if ROWS == 8
        CASE(5)
        CASE(6)
        CASE(7)
        CASE(8)
#endif
    }
#undef CASE
}

static void product(int64_t rows, int64_t n, int64_t k, const float *a, int64_t a_row,
                    const float *b, int64_t b_row, float *c, int64_t c_row)
{
    for (int64_t r = 0; r < rows; r += ROWS)
        product_rows(dj_host_min(rows - r, ROWS), n, k, a + r * a_row, a_row, b, b_row,
                     c + r * c_row, c_row);
}

/* --- bringing operands into shape --- */

/* Four rows of four become four columns. */
static inline void turn_quad(const float *from, int64_t from_row, float *to, int64_t to_row)
{
    dj_quad_t a = *(const dj_quad_t *)from, b = *(const dj_quad_t *)(from + from_row);
    dj_quad_t c = *(const dj_quad_t *)(from + 2 * from_row),
              d = *(const dj_quad_t *)(from + 3 * from_row);
    dj_quad_t ab = __builtin_shuffle(a, b, (dj_quad_mask_t){0, 4, 1, 5});
    dj_quad_t ab_high = __builtin_shuffle(a, b, (dj_quad_mask_t){2, 6, 3, 7});
    dj_quad_t cd = __builtin_shuffle(c, d, (dj_quad_mask_t){0, 4, 1, 5});
    dj_quad_t cd_high = __builtin_shuffle(c, d, (dj_quad_mask_t){2, 6, 3, 7});
    *(dj_quad_t *)to = __builtin_shuffle(ab, cd, (dj_quad_mask_t){0, 1, 4, 5});
    *(dj_quad_t *)(to + to_row) = __builtin_shuffle(ab, cd, (dj_quad_mask_t){2, 3, 6, 7});
    *(dj_quad_t *)(to + 2 * to_row) =
        __builtin_shuffle(ab_high, cd_high, (dj_quad_mask_t){0, 1, 4, 5});
    *(dj_quad_t *)(to + 3 * to_row) =
        __builtin_shuffle(ab_high, cd_high, (dj_quad_mask_t){2, 3, 6, 7});
}

/* Keys [keys][depth] into [depth][keys_padded], the padding zero. */
static void keys_turn(const attention_t *t, const float *key, float *turned)
{
    int64_t row = t->key.strides[2], column = t->key.strides[3], padded = t->keys_padded;
    int64_t s = 0;
    for (; t->key_dense && s + 4 <= t->keys; s += 4) {
        int64_t d = 0;
        for (; d + 4 <= t->depth; d += 4)
            turn_quad(key + s * row + d, row, turned + d * padded + s, padded);
        for (; d < t->depth; d++)
            for (int64_t i = 0; i < 4; i++)
                turned[d * padded + s + i] = key[(s + i) * row + d];
    }
    for (int64_t d = 0; d < t->depth; d++) {
        for (int64_t i = s; i < t->keys; i++)
            turned[d * padded + i] = key[i * row + d * column];
        for (int64_t i = t->keys; i < padded; i++)
            turned[d * padded + i] = 0;
    }
}

static void values_pack(const attention_t *t, const float *value, float *values)
{
    for (int64_t s = 0; s < t->keys; s++)
        for (int64_t d = 0; d < t->value_padded; d++)
            values[s * t->value_padded + d] =
                d < t->value_depth ? value[s * t->value.strides[2] + d * t->value.strides[3]] : 0;
}

static void queries_take(const attention_t *t, const float *query, int64_t rows, float scale,
                         float *queries)
{
    int64_t stride = t->query.strides[3];
    for (int64_t r = 0; r < rows; r++, query += t->query.strides[2], queries += t->depth)
        if (stride == 1)
            for (int64_t d = 0; d < t->depth; d++)
                queries[d] = scale * query[d];
        else
            for (int64_t d = 0; d < t->depth; d++)
                queries[d] = scale * query[d * stride];
}

/* --- one row of scores --- */

/* A row of the mask as numbers to add, minus infinity from n to padded. */
static void mask_read(const attention_t *t, const char *mask, int64_t n, int64_t padded,
                      float *added)
{
    int64_t stride = t->mask.strides[3];
    const uint8_t *keep = (const uint8_t *)mask;
    const float *add = (const float *)mask;
    if (t->mask_is_bool && stride == 1)
        for (int64_t s = 0; s < n; s++)
            added[s] = keep[s] ? 0 : -INFINITY;
    else if (t->mask_is_bool)
        for (int64_t s = 0; s < n; s++)
            added[s] = keep[s * stride] ? 0 : -INFINITY;
    else
        for (int64_t s = 0; s < n; s++)
            added[s] = add[s * stride];
    for (int64_t s = n; s < padded; s++)
        added[s] = -INFINITY;
}

/* Scores, with the mask added where there is one, become exponentials, zero from n to padded (a
 * multiple of DJ_LANES); returns 1 / sum, 0 where nothing is attended. */
static float row_weigh(float *row, const float *added, int64_t n, int64_t padded)
{
    dj_vector_t largest = (dj_vector_t){0} - INFINITY, sums = (dj_vector_t){0};
    for (int64_t s = 0; added && s < padded; s += DJ_LANES)
        *(dj_vector_t *)(row + s) += *(const dj_vector_t *)(added + s);
    for (int64_t s = n; s < padded; s++)
        row[s] = -INFINITY;
    for (int64_t s = 0; s < padded; s += DJ_LANES)
        largest = dj_vector_max(*(dj_vector_t *)(row + s), largest);
    float max = dj_vector_largest(largest);
    if (max == -INFINITY)
        max = 0;
    for (int64_t s = 0; s < padded; s += DJ_LANES) {
        dj_vector_t weight = dj_vector_exp(*(dj_vector_t *)(row + s) - max);
        *(dj_vector_t *)(row + s) = weight;
        sums += weight;
    }
    float sum = dj_vector_sum(sums);
    return sum == 0 ? 0 : 1 / sum;
}

/* Scores of a few rows straight from the keys. */
static void dot_rows(const attention_t *t, const float *key, int64_t rows, int64_t n,
                     const float *queries, float *scores)
{
    for (int64_t s = 0; s < n; s++) {
        const float *k = key + s * t->key.strides[2];
        for (int64_t r = 0; r < rows; r++) {
            const float *q = queries + r * t->depth;
            float sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int64_t d = 0; d < t->depth; d++)
                sum += q[d] * k[d];
            scores[r * t->keys_padded + s] = sum;
        }
    }
}

/* --- a block of query rows, a unit, a run --- */

typedef struct head {
    const float *query, *key, *value;
    const char *mask;
    float *out;
} head_t;

static void result_write(const attention_t *t, const float *result, int64_t rows,
                         const float *factors, float *out)
{
    for (int64_t r = 0; r < rows; r++) {
        const float *from = result + r * t->value_padded;
        float *to = out + r * t->out.strides[2];
        if (t->out.strides[3] == 1)
            for (int64_t d = 0; d < t->value_depth; d++)
                to[d] = from[d] * factors[r];
        else
            for (int64_t d = 0; d < t->value_depth; d++)
                to[d * t->out.strides[3]] = from[d] * factors[r];
    }
}

static void run_block(const attention_t *t, const head_t *head, const scratch_t *scratch,
                      int64_t first, int64_t rows, float scale, bool turned)
{
    float factors[BLOCK_ROWS];
    /* Under a causal mask nothing beyond the block's last row is needed. */
    int64_t n = t->is_causal ? dj_host_min(t->keys, first + rows) : t->keys;
    int64_t padded = round_up(n, DJ_LANES);
    queries_take(t, head->query + first * t->query.strides[2], rows, scale, scratch->queries);
    if (turned)
        product(rows, padded, t->depth, scratch->queries, t->depth, scratch->turned, t->keys_padded,
                scratch->scores, t->keys_padded);
    else
        dot_rows(t, head->key, rows, n, scratch->queries, scratch->scores);
    for (int64_t r = 0; r < rows; r++) {
        int64_t seen = t->is_causal ? dj_host_min(n, first + r + 1) : n;
        int64_t at = (first + r) * t->mask.strides[2] * (t->mask_is_bool ? 1 : 4);
        if (t->has_mask && (r == 0 || t->mask.strides[2] != 0))
            mask_read(t, head->mask + at, n, padded, scratch->added);
        factors[r] = row_weigh(scratch->scores + r * t->keys_padded,
                               t->has_mask ? scratch->added : NULL, seen, padded);
    }
    const float *values = t->value_direct ? head->value : scratch->values;
    int64_t value_row = t->value_direct ? t->value.strides[2] : t->value_padded;
    product(rows, t->value_padded, n, scratch->scores, t->keys_padded, values, value_row,
            scratch->result, t->value_padded);
    result_write(t, scratch->result, rows, factors, head->out + first * t->out.strides[2]);
}

static int64_t head_offset(const matrix_t *matrix, int64_t batch, int64_t head)
{
    return batch * matrix->strides[0] + head * matrix->strides[1];
}

static void run_unit(const attention_t *t, const dj_host_run_t *run, const scratch_t *scratch,
                     float scale, int64_t unit)
{
    int64_t split = unit % t->splits, h = unit / t->splits % t->heads;
    int64_t b = unit / t->splits / t->heads;
    int64_t item = t->mask_is_bool ? 1 : 4;
    head_t head = {
        .query = (float *)run->operands[t->query.place] + head_offset(&t->query, b, h),
        .key = (float *)run->operands[t->key.place] + head_offset(&t->key, b, h / t->group),
        .value = (float *)run->operands[t->value.place] + head_offset(&t->value, b, h / t->group),
        .out = (float *)run->outs[0] + head_offset(&t->out, b, h),
    };
    if (t->has_mask)
        head.mask = (char *)run->operands[t->mask.place] + head_offset(&t->mask, b, h) * item;
    int64_t first = split * t->split_rows;
    int64_t end = dj_host_min(first + t->split_rows, t->length);
    bool turned = end - first > FEW_ROWS || !t->key_dense;
    if (turned)
        keys_turn(t, head.key, scratch->turned);
    if (!t->value_direct)
        values_pack(t, head.value, scratch->values);
    for (; first < end; first += BLOCK_ROWS)
        run_block(t, &head, scratch, first, dj_host_min(end - first, BLOCK_ROWS), scale, turned);
}

static uint64_t scratch_lay(const attention_t *t, char *base, scratch_t *scratch)
{
    uint64_t at = 0;
    struct {
        float **field;
        int64_t floats;
    } parts[] = {
        {&scratch->turned, t->depth * t->keys_padded},
        {&scratch->values, t->value_direct ? 0 : t->keys * t->value_padded},
        {&scratch->scores, BLOCK_ROWS * t->keys_padded},
        {&scratch->queries, BLOCK_ROWS * t->depth},
        {&scratch->result, BLOCK_ROWS * t->value_padded},
        {&scratch->added, t->has_mask ? t->keys_padded : 0},
    };
    for (uint32_t i = 0; i < sizeof(parts) / sizeof(*parts); i++) {
        *parts[i].field = base ? (float *)(base + at) : NULL;
        at += (uint64_t)round_up(parts[i].floats, 16) * sizeof(float);
    }
    return at;
}

/* In the unit of DJ_HOST_FORK_ELEMENTS: products by the vector. */
static int64_t work_size(const attention_t *t)
{
    return t->batch * t->heads * t->length * t->keys * (t->depth + t->value_depth) / 16;
}

static void run_attention(const dj_host_kernel_t *kernel, const dj_host_run_t *run)
{
    const attention_t *t = kernel->state;
    int64_t units = t->batch * t->heads * t->splits;
    float scale = t->scale.slot == DJ_SLOT_NONE ? 1 / sqrtf((float)t->depth)
                                                : (float)dj_host_scalar_real(run, t->scale);
    uint32_t threads = dj_host_threads(run, work_size(t));
    scratch_t scratch;
    if (threads == 1 || units < 2) {
        scratch_lay(t, run->workspace, &scratch);
        for (int64_t unit = 0; unit < units; unit++)
            run_unit(t, run, &scratch, scale, unit);
        return;
    }
#pragma omp parallel num_threads(threads) private(scratch)
    {
        scratch_lay(t, (char *)run->workspace + (uint64_t)omp_get_thread_num() * t->thread_bytes,
                    &scratch);
        /* Causal units differ in cost, so they are dealt as threads come free. */
#pragma omp for schedule(dynamic, 1)
        for (int64_t unit = 0; unit < units; unit++)
            run_unit(t, run, &scratch, scale, unit);
    }
}

/* --- prepare --- */

/* Views of up to four dimensions, the missing ones leading; size 1 broadcasts. */
static bool matrix_take(const dj_view_t *view, const int64_t *sizes, matrix_t *matrix)
{
    if (view->rank > 4)
        return false;
    uint32_t lead = 4u - view->rank;
    for (uint32_t d = 0; d < 4; d++) {
        int64_t size = d < lead ? 1 : view->sizes[d - lead];
        if (size != 1 && size != sizes[d])
            return false;
        matrix->strides[d] = size == 1 ? 0 : view->strides[d - lead];
    }
    return true;
}

static int64_t size_of(const dj_view_t *view, uint32_t d)
{
    return d + view->rank >= 4 ? view->sizes[d + view->rank - 4] : 1;
}

static bool operands_take(attention_t *t, const dj_node_t *node)
{
    const dj_view_t *views[4] = {0};
    matrix_t *matrices[4] = {&t->query, &t->key, &t->value, &t->mask};
    for (uint32_t i = 0; i < 4; i++) {
        const dj_operand_t *operand = dj_node_operand(node, i);
        views[i] = operand ? &operand->view : NULL;
        matrices[i]->place = dj_node_operand_index(&node->call, i);
        if (i < 3 && (!operand || operand->view.dtype != DJ_F32 || operand->view.rank > 4 ||
                      operand->view.rank < 2))
            return false;
    }
    t->batch = size_of(views[0], 0);
    t->heads = size_of(views[0], 1);
    t->length = size_of(views[0], 2);
    t->depth = size_of(views[0], 3);
    t->keys = size_of(views[1], 2);
    t->value_depth = size_of(views[2], 3);
    int64_t key_heads = size_of(views[1], 1);
    t->group = key_heads > 0 && t->heads % key_heads == 0 ? t->heads / key_heads : 0;
    int64_t query[4] = {t->batch, t->heads, t->length, t->depth};
    int64_t key[4] = {t->batch, key_heads, t->keys, t->depth};
    int64_t value[4] = {t->batch, key_heads, t->keys, t->value_depth};
    int64_t mask[4] = {t->batch, t->heads, t->length, t->keys};
    int64_t out[4] = {t->batch, t->heads, t->length, t->value_depth};
    t->has_mask = views[3] != NULL;
    t->mask_is_bool = t->has_mask && views[3]->dtype == DJ_BOOL;
    if (t->has_mask &&
        ((views[3]->dtype != DJ_F32 && !t->mask_is_bool) || !matrix_take(views[3], mask, &t->mask)))
        return false;
    return t->group > 0 && node->outs[0].view.dtype == DJ_F32 &&
           matrix_take(views[0], query, &t->query) && matrix_take(views[1], key, &t->key) &&
           matrix_take(views[2], value, &t->value) &&
           matrix_take(&node->outs[0].view, out, &t->out);
}

/* Heads are split when there are fewer of them than threads to keep busy. */
static void units_choose(attention_t *t, uint32_t threads)
{
    int64_t heads = dj_host_max(1, t->batch * t->heads), wanted = 4 * (int64_t)threads;
    int64_t blocks = (t->length + BLOCK_ROWS - 1) / BLOCK_ROWS;
    t->splits = 1;
    if (threads > 1 && heads < wanted)
        t->splits = dj_host_max(1, dj_host_min((wanted + heads - 1) / heads, blocks / 2));
    t->split_rows = round_up((t->length + t->splits - 1) / t->splits, BLOCK_ROWS);
}

dj_status_t dj_host_attention_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel)
{
    const dj_node_t *node = kernel->node;
    attention_t *t = dj_host_arena(exe, sizeof(*t));
    if (!t)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a kernel's state");
    if (!operands_take(t, node))
        return dj_fail(DJ_ERR_UNSUPPORTED, "attention has a host kernel for float32 [batch, heads, "
                                           "length, depth] with a bool or float32 mask only");
    t->is_causal = dj_node_flag(node, 5, 0) != 0;
    t->scale = dj_node_scalar(node, 6);
    t->keys_padded = round_up(t->keys, PAD);
    t->value_padded = round_up(t->value_depth, DJ_LANES);
    t->key_dense = t->key.strides[3] == 1 || t->depth == 1;
    t->value_direct = t->value_padded == t->value_depth && t->value.strides[3] == 1;
    units_choose(t, dj_host_device_threads(exe));
    scratch_t scratch;
    t->thread_bytes = scratch_lay(t, NULL, &scratch);
    kernel->workspace_bytes = t->thread_bytes * dj_host_device_threads(exe);
    kernel->state = t;
    kernel->run = run_attention;
    kernel->threaded = work_size(t) >= DJ_HOST_FORK_ELEMENTS;
    return DJ_OK;
}
