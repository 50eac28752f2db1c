/* Every shape rule with arguments that nobody has looked at: sizes at the limits and beyond,
 * negative numbers, lists of any length, dims that are none. Whatever they are, the answer is a
 * status with a sentence or outputs that pass dj_view_check(). Sanitizers see what an overflow or a
 * stray read would be; lists lie in memory of exactly their length. */
#include "tests/planner/builder.h"

#define TRIALS 4000 /* of each row */
#define ARRAYS 64

typedef struct hostile {
    uint64_t random;
    bool wild; /* else most numbers are ones that fit */
    void *arrays[ARRAYS];
    uint32_t n_arrays;
} hostile_t;

static void *array_of(hostile_t *h, size_t count, size_t size)
{
    assert_true(h->n_arrays < ARRAYS);
    void *array = malloc(count * size + (count == 0));
    assert_non_null(array);
    h->arrays[h->n_arrays++] = array;
    return array;
}

static int64_t any_number(hostile_t *h)
{
    static const int64_t wild[] = {
        INT64_MIN, INT64_MIN + 1, -(1ll << 46),    -9,        -2,        -1,        0,        1,
        1ll << 20, 1ll << 30,     (1ll << 30) + 1, 1ll << 45, 1ll << 46, 1ll << 62, INT64_MAX};
    if (h->wild && random_below(&h->random, 3) == 0)
        return wild[random_below(&h->random, sizeof wild / sizeof wild[0])];
    return (int64_t)random_below(&h->random, 6) - (random_below(&h->random, 4) == 0 ? 3 : 0);
}

static dj_view_t any_view(hostile_t *h)
{
    static const int64_t sizes[] = {0, 1, 1, 2, 3, 4, 6, 8};
    static const int64_t large[] = {1ll << 15, 1ll << 23, 1ll << 40, 1ll << 43, 1ll << 46};
    int64_t chosen[DJ_RANK_MAX];
    uint32_t rank = random_below(&h->random, DJ_RANK_MAX + 1);
    for (uint32_t i = 0; i < rank; i++) {
        chosen[i] = sizes[random_below(&h->random, 8)];
        if (h->wild && random_below(&h->random, 4) == 0)
            chosen[i] = large[random_below(&h->random, 5)];
    }
    dj_view_t view = dj_view_contiguous((uint8_t)random_below(&h->random, DJ_DTYPE_COUNT),
                                        (uint8_t)rank, chosen);
    if (random_below(&h->random, 3) == 0 && rank > 1)
        view = transposed(view, 0, rank - 1);
    if (h->wild && random_below(&h->random, 8) == 0) {
        view.rank = (uint8_t)random_below(&h->random, 80);
        view.offset = any_number(h);
        view.dtype = (uint8_t)random_below(&h->random, 256);
        view.strides[random_below(&h->random, DJ_RANK_MAX)] = any_number(h);
        view.sizes[random_below(&h->random, DJ_RANK_MAX)] = any_number(h);
    }
    return view;
}

static dj_operand_t any_operand(hostile_t *h, bool may_lack)
{
    uint32_t what = random_below(&h->random, 12);
    if (what == 0 && may_lack)
        return operand_of(DJ_STORAGE_NONE, any_view(h));
    if (what == 1)
        return number_operand((uint8_t)random_below(&h->random, 12), 3);
    return operand_of(0, any_view(h));
}

static dj_arg_t any_tensors(hostile_t *h, char letter, const dj_operand_t *like)
{
    bool list = letter == 'l' || letter == 'L',
         may_lack = letter == 'T' || letter == 'L' || h->wild;
    uint32_t count = list ? random_below(&h->random, 5) : 1;
    if (!list && may_lack && random_below(&h->random, 6) == 0)
        return arg_none();
    dj_operand_t *operands = array_of(h, count, sizeof *operands);
    for (uint32_t i = 0; i < count; i++) {
        operands[i] = any_operand(h, may_lack);
        if (like != NULL && random_below(&h->random, 2) == 0)
            operands[i] = *like; /* shapes that fit one another come past the first checks */
    }
    return arg_list(operands, count);
}

static dj_arg_t any_integers(hostile_t *h)
{
    uint32_t count = random_below(&h->random, h->wild ? 20 : 5);
    if (random_below(&h->random, 6) == 0)
        return arg_none();
    int64_t *integers = array_of(h, count, sizeof *integers);
    for (uint32_t i = 0; i < count; i++)
        integers[i] = any_number(h);
    return arg_integers(integers, count);
}

static dj_arg_t any_argument(hostile_t *h, char letter, const dj_operand_t *like)
{
    static const char letters[] = "tTlLnNdDbysS-";
    if (h->wild && random_below(&h->random, 30) == 0)
        letter = letters[random_below(&h->random, sizeof letters - 1)];
    switch (letter) {
    case 't':
    case 'T':
    case 'l':
    case 'L':
        return any_tensors(h, letter, like);
    case 'N':
    case 'D':
        return any_integers(h);
    case 'y':
        return arg_integer(random_below(&h->random, h->wild ? 300 : DJ_DTYPE_COUNT));
    case 'b':
        return arg_integer(random_below(&h->random, h->wild ? 3 : 2));
    case 's':
    case 'S':
        return random_below(&h->random, 2) == 0 ? arg_real(0.5) : arg_whole(any_number(h));
    case '-':
        return arg_none();
    default:
        return arg_integer(any_number(h));
    }
}

static bool try_once(hostile_t *h, uint16_t op)
{
    const dj_op_info_t *info = dj_op_info(op);
    const dj_operand_t *like = NULL;
    dj_arg_t args[DJ_ARGS_MAX];
    dj_view_t outs[DJ_OUTS_MAX];
    for (uint32_t i = 0; i < info->n_args; i++) {
        args[i] = any_argument(h, info->signature[i], like);
        if (like == NULL && args[i].kind == DJ_ARG_TENSORS && args[i].count > 0)
            like = args[i].operands;
    }
    dj_call_t call = {.op = op, .n_args = info->n_args, .args = args};
    dj_status_t status = dj_op_infer(&call, outs);
    if (status != DJ_OK)
        assert_non_null(strstr(dj_error_text(), info->name));
    for (uint32_t i = 0; status == DJ_OK && i < (info->is_view ? 1u : info->n_outs); i++)
        assert_ok(dj_view_check(&outs[i], UINT64_MAX));
    while (h->n_arrays > 0)
        free(h->arrays[--h->n_arrays]);
    return status == DJ_OK;
}

static void survives_any_arguments(void **state)
{
    uint32_t n_refused_alone = 0;
    for (uint16_t op = 0; op < DJ_OP_COUNT; op++) {
        hostile_t h = {.random = 88172645463325252ull + op};
        uint32_t n_accepted = 0;
        for (uint32_t i = 0; i < TRIALS; i++) {
            h.wild = i % 2 == 1;
            n_accepted += try_once(&h, op);
        }
        n_refused_alone += n_accepted == 0;
        if (n_accepted == 0)
            print_message("%s was never accepted\n", dj_op_info(op)->name);
    }
    assert_true(n_refused_alone < DJ_OP_COUNT / 4); /* the arguments are not all nonsense */
}

static void views_are_no_part_of_a_program(void **state)
{
    dj_program_t program = {0};
    dj_program_reset(&program);
    dj_operand_t a = input_of(&program, DJ_CLASS_STATE, shape(DJ_F32, 2, 4, 6));
    dj_arg_t args[] = {arg_tensor(&a), arg_integer(1), arg_integer(2)};
    dj_call_t call = call_of("select.int", args);
    dj_view_t outs[DJ_OUTS_MAX];
    uint32_t storages[DJ_OUTS_MAX];
    assert_ok(dj_op_infer(&call, outs));
    assert_int_equal(outs[0].offset, 2);
    assert_int_equal(outs[0].rank, 1);
    assert_int_equal(outs[0].strides[0], 6);
    assert_int_equal(dj_program_add(&program, &call, NULL, storages), DJ_ERR_INVALID);
    assert_non_null(strstr(dj_error_text(), "aten::select.int"));

    /* the same in foreign bytes: the op's number, after the byte that says that an op begins */
    dj_graph_t *graph;
    int64_t pads[] = {1, 1};
    dj_arg_t pad[] = {arg_tensor(&a), arg_integers(pads, 2)};
    size_t at = program.structure.size + 1;
    dj_operand_t out = add_op(&program, "reflection_pad1d", pad);
    uint16_t view = dj_op_find("permute");
    finish(&program, &out.storage, 1);
    assert_ok(decode(&program, &graph));
    dj_graph_destroy(graph);
    assert_true(view >= 128 && dj_op_find("reflection_pad1d") >= 128); /* two bytes each */
    program.structure.data[at] = (uint8_t)(view | 128);
    program.structure.data[at + 1] = (uint8_t)(view >> 7);
    assert_int_equal(decode(&program, &graph), DJ_ERR_PROTOCOL);
    assert_non_null(strstr(dj_error_text(), "aten::permute"));
    dj_program_fini(&program);
}

static void masked_outputs_have_no_elements(void **state)
{
    dj_operand_t x = operand_of(0, shape(DJ_F32, 4, 2, 3, 8, 8));
    dj_operand_t w = operand_of(1, shape(DJ_F32, 4, 5, 3, 3, 3));
    dj_operand_t grad = operand_of(2, shape(DJ_F32, 4, 2, 5, 6, 6));
    int64_t one = 1, zero = 0, five = 5, mask[] = {0, 1, 0};
    dj_arg_t args[] = {arg_tensor(&grad),      arg_tensor(&x),        arg_tensor(&w),
                       arg_integers(&five, 1), arg_integers(&one, 1), arg_integers(&zero, 1),
                       arg_integers(&one, 1),  arg_integer(0),        arg_integers(&zero, 1),
                       arg_integer(1),         arg_integers(mask, 3)};
    dj_call_t call = call_of("convolution_backward", args);
    dj_view_t outs[DJ_OUTS_MAX];
    assert_ok(dj_op_infer(&call, outs));
    assert_int_equal(dj_view_count(&outs[0]), 0);
    assert_true(dj_view_same_shape(&outs[1], &w.view));
    assert_int_equal(dj_view_count(&outs[2]), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(survives_any_arguments),
        cmocka_unit_test(views_are_no_part_of_a_program),
        cmocka_unit_test(masked_outputs_have_no_elements),
    };
    dj_hash_setup();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
