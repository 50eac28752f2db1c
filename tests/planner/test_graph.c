/* Foreign bytes first: truncations, bit flips, random bytes, lies about storages, ranks, sizes, weights.
 * Then what an honest program decodes to. */
#include "tests/planner/random_program.h"

/* Decodes copies in exact-size heap blocks, so that a sanitizer sees any step outside. */
static dj_status_t decode_exact(const uint8_t *structure, size_t structure_size,
                                const uint8_t *sizes, size_t sizes_size, uint32_t n_scalars,
                                dj_graph_t **graph_p)
{
    uint8_t *a = malloc(structure_size > 0 ? structure_size : 1);
    uint8_t *b = malloc(sizes_size > 0 ? sizes_size : 1);
    assert_non_null(a);
    assert_non_null(b);
    if (structure_size > 0)
        memcpy(a, structure, structure_size);
    if (sizes_size > 0)
        memcpy(b, sizes, sizes_size);
    dj_status_t status = dj_graph_decode(a, structure_size, b, sizes_size, n_scalars, graph_p);
    free(a);
    free(b);
    return status;
}

/* Whatever decodes must hold together: every number in range, every view inside its storage. */
static void check_sound(const dj_graph_t *graph)
{
    for (uint32_t i = 0; i < graph->n_nodes; i++) {
        const dj_node_t *node = &graph->nodes[i];
        assert_true(node->call.op < DJ_OP_COUNT && node->n_outs >= 1);
        for (uint32_t j = 0; j < node->call.n_args; j++) {
            const dj_arg_t *arg = &node->call.args[j];
            for (uint32_t k = 0; arg->kind == DJ_ARG_TENSORS && k < arg->count; k++) {
                const dj_operand_t *operand = &arg->operands[k];
                if (operand->storage >= DJ_STORAGE_SCALAR)
                    continue;
                assert_true(operand->storage < graph->n_storages);
                assert_true(operand->version < graph->storages[operand->storage].n_versions);
                assert_ok(dj_view_check(&operand->view, graph->storages[operand->storage].bytes));
                assert_true(operand->slot == DJ_SLOT_NONE || operand->slot < graph->n_scalars);
            }
        }
        for (uint32_t j = 0; j < node->n_outs; j++) {
            const dj_storage_t *storage = &graph->storages[node->outs[j].storage];
            assert_true(node->outs[j].storage < graph->n_storages);
            assert_ok(dj_view_check(&node->outs[j].view, storage->bytes));
            assert_false(storage->is_input && storage->input_class == DJ_CLASS_WEIGHT);
            assert_true(storage->first_use <= i && storage->last_use >= i);
        }
    }
    for (uint32_t i = 0; i < graph->n_bindings; i++)
        assert_int_equal(graph->storages[graph->bindings[i]].binding, i);
}

static void check_mutation(const uint8_t *structure, size_t structure_size, const uint8_t *sizes,
                           size_t sizes_size, uint32_t n_scalars, uint32_t *n_passed)
{
    dj_graph_t *graph = NULL;
    if (decode_exact(structure, structure_size, sizes, sizes_size, n_scalars, &graph) != DJ_OK) {
        assert_null(graph);
        assert_true(dj_error_text()[0] != '\0');
        return;
    }
    dj_plan_needs_t needs = {0};
    dj_plan_t *plan;
    check_sound(graph);
    if (dj_plan_make(graph, &needs, &plan) == DJ_OK) { /* and the planner can live with it */
        assert_ok(dj_plan_verify(plan, graph));
        dj_plan_destroy(plan);
    }
    (*n_passed)++;
    dj_graph_destroy(graph);
}

static void survives_truncation(void **state)
{
    dj_program_t program = {0};
    dj_graph_t *graph;
    uint32_t n_passed = 0;
    random_program(&program, 7, 40);
    uint32_t n_scalars = (uint32_t)(program.scalars.size / 8);
    assert_ok(decode(&program, &graph));
    dj_graph_destroy(graph);
    for (size_t size = 0; size < program.structure.size; size++)
        check_mutation(program.structure.data, size, program.sizes.data, program.sizes.size,
                       n_scalars, &n_passed);
    for (size_t size = 0; size < program.sizes.size; size++)
        check_mutation(program.structure.data, program.structure.size, program.sizes.data, size,
                       n_scalars, &n_passed);
    for (uint32_t i = 0; i < n_scalars; i++)
        check_mutation(program.structure.data, program.structure.size, program.sizes.data,
                       program.sizes.size, i, &n_passed);
    check_mutation(program.structure.data, program.structure.size, program.sizes.data,
                   program.sizes.size, n_scalars + 1, &n_passed);
    assert_int_equal(n_passed, 0);
    dj_program_fini(&program);
}

static void survives_mutation(void **state)
{
    uint64_t seed = 20260101;
    uint32_t n_passed = 0;
    for (uint32_t round = 0; round < 100; round++) {
        dj_program_t program = {0};
        random_program(&program, round, 12);
        uint32_t n_scalars = (uint32_t)(program.scalars.size / 8);
        size_t total = program.structure.size + program.sizes.size;
        for (uint32_t i = 0; i < 1000; i++) {
            uint32_t n_changes = 1 + random_below(&seed, 3);
            uint32_t at[3];
            uint8_t kept[3];
            for (uint32_t j = 0; j < n_changes; j++) {
                at[j] = random_below(&seed, (uint32_t)total);
                uint8_t *byte = at[j] < program.structure.size
                                    ? &program.structure.data[at[j]]
                                    : &program.sizes.data[at[j] - program.structure.size];
                kept[j] = *byte;
                *byte = random_below(&seed, 2) ? (uint8_t)(*byte ^ 1u << random_below(&seed, 8))
                                               : (uint8_t)random_next(&seed);
            }
            check_mutation(program.structure.data, program.structure.size, program.sizes.data,
                           program.sizes.size, n_scalars, &n_passed);
            for (uint32_t j = n_changes; j-- > 0;)
                *(at[j] < program.structure.size
                      ? &program.structure.data[at[j]]
                      : &program.sizes.data[at[j] - program.structure.size]) = kept[j];
        }
        dj_program_fini(&program);
    }
    assert_true(n_passed > 0); /* else the mutations only ever hit the header */
}

static void survives_random_bytes(void **state)
{
    uint64_t seed = 4711;
    uint8_t bytes[256], sizes[256];
    uint32_t n_passed = 0;
    for (uint32_t i = 0; i < 20000; i++) {
        for (uint32_t j = 0; j < sizeof bytes; j++) {
            bytes[j] = (uint8_t)random_below(&seed, random_below(&seed, 2) ? 8 : 256);
            sizes[j] = (uint8_t)random_below(&seed, random_below(&seed, 2) ? 8 : 256);
        }
        memcpy(bytes, "DJP\1", 4);
        check_mutation(bytes, 5 + random_below(&seed, 251), sizes, random_below(&seed, 256),
                       random_below(&seed, 8), &n_passed);
    }
}

typedef struct lie {
    const char *what;
    dj_status_t status;
    uint8_t structure[32];
    size_t structure_size;
    uint8_t sizes[16];
    size_t sizes_size;
    uint32_t n_scalars;
} lie_t;

#define BYTES(...) {__VA_ARGS__}, sizeof((uint8_t[]){__VA_ARGS__})

static void names_each_lie(void **state)
{
    const uint8_t neg = DJ_OP_NEG, copy = DJ_OP_COPY;
    const lie_t lies[] = {
        {"magic", DJ_ERR_PROTOCOL, BYTES('D', 'J', 'Q', 1, 0, 0), BYTES(0), 0},
        {"version", DJ_ERR_VERSION, BYTES('D', 'J', 'P', 9, 0, 0), BYTES(0), 0},
        {"item", DJ_ERR_PROTOCOL, BYTES('D', 'J', 'P', 1, 7), BYTES(0), 0},
        {"class", DJ_ERR_PROTOCOL, BYTES('D', 'J', 'P', 1, 1, 3, 0, 0), BYTES(4), 0},
        {"unknown op", DJ_ERR_UNSUPPORTED, BYTES('D', 'J', 'P', 1, 2, 0xff, 0x7f), BYTES(0), 0},
        {"dangling storage", DJ_ERR_PROTOCOL,
         BYTES('D', 'J', 'P', 1, 1, 1, 2, neg, 2, DJ_F32, 1, 1, 0, 0, 0), BYTES(16, 4), 0},
        {"rank 9", DJ_ERR_LIMIT,
         BYTES('D', 'J', 'P', 1, 1, 1, 2, neg, 2, DJ_F32, 9, 0, 0, 0, 0), BYTES(16, 4), 0},
        {"view beyond storage", DJ_ERR_SHAPE,
         BYTES('D', 'J', 'P', 1, 1, 1, 2, neg, 2, DJ_F32, 1, 0, 0, 0, 0), BYTES(15, 4), 0},
        {"data type", DJ_ERR_DTYPE,
         BYTES('D', 'J', 'P', 1, 1, 1, 2, neg, 2, 33, 1, 0, 0, 0, 0), BYTES(16, 4), 0},
        {"tensor flags", DJ_ERR_PROTOCOL,
         BYTES('D', 'J', 'P', 1, 1, 1, 2, neg, 0x12, DJ_F32, 1, 0, 0, 0, 0), BYTES(16, 4), 0},
        {"write to a weight", DJ_ERR_PROTOCOL,
         BYTES('D', 'J', 'P', 1, 1, 0, 2, neg, 2, DJ_F32, 1, 0, 1, 0, 0, 0), BYTES(16, 4), 0},
        {"target argument", DJ_ERR_PROTOCOL,
         BYTES('D', 'J', 'P', 1, 1, 1, 2, neg, 2, DJ_F32, 1, 0, 1, 5, 0, 0), BYTES(16, 4), 0},
        {"target shape", DJ_ERR_SHAPE,
         BYTES('D', 'J', 'P', 1, 1, 1, 2, copy, 2, DJ_F32, 1, 0, 2, 2, DJ_F32, 1, 0, 0, 0),
         BYTES(16, 4, 3), 0},
        {"offset without a scalar", DJ_ERR_PROTOCOL,
         BYTES('D', 'J', 'P', 1, 1, 1, 2, neg, 10, DJ_F32, 1, 0, 0, 0, 0), BYTES(16, 2), 0},
        {"input as output", DJ_ERR_PROTOCOL, BYTES('D', 'J', 'P', 1, 1, 1, 0, 1, 0), BYTES(16), 0},
        {"bytes left over", DJ_ERR_PROTOCOL, BYTES('D', 'J', 'P', 1, 1, 1, 0, 0, 0), BYTES(16), 0},
        {"sizes left over", DJ_ERR_PROTOCOL, BYTES('D', 'J', 'P', 1, 1, 1, 0, 0), BYTES(16, 1), 0},
        {"scalars left over", DJ_ERR_PROTOCOL, BYTES('D', 'J', 'P', 1, 1, 1, 0, 0), BYTES(16), 1},
        {"huge input", DJ_ERR_LIMIT, BYTES('D', 'J', 'P', 1, 1, 1, 0, 0),
         BYTES(0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f), 0},
    };
    for (uint32_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        const lie_t *lie = &lies[i];
        dj_graph_t *graph;
        dj_status_t status = decode_exact(lie->structure, lie->structure_size, lie->sizes,
                                          lie->sizes_size, lie->n_scalars, &graph);
        if (status != lie->status)
            fail_msg("%s: %s, not %s (%s)", lie->what, dj_status_name(status),
                     dj_status_name(lie->status), dj_error_text());
    }
    dj_graph_t *graph;
    assert_int_equal(dj_graph_decode("", 0, "", 0, UINT32_MAX, &graph), DJ_ERR_LIMIT);
}

/* One input and one `exp` of a window on `storage`, byte by byte. */
static dj_status_t decode_exp(uint8_t rank, uint64_t storage, const uint64_t *dims, uint32_t n_dims)
{
    dj_bytes_t structure = {0}, sizes = {0};
    dj_graph_t *graph;
    dj_bytes_put(&structure, "DJP", 3);
    dj_bytes_put_u8(&structure, DJ_PROGRAM_VERSION);
    dj_bytes_put_u8(&structure, 1); /* an input, of the session's state */
    dj_bytes_put_u8(&structure, DJ_CLASS_STATE);
    dj_bytes_put_varint(&sizes, 1024);
    dj_bytes_put_u8(&structure, 2); /* an op */
    dj_bytes_put_varint(&structure, DJ_OP_EXP);
    dj_bytes_put_u8(&structure, 2);
    dj_bytes_put_u8(&structure, DJ_F32);
    dj_bytes_put_u8(&structure, rank);
    dj_bytes_put_varint(&structure, storage);
    for (uint32_t i = 0; i < n_dims; i++)
        dj_bytes_put_varint(&sizes, dims[i]);
    dj_bytes_put_u8(&structure, 0); /* a new output */
    dj_bytes_put_u8(&structure, 0); /* the end, and no outputs */
    dj_bytes_put_varint(&structure, 0);
    dj_status_t status = dj_graph_decode(structure.data, structure.size, sizes.data, sizes.size, 0, &graph);
    if (status == DJ_OK)
        dj_graph_destroy(graph);
    dj_bytes_fini(&structure);
    dj_bytes_fini(&sizes);
    return status;
}

static void refuse_exp(dj_status_t wanted, const char *word, uint8_t rank, uint64_t storage,
                       const uint64_t *dims, uint32_t n_dims)
{
    assert_int_equal(decode_exp(rank, storage, dims, n_dims), wanted);
    if (strstr(dj_error_text(), word) == NULL)
        fail_msg("'%s' is not in: %s", word, dj_error_text());
}

static void malformed_graphs_are_named(void **state)
{
    const uint64_t good[] = {16, 16}, negative[] = {16, UINT64_MAX}, many[] = {1ull << 31, 1ull << 32};
    const uint64_t huge[] = {1ull << 63}, large[] = {32, 16};
    uint64_t ones[65];
    for (uint32_t i = 0; i < 65; i++)
        ones[i] = 1;
    assert_ok(decode_exp(2, 0, good, 2));
    refuse_exp(DJ_ERR_PROTOCOL, "storage 1 has not appeared", 2, 1, good, 2); /* its own result: a cycle */
    refuse_exp(DJ_ERR_PROTOCOL, "storage 7 has not appeared", 2, 7, good, 2); /* nobody's: dangling */
    refuse_exp(DJ_ERR_LIMIT, "rank 65", 65, 0, ones, 65);
    refuse_exp(DJ_ERR_LIMIT, "a size of", 2, 0, negative, 2); /* -1 as an unsigned number */
    refuse_exp(DJ_ERR_LIMIT, "a tensor of more than", 2, 0, many, 2); /* 2^63 elements */
    refuse_exp(DJ_ERR_LIMIT, "a size of", 1, 0, huge, 1);
    refuse_exp(DJ_ERR_SHAPE, "leaves its storage", 2, 0, large, 2); /* beyond the input */
    refuse_exp(DJ_ERR_PROTOCOL, "more sizes than came", 2, 0, good, 1);
    refuse_exp(DJ_ERR_PROTOCOL, "left over", 1, 0, good, 2);
}

static void refuses_index_copy_from_itself(void **state)
{
    dj_program_t program = {0};
    dj_graph_t *graph;
    uint32_t storage;
    dj_program_reset(&program);
    dj_operand_t x = input_of(&program, DJ_CLASS_STATE, shape(DJ_F32, 2, 4, 8));
    dj_operand_t i = input_of(&program, DJ_CLASS_IMMEDIATE, shape(DJ_I64, 1, 4));
    dj_arg_t args[] = {arg_tensor(&x), arg_integer(0), arg_tensor(&i), arg_tensor(&x)};
    dj_call_t call = call_of("index_copy_", args);
    assert_ok(dj_program_add(&program, &call, NULL, &storage));
    assert_int_equal(storage, x.storage);
    finish(&program, NULL, 0);
    assert_int_equal(decode(&program, &graph), DJ_ERR_UNSUPPORTED);
    dj_program_fini(&program);
}

/* x is a state, y = exp(x), x += y, z = y * x[1:], out = [z] */
static void decodes_versions_and_bindings(void **state)
{
    dj_program_t program = {0};
    dj_graph_t *graph;
    dj_program_reset(&program);
    dj_operand_t w = input_of(&program, DJ_CLASS_WEIGHT, shape(DJ_F32, 1, 4));
    dj_operand_t x = input_of(&program, DJ_CLASS_STATE, shape(DJ_F32, 2, 3, 4));
    dj_operand_t y = add_binary(&program, "mul.Tensor", x, w);
    dj_arg_t args[] = {arg_tensor(&x), arg_tensor(&y), arg_real(0.5)};
    add_into(&program, "add.Tensor", args, NULL);
    x.view.sizes[0] = 2;
    x.view.offset = 4;
    y.view.sizes[0] = 2;
    dj_operand_t z = add_binary(&program, "mul.Tensor", y, x);
    finish(&program, &z.storage, 1);
    assert_ok(decode(&program, &graph));
    check_sound(graph);
    assert_int_equal(graph->n_nodes, 3);
    assert_int_equal(graph->n_storages, 4);
    assert_int_equal(graph->n_inputs, 2);
    assert_int_equal(graph->n_bindings, 3);
    assert_int_equal(graph->bindings[0], w.storage);
    assert_int_equal(graph->bindings[1], x.storage);
    assert_int_equal(graph->bindings[2], z.storage);
    assert_int_equal(graph->storages[x.storage].is_output, 1);
    assert_int_equal(graph->storages[w.storage].is_output, 0);
    assert_int_equal(graph->storages[y.storage].binding, DJ_SLOT_NONE);
    assert_int_equal(graph->nodes[0].call.args[0].operands[0].version, 0);
    assert_int_equal(graph->nodes[1].outs[0].version, 1);
    assert_int_equal(graph->nodes[1].outs[0].target, DJ_TARGET_ARGUMENT);
    assert_int_equal(graph->nodes[2].call.args[1].operands[0].version, 1);
    assert_int_equal(graph->storages[y.storage].producer, 0);
    assert_int_equal(graph->storages[y.storage].last_use, 2);
    assert_int_equal(graph->storages[z.storage].bytes, 32);
    assert_int_equal(graph->n_offsets, 1);
    assert_int_equal(graph->n_scalars, 2);
    assert_int_equal(graph->scalar_dtypes[0], DJ_F64);
    assert_int_equal(graph->scalar_dtypes[1], DJ_I64);
    uint64_t scalars[2];
    memcpy(scalars, program.scalars.data, sizeof scalars);
    assert_int_equal(scalars[1], 4);
    assert_ok(dj_graph_check_offsets(graph, scalars));
    scalars[1] = 5;
    assert_int_equal(dj_graph_check_offsets(graph, scalars), DJ_ERR_SHAPE);
    scalars[1] = UINT64_MAX;
    assert_int_equal(dj_graph_check_offsets(graph, scalars), DJ_ERR_SHAPE);
    scalars[1] = UINT64_MAX / 4 + 1;
    assert_int_equal(dj_graph_check_offsets(graph, scalars), DJ_ERR_SHAPE);
    dj_graph_destroy(graph);
    dj_program_fini(&program);
}

static void is_linear(void **state)
{
    dj_program_t program = {0};
    dj_graph_t *graph;
    dj_program_reset(&program);
    dj_operand_t x = input_of(&program, DJ_CLASS_STATE, shape(DJ_F32, 1, 64));
    for (uint32_t i = 0; i < 100000; i++)
        x = add_unary(&program, "neg", x);
    finish(&program, &x.storage, 1);
    assert_ok(decode(&program, &graph));
    assert_int_equal(graph->n_nodes, 100000);
    dj_graph_destroy(graph);
    dj_program_fini(&program);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(survives_truncation),
        cmocka_unit_test(survives_mutation),
        cmocka_unit_test(survives_random_bytes),
        cmocka_unit_test(names_each_lie),
        cmocka_unit_test(malformed_graphs_are_named),
        cmocka_unit_test(refuses_index_copy_from_itself),
        cmocka_unit_test(decodes_versions_and_bindings),
        cmocka_unit_test(is_linear),
    };
    dj_hash_setup();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
