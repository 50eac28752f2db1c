/* pointwise.c - every pointwise op, generated from its expression in ops.def.
 *
 * An op has one inner loop a compute class, over dense rows; gcc vectorises it and calls libmvec
 * for the functions (vector.h). Around it is one walk: where an operand is dense in the row and
 * already of the class it is used in place; otherwise a tile of it is converted, gathered or filled
 * into a buffer on the stack first, and the result goes through one when the output is of another
 * dtype or strided. So a bias, a mask, a scalar, a transposed or a converted operand all meet the
 * same inner loop. */
#include "gpu/host/convert.h"
#include "gpu/host/prepare.h"
#include "gpu/rules.h"
#include "gpu/host/vector.h"

#define erff dj_float_erf
#include "gpu/pointwise.h"
#undef erff

#define TILE 512
#define OPERANDS 3

typedef struct core_scalars {
    float f32[2];
    double f64[2];
    long i64[2];
    unsigned char b8[2];
} core_scalars_t;

typedef unsigned char test_t;
typedef void (*core_fn_t)(int64_t n, const void *const *in, const core_scalars_t *scalars,
                          void *out);

#define DJ_PW_CLASS f32
#define CORE_T float
#define CORE_CAST(x) ((float)(x))
#define CORE_REAL
#undef DJ_GELU
#define DJ_GELU(a) dj_float_gelu(a)
#include "gpu/host/pointwise_cores.h"
#undef DJ_GELU
#define DJ_GELU(a) DJ_PW_CALL(gelu)(a)

#define DJ_PW_CLASS f64
#define CORE_T double
#define CORE_CAST(x) ((double)(x))
#define CORE_REAL
#include "gpu/host/pointwise_cores.h"

#define DJ_PW_CLASS i64
#define CORE_T long
#define CORE_CAST(x) ((long)(x))
#include "gpu/host/pointwise_cores.h"

#define DJ_PW_CLASS b8
#define CORE_T test_t
#define CORE_CAST(x) ((x) != 0)
#include "gpu/host/pointwise_cores.h"

#define ROW_VALUE(id)                                                                              \
    [DJ_OP_##id] = {core_##id##_f32, core_##id##_f64, core_##id##_i64, core_##id##_b8},
#define ROW_TEST(id) ROW_VALUE(id)
#define ROW_REAL(id) [DJ_OP_##id] = {core_##id##_f32, core_##id##_f64, NULL, NULL},
#define ROW_NONE(id)
#define OP(id, name, signature, rule, ...) DJ_RULE_OF(ROW_, rule)(id)
static const core_fn_t cores[DJ_OP_COUNT][DJ_CLASSES] = {
#include "planner/ops.def"
};
#undef OP

static const struct {
    double exponent;
    core_fn_t core[2]; /* f32, f64 */
} powers[] = {
    {2, {core_SQUARE_f32, core_SQUARE_f64}},
    {3, {core_CUBE_f32, core_CUBE_f64}},
    {0.5, {core_ROOT_f32, core_ROOT_f64}},
    {-0.5, {core_INVERSE_ROOT_f32, core_INVERSE_ROOT_f64}},
    {-1, {core_INVERSE_f32, core_INVERSE_f64}},
    {-2, {core_INVERSE_SQUARE_f32, core_INVERSE_SQUARE_f64}},
};

typedef enum source_kind {
    SOURCE_NONE,   /* the op has no such operand */
    SOURCE_DIRECT, /* dense rows of the class */
    SOURCE_LOAD,   /* through a tile */
    SOURCE_SCALAR, /* a scalar standing in: a tile filled once */
    SOURCE_FILL,   /* one element for the whole loop: a tile filled once */
} source_kind_t;

typedef struct source {
    source_kind_t kind;
    uint32_t place;
    dj_host_load_fn_t load;
    dj_node_scalar_t scalar;
} source_t;

typedef struct pointwise {
    dj_loop_t loop; /* three operands, then the output */
    core_fn_t core;
    dj_class_t class;
    uint8_t own; /* the dtype in which the op computes, of that class */
    source_t sources[OPERANDS];
    uint32_t result_bytes;    /* of one element of the core's result */
    dj_host_store_fn_t store; /* NULL: the core writes the output itself */
    /* Into the op's dtype and back, where the output is of another: uint8 wraps before it becomes float32. */
    dj_host_store_fn_t round;
    dj_host_load_fn_t rounded;
    int64_t chunk;            /* the most elements at once */
    dj_node_scalar_t scalars[2];
    bool is_power;
} pointwise_t;

typedef union tile {
    double f64[TILE];
    float f32[TILE];
    int64_t i64[TILE];
    uint8_t b8[TILE];
} tile_t;

/* --- run --- */

static void scalars_read(const pointwise_t *p, const dj_host_run_t *run, core_scalars_t *scalars)
{
    for (uint32_t i = 0; i < 2; i++) {
        dj_node_scalar_t from = p->scalars[i];
        double real = i ? INFINITY : -INFINITY;
        int64_t integer = i ? INT64_MAX : INT64_MIN;
        if (from.slot != DJ_SLOT_NONE) {
            real = dj_host_scalar_real(run, from);
            integer = dj_integer_as(p->own, dj_host_scalar_integer(run, from));
        }
        scalars->f32[i] = (float)real;
        scalars->f64[i] = real;
        scalars->i64[i] = integer;
        scalars->b8[i] = from.slot == DJ_SLOT_NONE ? i : real != 0;
    }
}

static core_fn_t core_choose(const pointwise_t *p, const core_scalars_t *scalars)
{
    if (p->is_power && p->class <= DJ_CLASS_F64)
        for (uint32_t i = 0; i < sizeof(powers) / sizeof(*powers); i++)
            if (scalars->f64[0] == powers[i].exponent)
                return powers[i].core[p->class];
    return p->core;
}

static void scalar_fill(const pointwise_t *p, const dj_host_run_t *run, dj_node_scalar_t scalar,
                        int64_t n, tile_t *tile)
{
    double real = dj_host_scalar_real(run, scalar);
    int64_t integer = dj_integer_as(p->own, dj_host_scalar_integer(run, scalar));
    for (int64_t i = 0; i < n; i++) {
        if (p->class == DJ_CLASS_F32)
            tile->f32[i] = (float)real;
        else if (p->class == DJ_CLASS_F64)
            tile->f64[i] = real;
        else if (p->class == DJ_CLASS_I64)
            tile->i64[i] = integer;
        else
            tile->b8[i] = real != 0;
    }
}

/* The elements [first, end) of the loop's order. */
static void run_range(const pointwise_t *p, const dj_host_run_t *run, core_fn_t core,
                      const core_scalars_t *scalars, void *const *bases, int64_t first, int64_t end)
{
    tile_t tiles[OPERANDS], result, own;
    const void *in[OPERANDS];
    dj_walk_t walk;
    uint32_t inner = p->loop.rank - 1;
    dj_walk_seek(&p->loop, &walk, bases, first);
    int64_t widest = dj_host_min(end - first, TILE);
    for (uint32_t k = 0; k < OPERANDS; k++) {
        in[k] = tiles[k].b8;
        if (p->sources[k].kind == SOURCE_NONE)
            in[k] = in[0];
        else if (p->sources[k].kind == SOURCE_SCALAR)
            scalar_fill(p, run, p->sources[k].scalar, widest, &tiles[k]);
        else if (p->sources[k].kind == SOURCE_FILL)
            p->sources[k].load(widest, bases[k], 0, &tiles[k]);
    }
    while (first < end) {
        int64_t n = dj_host_min(dj_walk_row(&p->loop, &walk), dj_host_min(end - first, p->chunk));
        for (uint32_t k = 0; k < OPERANDS; k++) {
            if (p->sources[k].kind == SOURCE_DIRECT)
                in[k] = walk.at[k];
            else if (p->sources[k].kind == SOURCE_LOAD)
                p->sources[k].load(n, walk.at[k], p->loop.strides[k][inner], &tiles[k]);
            else if (p->sources[k].kind == SOURCE_NONE)
                in[k] = in[0];
        }
        core(n, in, scalars, p->store ? (void *)&result : walk.at[OPERANDS]);
        if (p->round) {
            int64_t item = dj_dtype_bytes(p->own);
            p->round(n, &result, &own, item);
            p->rounded(n, &own, item, &result);
        }
        if (p->store)
            p->store(n, &result, walk.at[OPERANDS], p->loop.strides[OPERANDS][inner]);
        first += n;
        if (first < end)
            dj_walk_advance(&p->loop, &walk, n);
    }
}

typedef struct job {
    core_scalars_t scalars;
    void *bases[OPERANDS + 1];
    core_fn_t core;
} job_t;

static void job_init(const pointwise_t *p, const dj_host_run_t *run, job_t *job)
{
    for (uint32_t k = 0; k < OPERANDS; k++)
        if (p->sources[k].kind == SOURCE_NONE || p->sources[k].kind == SOURCE_SCALAR)
            job->bases[k] = run->outs[0];
        else
            job->bases[k] = run->operands[p->sources[k].place];
    job->bases[OPERANDS] = run->outs[0];
    scalars_read(p, run, &job->scalars);
    job->core = core_choose(p, &job->scalars);
}

/* The output is contiguous, so the loop's order is the elements'. */
static void run_part(const dj_host_kernel_t *kernel, const dj_host_run_t *run, int64_t first,
                     int64_t end)
{
    const pointwise_t *p = kernel->state;
    job_t job;
    job_init(p, run, &job);
    run_range(p, run, job.core, &job.scalars, job.bases, first, end);
}

static void run_pointwise(const dj_host_kernel_t *kernel, const dj_host_run_t *run)
{
    const pointwise_t *p = kernel->state;
    if (p->loop.count == 0)
        return;
    job_t job;
    job_init(p, run, &job);
    uint32_t threads = dj_host_threads(run, p->loop.count);
    if (threads == 1) {
        run_range(p, run, job.core, &job.scalars, job.bases, 0, p->loop.count);
        return;
    }
#pragma omp parallel num_threads(threads)
    {
        int64_t first, end;
        dj_host_share(p->loop.count, 64, &first, &end);
        if (first < end)
            run_range(p, run, job.core, &job.scalars, job.bases, first, end);
    }
}

/* --- prepare --- */

static bool row_is_dense(const dj_loop_t *loop, uint32_t k, uint8_t dtype, dj_class_t class)
{
    return dtype == dj_class_dtype(class) &&
           loop->strides[k][loop->rank - 1] == (int64_t)dj_dtype_bytes(dtype);
}

static bool loop_stands_still(const dj_loop_t *loop, uint32_t k)
{
    for (uint32_t d = 0; d < loop->rank; d++)
        if (loop->strides[k][d] != 0)
            return false;
    return true;
}

static void source_init(pointwise_t *p, uint32_t k, const dj_view_t *view)
{
    source_t *source = &p->sources[k];
    if (!view) {
        source->kind = source->scalar.slot == DJ_SLOT_NONE ? SOURCE_NONE : SOURCE_SCALAR;
    } else {
        source->load = dj_host_load_of(view->dtype, p->class);
        source->kind = row_is_dense(&p->loop, k, view->dtype, p->class) ? SOURCE_DIRECT
                       : loop_stands_still(&p->loop, k)                 ? SOURCE_FILL
                                                                        : SOURCE_LOAD;
    }
    if (source->kind > SOURCE_DIRECT)
        p->chunk = TILE;
}

/* Tensor arguments in order become a, b, c; scalar arguments in order s0, s1. */
static void arguments_take(pointwise_t *p, const dj_node_t *node, const dj_view_t **views)
{
    const char *signature = dj_op_info(node->call.op)->signature;
    uint32_t tensors = 0, scalars = 0;
    for (uint32_t i = 0; i < node->call.n_args; i++) {
        if (signature[i] == 't' && tensors < OPERANDS) {
            source_t *source = &p->sources[tensors];
            source->scalar = dj_node_scalar(node, i);
            source->place = dj_node_operand_index(&node->call, i);
            if (source->scalar.slot == DJ_SLOT_NONE)
                views[tensors] = &dj_node_operand(node, i)->view;
            tensors++;
        } else if ((signature[i] == 's' || signature[i] == 'S') && scalars < 2) {
            p->scalars[scalars++] = dj_node_scalar(node, i);
        }
    }
}

static dj_status_t class_check(const dj_node_t *node, dj_class_t class)
{
    uint16_t op = node->call.op;
    bool bits = op == DJ_OP_BITWISE_NOT || op == DJ_OP_BITWISE_AND || op == DJ_OP_BITWISE_OR ||
                op == DJ_OP_BITWISE_XOR;
    if (!cores[op][class] || (bits && class <= DJ_CLASS_F64))
        return dj_fail(DJ_ERR_UNSUPPORTED, "%s has no host kernel that computes in %s",
                       dj_op_info(op)->name, dj_dtype_name(dj_class_dtype(class)));
    return DJ_OK;
}

dj_status_t dj_host_pointwise_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel)
{
    const dj_node_t *node = kernel->node;
    const dj_view_t *out = &node->outs[0].view;
    const dj_view_t *views[OPERANDS + 1] = {NULL, NULL, NULL, out};
    pointwise_t *p = dj_host_arena(exe, sizeof(*p));
    if (!p)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a kernel's state");
    p->own = dj_op_compute_dtype(&node->call);
    p->class = dj_class_of(p->own);
    for (uint32_t k = 0; k < OPERANDS; k++)
        p->sources[k].scalar.slot = DJ_SLOT_NONE;
    p->scalars[0].slot = p->scalars[1].slot = DJ_SLOT_NONE;
    dj_status_t status = class_check(node, p->class);
    if (status != DJ_OK)
        return status;
    arguments_take(p, node, views);
    status = dj_loop_make(&p->loop, views, OPERANDS + 1);
    if (status != DJ_OK)
        return status;
    p->core = cores[node->call.op][p->class];
    p->chunk = INT64_MAX;
    for (uint32_t k = 0; k < OPERANDS; k++)
        source_init(p, k, views[k]);
#define RESULT_VALUE p->class
#define RESULT_REAL p->class
#define RESULT_TEST DJ_CLASS_B8
#define RESULT_NONE p->class
#define OP(id, name, signature, rule, ...) [DJ_OP_##id] = DJ_RULE_OF(RESULT_, rule),
    const uint8_t results[DJ_OP_COUNT] = {
#include "planner/ops.def"
    };
#undef OP
    dj_class_t result = results[node->call.op];
    if (!row_is_dense(&p->loop, OPERANDS, out->dtype, result)) {
        p->store = dj_host_store_of(result, out->dtype);
        p->chunk = TILE;
    }
    if (result == p->class && p->own != out->dtype && p->own != dj_class_dtype(p->class)) {
        p->round = dj_host_store_of(result, p->own);
        p->rounded = dj_host_load_of(p->own, result);
    }
    p->is_power = node->call.op == DJ_OP_POW_SCALAR;
    kernel->run = run_pointwise;
    kernel->run_part = run_part;
    kernel->state = p;
    kernel->in_place = true;
    kernel->threaded = p->loop.count >= DJ_HOST_FORK_ELEMENTS;
    return DJ_OK;
}
