/* test_kernels.c - every row of op_cases.def on every instruction set this processor has: recorded,
 * decoded, compiled, planned and replayed by the host device into poisoned outputs, and compared
 * with a plain reference. Around every tensor lies a margin that must stay as it was, inputs must
 * stay as they were, and in a strided target the elements between must.
 *
 * Bad indices come first: they must be answered with a status and touch nothing outside. */
#include "tests/gpu/program.h"
#include "tests/gpu/reference_layout.h"

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
    BAD(EMBEDDING, "f32[3,24] i64[40]<11") BAD(EMBEDDING, "f32[3,24] i64[40]<-3")
        BAD(EMBEDDING, "f32[3,24] i64[40]<4") BAD(EMBEDDING, "f32[0,24] i64[4]<2")
            BAD(INDEX_SELECT, "f32[4,5,6] 1 i64[30]<9") BAD(GATHER, "f32[4,5] 1 i64[4,5]<15 false")
                BAD(GATHER, "f32[40,50] 1 i64[40,5]<-50 false")
                    BAD(GATHER, "f32[4,0] 1 i64[4,3]<3 false") BAD(INDEX, "f32[4,5,6] {i64[30]<-9}")
                        BAD(INDEX, "f32[4,5,6] {i64[30]<4 i64[30]<50}")
                            BAD(INDEX_COPY, "f32[2,3,9,4] 2 i64[10]<90 f32[2,3,10,4]")
                                BAD(INDEX_PUT, "f32[4,5,6] {i64[9]<400} f32[9,5,6] false")
                                    BAD(INDEX_PUT, "f32[4,5,6] {i64[9]<400} f32[6] true")
                                        BAD(SCATTER, "f32[4,5] 1 i64[4,3]<50 f32[4,3]")
                                            BAD(SCATTER_VALUE, "f32[0,5] 0 i64[3,5]<3 1.5")
                                                BAD(SCATTER_VALUE, "f32[4,5] 0 i64[4,3]<50 1.5 >0")
#undef BAD
};

static const char *const op_ids[] = {
#define OP(id, ...) #id,
#include "planner/ops.def"
#undef OP
};

static dj_device_t *device;

static double tolerance_of(uint8_t dtype)
{
    return dtype == DJ_F16    ? 1e-3
           : dtype == DJ_BF16 ? 1e-2
           : dtype == DJ_F64  ? 1e-12
           : dtype == DJ_F32  ? 2e-6
                              : 0;
}

/* What rounding in the operands' and the output's types allows. */
static double tolerance(const op_case_t *c, uint8_t out)
{
    double allowed = tolerance_of(out);
    for (uint32_t i = 0; i < c->n_tensors && dj_dtype_is_float(out); i++)
        allowed = fmax(allowed, tolerance_of(c->tensors[i].view.dtype));
    /* Sums of many products: the size of the terms counts, not that of the sum. */
    bool products = (c->op >= DJ_OP_MM && c->op <= DJ_OP_LINEAR) || c->op == DJ_OP_SDPA;
    return products ? 10 * allowed : allowed;
}

static void compare(const op_case_t *c, const ref_t *want, const ref_t *got, uint32_t out)
{
    double allowed = tolerance(c, want->view.dtype);
    for (int64_t i = 0; i < want->count && c->op != DJ_OP_EMPTY; i++) {
        double x = want->real[i], y = got->real[i];
        bool same = (isnan(x) && isnan(y)) || x == y || fabs(x - y) <= allowed * (1 + fabs(x));
        if (!want->is_real)
            same = want->integer[i] == got->integer[i];
        if (!same)
            fail_msg("output %u, element %lld: %.9g, expected %.9g", out, (long long)i, y, x);
    }
}

/* One recorded case: its tensors, a snapshot of their memory, and where the outputs are. */
typedef struct recorded {
    op_case_t c;
    test_case_t program;
    dj_view_t inferred[DJ_OUTS_MAX];
    case_tensor_t results[DJ_OUTS_MAX];
    uint32_t n_outs;
    int target; /* the case's tensor that output 0 goes into; -1: new */
    uint8_t *before[CASE_TENSORS_MAX];
} recorded_t;

static void tensors_add(recorded_t *r)
{
    uint32_t storages[CASE_TENSORS_MAX];
    op_case_t *c = &r->c;
    for (uint32_t i = 0; i < c->n_tensors; i++) {
        case_tensor_t *t = &c->tensors[i];
        storages[i] = case_input(&r->program, DJ_CLASS_STATE, t->data, t->bytes, t->view).storage;
        r->before[i] = malloc(t->bytes + 1);
        memcpy(r->before[i], t->data, t->bytes);
    }
    for (uint32_t i = 0; i < c->n_operands; i++)
        if (c->tensor_of[i] >= 0)
            c->operands[i].storage = storages[c->tensor_of[i]];
}

/* ">f64:s": another input that output 0 goes into. */
static dj_operand_t target_add(recorded_t *r)
{
    op_case_t *c = &r->c;
    case_tensor_t *t = &c->tensors[c->n_tensors];
    size_t name = strcspn(c->target, ":");
    t->view = r->inferred[0];
    t->view.dtype = case_dtype(c->target, name);
    if (c->target[name] == ':')
        snprintf(t->letters, sizeof(t->letters), "%s", c->target + name + 1);
    case_allocate(t, case_lay(&t->view, t->letters));
    r->before[c->n_tensors] = malloc(t->bytes + 1);
    memcpy(r->before[c->n_tensors], t->data, t->bytes);
    r->target = (int)c->n_tensors++;
    return case_input(&r->program, DJ_CLASS_STATE, t->data, t->bytes, t->view);
}

static void expect_ok(dj_status_t status)
{
    if (status != DJ_OK)
        fail_msg("%s: %s", dj_status_name(status), dj_error_text());
}

static void record(recorded_t *r, uint16_t op, const char *text)
{
    dj_target_t targets[DJ_OUTS_MAX] = {{0}};
    dj_operand_t target;
    uint32_t storages[DJ_OUTS_MAX], listed[DJ_OUTS_MAX], n_listed = 0;
    memset(r, 0, sizeof(*r));
    case_read(&r->c, op, text);
    case_open(&r->program, device);
    tensors_add(r);
    dj_call_t call = {.op = op, .n_args = (uint16_t)r->c.n_args, .args = r->c.args};
    expect_ok(dj_op_infer(&call, r->inferred));
    const dj_op_info_t *info = dj_op_info(op);
    r->n_outs = info->n_outs ? info->n_outs : 1;
    r->target = info->n_outs ? -1 : 0;
    if (r->c.target_arg >= 0) {
        targets[0] = (dj_target_t){.kind = DJ_TARGET_ARGUMENT, .arg = (uint8_t)r->c.target_arg};
        const dj_operand_t *into = r->c.args[r->c.target_arg].operands;
        r->target = r->c.tensor_of[into - r->c.operands];
    } else if (r->c.target[0]) {
        target = target_add(r);
        targets[0] = (dj_target_t){.kind = DJ_TARGET_VIEW, .operand = &target};
    }
    expect_ok(dj_program_add(&r->program.program, &call, targets, storages));
    for (uint32_t i = 0; i < r->n_outs; i++) {
        if (i == 0 && r->target >= 0)
            continue;
        r->results[i].view = r->inferred[i];
        int64_t elements =
            (int64_t)(dj_view_extent_bytes(&r->inferred[i]) / dj_dtype_bytes(r->inferred[i].dtype));
        case_allocate(&r->results[i], elements);
        listed[n_listed++] = storages[i];
    }
    expect_ok(case_build(&r->program, listed, n_listed));
    for (uint32_t i = 0, next = r->program.n_inputs; i < r->n_outs; i++)
        if (r->results[i].data)
            r->program.bindings[next++] = r->results[i].data;
}

static void check_memory(const recorded_t *r)
{
    for (uint32_t i = 0; i < r->c.n_tensors; i++) {
        const case_tensor_t *t = &r->c.tensors[i];
        uint32_t item = dj_dtype_bytes(t->view.dtype);
        assert_true(case_margins_hold(t));
        for (int64_t e = 0; (int)i == r->target && e < dj_view_count(&t->view); e++) {
            int64_t rest = e, offset = t->view.offset;
            for (uint32_t d = t->view.rank; d-- > 0; rest /= t->view.sizes[d])
                offset += rest % t->view.sizes[d] * t->view.strides[d];
            memcpy(r->before[i] + offset * item, t->data + offset * item, item);
        }
        assert_memory_equal(r->before[i], t->data, t->bytes);
    }
    for (uint32_t i = 0; i < r->n_outs; i++)
        assert_true(!r->results[i].data || case_margins_hold(&r->results[i]));
}

/* The shape that self[indices] has, from the index op's own rule. */
static dj_view_t indexed_shape(const op_case_t *c)
{
    dj_view_t outs[DJ_OUTS_MAX] = {{0}};
    if (c->op == DJ_OP_INDEX_COPY)
        return c->args[3].operands[0].view;
    if (c->op == DJ_OP_INDEX_PUT) {
        dj_call_t call = {.op = DJ_OP_INDEX, .n_args = 2, .args = c->args};
        expect_ok(dj_op_infer(&call, outs));
    }
    return outs[0];
}

static void check_values(const recorded_t *r, ref_call_t *call)
{
    dj_view_t shape = indexed_shape(&r->c);
    for (uint32_t i = 0; i < r->n_outs; i++) {
        const case_tensor_t *t =
            i == 0 && r->target >= 0 ? &r->c.tensors[r->target] : &r->results[i];
        call->outs[i] = ref_create(&t->view);
    }
    assert_true(reference(call, &shape));
    for (uint32_t i = 0; i < r->n_outs; i++) {
        const case_tensor_t *t =
            i == 0 && r->target >= 0 ? &r->c.tensors[r->target] : &r->results[i];
        ref_t *got = ref_read(t->data, &t->view);
        compare(&r->c, call->outs[i], got, i);
        ref_free(got);
        ref_free(call->outs[i]);
    }
}

static void run_row(void **state)
{
    const row_t *row = *state;
    recorded_t r;
    ref_call_t call = {.c = &r.c};
    ((dj_host_device_t *)device)->kernels = row->kernels;
    record(&r, row->op, row->text);
    for (uint32_t i = 0; i < r.c.n_operands; i++) {
        int tensor = r.c.tensor_of[i];
        if (tensor >= 0)
            call.operands[i] = ref_read(r.c.tensors[tensor].data, &r.c.tensors[tensor].view);
        else if (r.c.operands[i].storage == DJ_STORAGE_SCALAR)
            call.operands[i] = ref_scalar(r.c.operands[i].scalar);
    }
    dj_status_t status = case_replay(&r.program);
    if (row->is_bad) {
        assert_int_equal(status, DJ_ERR_INVALID);
        assert_non_null(strstr(dj_error_text(), dj_op_info(row->op)->name));
        for (uint32_t i = 0; i < r.c.n_tensors; i++)
            assert_true(case_margins_hold(&r.c.tensors[i]));
        for (uint32_t i = 0; i < r.n_outs; i++)
            assert_true(!r.results[i].data || case_margins_hold(&r.results[i]));
    } else {
        expect_ok(status);
        check_memory(&r);
        check_values(&r, &call);
    }
    for (uint32_t i = 0; i < r.c.n_operands; i++)
        ref_free(call.operands[i]);
    for (uint32_t i = 0; i < r.c.n_tensors; i++)
        free(r.before[i]);
    for (uint32_t i = 0; i < r.n_outs; i++)
        free(r.results[i].memory);
    case_close(&r.program);
    case_free(&r.c);
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
