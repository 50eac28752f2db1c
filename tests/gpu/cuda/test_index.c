/* test_index.c - the families layout, index and scan of the CUDA device on the CPU (stub_device.h): their rows of
 * op_cases.def and bad_cases.def and more of their own, each with small and with large grids, against the reference;
 * conversions between all dtypes with values at the edges; concatenations of many pieces.
 *
 * Which rows: rows.h. */
#include "tests/gpu/cuda/stub_device.h"
#include "tests/gpu/rows.h"

#include "gpu/cuda/prepare.h"

static dj_cuda_prepare_fn_t slot(uint16_t op)
{
    switch (op) {
    case DJ_OP_COPY:
    case DJ_OP_TO_COPY: return dj_cuda_copy_prepare;
    case DJ_OP_EMPTY: return dj_cuda_empty_prepare;
    case DJ_OP_FULL: return dj_cuda_full_prepare;
    case DJ_OP_ARANGE: return dj_cuda_arange_prepare;
    case DJ_OP_CUMSUM: return dj_cuda_cumsum_prepare;
    case DJ_OP_EMBEDDING: return dj_cuda_embedding_prepare;
    case DJ_OP_INDEX_SELECT: return dj_cuda_index_select_prepare;
    case DJ_OP_GATHER: return dj_cuda_gather_prepare;
    case DJ_OP_INDEX: return dj_cuda_index_prepare;
    case DJ_OP_INDEX_COPY: return dj_cuda_index_copy_prepare;
    case DJ_OP_INDEX_PUT: return dj_cuda_index_put_prepare;
    case DJ_OP_SCATTER:
    case DJ_OP_SCATTER_VALUE: return dj_cuda_scatter_prepare;
    case DJ_OP_CAT: return dj_cuda_cat_prepare;
    case DJ_OP_TRIL:
    case DJ_OP_TRIU: return dj_cuda_triangle_prepare;
    case DJ_OP_ISIN: return dj_cuda_isin_prepare;
    case DJ_OP_TOPK: return dj_cuda_topk_prepare;
    case DJ_OP_SORT: return dj_cuda_sort_prepare;
    case DJ_OP_REPEAT: return dj_cuda_repeat_prepare;
    case DJ_OP_FLIP: return dj_cuda_flip_prepare;
    default: return NULL;
    }
}

/* A row in a grid of at most so many blocks. */
typedef struct run {
    const row_t *row;
    uint32_t blocks_max;
    char name[360];
} run_t;

static const row_t own_rows[] = {
#define CASE(id, text) {DJ_OP_##id, text, false},
    CASE(COPY, "u8[999]:o") CASE(COPY, "f16[65,17]:o >f16:o") CASE(COPY, "f32[3,64,20]:s")
    CASE(COPY, "f64[40,3,40]:t >f64") CASE(COPY, "u8[9,70,70]:to >u8:o") CASE(COPY, "f32[2,3,4,5,6,7]:t")
    CASE(COPY, "i16[600,8]:t >i16") CASE(COPY, "f32[128,96]:t >f32:s") CASE(TO_COPY, "f64[50]:n f16")
    CASE(TO_COPY, "i64[50] bf16") CASE(COPY, "f32[] >f32:o")
    CASE(FULL, "(1000) 3 u8") CASE(FULL, "(33,5) 2.5 bf16") CASE(FULL, "(7,9) true bool >bool:s")
    CASE(FULL, "(40) -2.75 i16") CASE(ARANGE, "900 -3.5 0.125 f16") CASE(ARANGE, "70 0 1.5 i64")
    CASE(EMPTY, "(0,3) f32") CASE(EMPTY, "(5,7) bool")
    CASE(CAT, "{f16[3,5] f16[3,5]:t f16[3,8]:s f16[3,1]} 1") CASE(CAT, "{u8[2,3,7] u8[2,5,7]:o} 1 >u8:o")
    CASE(CAT, "{f32[4,64] f32[4,32]:s f64[4,3]} -1") CASE(CAT, "{f32[40,40]:t f32[40,40]} 0")
    CASE(CAT, "{f32[0,4] f32[0,4]} 1") CASE(CAT, "{f32[1,8,4,64] f32[1,8,1,64]} 2")
    CASE(TRIL, "f16[3,40,50]:t 3") CASE(TRIU, "i64[2,3,4,5] -2") CASE(TRIL, "u8[0,5] 0") CASE(TRIL, "f64[7,7] -90")
    CASE(REPEAT, "f32[3] (0)") CASE(REPEAT, "u8[2,1,3,1,2,1,2,2] (2,2,2,1,2,2,3,2)") CASE(REPEAT, "f32[4,64] (3,1)")
    CASE(REPEAT, "i64[2,3,2,3,2] (2,2,2,2,2)") CASE(FLIP, "f32[5,64] (0)") CASE(FLIP, "f16[] ()")
    CASE(FLIP, "f32[40,50]:t (0,1)") CASE(FLIP, "u8[0,5] (0)")
    CASE(EMBEDDING, "f16[100,64]:o i64[9,3]<100") CASE(EMBEDDING, "f32[11,1] i32[70]<11")
    CASE(INDEX_SELECT, "f32[40,30] 1 i64[50]<30") CASE(INDEX_SELECT, "u8[3,4,16]:o 0 i32[5]<3")
    CASE(INDEX_SELECT, "f32[] 0 i64[1]<1")
    CASE(INDEX_SELECT, "f32[3,0] 0 i64[2]<3") CASE(GATHER, "f32[] 0 i64[]<1 false")
    CASE(GATHER, "u8[3,4,5] 2 i32[2,3,9]<5 false") CASE(GATHER, "f32[3,4] 0 i64[0,4]<3 false")
    CASE(INDEX, "f16[4,5,6]:o {_ _ i32[7]<-6}") CASE(INDEX, "f32[4,5,6,7] {_ i64[2,1]<5 i64[3]<6}")
    CASE(INDEX, "i64[4,5,6] {i64[2]<4 i64[]<5 i64[2,2]<6}") CASE(INDEX, "f32[30,40] {_ i64[60]<40}")
    CASE(INDEX_COPY, "f32[5,8] 0 i64[40]<5 f32[40,8]") CASE(INDEX_COPY, "u8[4,6]:o 1 i32[30]<6 u8[4,30]:t")
    CASE(INDEX_COPY, "f32[] 0 i64[1]<1 f32[]") CASE(INDEX_COPY, "f32[5,8] 0 i64[0]<5 f32[0,8]")
    CASE(INDEX_PUT, "f32[4,6] {i64[300]<4} f32[300,6] false")
    CASE(INDEX_PUT, "f32[4,6] {i64[300]<-4} f32[300,6] true")
    CASE(INDEX_PUT, "i64[5,7] {i64[900]<5 i32[900]<7} i64[900] true")
    CASE(INDEX_PUT, "i64[5,7] {i64[900]<5 i32[900]<7} i64[900] false")
    CASE(INDEX_PUT, "u8[5,7]:t {_ i64[90]<7} u8[5,90] true") CASE(INDEX_PUT, "bool[5] {i64[90]<5} true true")
    CASE(INDEX_PUT, "f64[6]:s {i64[7000]<6} 1 true") CASE(INDEX_PUT, "bf16[3,4] {i64[2]<3} 1.5 true")
    CASE(INDEX_PUT, "f32[3,4,5] {i64[6,1]<3 _ i64[4]<5} f32[4] false")
    CASE(INDEX_PUT, "f32[3,4,5] {i64[6,1]<3 _ i64[4]<5} f32[6,4,4] true")
    CASE(INDEX_PUT, "f32[3,4] {i64[0]<3} f32[0,4] true")
    CASE(INDEX_PUT, "f32[600,1000] {i64[90]<6 i64[90]<4} f32[90] false")
    CASE(INDEX_PUT, "u8[600,500,4]:o {i32[70]<-6 i64[70]<2} u8[70,4] false")
    CASE(INDEX_COPY, "f32[300000,2] 0 i64[50]<7 f32[50,2]")
    CASE(SCATTER, "f32[4,5] 1 i64[4,50]<5 f32[4,50]") CASE(SCATTER, "u8[7,5]:t 0 i32[40,4]<7 u8[50,5]:t >0")
    CASE(SCATTER, "f32[] 0 i64[]<1 f32[]") CASE(SCATTER, "i64[400] 0 i64[900]<400 i64[900]")
    CASE(SCATTER, "f16[3,40,2] 1 i64[2,40,2]<40 f16[3,40,2]:s") CASE(SCATTER_VALUE, "u8[400] 0 i64[900]<400 7")
    CASE(SCATTER, "f32[4,5] 1 i64[4,0]<5 f32[4,3]")
    CASE(ISIN, "f32[700]:q i64[300] false false") CASE(ISIN, "f16[700]:n f16[300]:n false true")
    CASE(ISIN, "i32[3,40]:t u8[5,60]:t false false") CASE(ISIN, "f32[0] f32[4] false false")
    CASE(CUMSUM, "f32[17000] 0 _") CASE(CUMSUM, "i32[1,16500] 1 i64") CASE(CUMSUM, "f16[3,9,700] 2 _")
    CASE(CUMSUM, "f32[20,2100] 0 _") CASE(CUMSUM, "f32[3,2100]:t 1 f64") CASE(CUMSUM, "i64[] 0 _")
    CASE(CUMSUM, "f32[0,4] 1 _") CASE(CUMSUM, "f32[4,0] 1 _") CASE(CUMSUM, "f32[2,300]:n 1 _")
    CASE(CUMSUM, "i64[2,70] 1 u8") CASE(CUMSUM, "bool[2,1100] 1 _")
    CASE(TOPK, "f32[2,9000] 5 -1 true true") CASE(TOPK, "i64[5000] 3 0 false true")
    CASE(TOPK, "f32[3,4097]:q 40 1 true false") CASE(TOPK, "f32[3,300]:nq 290 1 false true")
    CASE(TOPK, "f32[3,300]:nq 290 1 true true") CASE(TOPK, "f16[2,40,3]:q 40 1 true true")
    CASE(TOPK, "f32[] 1 0 true true") CASE(TOPK, "f32[3,4] 0 1 true true") CASE(TOPK, "u8[6000] 5000 0 true true")
    CASE(TOPK, "f32[0,4] 2 1 true true") CASE(TOPK, "f64[5,2]:n 2 1 false true")
    CASE(SORT, "f32[2,9000]:nq 1 true") CASE(SORT, "f32[2,9000]:nq 1 false") CASE(SORT, "f16[10000] 0 false")
    CASE(SORT, "i64[2,5000] 1 true") CASE(SORT, "bool[300] 0 true") CASE(SORT, "f64[2500]:q 0 true")
    CASE(SORT, "i64[7,5,3]:t 1 false") CASE(SORT, "f32[] 0 false") CASE(SORT, "f32[0,4] 1 false")
    CASE(SORT, "f32[4,0] 1 false") CASE(SORT, "i16[3,70]:s -1 false") CASE(SORT, "bf16[200,2]:n 0 true")
    CASE(SORT, "i32[1] 0 true") CASE(SORT, "u8[4,33] 1 true") CASE(SORT, "i8[4,2] 0 false")
#undef CASE
#define BAD(id, text) {DJ_OP_##id, text, true},
    BAD(INDEX_PUT, "f32[0,5] {i64[9]<4} f32[9,5] false") BAD(INDEX_PUT, "f32[0,5] {i64[9]<4} f32[9,5] true")
    BAD(SCATTER, "f32[4,0] 1 i64[4,3]<50 f32[4,3]") BAD(INDEX_SELECT, "f32[4,5]:o 1 i32[30]<-5")
#undef BAD
};

/* ---- a case ---- */

static dj_status_t replay(const recorded_t *r)
{
    uint64_t peak = r->program.plan->peak_bytes, slab = peak + 4096;
    uint8_t *stack = aligned_alloc(256, (slab + 255) / 256 * 256);
    assert_non_null(stack);
    dj_launch_t launch = {r->program.bindings, stack, NULL, (uint64_t *)r->program.program.scalars.data};
    dj_poison_fill(stack, slab, DJ_POISON_BYTE);
    dj_status_t status = stub_ops.replay(r->program.exe, &launch);
    assert_in_range(dj_poison_peak(stack, slab, DJ_POISON_BYTE), 0, peak);
    free(stack);
    return status;
}

static void run_row(void **state)
{
    const run_t *run = *state;
    recorded_t r;
    ref_call_t call = {.c = &r.c};
    stub.blocks_max = run->blocks_max;
    record(&r, &stub_device.base, run->row->op, run->row->text);
    read_operands(&r, &call);
    dj_status_t status = replay(&r);
    if (run->row->is_bad) {
        check_refused(&r, status);
    } else {
        expect_ok(status);
        check_memory(&r);
        check_values(&r, &call);
    }
    recorded_free(&r, &call);
}

/* ---- conversions: the host's rules, written down once more ---- */

static const double edges[] = {
    0,      -0.0,    1,        -1,    0.5,  -0.75, 1.5,   2.5,      127,       128,           255,
    256,    300,     -129,     32768, 65504, 65520, 65519.9, 70000, 1e-7,      6e-8,          -3e-8,
    1e10,   -1e10,   3e9,      5e18,  1e19, -1e19, 1e40,  -1e40,    NAN,       INFINITY,      -INFINITY,
    1e-40,  0.1,     16777217, 9007199254740993.0, 2049.000001, 1.00048828125, 1.000488281250001};
#define EDGES (sizeof(edges) / sizeof(*edges))

static int64_t integer_of(double x)
{
    return x >= -0x1p63 && x < 0x1p63 ? (int64_t)x : INT64_MIN;
}

/* Reads an element as it is, and stores it as `to` should have it. */
static void convert_one(uint8_t from, const uint8_t *source, uint8_t to, uint8_t *target)
{
    double real = 0;
    int64_t integer = 0;
    bool is_real = from >= DJ_F16;
    case_get(from, source, &real, &integer);
    if (from == DJ_BOOL)
        real = (double)(integer = integer != 0);
    if (is_real)
        integer = integer_of(real);
    if (to == DJ_BOOL)
        integer = is_real ? real != 0 : integer != 0;
    if (to == DJ_BF16) { /* case_put cuts off */
        union {
            float f;
            uint32_t bits;
        } wide = {.f = is_real ? (float)real : (float)integer};
        uint16_t bits = (uint16_t)(isnan(real) ? 0x7fc0 : (wide.bits + 0x7fff + (wide.bits >> 16 & 1)) >> 16);
        memcpy(target, &bits, 2);
    } else if (to == DJ_F32 && !is_real) {
        float exact = (float)integer;
        memcpy(target, &exact, 4);
    } else {
        case_put(to, target, real, integer);
    }
}

static void same_element(uint8_t from, uint8_t to, double value, const uint8_t *want, const uint8_t *got)
{
    double x, y;
    int64_t i, j;
    case_get(to, want, &x, &i);
    case_get(to, got, &y, &j);
    if ((isnan(x) && isnan(y) && to >= DJ_F16) || memcmp(want, got, dj_dtype_bytes(to)) == 0)
        return;
    fail_msg("%.17g from %s to %s: %.17g (%lld), expected %.17g (%lld)", value, dj_dtype_name(from),
             dj_dtype_name(to), y, (long long)j, x, (long long)i);
}

static void every_conversion(void **state)
{
    static const char *const names[] = {"bool", "u8", "i8", "i16", "i32", "i64", "f16", "bf16", "f32", "f64"};
    (void)state;
    stub.blocks_max = 2;
    for (uint8_t from = DJ_BOOL; from <= DJ_F64; from++)
        for (uint8_t to = DJ_BOOL; to <= DJ_F64; to++) {
            recorded_t r;
            ref_call_t call = {.c = &r.c};
            char text[64];
            uint32_t item = dj_dtype_bytes(from), out_item = dj_dtype_bytes(to);
            snprintf(text, sizeof(text), "%s[%zu] %s", names[from], EDGES, names[to]);
            record(&r, &stub_device.base, DJ_OP_TO_COPY, text);
            for (size_t i = 0; i < EDGES; i++)
                case_put(from, r.c.tensors[0].data + i * item, edges[i],
                         from == DJ_BOOL ? edges[i] != 0 : integer_of(edges[i]));
            expect_ok(replay(&r));
            for (size_t i = 0; i < EDGES; i++) {
                uint8_t want[8];
                convert_one(from, r.c.tensors[0].data + i * item, to, want);
                same_element(from, to, edges[i], want, r.results[0].data + i * out_item);
            }
            recorded_free(&r, &call);
        }
}

/* ---- order of numbers that are equal, or no numbers ---- */

static void zeros_and_nans(void **state)
{
    static const uint32_t bits[] = {0x7fc00001, 0x80000000, 0,          0xffc00000, 0x3f800000, 0xff800000,
                                    0x80000000, 0x7f800000, 0x7f800001, 0xbf800000, 0,          0xffffffff};
    static const int64_t upward[] = {5, 9, 1, 2, 6, 10, 4, 7, 0, 3, 8, 11};
    static const int64_t downward[] = {0, 3, 8, 11, 7, 4, 1, 2, 6, 10, 9, 5};
    (void)state;
    stub.blocks_max = 1;
    for (int is_wide = 0; is_wide < 2; is_wide++)
        for (int descending = 0; descending < 2; descending++) {
            recorded_t r;
            ref_call_t call = {.c = &r.c};
            char text[64];
            snprintf(text, sizeof(text), "%s[12] 0 %s", is_wide ? "f64" : "f32", descending ? "true" : "false");
            record(&r, &stub_device.base, DJ_OP_SORT, text);
            for (uint32_t i = 0; i < 12; i++) {
                uint64_t wide = (uint64_t)(bits[i] >> 31) << 63 | (uint64_t)(bits[i] & 0x7fffff) << 29;
                wide |= (bits[i] & 0x7f800000) == 0x7f800000   ? 0x7ffull << 52
                        : (bits[i] & 0x7f800000) == 0x3f800000 ? 0x3ffull << 52
                                                               : 0;
                memcpy(r.c.tensors[0].data + i * (is_wide ? 8 : 4), is_wide ? (void *)&wide : (void *)&bits[i],
                       is_wide ? 8 : 4);
            }
            expect_ok(replay(&r));
            assert_memory_equal(r.results[1].data, descending ? downward : upward, sizeof(upward));
            for (uint32_t i = 0; i < 12; i++) { /* to the bit */
                uint32_t item = is_wide ? 8 : 4, from = (uint32_t)(descending ? downward : upward)[i];
                assert_memory_equal(r.results[0].data + i * item, r.c.tensors[0].data + from * item, item);
            }
            recorded_free(&r, &call);
        }
}

/* ---- many pieces ---- */

enum { PIECES = 130, COLUMNS = 9 };

/* Rows of one tensor, one to three at a time and some of them turned round in memory, in one concatenation. */
static void many_pieces(void **state)
{
    static float data[3 * PIECES * COLUMNS], got[3 * PIECES * COLUMNS], want[3 * PIECES * COLUMNS];
    dj_operand_t list[PIECES];
    test_case_t test;
    uint32_t total = 0;
    (void)state;
    stub.blocks_max = 2;
    case_open(&test, &stub_device.base);
    int64_t all[2] = {3 * PIECES, COLUMNS};
    dj_operand_t input = case_input(&test, DJ_CLASS_STATE, data, sizeof(data), dj_view_contiguous(DJ_F32, 2, all));
    for (uint32_t i = 0; i < 3 * PIECES * COLUMNS; i++)
        data[i] = (float)i;
    for (uint32_t i = 0; i < PIECES; i++) {
        uint32_t n = i % 3 + 1;
        list[i] = input;
        list[i].view.sizes[0] = n;
        list[i].view.offset = (int64_t)(PIECES - i) * COLUMNS;
        if (i % 7 == 0) { /* not dense */
            list[i].view.strides[0] = 1;
            list[i].view.strides[1] = 3;
        }
        for (uint32_t row = 0; row < n; row++)
            for (uint32_t column = 0; column < COLUMNS; column++)
                want[(total + row) * COLUMNS + column] =
                    data[list[i].view.offset + row * list[i].view.strides[0] + column * list[i].view.strides[1]];
        total += n;
    }
    dj_arg_t args[2] = {{.kind = DJ_ARG_TENSORS, .count = PIECES, .operands = list},
                        {.kind = DJ_ARG_INTEGER, .integer = 0}};
    dj_operand_t out = case_add(&test, DJ_OP_CAT, args, 2, NULL);
    expect_ok(case_build(&test, &out.storage, 1));
    test.bindings[test.n_inputs] = got;
    dj_launch_t launch = {test.bindings, NULL, NULL, (uint64_t *)test.program.scalars.data};
    stub.launches = 0;
    expect_ok(stub_ops.replay(test.exe, &launch));
    assert_memory_equal(got, want, total * COLUMNS * sizeof(float));
    assert_in_range(stub.launches, 2, 3 + (PIECES + 6) / 7);
    case_close(&test);
}

static size_t runs_make(const rows_t *rows, run_t *runs, struct CMUnitTest *tests)
{
    static const uint32_t grids[] = {1, 3, 1 << 20};
    size_t n = 0;
    for (size_t i = 0; i < rows->n; i++)
        for (size_t g = 0; g < sizeof(grids) / sizeof(*grids) && slot(rows->row[i].op); g++) {
            char name[256];
            row_name(&rows->row[i], name, sizeof(name));
            runs[n] = (run_t){.row = &rows->row[i], .blocks_max = grids[g]};
            snprintf(runs[n].name, sizeof(runs[n].name), "%s in at most %u blocks", name, grids[g]);
            tests[n] = (struct CMUnitTest){.name = runs[n].name, .test_func = run_row, .initial_state = &runs[n]};
            n++;
        }
    return n;
}

int main(int argc, char **argv)
{
    static rows_t rows;
    static run_t runs[3 * FILE_ROWS_MAX];
    static struct CMUnitTest tests[3 * FILE_ROWS_MAX];
    stub_slot = slot;
    if (!dj_hash_setup())
        return 1;
    rows_choose(argc, argv, &rows);
    bool all = rows_are_all(&rows);
    for (size_t i = 0; all && i < sizeof(own_rows) / sizeof(*own_rows); i++)
        rows_take(&rows, &own_rows[i], i);
    size_t n = runs_make(&rows, runs, tests);
    if (all) {
        tests[n++] = (struct CMUnitTest)cmocka_unit_test(every_conversion);
        tests[n++] = (struct CMUnitTest)cmocka_unit_test(zeros_and_nans);
        tests[n++] = (struct CMUnitTest)cmocka_unit_test(many_pieces);
    }
    return n == 0 || _cmocka_run_group_tests("cuda layout, index, scan", tests, n, NULL, NULL) != 0;
}
