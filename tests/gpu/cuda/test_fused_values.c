/* test_fused_values.c - what the texts of fused kernels compute, on the CPU.
 *
 * Every pointwise row of op_cases.def against the plain reference; and programs of random steps, fused as planned
 * against step by step, which must be the same bytes. Needs g++; skipped where there is none. */
#include "tests/gpu/recorded.h"

#include "tests/gpu/cuda/fused_runner.h"

static runner_t runner;
static dj_device_t *device;

/* ---- the table's rows ---- */

typedef struct row {
    uint16_t op;
    const char *text;
} row_t;

static const row_t rows[] = {
#define CASE(id, text) {DJ_OP_##id, text},
#include "tests/gpu/op_cases.def"
#undef CASE
    /* what the table leaves out */
    {DJ_OP_ADD, "f32[3,5,8]:t f32[8] 1"},
    {DJ_OP_ADD, "bf16[4,1,64] bf16[7,64] 1"},
    {DJ_OP_ADD, "bf16[4,7,64]:o bf16[4,7,64] 1"},
    {DJ_OP_MUL, "f16[5,16] f16[5,1]"},
    {DJ_OP_MUL, "i32[300] i32[300]"},
    {DJ_OP_MUL, "i16[300] 300"},
    {DJ_OP_ADD, "u8[300] 200 1"},
    {DJ_OP_ADD, "f16[33] f64[] 1"},
    {DJ_OP_ADD, "f64[33] f16[33] 1 >f16:s"},
    {DJ_OP_ADD, "f64[40] f64[40] 1 >bf16"},
    {DJ_OP_ADD, "f32[2,3,4,5]:t f32[3,1,5] 1"},
    {DJ_OP_CLAMP, "f64[60]:n _ 0.5"},
    {DJ_OP_CLAMP, "i32[60] -1 2"},
    {DJ_OP_POW_SCALAR, "bf16[40]:p -0.5"},
    {DJ_OP_POW_SCALAR, "f64[40] 2"},
    {DJ_OP_FLOOR_DIVIDE, "f64[40] f64[40]:p"},
    {DJ_OP_FLOOR_DIVIDE, "i64[40] -1"},
    {DJ_OP_WHERE, "bool[4,1] f16[4,9] f32[9]"},
    {DJ_OP_WHERE, "bool[40] i64[40] 3"},
    {DJ_OP_MASKED_FILL_SCALAR, "bf16[4,9] bool[9] -1e9"},
    {DJ_OP_MASKED_FILL, "f32[4,9] bool[4,9] f64[]"},
    {DJ_OP_LT, "bf16[40]:q f32[40]:q"},
    {DJ_OP_EQ, "i64[40] f32[40]:q"},
};

static void run_row(const row_t *row)
{
    runner.wide = false;
    recorded_t r;
    ref_call_t call = {.c = &r.c};
    record(&r, device, row->op, row->text);
    read_operands(&r, &call);
    runner_plan(&runner, &r.program, 1);
    if (!runner.texts) {
        check_memory(&r);
        check_values(&r, &call);
    }
    recorded_free(&r, &call);
}

static void every_row_is_as_the_reference_says(void **state)
{
    (void)state;
    uint32_t n = 0;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
        if (dj_op_info(rows[i].op)->pointwise) {
            if (!runner.texts)
                print_message("%s %s\n", dj_op_info(rows[i].op)->name, rows[i].text);
            run_row(&rows[i]);
            n++;
        }
    assert_true(n > 100);
}

/* ---- random programs ---- */

enum { PROGRAMS = 48, INPUTS = 7, STEPS = 24, MEMORY_BYTES = 4 << 10 };

typedef struct random_case {
    test_case_t test;
    uint8_t memory[CASE_BINDINGS_MAX][MEMORY_BYTES], before[CASE_BINDINGS_MAX][MEMORY_BYTES];
    dj_operand_t values[INPUTS + STEPS];
    uint32_t n_values;
} random_case_t;

static uint32_t random_below(uint32_t n)
{
    return (uint32_t)(case_random() % n);
}

static void fill(uint8_t *memory, uint8_t dtype)
{
    uint32_t item = dj_dtype_bytes(dtype);
    for (uint32_t i = 0; i + item <= MEMORY_BYTES; i += item) {
        uint32_t special = random_below(24);
        double real = special == 0   ? NAN
                      : special == 1 ? INFINITY
                      : special == 2 ? -INFINITY
                      : special == 3 ? 0
                      : special == 4 ? -3e12
                                     : case_unit() * 6 - 3;
        int64_t integer = special == 0   ? INT64_MIN
                          : special == 1 ? INT64_MAX
                                         : (int64_t)random_below(13) - 6;
        case_put(dtype, memory + i, real, dtype == DJ_BOOL ? integer & 1 : integer);
    }
}

/* A view of the shape or one that broadcasts to it. */
static dj_view_t random_view(uint8_t dtype, const int64_t *sizes)
{
    dj_view_t view = dj_view_contiguous(dtype, 3, sizes);
    switch (random_below(14)) {
    case 0:
        return dj_view_contiguous(dtype, 1, sizes + 2);
    case 1:
        view.sizes[2] = 1;
        return dj_view_contiguous(dtype, 3, view.sizes);
    case 2:
        return dj_view_contiguous(dtype, 0, sizes);
    case 3: /* turned */
        view.strides[2] = sizes[1];
        view.strides[1] = 1;
        return view;
    case 4: /* every second, not from the start */
        for (uint32_t d = 0; d < 3; d++)
            view.strides[d] *= 2;
        view.offset = 3;
        return view;
    case 5: /* unaligned */
        view.offset = 1;
        return view;
    default:
        return view;
    }
}

static dj_arg_t random_scalar(void)
{
    return random_below(2) ? real_arg(random_below(2) ? 0.5 : -1.25) : integer_arg((int64_t)random_below(5) - 2);
}

static bool add_step(random_case_t *r, const int64_t *sizes)
{
    uint16_t op = (uint16_t)random_below(DJ_OP_MASKED_FILL + 1);
    const dj_op_info_t *info = dj_op_info(op);
    dj_arg_t args[DJ_ARGS_MAX];
    dj_operand_t numbers[DJ_ARGS_MAX], *target = NULL;
    dj_view_t outs[DJ_OUTS_MAX];
    for (uint32_t i = 0; i < info->n_args; i++) {
        args[i] = (dj_arg_t){.kind = DJ_ARG_NONE, .slot = DJ_SLOT_NONE};
        if (info->signature[i] == 't' && i > 0 && random_below(6) == 0) {
            dj_arg_t scalar = random_scalar();
            numbers[i] = (dj_operand_t){.storage = DJ_STORAGE_SCALAR, .slot = DJ_SLOT_NONE, .scalar = scalar.scalar,
                                        .view = {.dtype = scalar.scalar.dtype}};
            args[i] = tensor_arg(&numbers[i]);
        } else if (info->signature[i] == 't') {
            /* the latest values most of the time, so that chains come about */
            uint32_t back = random_below(3) ? random_below(r->n_values < 4 ? r->n_values : 4) : random_below(r->n_values);
            args[i] = tensor_arg(&r->values[r->n_values - 1 - back]);
        } else if (info->signature[i] == 's' || random_below(2)) {
            if (info->signature[i] != '-')
                args[i] = random_scalar();
        }
    }
    dj_call_t call = {.op = op, .n_args = info->n_args, .args = args};
    if (dj_op_infer(&call, outs) != DJ_OK)
        return false;
    dj_view_t whole = dj_view_contiguous(outs[0].dtype, 3, sizes);
    if (!dj_view_same_shape(&whole, &outs[0]))
        return false; /* too little: all broadcast */
    if (random_below(4) == 0)
        for (uint32_t i = 0; i < r->n_values && !target; i++)
            if (dj_view_same_shape(&r->values[i].view, &whole) &&
                dj_op_check_target(op, &outs[0], &r->values[i].view) == DJ_OK && random_below(3) == 0)
                target = &r->values[i];
    if (target)
        case_add(&r->test, op, args, info->n_args, target);
    else
        r->values[r->n_values++] = case_add(&r->test, op, args, info->n_args, NULL);
    return true;
}

static void random_open(random_case_t *r, uint32_t seed)
{
    static const uint8_t dtypes[] = {DJ_F32, DJ_F32, DJ_BF16, DJ_F16, DJ_F64, DJ_I64, DJ_I32, DJ_U8, DJ_BOOL};
    static const int64_t shapes[][3] = {{2, 3, 8}, {2, 2, 16}, {3, 5, 7}, {1, 4, 24}, {2, 1, 1}, {4, 4, 4}};
    const int64_t *sizes = shapes[seed % 6];
    uint32_t listed[CASE_BINDINGS_MAX], n_listed = 0;
    memset(r, 0, sizeof(*r));
    case_seed = 0x9e3779b97f4a7c15ull * (seed + 1);
    case_open(&r->test, device);
    uint8_t favourite = dtypes[random_below(sizeof(dtypes))];
    for (uint32_t i = 0; i < INPUTS; i++) {
        uint8_t dtype = random_below(2) ? favourite : dtypes[random_below(sizeof(dtypes))];
        bool plain = i < 3 || seed % 2; /* long groups want outputs that are dense */
        dj_view_t view = plain ? dj_view_contiguous(dtype, 3, sizes) : random_view(dtype, sizes);
        fill(r->memory[i], dtype);
        r->values[r->n_values++] = case_input(&r->test, DJ_CLASS_STATE, r->memory[i], MEMORY_BYTES, view);
    }
    for (uint32_t tries = 0; tries < 400 && r->n_values < INPUTS + STEPS; tries++)
        add_step(r, sizes);
    for (uint32_t i = INPUTS; i < r->n_values && n_listed < 8; i++)
        if (i + 1 == r->n_values || random_below(3) == 0)
            listed[n_listed++] = r->values[i].storage;
    expect_ok(case_build(&r->test, listed, n_listed));
    for (uint32_t i = r->test.n_inputs; i < r->test.n_inputs + n_listed; i++)
        r->test.bindings[i] = r->memory[i];
    memcpy(r->before, r->memory, sizeof(r->memory));
}

static bool is_staged(const dj_plan_t *plan)
{
    for (uint32_t i = 0; i < plan->n_steps; i++)
        if (plan->steps[i].staging != DJ_OFFSET_NONE)
            return true;
    return false;
}

static void fused_and_single_steps_agree(void **state)
{
    (void)state;
    static random_case_t r;
    static uint8_t fused[sizeof(r.memory)];
    uint32_t n = 0, groups = 0, longest = 0, launches[2] = {0, 0};
    for (uint32_t seed = 0; seed < PROGRAMS; seed++) {
        random_open(&r, seed);
        runner.wide = seed % 4 == 0;
        if (!is_staged(r.test.plan)) {
            uint32_t before = runner.n_launches;
            runner_plan(&runner, &r.test, DJ_PART_STEPS_MAX);
            launches[0] += runner.n_launches - before;
            groups += r.test.plan->n_groups;
            for (uint32_t i = 0, length = 0; i < r.test.plan->n_steps; i++) {
                length = i && r.test.plan->steps[i].group == r.test.plan->steps[i - 1].group ? length + 1 : 1;
                longest = length > longest ? length : longest;
            }
            memcpy(fused, r.memory, sizeof(fused));
            memcpy(r.memory, r.before, sizeof(fused));
            before = runner.n_launches;
            runner_plan(&runner, &r.test, 1);
            launches[1] += runner.n_launches - before;
            if (memcmp(fused, r.memory, sizeof(fused)) != 0)
                fail_msg("program %u: fused is not what its steps are", seed);
            n++;
        }
        case_close(&r.test);
    }
    assert_true(n > PROGRAMS / 2);
    if (!runner.texts) {
        print_message("%u programs: %u groups of up to %u steps, %u launches fused, %u single\n", n, groups, longest,
                      launches[0], launches[1]);
        assert_true(longest >= 8 && launches[0] < groups + groups / 10 && launches[0] < launches[1]);
    }
}

static int set_up(void **state)
{
    device = fixture_open(1);
    runner_open(&runner);
    every_row_is_as_the_reference_says(state);
    fused_and_single_steps_agree(state);
    print_message("%u texts\n", runner.n_names);
    runner_compile(&runner);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    runner_close(&runner);
    dj_device_close(device);
    return 0;
}

int main(void)
{
    if (system("g++ --version >/dev/null 2>&1") != 0) {
        printf("skipped: no g++\n");
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_is_as_the_reference_says),
        cmocka_unit_test(fused_and_single_steps_agree),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
