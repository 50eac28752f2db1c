/* test_ops.c - every row of op_cases.def and bad_cases.def on the CUDA device: recorded, compiled, planned and
 * replayed, and compared with the plain reference. On a GPU where there is one, else on the simulator.
 *
 * Tensors are mirrored into device memory with their margins, so what a kernel writes beside a tensor shows. Each
 * case is replayed three times from the same start: to the stream, as a graph that is captured, and as a graph that
 * is there; all three must give the same bytes. The slab is poisoned and its highest changed byte must be the
 * plan's peak.
 *
 * "--rows FILE" runs lines of "ID arguments" instead, "--only WORD" the rows whose name holds the word, "--every N"
 * every Nth row. DJINN_LOG=cuda=debug names the device functions that run. */
#include "tests/gpu/recorded.h"

#include "gpu/cuda/cuda_device.h"
#include "runtime/base/log.h"

#define REPLAYS 3
#define SLACK_BYTES 4096u

typedef struct row {
    uint16_t op;
    const char *text;
    char name[160];
    bool is_bad;
} row_t;

static const row_t good_rows[] = {
#define CASE(id, text) {DJ_OP_##id, text, "", false},
#include "tests/gpu/op_cases.def"
#undef CASE
};

static const row_t bad_rows[] = {
#define BAD(id, text) {DJ_OP_##id, text, "", true},
#include "tests/gpu/bad_cases.def"
#undef BAD
};

static const char *const op_ids[] = {
#define OP(id, ...) #id,
#include "planner/ops.def"
#undef OP
};

static dj_device_t *device;
static size_t every = 1;

/* ---- a case's memory on the device ---- */

typedef struct mirror {
    uint8_t *host; /* with its margins */
    uint64_t bytes;
    uint8_t *first; /* as it was before the first replay, then the first replay's result */
    dj_segment_t segment;
} mirror_t;

typedef struct mirrors {
    mirror_t of[2 * CASE_TENSORS_MAX];
    uint32_t n;
} mirrors_t;

static void *mirror_add(mirrors_t *m, case_tensor_t *tensor)
{
    mirror_t *at = &m->of[m->n++];
    at->host = tensor->memory;
    at->bytes = tensor->bytes + 2 * CASE_MARGIN;
    at->first = malloc(at->bytes);
    assert_non_null(at->first);
    memcpy(at->first, at->host, at->bytes);
    expect_ok(dj_segment_init(&at->segment, device, at->bytes));
    expect_ok(dj_segment_grow(&at->segment, at->bytes));
    return at->segment.base + CASE_MARGIN;
}

/* In the bindings' order: inputs, then the outputs that are no inputs. */
static void mirror_all(mirrors_t *m, recorded_t *r)
{
    uint32_t next = 0;
    for (uint32_t i = 0; i < r->c.n_tensors; i++)
        r->program.bindings[next++] = mirror_add(m, &r->c.tensors[i]);
    for (uint32_t i = 0; i < r->n_outs; i++)
        if (r->results[i].data)
            r->program.bindings[next++] = mirror_add(m, &r->results[i]);
}

static void mirrors_fill(const mirrors_t *m)
{
    for (uint32_t i = 0; i < m->n; i++)
        expect_ok(device->ops->memory.copy_in(device, m->of[i].segment.base, m->of[i].first, m->of[i].bytes));
}

static void mirrors_read(const mirrors_t *m)
{
    for (uint32_t i = 0; i < m->n; i++)
        expect_ok(device->ops->memory.copy_out(device, m->of[i].host, m->of[i].segment.base, m->of[i].bytes));
}

static void mirrors_free(mirrors_t *m)
{
    for (uint32_t i = 0; i < m->n; i++) {
        dj_segment_fini(&m->of[i].segment);
        free(m->of[i].first);
    }
}

/* ---- replays ---- */

static uint64_t peak_of(const dj_segment_t *stack, uint64_t bytes)
{
    uint8_t *copy = malloc(bytes);
    assert_non_null(copy);
    expect_ok(device->ops->memory.copy_out(device, copy, stack->base, bytes));
    uint64_t peak = bytes;
    while (peak > 0 && copy[peak - 1] == DJ_POISON_BYTE)
        peak--;
    free(copy);
    return peak;
}

static void poison(const dj_segment_t *stack, uint64_t bytes)
{
    uint8_t *pattern = malloc(bytes);
    assert_non_null(pattern);
    memset(pattern, DJ_POISON_BYTE, bytes);
    expect_ok(device->ops->memory.copy_in(device, stack->base, pattern, bytes));
    free(pattern);
}

/* The slab's measured peak may fall short only where a library used less than the workspace it asked for. */
static void check_peak(const recorded_t *r, const dj_segment_t *stack, uint64_t slab)
{
    uint64_t peak = peak_of(stack, slab);
    assert_in_range(peak, 0, r->program.plan->peak_bytes);
    if (r->program.plan->workspace_bytes == 0)
        assert_int_equal(peak, r->program.plan->peak_bytes);
}

static void same_as_before(mirrors_t *m, bool *known_p, uint8_t **known)
{
    for (uint32_t i = 0; i < m->n; i++) {
        if (!*known_p) {
            known[i] = malloc(m->of[i].bytes);
            assert_non_null(known[i]);
            memcpy(known[i], m->of[i].host, m->of[i].bytes);
        } else {
            assert_memory_equal(known[i], m->of[i].host, m->of[i].bytes);
        }
    }
    *known_p = true;
}

static dj_status_t replay_all(recorded_t *r, mirrors_t *m)
{
    dj_segment_t stack;
    const dj_device_ops_t *ops = device->ops;
    uint8_t *known[2 * CASE_TENSORS_MAX] = {NULL};
    bool is_known = false;
    uint64_t slab = r->program.plan->peak_bytes + SLACK_BYTES;
    dj_status_t status = ops->bind(r->program.exe, r->program.texts);
    expect_ok(status);
    assert_true(ops->bound(r->program.exe, r->program.texts));
    expect_ok(dj_segment_init(&stack, device, slab));
    expect_ok(dj_segment_grow(&stack, slab));
    dj_launch_t launch = {r->program.bindings, stack.base, NULL,
                          (uint64_t *)r->program.program.scalars.data};
    for (int i = 0; i < REPLAYS && status == DJ_OK; i++) {
        mirrors_fill(m);
        poison(&stack, slab);
        status = ops->replay(r->program.exe, &launch);
        mirrors_read(m);
        if (status == DJ_OK) {
            check_peak(r, &stack, slab);
            same_as_before(m, &is_known, known);
        }
    }
    for (uint32_t i = 0; i < m->n; i++)
        free(known[i]);
    dj_segment_fini(&stack);
    return status;
}

static void run_row(void **state)
{
    const row_t *row = *state;
    recorded_t r;
    ref_call_t call = {.c = &r.c};
    mirrors_t m = {.n = 0};
    record(&r, device, row->op, row->text);
    read_operands(&r, &call);
    mirror_all(&m, &r);
    dj_status_t status = replay_all(&r, &m);
    if (row->is_bad) {
        check_refused(&r, status);
    } else {
        expect_ok(status);
        check_memory(&r);
        check_values(&r, &call);
    }
    mirrors_free(&m);
    recorded_free(&r, &call);
}

/* What the host can do, a GPU can. */
static void every_op_of_the_host_has_a_slot(void **state)
{
    dj_device_t *host = fixture_open(1);
    for (uint16_t op = 0; op < DJ_OP_COUNT; op++)
        if (host->ops->supports(host, op) && !device->ops->supports(device, op))
            fail_msg("%s has a kernel on the host and none in CUDA", dj_op_info(op)->name);
    dj_device_close(host);
}

/* ---- choosing rows ---- */

#define FILE_ROWS_MAX 4096

static size_t file_rows(const char *path, row_t *read)
{
    static char lines[FILE_ROWS_MAX][256];
    size_t n = 0;
    FILE *file = fopen(path, "r");
    while (file && n < FILE_ROWS_MAX && fgets(lines[n], sizeof(lines[n]), file)) {
        char *text = strchr(lines[n], ' ');
        lines[n][strcspn(lines[n], "\n")] = 0;
        if (!text)
            continue;
        *text++ = 0;
        for (uint16_t op = 0; op < DJ_OP_COUNT; op++)
            if (strcmp(op_ids[op], lines[n]) == 0)
                read[n++] = (row_t){.op = op, .text = text};
    }
    if (file)
        fclose(file);
    return n;
}

static size_t take(const row_t *from, size_t n, const char *only, row_t *states, struct CMUnitTest *tests)
{
    size_t taken = 0;
    for (size_t i = 0; i < n; i++) {
        row_t *row = &states[taken];
        *row = from[i];
        snprintf(row->name, sizeof(row->name), "%s %s", dj_op_info(row->op)->name, row->text);
        if ((only && !strstr(row->name, only)) || i % every != 0)
            continue;
        tests[taken++] =
            (struct CMUnitTest){.name = row->name, .test_func = run_row, .initial_state = row};
    }
    return taken;
}

static int run_rows(const row_t *good, size_t n_good, const row_t *bad, size_t n_bad, const char *only)
{
    row_t *states = calloc(n_good + n_bad + 1, sizeof(*states));
    struct CMUnitTest *tests = calloc(n_good + n_bad + 1, sizeof(*tests));
    assert_true(states && tests);
    size_t n = take(bad, n_bad, only, states, tests);
    n += take(good, n_good, only, states + n, tests + n);
    if (!only && n_bad)
        tests[n++] = (struct CMUnitTest)cmocka_unit_test(every_op_of_the_host_has_a_slot);
    int failed = n == 0 ? 1 : _cmocka_run_group_tests("cuda ops", tests, n, NULL, NULL);
    free(states);
    free(tests);
    return failed;
}

int main(int argc, char **argv)
{
    static row_t from_file[FILE_ROWS_MAX];
    dj_config_t config = {.device = "cuda", .cores = "", .cuda_graphs = true, .numerics = "exact",
                          .kernel_cache = ""};
    if (!dj_hash_setup())
        return 1;
    dj_log_init(getenv("DJINN_LOG") ? getenv("DJINN_LOG") : "warn", "test");
    if (argc == 3 && strcmp(argv[1], "--every") == 0 && atoi(argv[2]) > 0)
        every = (size_t)atoi(argv[2]);
    if (dj_device_open(&config, &device) != DJ_OK) {
        printf("skipped: %s\n", dj_error_text());
        return 77;
    }
    int failed;
    if (argc == 3 && strcmp(argv[1], "--rows") == 0)
        failed = run_rows(from_file, file_rows(argv[2], from_file), NULL, 0, NULL);
    else
        failed = run_rows(good_rows, sizeof(good_rows) / sizeof(*good_rows), bad_rows,
                          sizeof(bad_rows) / sizeof(*bad_rows),
                          argc == 3 && strcmp(argv[1], "--only") == 0 ? argv[2] : NULL);
    dj_device_close(device);
    return failed != 0;
}
