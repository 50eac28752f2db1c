/* test_kernels.c - every row of op_cases.def on every instruction set this processor has: recorded,
 * decoded, compiled, planned and replayed by the host device into poisoned outputs, and compared
 * with a plain reference. Around every tensor lies a margin that must stay as it was, inputs must
 * stay as they were, and in a strided target the elements between must.
 *
 * Bad indices come first: they must be answered with a status and touch nothing outside. */
#include "tests/gpu/recorded.h"

#include "gpu/host/executable.h"

#define FILE_ROWS_MAX 4096

typedef struct row {
    uint16_t op;
    const char *text;
    const dj_host_kernels_t *kernels;
    char name[160];
    bool is_bad; /* must be refused when it runs */
} row_t;

static const row_t rows[] = {
#define CASE(id, text) {DJ_OP_##id, text, NULL, "", false},
#include "tests/gpu/op_cases.def"
#undef CASE
};

static const row_t bad_rows[] = {
#define BAD(id, text) {DJ_OP_##id, text, NULL, "", true},
#include "tests/gpu/bad_cases.def"
#undef BAD
};

static const char *const op_ids[] = {
#define OP(id, ...) #id,
#include "planner/ops.def"
#undef OP
};

static dj_device_t *device;

static void run_row(void **state)
{
    const row_t *row = *state;
    recorded_t r;
    ref_call_t call = {.c = &r.c};
    ((dj_host_device_t *)device)->kernels = row->kernels;
    record(&r, device, row->op, row->text);
    read_operands(&r, &call);
    dj_status_t status = case_replay(&r.program);
    if (row->is_bad) {
        check_refused(&r, status);
    } else {
        expect_ok(status);
        check_memory(&r);
        check_values(&r, &call);
    }
    recorded_free(&r, &call);
}

#include "tests/gpu/dump.h"

static void every_slot_has_a_case(void **state)
{
    bool seen[DJ_OP_COUNT] = {false};
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
        seen[rows[i].op] = true;
    for (uint16_t op = 0; op < DJ_OP_COUNT; op++) {
        uint32_t n_slots = !!dj_host_kernels_avx512.prepare[op] +
                           !!dj_host_kernels_avx2.prepare[op] + !!dj_host_kernels_base.prepare[op];
        if (seen[op] != (n_slots > 0))
            fail_msg("%s has %s", dj_op_info(op)->name, seen[op] ? "no slot" : "no case");
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

static void rows_take(const row_t *from, size_t n, const dj_host_kernels_t *kernels, row_t *states,
                      struct CMUnitTest *tests)
{
    for (size_t i = 0; i < n; i++) {
        states[i] = from[i];
        states[i].kernels = kernels;
        snprintf(states[i].name, sizeof(states[i].name), "%s %s %s", kernels->isa,
                 dj_op_info(from[i].op)->name, from[i].text);
        tests[i] = (struct CMUnitTest){
            .name = states[i].name, .test_func = run_row, .initial_state = &states[i]};
    }
}

/* "--rows FILE": lines of "ID arguments", as random_cases.py writes them. */
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

static int run_rows(const row_t *good, size_t n_good, const row_t *bad, size_t n_bad)
{
    const dj_host_kernels_t *sets[3];
    uint32_t n_sets = sets_find(sets);
    size_t each = n_bad + n_good, n = 0;
    row_t *states = calloc(n_sets * each + 1, sizeof(*states));
    struct CMUnitTest *tests = calloc(n_sets * each + 1, sizeof(*tests));
    int failed = 1;
    for (uint32_t s = 0; states && tests && s < n_sets; s++) {
        rows_take(bad, n_bad, sets[s], states + n, tests + n);
        rows_take(good, n_good, sets[s], states + n + n_bad, tests + n + n_bad);
        n += each;
    }
    if (states && tests) {
        if (n_bad)
            tests[n++] = (struct CMUnitTest)cmocka_unit_test(every_slot_has_a_case);
        failed = _cmocka_run_group_tests("kernels", tests, n, NULL, NULL);
    }
    free(states);
    free(tests);
    return failed;
}

int main(int argc, char **argv)
{
    static row_t from_file[FILE_ROWS_MAX];
    size_t n_rows = sizeof(rows) / sizeof(*rows), n_bad = sizeof(bad_rows) / sizeof(*bad_rows);
    int failed = 0;
    device = fixture_open(2);
    device->ops->thread_start(device);
    if (argc == 3 && strcmp(argv[1], "--rows") == 0) {
        size_t n = file_rows(argv[2], from_file);
        failed = n == 0 || run_rows(from_file, n, NULL, 0) != 0;
    } else if (argc == 2 && strcmp(argv[1], "--dump") == 0) {
        for (size_t i = 0; i < n_rows; i++)
            dump_row(&rows[i]);
    } else {
        failed = run_rows(rows, n_rows, bad_rows, n_bad);
    }
    dj_device_close(device);
    return failed;
}
