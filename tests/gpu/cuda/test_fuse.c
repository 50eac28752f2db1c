/* test_fuse.c - parts of fusion groups, their parameters and their texts. What the texts compute: test_fused_values.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "gpu/cuda/part.h"
#include "runtime/base/hash.h"
#include "tests/gpu/cuda/pointwise_nodes.h"

#define NODES 40

static made_node_t made[NODES];
static const dj_node_t *nodes[NODES];
static dj_part_t part;

/* What storage `s` holds as step `i` writes it. */
static dj_operand_t result_of(uint32_t i)
{
    return (dj_operand_t){.storage = made[i].out.storage, .slot = DJ_SLOT_NONE, .view = made[i].out.view};
}

static void add(uint32_t i, uint16_t op, dj_operand_t a, dj_operand_t b)
{
    dj_operand_t operands[3] = {a, b, b};
    nodes[i] = &made[i].node;
    if (made_node(&made[i], op, operands, DJ_F64, 2 * i, 1000 + i) != DJ_OK)
        fail_msg("%s", dj_error_text());
}

static dj_operand_t dense(uint32_t storage, uint8_t dtype, int64_t rows, int64_t columns)
{
    return made_tensor(storage, dtype, 2, (int64_t[]){rows, columns});
}

static void make(uint32_t n)
{
    if (dj_part_make(&part, nodes, n) != DJ_OK)
        fail_msg("%s", dj_error_text());
}

/* Of the part; static storage. */
static const char *text_of_part(void)
{
    static char *text;
    const char *name;
    free(text);
    assert_int_equal(dj_part_source(&part, &text, &name), DJ_OK);
    assert_non_null(strstr(text, name));
    return text;
}

static bool says(const char *words)
{
    return strstr(text_of_part(), words) != NULL;
}

/* x + row, gelu: [rows, columns] */
static void bias_gelu(int64_t rows, int64_t columns, uint8_t dtype)
{
    add(0, DJ_OP_ADD, dense(1, dtype, rows, columns), made_tensor(2, dtype, 1, &columns));
    add(1, DJ_OP_GELU, result_of(0), result_of(0));
    make(2);
}

static void sizes_share_a_text(void **state)
{
    (void)state;
    bias_gelu(64, 256, DJ_F32);
    char *first = strdup(text_of_part());
    assert_int_equal(part.packs, 64 * 256 / 4);
    bias_gelu(7, 1024, DJ_F32);
    assert_string_equal(text_of_part(), first);
    bias_gelu(7, 33, DJ_F32); /* no pack of 4 ends with a row: the parameters say so */
    assert_string_equal(text_of_part(), first);
    assert_int_equal(part.packs, 0);
    bias_gelu(64, 256, DJ_BF16);
    assert_string_not_equal(text_of_part(), first);
    bias_gelu(1 << 16, 1 << 15, DJ_F32); /* 2^31 elements: wider indices */
    assert_string_not_equal(text_of_part(), first);
    assert_false(part.narrow);
    free(first);
}

static void a_text_of_equal_parts_has_one_name(void **state)
{
    (void)state;
    char *texts[2];
    const char *names[2];
    for (int i = 0; i < 2; i++) {
        bias_gelu(64, 256, i ? DJ_F16 : DJ_BF16);
        assert_int_equal(dj_part_source(&part, &texts[i], &names[i]), DJ_OK);
        assert_int_equal(strncmp(names[i], "dj_fused_", 9), 0);
    }
    assert_string_not_equal(names[0], names[1]);
    free(texts[0]);
    free(texts[1]);
}

static void a_value_stays_in_registers_as_it_was_stored(void **state)
{
    (void)state;
    bias_gelu(64, 256, DJ_BF16);
    assert_int_equal(part.n_steps, 2);
    assert_int_equal(part.n_inputs, 2);
    assert_int_equal(part.steps[1].values[0].from, DJ_FROM_STEP);
    assert_true(says("dj_pack<dj_bf16, N> y0;"));
    assert_true(says("const float a = dj_as_f32(dj_plain(y0.at[l]));"));
    assert_true(says("dj_store_row(at.out0 + dj_steps(i, 2), y0);"));
    assert_int_equal(part.lanes, 8);
}

static void walks_are_told_apart(void **state)
{
    (void)state;
    dj_operand_t x = dense(1, DJ_F32, 6, 16), turned = dense(3, DJ_F32, 16, 6);
    turned.view = x.view;
    turned.view.strides[0] = 1, turned.view.strides[1] = 6;
    const struct {
        dj_operand_t b;
        dj_part_walk_t walk;
    } cases[] = {
        {x, DJ_WALK_DENSE},
        {made_tensor(3, DJ_F32, 1, (int64_t[]){16}), DJ_WALK_ROW},
        {made_tensor(3, DJ_F32, 2, (int64_t[]){6, 1}), DJ_WALK_REPEAT},
        {made_tensor(3, DJ_F32, 0, NULL), DJ_WALK_ONE},
        {turned, DJ_WALK_EACH},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        add(0, DJ_OP_MUL, x, cases[i].b);
        make(1);
        assert_int_equal(part.inputs[part.n_inputs - 1].walk, cases[i].walk);
        assert_int_equal(part.n_rows, cases[i].walk != DJ_WALK_DENSE && cases[i].walk != DJ_WALK_ONE);
        assert_int_equal(says("p.sizes"), part.n_rows > 0);
    }
}

/* A slice's rows begin where 16 bytes do not: no packs. */
static void packs_need_aligned_rows(void **state)
{
    (void)state;
    dj_operand_t slice = dense(2, DJ_BF16, 4, 64);
    slice.view.strides[0] = 68;
    add(0, DJ_OP_NEG, slice, slice);
    make(1);
    assert_int_equal(part.inputs[0].walk, DJ_WALK_ROW);
    assert_int_equal(part.packs, 0);
    slice.view.strides[0] = 72;
    add(0, DJ_OP_NEG, slice, slice);
    make(1);
    assert_int_equal(part.packs, 4 * 64 / 8);
}

static void parameters_lie_where_the_text_has_them(void **state)
{
    (void)state;
    uint8_t params[DJ_CUDA_PARAMS_MAX] = {0};
    char sum[64];
    int64_t value;
    bias_gelu(6, 16, DJ_F32);
    dj_part_layout_t layout = dj_part_layout(&part);
    snprintf(sum, sizeof(sum), "_t) == %u, ", layout.bytes);
    assert_true(says(sum));
    assert_true(says("    dj_cuda_head_t head;\n    int64_t count, packs;\n    dj_cuda_ref_t inputs[2];\n"
                     "    dj_cuda_ref_t outs[2];\n    dj_cuda_scalar_t scalars[1];\n"
                     "    int64_t sizes[2], strides[1][2];\n};"));
    assert_int_equal(layout.count, 32);
    assert_int_equal(layout.inputs, 48);
    assert_int_equal(layout.outs, 48 + 2 * 24);
    assert_int_equal(layout.scalars, 48 + 4 * 24);
    assert_int_equal(layout.sizes, 48 + 4 * 24 + 8);
    assert_int_equal(layout.bytes, 48 + 4 * 24 + 8 + 16 + 16);
    dj_part_params(&part, params);
    memcpy(&value, params + layout.count, 8);
    assert_int_equal(value, 96);
    memcpy(&value, params + layout.packs, 8);
    assert_int_equal(value, 24);
    memcpy(&value, params + layout.sizes + 8, 8);
    assert_int_equal(value, 16);
    memcpy(&value, params + layout.strides + 8, 8);
    assert_int_equal(value, 4);
    memcpy(&value, params + layout.strides, 8);
    assert_int_equal(value, 0);
}

/* Steps of nodes[0..n) part by part; every one is in exactly one, and every part fits. */
static uint32_t count_parts(uint32_t n)
{
    uint32_t parts = 0;
    for (uint32_t at = 0; at < n; at += part.n_steps, parts++) {
        assert_int_equal(dj_part_make(&part, &nodes[at], n - at), DJ_OK);
        assert_true(part.n_steps >= 1 && part.n_steps <= n - at);
        assert_true(dj_part_layout(&part).bytes <= DJ_CUDA_PARAMS_MAX);
        assert_true(part.n_inputs <= DJ_PART_INPUTS_MAX);
    }
    return parts;
}

static void many_operands_are_parted(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < NODES; i++)
        add(i, DJ_OP_MUL, i ? result_of(i - 1) : dense(1, DJ_F32, 6, 16), dense(2 + i, DJ_F32, 6, 16));
    assert_int_equal(count_parts(NODES), 2);
    for (uint32_t i = 0; i < NODES; i++) /* one operand: only the steps count */
        add(i, DJ_OP_MUL, i ? result_of(i - 1) : dense(1, DJ_F32, 6, 16), dense(1, DJ_F32, 6, 16));
    assert_int_equal(count_parts(NODES), 2);
    make(NODES);
    assert_int_equal(part.n_steps, DJ_PART_STEPS_MAX);
}

/* Eight dimensions that nothing merges, every operand with strides of its own. */
static void large_parameters_are_parted(void **state)
{
    (void)state;
    const int64_t sizes[8] = {2, 2, 2, 2, 2, 2, 2, 2};
    dj_operand_t x = made_tensor(1, DJ_F32, 8, sizes);
    for (uint32_t i = 0; i < 32; i++) {
        dj_operand_t b = made_tensor(2 + i, DJ_F32, 8, sizes);
        for (uint32_t d = 0; d < 8; d++) {
            b.view.strides[d] = ((int64_t)i + 2) << (2 * d);
            if (i % 2) /* a broadcast dimension keeps the others from merging */
                b.view.strides[d] = d == 3 ? 0 : b.view.strides[d];
        }
        add(i, DJ_OP_MUL, i ? result_of(i - 1) : x, b);
        made[i].out.view = x.view;
        for (uint32_t d = 0; d < 8; d++) /* and so is the output */
            made[i].out.view.strides[d] = ((int64_t)i + 40) << (2 * d);
    }
    assert_true(count_parts(32) >= 2);
    for (uint32_t at = 0, parts = 0; at < 32; at += part.n_steps, parts++) {
        assert_int_equal(dj_part_make(&part, &nodes[at], 32 - at), DJ_OK);
        assert_int_equal(part.rank, 8);
        if (parts == 0)
            assert_in_range(part.n_steps, 8, 31);
    }
}

/* One storage through two windows: what a step writes, another thread may read. */
static void windows_that_differ_are_parted(void **state)
{
    (void)state;
    dj_operand_t x = dense(1, DJ_F32, 6, 16), row = result_of(0);
    add(0, DJ_OP_NEG, x, x);
    row = result_of(0);
    row.view = dj_view_contiguous(DJ_F32, 1, (int64_t[]){16});
    add(1, DJ_OP_MUL, x, row);
    make(2);
    assert_int_equal(part.n_steps, 1);

    add(0, DJ_OP_MUL, x, row); /* read by a window, then written through another */
    add(1, DJ_OP_NEG, x, x);
    made[1].out.storage = row.storage;
    make(2);
    assert_int_equal(part.n_steps, 1);

    row.view.offset = 96; /* another place of the same storage */
    add(0, DJ_OP_MUL, x, row);
    made[1].out.storage = row.storage;
    make(2);
    assert_int_equal(part.n_steps, 2);

    row.slot = 5; /* which only the request knows */
    add(0, DJ_OP_MUL, x, row);
    make(2);
    assert_int_equal(part.n_steps, 1);

    row.slot = DJ_SLOT_NONE;
    add(0, DJ_OP_NEG, x, x); /* in place, then read again: the same window */
    made[0].out.storage = 1;
    add(1, DJ_OP_EXP, x, x);
    make(2);
    assert_int_equal(part.n_steps, 2);
    assert_int_equal(part.n_inputs, 1);
    assert_int_equal(part.steps[1].values[0].from, DJ_FROM_STEP);
}

static void shapes_that_differ_are_parted(void **state)
{
    (void)state;
    add(0, DJ_OP_NEG, dense(1, DJ_F32, 6, 16), dense(1, DJ_F32, 6, 16));
    add(1, DJ_OP_NEG, dense(2, DJ_F32, 16, 6), dense(2, DJ_F32, 16, 6));
    make(2);
    assert_int_equal(part.n_steps, 1);
}

static void scalars_are_of_the_request(void **state)
{
    (void)state;
    dj_operand_t x = dense(1, DJ_I32, 6, 16);
    add(0, DJ_OP_MUL, x, made_number(7, DJ_I64));
    make(1);
    assert_int_equal(part.n_scalars, 1);
    assert_int_equal(part.scalars[0].slot, 7);
    assert_false(part.scalars[0].is_real);
    assert_true(says("dj_scalar_i64(p.head, p.scalars[0])"));
    assert_int_equal(made_node(&made[0], DJ_OP_CLAMP, &x, DJ_DTYPE_NONE, 0, 9), DJ_OK);
    make(1);
    assert_int_equal(part.n_scalars, 0);
    assert_true(says("const dj_wrap s0 = DJ_ABSENT_i64_0;"));
    x.view.dtype = DJ_F32;
    add(0, DJ_OP_POW_SCALAR, x, x);
    make(1);
    assert_true(says("at.power0 = dj_power_kind("));
}

static void nothing_and_one_need_no_walk(void **state)
{
    (void)state;
    dj_operand_t none = made_tensor(1, DJ_F32, 2, (int64_t[]){0, 3});
    add(0, DJ_OP_ADD, none, made_tensor(2, DJ_F32, 1, (int64_t[]){3}));
    make(1);
    assert_int_equal(part.count, 0);
    add(0, DJ_OP_ADD, made_tensor(1, DJ_F32, 0, NULL), made_tensor(2, DJ_F32, 2, (int64_t[]){1, 1}));
    make(1);
    assert_int_equal(part.count, 1);
    assert_int_equal(part.n_rows, 0);
}

/* ---- what never comes out of a graph ---- */

static void hostile_nodes_are_refused(void **state)
{
    (void)state;
    dj_operand_t x = dense(1, DJ_F32, 6, 16);
    assert_int_equal(dj_part_make(&part, nodes, 0), DJ_ERR_INVALID);

    add(0, DJ_OP_ADD, x, x);
    made[0].operands[1].view.dtype = DJ_C64;
    assert_int_equal(dj_part_check(nodes[0]), DJ_ERR_UNSUPPORTED);
    assert_non_null(strstr(dj_error_text(), "complex64"));

    add(0, DJ_OP_ADD, x, x);
    made[0].operands[1].view.dtype = 200;
    assert_int_equal(dj_part_check(nodes[0]), DJ_ERR_UNSUPPORTED);

    add(0, DJ_OP_ADD, x, x);
    made[0].operands[1].storage = DJ_STORAGE_NONE;
    assert_int_equal(dj_part_check(nodes[0]), DJ_ERR_INVALID);

    add(0, DJ_OP_ADD, x, made_number(DJ_SLOT_NONE, DJ_F64));
    assert_int_equal(dj_part_check(nodes[0]), DJ_ERR_INVALID);

    add(0, DJ_OP_ADD, x, x);
    made[0].node.call.n_args = 2;
    assert_int_equal(dj_part_check(nodes[0]), DJ_ERR_UNSUPPORTED);
    made[0].node.call = (dj_call_t){.op = DJ_OP_COUNT};
    assert_int_equal(dj_part_check(nodes[0]), DJ_ERR_UNSUPPORTED);
    made[0].node.call.op = DJ_OP_MM;
    assert_int_equal(dj_part_check(nodes[0]), DJ_ERR_UNSUPPORTED);

    add(0, DJ_OP_ADD, x, x);
    made[0].operands[1].view.sizes[1] = 5;
    assert_int_equal(dj_part_make(&part, nodes, 1), DJ_ERR_SHAPE);
    made[0].operands[1].view.sizes[1] = 16;
    made[0].operands[1].view.rank = 8;
    assert_int_equal(dj_part_make(&part, nodes, 1), DJ_ERR_SHAPE);

    x.view.dtype = DJ_I64;
    add(0, DJ_OP_BITWISE_AND, x, x);
    made[0].operands[0].view.dtype = DJ_F32;
    assert_int_equal(dj_part_check(nodes[0]), DJ_ERR_UNSUPPORTED);
}

/* An output that lies in one place: no graph has it, and it is still written there alone. */
static void an_output_in_one_place_is_not_overrun(void **state)
{
    (void)state;
    add(0, DJ_OP_NEG, dense(1, DJ_F32, 6, 16), dense(1, DJ_F32, 6, 16));
    made[0].out.view.strides[0] = made[0].out.view.strides[1] = 0;
    make(1);
    assert_true(part.steps[0].out.walk == DJ_WALK_REPEAT || part.steps[0].out.walk == DJ_WALK_EACH);
    assert_true(says("dj_store_each(at.out0 + row"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hostile_nodes_are_refused),
        cmocka_unit_test(an_output_in_one_place_is_not_overrun),
        cmocka_unit_test(sizes_share_a_text),
        cmocka_unit_test(a_text_of_equal_parts_has_one_name),
        cmocka_unit_test(a_value_stays_in_registers_as_it_was_stored),
        cmocka_unit_test(walks_are_told_apart),
        cmocka_unit_test(packs_need_aligned_rows),
        cmocka_unit_test(parameters_lie_where_the_text_has_them),
        cmocka_unit_test(many_operands_are_parted),
        cmocka_unit_test(large_parameters_are_parted),
        cmocka_unit_test(windows_that_differ_are_parted),
        cmocka_unit_test(shapes_that_differ_are_parted),
        cmocka_unit_test(scalars_are_of_the_request),
        cmocka_unit_test(nothing_and_one_need_no_walk),
    };
    if (!dj_hash_setup())
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
