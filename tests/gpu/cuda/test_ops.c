/* test_ops.c - every row of op_cases.def and bad_cases.def on the CUDA device: recorded, compiled, planned and
 * replayed, and compared with the plain reference. On a GPU where there is one, else on the simulator.
 *
 * Tensors are mirrored into device memory with their margins, so what a kernel writes beside a tensor shows. Each
 * case is replayed three times from the same start: to the stream, as a graph that is captured, and as a graph that
 * is there; all three must give the same bytes. The slab is poisoned and its highest changed byte must be the
 * plan's peak.
 *
 * Which rows: rows.h. DJINN_LOG=cuda=debug names the device functions that run. */
#include "tests/gpu/dump.h"

#include "gpu/cuda/cuda_device.h"
#include "runtime/base/log.h"

#define REPLAYS 3
#define SLACK_BYTES 4096u

typedef struct run {
    const row_t *row;
    char name[320];
} run_t;

static dj_device_t *device;
static rows_t rows;

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

static dj_status_t replay_mirrored(recorded_t *r)
{
    mirrors_t m = {.n = 0};
    mirror_all(&m, r);
    dj_status_t status = replay_all(r, &m);
    mirrors_free(&m);
    return status;
}

static void run_row(void **state)
{
    const row_t *row = ((const run_t *)*state)->row;
    recorded_t r;
    ref_call_t call = {.c = &r.c};
    dj_status_t status = record_try(&r, device, row->op, row->text);
    if (status != DJ_OK && rows.tries) {
        recorded_free(&r, &call);
        skip();
    }
    expect_ok(status);
    read_operands(&r, &call);
    status = replay_mirrored(&r);
    if (row->is_bad) {
        check_refused(&r, status);
    } else {
        expect_ok(status);
        check_memory(&r);
        check_values(&r, &call);
    }
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

static void every_slot_has_a_case(void **state)
{
    for (uint16_t op = 0; op < DJ_OP_COUNT; op++)
        if (device->ops->supports(device, op) != has_a_row(op))
            fail_msg("%s has %s", dj_op_info(op)->name, has_a_row(op) ? "no slot" : "no case");
}

static int run_rows(void)
{
    run_t *runs = calloc(rows.n + 1, sizeof(*runs));
    struct CMUnitTest *tests = calloc(rows.n + 2, sizeof(*tests));
    assert_true(runs && tests);
    size_t n = 0;
    for (; n < rows.n; n++) {
        runs[n].row = &rows.row[n];
        row_name(runs[n].row, runs[n].name, sizeof(runs[n].name));
        tests[n] = (struct CMUnitTest){.name = runs[n].name, .test_func = run_row, .initial_state = &runs[n]};
    }
    if (rows_are_all(&rows)) {
        tests[n++] = (struct CMUnitTest)cmocka_unit_test(every_op_of_the_host_has_a_slot);
        tests[n++] = (struct CMUnitTest)cmocka_unit_test(every_slot_has_a_case);
    }
    int failed = n == 0 ? 1 : _cmocka_run_group_tests("cuda ops", tests, n, NULL, NULL);
    free(runs);
    free(tests);
    return failed;
}

int main(int argc, char **argv)
{
    dj_config_t config = {.device = "cuda", .cores = "", .cuda_graphs = true, .numerics = "exact",
                          .kernel_cache = ""};
    if (!dj_hash_setup())
        return 1;
    dj_log_init(getenv("DJINN_LOG") ? getenv("DJINN_LOG") : "warn", "test");
    rows_choose(argc, argv, &rows);
    if (dj_device_open(&config, &device) != DJ_OK) {
        printf("skipped: %s\n", dj_error_text());
        return 77;
    }
    int failed = rows.dumps ? dump_rows(&rows, device, replay_mirrored) : run_rows();
    dj_device_close(device);
    return failed != 0;
}
