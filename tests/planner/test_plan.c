/* Plans that lie first: each field of an honest plan changed must be refused. Then random programs,
 * checked by the proof, by simulation (simulate.h) and by a brute-force look at every pair of places.
 */
#include "tests/planner/random_program.h"
#include "tests/planner/simulate.h"

typedef struct fixture {
    dj_program_t program;
    dj_graph_t *graph;
    dj_plan_t *plan;
    dj_plan_needs_t needs;
    uint64_t *workspaces;
} fixture_t;

static void fixture_plan(fixture_t *f, uint64_t workspace)
{
    assert_ok(decode(&f->program, &f->graph));
    f->workspaces = calloc(f->graph->n_nodes + 1, sizeof f->workspaces[0]);
    assert_non_null(f->workspaces);
    for (uint32_t i = 0; i < f->graph->n_nodes; i++)
        f->workspaces[i] = workspace * (i % 3) / 2;
    f->needs = (dj_plan_needs_t){.device_class = {{1, 2}},
                                 .workspace_bytes = f->workspaces,
                                 .flops_per_ns = 100,
                                 .bytes_per_ns = 10,
                                 .step_ns = 200};
    assert_ok(dj_plan_make(f->graph, &f->needs, &f->plan));
}

static void fixture_random(fixture_t *f, uint64_t seed, uint32_t n_ops)
{
    *f = (fixture_t){0};
    random_program(&f->program, seed, n_ops);
    fixture_plan(f, seed % 5 * 100);
}

static void fixture_fini(fixture_t *f)
{
    dj_plan_destroy(f->plan);
    dj_graph_destroy(f->graph);
    dj_program_fini(&f->program);
    free(f->workspaces);
}

static const uint64_t *scalars_of(const fixture_t *f)
{
    return (const uint64_t *)f->program.scalars.data;
}

/* Does any storage of the graph have this place in time, [first, last] over steps? */
static bool lifetime(const fixture_t *f, uint32_t storage, uint32_t *first_p, uint32_t *last_p)
{
    bool used = false;
    for (uint32_t i = 0; i < f->plan->n_steps; i++) {
        const dj_node_t *node = &f->graph->nodes[f->plan->steps[i].node];
        bool here = false;
        for (uint32_t j = 0; j < node->n_outs; j++)
            here |= node->outs[j].storage == storage;
        for (uint32_t j = 0; j < node->call.n_args; j++)
            for (uint32_t k = 0; node->call.args[j].kind == DJ_ARG_TENSORS &&
                                 k < node->call.args[j].count; k++)
                here |= node->call.args[j].operands[k].storage == storage;
        if (here && !used)
            *first_p = i;
        if (here)
            *last_p = i;
        used |= here;
    }
    return used;
}

/* Every pair of storages alive together, by brute force over steps. */
static void check_pairs(const fixture_t *f)
{
    for (uint32_t a = 0; a < f->graph->n_storages; a++) {
        uint32_t first_a, last_a, first_b, last_b;
        bool bound = f->graph->storages[a].binding != DJ_SLOT_NONE;
        bool used = lifetime(f, a, &first_a, &last_a);
        assert_int_equal(f->plan->offsets[a] == DJ_OFFSET_NONE, bound || !used);
        if (bound || !used)
            continue;
        uint64_t begin_a = f->plan->offsets[a], end_a = begin_a + f->graph->storages[a].bytes;
        assert_int_equal(begin_a % DJ_ALIGN_BYTES, 0);
        assert_true(end_a <= f->plan->peak_bytes && begin_a >= f->plan->workspace_bytes);
        for (uint32_t b = 0; b < a; b++) {
            if (f->graph->storages[b].binding != DJ_SLOT_NONE ||
                !lifetime(f, b, &first_b, &last_b) || first_a > last_b || first_b > last_a)
                continue;
            uint64_t begin_b = f->plan->offsets[b], end_b = begin_b + f->graph->storages[b].bytes;
            assert_true(begin_a >= end_b || begin_b >= end_a);
        }
    }
}

static void random_programs_plan_right(void **state)
{
    uint32_t n_groups = 0, n_staged = 0, n_dead = 0;
    for (uint64_t seed = 1; seed <= 3000; seed++) {
        fixture_t f;
        uint64_t touched;
        fixture_random(&f, seed, 4 + seed % 40);
        assert_ok(dj_plan_verify(f.plan, f.graph));
        assert_ok(dj_graph_check_offsets(f.graph, scalars_of(&f)));
        if (seed % 10 == 0)
            check_pairs(&f);
        if (!simulate(f.graph, f.plan, scalars_of(&f), 1 + seed % 17, &touched))
            fail_msg("seed %llu: the plan computes something else", (unsigned long long)seed);
        assert_true(f.plan->bound_bytes <= f.plan->peak_bytes);
        assert_int_equal(touched, f.plan->peak_bytes);
        n_dead += f.graph->n_nodes - f.plan->n_steps;
        for (uint32_t i = 0; i < f.plan->n_steps; i++) {
            n_staged += f.plan->steps[i].staging != DJ_OFFSET_NONE;
            n_groups += i > 0 && f.plan->steps[i].group == f.plan->steps[i - 1].group;
        }
        fixture_fini(&f);
    }
    assert_true(n_groups > 1000 && n_staged > 1000 && n_dead > 1000); /* the test tests something */
}

static void refuse(const fixture_t *f, const char *what)
{
    if (dj_plan_verify(f->plan, f->graph) == DJ_OK)
        fail_msg("%s: a wrong plan was believed", what);
}

static void proof_refuses_each_lie(void **state)
{
    fixture_t f;
    fixture_random(&f, 11, 40);
    dj_plan_t *plan = f.plan;
    assert_ok(dj_plan_verify(plan, f.graph));
    for (uint32_t i = 0; i < plan->n_storages; i++) {
        uint64_t kept = plan->offsets[i];
        plan->offsets[i] = kept == DJ_OFFSET_NONE ? 0 : DJ_OFFSET_NONE;
        refuse(&f, "a place that is none");
        if (kept != DJ_OFFSET_NONE) {
            plan->offsets[i] = kept + 1;
            refuse(&f, "alignment");
            plan->offsets[i] = plan->peak_bytes / DJ_ALIGN_BYTES * DJ_ALIGN_BYTES + 256;
            refuse(&f, "beyond the peak");
            plan->offsets[i] = UINT64_MAX - 255;
            refuse(&f, "wrap-around");
        }
        plan->offsets[i] = kept;
    }
    for (uint32_t i = 0; i < plan->n_steps; i++) {
        dj_plan_step_t kept = plan->steps[i];
        plan->steps[i].node++;
        refuse(&f, "node");
        plan->steps[i] = kept;
        plan->steps[i].group++;
        refuse(&f, "group");
        plan->steps[i] = kept;
        plan->steps[i].staging = kept.staging == DJ_OFFSET_NONE ? 0 : DJ_OFFSET_NONE;
        refuse(&f, "staging");
        plan->steps[i] = kept;
    }
    plan->n_steps--;
    refuse(&f, "a step too few");
    plan->n_steps++;
    plan->peak_bytes--;
    refuse(&f, "peak");
    plan->peak_bytes++;
    plan->bound_bytes++;
    refuse(&f, "bound");
    plan->bound_bytes--;
    plan->workspace_bytes += 256;
    refuse(&f, "workspace over storages");
    plan->workspace_bytes -= 256;
    plan->exact_key.word[0]++;
    assert_int_equal(dj_plan_verify(plan, f.graph), DJ_ERR_STALE);
    plan->exact_key.word[0]--;
    assert_ok(dj_plan_verify(plan, f.graph));
    fixture_fini(&f);
}

/* Moving a place onto another is refused exactly when the simulation or brute force object. */
static void proof_agrees_with_simulation(void **state)
{
    uint64_t seed = 5;
    uint32_t n_refused = 0, n_accepted = 0;
    for (uint32_t round = 0; round < 2000; round++) {
        fixture_t f;
        uint64_t touched;
        fixture_random(&f, 100000 + round, 24);
        for (uint32_t i = 0; i < 6; i++) {
            uint32_t a = random_below(&seed, f.plan->n_storages);
            uint32_t b = random_below(&seed, f.plan->n_storages);
            uint64_t kept = f.plan->offsets[a];
            if (kept == DJ_OFFSET_NONE || f.plan->offsets[b] == DJ_OFFSET_NONE)
                continue;
            f.plan->offsets[a] = f.plan->offsets[b] + 256ull * random_below(&seed, 2);
            if (f.plan->offsets[a] + f.graph->storages[a].bytes > f.plan->peak_bytes ||
                dj_plan_verify(f.plan, f.graph) != DJ_OK) {
                n_refused++;
            } else {
                n_accepted++;
                check_pairs(&f);
                assert_true(simulate(f.graph, f.plan, scalars_of(&f), 3, &touched));
            }
            f.plan->offsets[a] = kept;
        }
        fixture_fini(&f);
    }
    assert_true(n_refused > 100 && n_accepted > 100);
}

static void travels_as_bytes(void **state)
{
    for (uint64_t seed = 1; seed < 100; seed++) {
        fixture_t f;
        dj_bytes_t bytes = {0};
        dj_plan_t *copy;
        fixture_random(&f, seed, 30);
        assert_ok(dj_plan_encode(f.plan, &bytes));
        assert_ok(dj_plan_decode(bytes.data, bytes.size, f.graph, &f.needs, &copy));
        assert_int_equal(copy->n_steps, f.plan->n_steps);
        assert_memory_equal(copy->offsets, f.plan->offsets,
                            copy->n_storages * sizeof copy->offsets[0]);
        for (uint32_t i = 0; i < copy->n_steps; i++) {
            assert_int_equal(copy->steps[i].node, f.plan->steps[i].node);
            assert_int_equal(copy->steps[i].group, f.plan->steps[i].group);
            assert_int_equal(copy->steps[i].staging, f.plan->steps[i].staging);
        }
        assert_int_equal(copy->peak_bytes, f.plan->peak_bytes);
        assert_int_equal(copy->predicted_ns, f.plan->predicted_ns);
        assert_int_equal(copy->planning_ns, f.plan->planning_ns);
        dj_plan_destroy(copy);
        dj_bytes_fini(&bytes);
        fixture_fini(&f);
    }
}

static void decode_refuses_strangers(void **state)
{
    fixture_t f, other;
    dj_bytes_t bytes = {0};
    dj_plan_t *copy;
    fixture_random(&f, 3, 30);
    fixture_random(&other, 4, 30);
    assert_ok(dj_plan_encode(f.plan, &bytes));
    assert_int_equal(dj_plan_decode(bytes.data, bytes.size, other.graph, &other.needs, &copy),
                     DJ_ERR_STALE);
    f.needs.device_class.word[0]++;
    assert_int_equal(dj_plan_decode(bytes.data, bytes.size, f.graph, &f.needs, &copy),
                     DJ_ERR_CLASS);
    f.needs.device_class.word[0]--;
    f.workspaces[f.plan->steps[0].node] += 1ull << 20; /* this device needs more than it gives */
    assert_int_equal(dj_plan_decode(bytes.data, bytes.size, f.graph, &f.needs, &copy),
                     DJ_ERR_CORRUPT);
    f.workspaces[f.plan->steps[0].node] -= 1ull << 20;
    bytes.data[4]++;
    assert_int_equal(dj_plan_decode(bytes.data, bytes.size, f.graph, &f.needs, &copy),
                     DJ_ERR_VERSION);
    bytes.data[4]--;
    for (size_t size = 0; size < bytes.size; size++)
        assert_int_not_equal(dj_plan_decode(bytes.data, size, f.graph, &f.needs, &copy), DJ_OK);
    dj_bytes_fini(&bytes);
    fixture_fini(&f);
    fixture_fini(&other);
}

static void decode_survives_mutation(void **state)
{
    uint64_t seed = 77, touched;
    fixture_t f;
    dj_bytes_t bytes = {0};
    fixture_random(&f, 21, 40);
    assert_ok(dj_plan_encode(f.plan, &bytes));
    for (uint32_t i = 0; i < 20000; i++) {
        uint32_t at = random_below(&seed, (uint32_t)bytes.size);
        uint8_t kept = bytes.data[at];
        dj_plan_t *copy;
        bytes.data[at] = (uint8_t)random_next(&seed);
        if (dj_plan_decode(bytes.data, bytes.size, f.graph, &f.needs, &copy) == DJ_OK) {
            assert_true(simulate(f.graph, copy, scalars_of(&f), 5, &touched));
            dj_plan_destroy(copy);
        }
        bytes.data[at] = kept;
    }
    dj_bytes_fini(&bytes);
    fixture_fini(&f);
}

static void stages_hazards(void **state)
{
    fixture_t f = {0};
    dj_program_reset(&f.program);
    dj_operand_t x = input_of(&f.program, DJ_CLASS_STATE, shape(DJ_F32, 2, 4, 4));
    dj_operand_t turned = x;
    turned.view = transposed(x.view, 0, 1);
    dj_arg_t same[] = {arg_tensor(&x), arg_tensor(&x), arg_whole(1)};
    add_into(&f.program, "add.Tensor", same, NULL); /* in place: harmless */
    dj_arg_t across[] = {arg_tensor(&x), arg_tensor(&turned), arg_whole(1)};
    add_into(&f.program, "add.Tensor", across, NULL); /* reads what it overwrites */
    dj_arg_t softmax[] = {arg_tensor(&x), arg_integer(1), arg_integer(0)};
    add_into(&f.program, "_softmax", softmax, NULL); /* no elementwise kernel */
    dj_operand_t y = add_unary(&f.program, "exp", x);
    dj_arg_t out[] = {arg_tensor(&y), arg_integer(1), arg_integer(0)};
    add_into(&f.program, "_softmax", out, &x); /* into a storage it does not read */
    finish(&f.program, NULL, 0);
    fixture_plan(&f, 0);
    assert_int_equal(f.plan->n_steps, 5);
    assert_true(f.plan->steps[0].staging == DJ_OFFSET_NONE);
    assert_true(f.plan->steps[1].staging != DJ_OFFSET_NONE);
    assert_true(f.plan->steps[2].staging != DJ_OFFSET_NONE);
    assert_true(f.plan->steps[4].staging == DJ_OFFSET_NONE);
    fixture_fini(&f);
}

/* x[1:3] += x[2:4]: the same sizes and strides, another offset, which is data. */
static void stages_shifted_windows(void **state)
{
    fixture_t f = {0};
    uint64_t touched;
    dj_program_reset(&f.program);
    dj_operand_t x = input_of(&f.program, DJ_CLASS_STATE, shape(DJ_F32, 2, 4, 4));
    dj_operand_t low = x, high = x;
    low.view.sizes[0] = high.view.sizes[0] = 2;
    low.view.offset = 4;
    high.view.offset = 8;
    dj_arg_t args[] = {arg_tensor(&low), arg_tensor(&high), arg_whole(1)};
    add_into(&f.program, "add.Tensor", args, NULL);
    dj_arg_t back[] = {arg_tensor(&high), arg_tensor(&low), arg_whole(1)};
    add_into(&f.program, "add.Tensor", back, NULL);
    finish(&f.program, NULL, 0);
    fixture_plan(&f, 0);
    assert_true(f.plan->steps[0].staging != DJ_OFFSET_NONE);
    assert_true(f.plan->steps[1].staging != DJ_OFFSET_NONE);
    assert_true(simulate(f.graph, f.plan, scalars_of(&f), 1, &touched));
    fixture_fini(&f);
}

static void drops_dead_code(void **state)
{
    fixture_t f = {0};
    dj_program_reset(&f.program);
    dj_operand_t x = input_of(&f.program, DJ_CLASS_STATE, shape(DJ_F32, 1, 64));
    dj_operand_t y = add_unary(&f.program, "exp", x), dead = add_unary(&f.program, "neg", y);
    add_unary(&f.program, "tanh", dead);
    finish(&f.program, &y.storage, 1);
    fixture_plan(&f, 0);
    assert_int_equal(f.plan->n_steps, 1);
    assert_int_equal(f.plan->peak_bytes, 0); /* the output lies where it is bound */
    fixture_fini(&f);
}

static void chains_share_memory(void **state)
{
    fixture_t f = {0};
    dj_program_reset(&f.program);
    dj_operand_t x = input_of(&f.program, DJ_CLASS_STATE, shape(DJ_F32, 2, 64, 64));
    for (uint32_t i = 0; i < 20; i++)
        x = add_unary(&f.program, "tanh", x);
    finish(&f.program, &x.storage, 1);
    fixture_plan(&f, 0);
    assert_int_equal(f.plan->n_groups, 1); /* one group, and yet two buffers are enough */
    assert_int_equal(f.plan->peak_bytes, 2 * 64 * 64 * 4);
    assert_int_equal(f.plan->bound_bytes, f.plan->peak_bytes);
    fixture_fini(&f);
}

static void groups_are_bounded(void **state)
{
    fixture_t f = {0};
    dj_program_reset(&f.program);
    dj_operand_t x = input_of(&f.program, DJ_CLASS_STATE, shape(DJ_F32, 1, 8));
    for (uint32_t i = 0; i < 100; i++)
        x = add_unary(&f.program, "tanh", x);
    finish(&f.program, &x.storage, 1);
    fixture_plan(&f, 0);
    assert_int_equal(f.plan->n_groups, 4);
    fixture_fini(&f);
}

static void empty_program_plans(void **state)
{
    fixture_t f = {0};
    dj_program_reset(&f.program);
    finish(&f.program, NULL, 0);
    fixture_plan(&f, 0);
    assert_int_equal(f.plan->n_steps, 0);
    assert_int_equal(f.plan->peak_bytes, 0);
    fixture_fini(&f);
}

/* Twenty thousand tensors alive at once, then read in the order they came. */
static void large_programs_take_bounded_time(void **state)
{
    fixture_t f = {0};
    enum { N = 20000 };
    dj_operand_t *all = calloc(N, sizeof *all);
    assert_non_null(all);
    dj_program_reset(&f.program);
    dj_operand_t x = input_of(&f.program, DJ_CLASS_STATE, shape(DJ_F32, 1, 64));
    for (uint32_t i = 0; i < N; i++)
        all[i] = add_unary(&f.program, "neg", x);
    for (uint32_t i = 1; i < N; i++)
        all[i] = add_binary(&f.program, "add.Tensor", all[i - 1], all[i]);
    finish(&f.program, &all[N - 1].storage, 1);
    fixture_plan(&f, 0);
    assert_ok(dj_plan_verify(f.plan, f.graph));
    assert_true(f.plan->planning_ns < 20000000000ull);
    free(all);
    fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(proof_refuses_each_lie),
        cmocka_unit_test(decode_refuses_strangers),
        cmocka_unit_test(decode_survives_mutation),
        cmocka_unit_test(proof_agrees_with_simulation),
        cmocka_unit_test(random_programs_plan_right),
        cmocka_unit_test(travels_as_bytes),
        cmocka_unit_test(stages_hazards),
        cmocka_unit_test(stages_shifted_windows),
        cmocka_unit_test(drops_dead_code),
        cmocka_unit_test(chains_share_memory),
        cmocka_unit_test(groups_are_bounded),
        cmocka_unit_test(empty_program_plans),
        cmocka_unit_test(large_programs_take_bounded_time),
    };
    dj_hash_setup();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
