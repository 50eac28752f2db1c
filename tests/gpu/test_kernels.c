/* test_kernels.c - every row of op_cases.def on every instruction set this processor has: recorded,
 * decoded, compiled, planned and replayed by the host device into poisoned outputs, and compared
 * with a plain reference. Around every tensor lies a margin that must stay as it was, inputs must
 * stay as they were, and in a strided target the elements between must.
 *
 * Bad indices come first: they must be answered with a status and touch nothing outside. */
#include "tests/gpu/dump.h"

#include "gpu/host/executable.h"

/* A row on one instruction set. */
typedef struct run {
    const row_t *row;
    const dj_host_kernels_t *kernels;
    char name[320];
} run_t;

static dj_device_t *device;
static rows_t rows;

static void run_row(void **state)
{
    const run_t *run = *state;
    recorded_t r;
    ref_call_t call = {.c = &r.c};
    ((dj_host_device_t *)device)->kernels = run->kernels;
    dj_status_t status = record_try(&r, device, run->row->op, run->row->text);
    if (status != DJ_OK && rows.tries) {
        recorded_free(&r, &call);
        skip();
    }
    expect_ok(status);
    read_operands(&r, &call);
    status = case_replay(&r.program);
    if (run->row->is_bad) {
        check_refused(&r, status);
    } else {
        expect_ok(status);
        check_memory(&r);
        check_values(&r, &call);
    }
    recorded_free(&r, &call);
}

static void every_slot_has_a_case(void **state)
{
    for (uint16_t op = 0; op < DJ_OP_COUNT; op++) {
        uint32_t n_slots = !!dj_host_kernels_avx512.prepare[op] +
                           !!dj_host_kernels_avx2.prepare[op] + !!dj_host_kernels_base.prepare[op];
        if (n_slots > 0 && !has_a_row(op))
            fail_msg("%s has no case", dj_op_info(op)->name);
        if (n_slots > 0 && n_slots < 3)
            fail_msg("%s has a slot for %u instruction sets of 3", dj_op_info(op)->name, n_slots);
    }
}

static uint32_t sets_find(const dj_host_kernels_t **sets)
{
    const dj_host_kernels_t *best = ((dj_host_device_t *)device)->kernels;
    uint32_t n = 0;
    sets[n++] = &dj_host_kernels_base;
    if (best != &dj_host_kernels_base)
        sets[n++] = &dj_host_kernels_avx2;
    if (best == &dj_host_kernels_avx512)
        sets[n++] = best;
    return n;
}

/* The rows of ops that only GPUs have kernels for are theirs to run. */
static size_t runs_make(const dj_host_kernels_t *kernels, run_t *runs, struct CMUnitTest *tests)
{
    size_t n = 0;
    for (size_t i = 0; i < rows.n; i++) {
        if (!kernels->prepare[rows.row[i].op])
            continue;
        char name[256];
        row_name(&rows.row[i], name, sizeof(name));
        runs[n] = (run_t){.row = &rows.row[i], .kernels = kernels};
        snprintf(runs[n].name, sizeof(runs[n].name), "%s %s", kernels->isa, name);
        tests[n] = (struct CMUnitTest){.name = runs[n].name, .test_func = run_row, .initial_state = &runs[n]};
        n++;
    }
    return n;
}

static int run_rows(void)
{
    const dj_host_kernels_t *sets[3];
    uint32_t n_sets = sets_find(sets);
    size_t n = 0;
    int failed = 1;
    run_t *runs = calloc(n_sets * rows.n + 1, sizeof(*runs));
    struct CMUnitTest *tests = calloc(n_sets * rows.n + 1, sizeof(*tests));
    for (uint32_t s = 0; runs && tests && s < n_sets; s++)
        n += runs_make(sets[s], runs + n, tests + n);
    if (n > 0) {
        if (rows_are_all(&rows))
            tests[n++] = (struct CMUnitTest)cmocka_unit_test(every_slot_has_a_case);
        failed = _cmocka_run_group_tests("kernels", tests, n, NULL, NULL);
    }
    free(runs);
    free(tests);
    return failed;
}

static dj_status_t replay_once(recorded_t *r)
{
    return case_replay(&r->program);
}

int main(int argc, char **argv)
{
    rows_choose(argc, argv, &rows);
    device = fixture_open(2);
    device->ops->thread_start(device);
    int failed = rows.dumps ? dump_rows(&rows, device, replay_once) : run_rows();
    dj_device_close(device);
    return failed != 0;
}
