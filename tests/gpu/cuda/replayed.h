/* replayed.h - programs that tests replay, on the CUDA device and on the host, and what lies behind their bindings.
 *
 * Values are small integers, so sums are exact in any order and every byte must agree. A *session* is one set of
 * memory behind a program's bindings, on both devices; each run starts from the session's own contents. The simulator's
 * hooks are NULL on a GPU.
 *
 * ATTEMPT(call): what is done with a call that may fail for want of memory; unless a test says otherwise, it may not. */
#ifndef DJ_TESTS_GPU_CUDA_REPLAYED_H
#define DJ_TESTS_GPU_CUDA_REPLAYED_H

#include <dlfcn.h>

#include "tests/gpu/cuda/open.h"
#include "tests/gpu/simulator/simulator.h"

#define SLACK_BYTES 4096u
#ifndef ATTEMPT
#define ATTEMPT(call) CHECK_OK(call)
#endif

static dj_device_t *cuda, *host;
static void (*counters_of)(sim_counters_t *);
static void (*set_fault)(CUresult);
static void (*fail_next)(const char *, CUresult);
static void (*hang_next)(int);
static void (*end_hang)(void);
static CUresult (*enqueue)(CUstream, void (*)(void *), const void *, size_t);

/* ---- programs ---- */

typedef struct program program_t;

/* What an input holds at first: small integers, or indices below a bound. */
typedef struct filling {
    uint8_t dtype;
    int64_t below;
} filling_t;

struct program {
    test_case_t on_host, on_cuda;
    filling_t fillings[CASE_BINDINGS_MAX];
    dj_text_t texts[CASE_BINDINGS_MAX]; /* stand-ins: bind() compares them and no more */
    dj_segment_t stack;
    uint8_t *host_stack;
};

typedef dj_operand_t (*record_t)(program_t *program, test_case_t *test);

static inline dj_view_t view(uint8_t dtype, uint8_t rank, int64_t a, int64_t b)
{
    int64_t sizes[] = {a, b};
    return dj_view_contiguous(dtype, rank, sizes);
}

static inline dj_operand_t input(program_t *program, test_case_t *test, dj_operand_class_t class, dj_view_t of, int64_t below)
{
    uint32_t at = test->n_inputs;
    program->fillings[at] = (filling_t){of.dtype, below};
    if (class == DJ_CLASS_WEIGHT && test == &program->on_cuda) {
        program->texts[at].serial = at + 1;
        test->texts[at] = &program->texts[at];
    }
    return case_input(test, class, NULL, dj_view_dense_bytes(&of), of);
}

static inline dj_operand_t op1(test_case_t *test, uint16_t op, dj_operand_t a)
{
    dj_arg_t args[] = {tensor_arg(&a)};
    return case_add(test, op, args, 1, NULL);
}

static inline dj_operand_t op2(test_case_t *test, uint16_t op, dj_operand_t a, dj_operand_t b)
{
    dj_arg_t args[] = {tensor_arg(&a), tensor_arg(&b)};
    return case_add(test, op, args, 2, NULL);
}

static inline dj_operand_t plus(test_case_t *test, dj_operand_t a, dj_operand_t b, double times)
{
    dj_arg_t args[] = {tensor_arg(&a), tensor_arg(&b), real_arg(times)};
    return case_add(test, DJ_OP_ADD, args, 3, NULL);
}

static inline dj_operand_t convert(test_case_t *test, dj_operand_t a, uint8_t dtype)
{
    dj_arg_t args[] = {tensor_arg(&a), {.kind = DJ_ARG_INTEGER, .integer = dtype, .slot = DJ_SLOT_NONE}};
    return case_add(test, DJ_OP_TO_COPY, args, 2, NULL);
}

static inline dj_operand_t flip(test_case_t *test, dj_operand_t a, const dj_operand_t *target)
{
    static const int64_t first[] = {0};
    dj_arg_t args[] = {tensor_arg(&a),
                       {.kind = DJ_ARG_INTEGERS, .count = 1, .integers = first, .slot = DJ_SLOT_NONE}};
    return case_add(test, DJ_OP_FLIP, args, 2, target);
}

static inline dj_operand_t rows_of(test_case_t *test, dj_operand_t table, dj_operand_t indices)
{
    dj_arg_t args[] = {tensor_arg(&table), tensor_arg(&indices), {.kind = DJ_ARG_NONE, .slot = DJ_SLOT_NONE},
                       {.kind = DJ_ARG_NONE, .slot = DJ_SLOT_NONE}, {.kind = DJ_ARG_NONE, .slot = DJ_SLOT_NONE}};
    return case_add(test, DJ_OP_EMBEDDING, args, 5, NULL);
}

static inline dj_operand_t record_network(program_t *program, test_case_t *test)
{
    dj_operand_t w = input(program, test, DJ_CLASS_WEIGHT, view(DJ_F32, 2, 24, 40), 0);
    dj_operand_t v = input(program, test, DJ_CLASS_WEIGHT, view(DJ_F32, 2, 40, 8), 0);
    dj_operand_t x = input(program, test, DJ_CLASS_IMMEDIATE, view(DJ_F32, 2, 5, 24), 0);
    dj_operand_t h = op1(test, DJ_OP_RELU, op2(test, DJ_OP_MM, x, w));
    h = plus(test, h, op2(test, DJ_OP_MUL, h, h), 0.5);
    return op2(test, DJ_OP_MM, h, v);
}

static inline dj_operand_t record_moves(program_t *program, test_case_t *test)
{
    dj_operand_t a = input(program, test, DJ_CLASS_STATE, view(DJ_F32, 2, 33, 7), 0);
    return convert(test, flip(test, convert(test, flip(test, a, NULL), DJ_F64), NULL), DJ_BF16);
}

static inline dj_operand_t record_lookup(program_t *program, test_case_t *test)
{
    dj_operand_t table = input(program, test, DJ_CLASS_WEIGHT, view(DJ_F32, 2, 50, 16), 0);
    dj_operand_t indices = input(program, test, DJ_CLASS_IMMEDIATE, view(DJ_I64, 1, 9, 0), 50);
    return plus(test, rows_of(test, table, indices), op1(test, DJ_OP_RELU, rows_of(test, table, indices)), 2);
}

/* In place, into a window that overlaps what is read: staged. */
static inline dj_operand_t record_staged(program_t *program, test_case_t *test)
{
    dj_operand_t a = input(program, test, DJ_CLASS_STATE, view(DJ_F32, 1, 100, 0), 0), target = a;
    a.view = target.view = view(DJ_F32, 1, 50, 0);
    a.view.strides[0] = target.view.strides[0] = 2;
    target.view.offset = 2;
    target.view.sizes[0] = a.view.sizes[0] = 40;
    return flip(test, a, &target);
}

/* A row of a cache, at a position that moves. */
static inline dj_operand_t record_cache(program_t *program, test_case_t *test)
{
    dj_operand_t cache = input(program, test, DJ_CLASS_STATE, view(DJ_F32, 2, 16, 8), 0), row = cache;
    dj_operand_t x = input(program, test, DJ_CLASS_IMMEDIATE, view(DJ_F32, 1, 8, 0), 0);
    row.view = view(DJ_F32, 1, 8, 0);
    row.view.offset = 8;
    dj_arg_t args[] = {tensor_arg(&x)};
    case_add(test, DJ_OP_COPY, args, 1, &row);
    return convert(test, cache, DJ_F64);
}

static inline void build_on(program_t *program, test_case_t *test, dj_device_t *device, record_t record)
{
    case_open(test, device);
    dj_operand_t out = record(program, test);
    ATTEMPT(case_build(test, &out.storage, record == record_staged ? 0 : 1));
}

static inline void program_open(program_t *program, record_t record)
{
    memset(program, 0, sizeof(*program));
    build_on(program, &program->on_host, host, record);
    build_on(program, &program->on_cuda, cuda, record);
    uint64_t slab = program->on_cuda.plan->peak_bytes + SLACK_BYTES;
    ATTEMPT(dj_segment_init(&program->stack, cuda, slab));
    ATTEMPT(dj_segment_grow(&program->stack, slab));
    program->host_stack = aligned_alloc(256, dj_align_up(program->on_host.plan->peak_bytes + 256));
    assert_non_null(program->host_stack);
    ATTEMPT(host->ops->bind(program->on_host.exe, program->on_host.texts));
    ATTEMPT(cuda->ops->bind(program->on_cuda.exe, program->on_cuda.texts));
}

static inline void program_close(program_t *program)
{
    dj_segment_fini(&program->stack);
    free(program->host_stack);
    case_close(&program->on_host);
    case_close(&program->on_cuda);
}

/* ---- sessions ---- */

typedef struct session {
    uint32_t n;
    uint64_t bytes[CASE_BINDINGS_MAX];
    uint8_t *first[CASE_BINDINGS_MAX]; /* contents at the start of each run */
    uint8_t *host[CASE_BINDINGS_MAX];  /* after a run there */
    dj_segment_t cuda[CASE_BINDINGS_MAX];
    void *bindings[CASE_BINDINGS_MAX];
    bool shared[CASE_BINDINGS_MAX]; /* another session's memory: weights */
} session_t;

static inline void fill(uint8_t *memory, uint64_t bytes, filling_t filling, uint32_t seed)
{
    uint64_t n = filling.dtype == DJ_I64 ? bytes / 8 : bytes / 4;
    for (uint64_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        if (filling.dtype == DJ_I64)
            ((int64_t *)(void *)memory)[i] = (seed >> 8) % filling.below;
        else
            ((float *)(void *)memory)[i] = (float)((int)(seed >> 16) % 7 - 3);
    }
}

/* Weights are those of `like`, if there is one. */
static inline void session_open(session_t *session, const program_t *program, uint32_t seed, const session_t *like)
{
    const dj_graph_t *graph = program->on_cuda.graph;
    memset(session, 0, sizeof(*session));
    session->n = graph->n_bindings;
    for (uint32_t i = 0; i < session->n; i++) {
        const dj_storage_t *storage = &graph->storages[graph->bindings[i]];
        uint64_t bytes = session->bytes[i] = storage->bytes;
        session->first[i] = calloc(1, bytes);
        session->host[i] = aligned_alloc(64, (bytes + 63) & ~63ull);
        assert_true(session->first[i] && session->host[i]);
        session->shared[i] = like && storage->is_input && storage->input_class == DJ_CLASS_WEIGHT;
        if (i < graph->n_inputs)
            fill(session->first[i], bytes, program->fillings[i], session->shared[i] ? 1 : seed + i);
        if (session->shared[i]) {
            memcpy(session->first[i], like->first[i], bytes);
            session->cuda[i] = like->cuda[i];
        } else {
            ATTEMPT(dj_segment_init(&session->cuda[i], cuda, bytes));
            ATTEMPT(dj_segment_grow(&session->cuda[i], bytes));
        }
        session->bindings[i] = session->cuda[i].base;
    }
}

static inline void session_close(session_t *session)
{
    for (uint32_t i = 0; i < session->n; i++) {
        free(session->first[i]);
        free(session->host[i]);
        if (!session->shared[i])
            dj_segment_fini(&session->cuda[i]);
    }
}

static uint64_t *scalars_of(const program_t *program)
{
    return (uint64_t *)program->on_cuda.program.scalars.data;
}

static inline dj_status_t replay(program_t *program, session_t *session)
{
    for (uint32_t i = 0; i < session->n; i++)
        ATTEMPT(cuda->ops->memory.copy_in(cuda, session->bindings[i], session->first[i], session->bytes[i]));
    dj_launch_t launch = {session->bindings, program->stack.base, NULL, scalars_of(program)};
    return cuda->ops->replay(program->on_cuda.exe, &launch);
}

static inline dj_status_t replay_on_host(program_t *program, session_t *session)
{
    for (uint32_t i = 0; i < session->n; i++)
        memcpy(session->host[i], session->first[i], session->bytes[i]);
    dj_launch_t launch = {(void *const *)session->host, program->host_stack, NULL, scalars_of(program)};
    return host->ops->replay(program->on_host.exe, &launch);
}

static inline void same_as_host(session_t *session)
{
    for (uint32_t i = 0; i < session->n; i++) {
        uint8_t *got = malloc(session->bytes[i]);
        assert_non_null(got);
        ATTEMPT(cuda->ops->memory.copy_out(cuda, got, session->bindings[i], session->bytes[i]));
        assert_memory_equal(got, session->host[i], session->bytes[i]);
        free(got);
    }
}

static inline void run_both(program_t *program, session_t *session)
{
    ATTEMPT(replay(program, session));
    ATTEMPT(replay_on_host(program, session));
    same_as_host(session);
}

static inline dj_cuda_counters_t *counted(program_t *program)
{
    return &exe_of(&program->on_cuda)->counters;
}

#define COUNTED(program_, direct_, graphs_, captures_)                                             \
    do {                                                                                           \
        assert_int_equal(counted(program_)->direct_replays, (direct_));                            \
        assert_int_equal(counted(program_)->graph_replays, (graphs_));                             \
        assert_int_equal(counted(program_)->captures, (captures_));                                \
    } while (0)

/* ---- both devices ---- */

/* False: there is no GPU here. */
static inline bool devices_open(void)
{
    cuda = open_cuda();
    if (!cuda)
        return false;
    host = fixture_open(1);
    void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    *(void **)&counters_of = driver ? dlsym(driver, "sim_counters") : NULL;
    *(void **)&set_fault = driver ? dlsym(driver, "sim_set_fault") : NULL;
    *(void **)&fail_next = driver ? dlsym(driver, "sim_fail_next") : NULL;
    *(void **)&hang_next = driver ? dlsym(driver, "sim_hang_next") : NULL;
    *(void **)&end_hang = driver ? dlsym(driver, "sim_end_hang") : NULL;
    *(void **)&enqueue = driver ? dlsym(driver, "sim_enqueue") : NULL;
    return true;
}

static inline void devices_close(void)
{
    dj_device_close(host);
    dj_device_close(cuda);
}

#endif
