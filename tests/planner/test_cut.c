/* Cuts against every possible cut of small random graphs, counted straight from the definition. */
#include <math.h>
#include <stdio.h>

#include "planner/cut.h"
#include "planner/snapshot.h"
#include "tests/planner/random_program.h"

typedef struct rig {
    dj_program_t program;
    dj_graph_t *graph;
    dj_srg_t *srg;
} rig_t;

static void rig_open(rig_t *rig, uint64_t seed, uint32_t n_ops)
{
    *rig = (rig_t){0};
    random_program(&rig->program, seed, n_ops);
    assert_ok(decode(&rig->program, &rig->graph));
    assert_ok(dj_srg_make(rig->graph, NULL, DJ_PHASE_UNKNOWN, &rig->srg));
}

static void rig_close(rig_t *rig)
{
    dj_srg_destroy(rig->srg);
    dj_graph_destroy(rig->graph);
    dj_program_fini(&rig->program);
}

static bool used_within(const rig_t *rig, uint32_t storage, uint32_t first, uint32_t end)
{
    uint32_t count;
    const dj_srg_use_t *uses = dj_srg_uses(rig->srg, storage, &count);
    for (uint32_t i = 0; i < count; i++)
        if (uses[i].node >= first && uses[i].node < end)
            return true;
    return false;
}

static uint64_t slow_crossing(const rig_t *rig, uint32_t at)
{
    uint64_t bytes = 0;
    for (uint32_t s = 0; s < rig->graph->n_storages; s++) {
        const dj_storage_t *storage = &rig->graph->storages[s];
        if (storage->is_input && storage->input_class != DJ_CLASS_STATE)
            continue;
        if (used_within(rig, s, 0, at) && used_within(rig, s, at, rig->graph->n_nodes))
            bytes += storage->bytes;
    }
    return bytes;
}

static uint64_t slow_memory(const rig_t *rig, uint32_t first, uint32_t end)
{
    uint64_t held = 0, most = 0;
    for (uint32_t i = first; i < end; i++) {
        uint64_t alive = 0;
        for (uint32_t s = 0; s < rig->graph->n_storages; s++)
            if (dj_storage_lifecycle(&rig->graph->storages[s]) == DJ_LIFE_ACTIVATION &&
                used_within(rig, s, 0, i + 1) && used_within(rig, s, i, rig->graph->n_nodes))
                alive += rig->graph->storages[s].bytes;
        most = alive > most ? alive : most;
    }
    for (uint32_t s = 0; s < rig->graph->n_storages; s++)
        if (dj_storage_lifecycle(&rig->graph->storages[s]) != DJ_LIFE_ACTIVATION &&
            used_within(rig, s, first, end))
            held += rig->graph->storages[s].bytes;
    return held + most;
}

typedef struct best {
    double slowest_ns;
    uint64_t bytes;
    bool found;
} best_t;

static double run_ns(const rig_t *rig, uint32_t first, uint32_t end)
{
    double ns = 0;
    for (uint32_t i = first; i < end; i++)
        ns += rig->srg->nodes[i].ns;
    return ns;
}

/* All ways to cut the nodes from `first` on into `left` stages. */
static void try_all(const rig_t *rig, const dj_cut_request_t *request, uint32_t first,
                    uint32_t left, double slowest, uint64_t bytes, best_t *best)
{
    uint32_t n = rig->graph->n_nodes;
    for (uint32_t end = left == 1 ? n : first + 1; end <= n; end++) {
        if (request->memory_bytes > 0 && slow_memory(rig, first, end) > request->memory_bytes)
            continue;
        double worst = fmax(slowest, run_ns(rig, first, end));
        if (left > 1) {
            if (end < n)
                try_all(rig, request, end, left - 1, worst, bytes + slow_crossing(rig, end), best);
            continue;
        }
        bool faster = worst < best->slowest_ns - 1e-6;
        bool equal = fabs(worst - best->slowest_ns) <= 1e-6;
        bool better = request->aim == DJ_CUT_TIME ? faster || (equal && bytes < best->bytes)
                                                  : bytes < best->bytes;
        if (!best->found || better)
            *best = (best_t){worst, bytes, true};
    }
}

static void check_description(const rig_t *rig, const dj_cut_t *cut)
{
    uint32_t next = 0;
    uint64_t total = 0;
    for (uint32_t s = 0; s < cut->n_stages; s++) {
        const dj_cut_stage_t *stage = &cut->stages[s];
        uint64_t values = 0;
        assert_int_equal(stage->first, next);
        assert_true(stage->last >= stage->first);
        next = stage->last + 1;
        assert_int_equal(stage->memory_bytes, slow_memory(rig, stage->first, next));
        for (uint32_t i = 0; i < stage->n_values; i++)
            values += rig->graph->storages[cut->values[stage->first_value + i]].bytes;
        assert_int_equal(stage->crossing_bytes, values);
        if (s > 0)
            assert_int_equal(values, slow_crossing(rig, stage->first));
        total += values;
        for (uint32_t i = stage->first; i <= stage->last; i++)
            assert_int_equal(cut->stage_of[i], s);
    }
    assert_int_equal(next, rig->graph->n_nodes);
    assert_int_equal(total, cut->crossing_bytes);
}

static void refuses_nonsense(void **state)
{
    rig_t rig;
    dj_cut_t *cut = NULL;
    rig_open(&rig, 3, 10);
    assert_int_equal(dj_cut_make(rig.srg, &(dj_cut_request_t){0}, &cut), DJ_ERR_INVALID);
    assert_int_equal(
        dj_cut_make(rig.srg, &(dj_cut_request_t){.n_stages = rig.graph->n_nodes + 1}, &cut),
        DJ_ERR_INVALID);
    assert_int_equal(
        dj_cut_make(rig.srg, &(dj_cut_request_t){.n_stages = 2, .memory_bytes = 1}, &cut),
        DJ_ERR_RESOURCE);
    assert_non_null(strstr(dj_error_text(), "needs"));
    assert_null(cut);
    rig_close(&rig);
}

static void is_the_best_of_all(void **state)
{
    uint32_t refused = 0, cuts = 0;
    for (uint64_t seed = 0; seed < 400; seed++) {
        rig_t rig;
        rig_open(&rig, seed, 9);
        for (uint32_t k = 1; k <= 4 && k <= rig.graph->n_nodes; k++) {
            uint64_t whole = slow_memory(&rig, 0, rig.graph->n_nodes);
            dj_cut_request_t request = {.n_stages = k,
                                        .aim = (uint8_t)(seed % 2),
                                        .memory_bytes =
                                            seed % 3 == 0 ? 0 : whole * (seed % 5 + 4) / 9};
            best_t best = {.slowest_ns = INFINITY};
            dj_cut_t *cut = NULL;
            try_all(&rig, &request, 0, k, 0, 0, &best);
            dj_status_t status = dj_cut_make(rig.srg, &request, &cut);
            assert_int_equal(status, best.found ? DJ_OK : DJ_ERR_RESOURCE);
            if (status == DJ_OK) {
                check_description(&rig, cut);
                assert_int_equal(cut->crossing_bytes, best.bytes);
                if (request.aim == DJ_CUT_TIME)
                    assert_true(fabs(cut->slowest_ns - best.slowest_ns) < 1e-6);
            }
            refused += status != DJ_OK;
            cuts += status == DJ_OK;
            dj_cut_destroy(cut);
        }
        rig_close(&rig);
    }
    print_message("%u cuts equal to the best of all, %u refused as nothing fits\n", cuts, refused);
    assert_true(refused > 50 && cuts > 500);
}

/* What cutting the nodes of a real recording into equal counts would give. */
static void equal_counts(const dj_srg_t *srg, uint32_t k, uint64_t *bytes_p, double *slowest_p)
{
    uint32_t n = srg->graph->n_nodes, count;
    *bytes_p = 0, *slowest_p = 0;
    for (uint32_t s = 0; s < k; s++) {
        uint32_t first = s * n / k, end = (s + 1) * n / k;
        double ns = 0;
        for (uint32_t i = first; i < end; i++)
            ns += srg->nodes[i].ns;
        *slowest_p = fmax(*slowest_p, ns);
        for (uint32_t i = 0; s > 0 && i < srg->graph->n_storages; i++) {
            const dj_storage_t *storage = &srg->graph->storages[i];
            const dj_srg_use_t *uses = dj_srg_uses(srg, i, &count);
            if (count > 0 && uses[0].node < first && uses[count - 1].node >= first &&
                (!storage->is_input || storage->input_class == DJ_CLASS_STATE))
                *bytes_p += storage->bytes;
        }
    }
}

static void cuts_real_graphs(void **state)
{
    static const char *const names[] = {"gpt2-prefill", "llama-decode", "bert-base", "t5-decode"};
    for (uint32_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[512];
        dj_snapshot_t *snapshot;
        dj_graph_t *graph;
        dj_srg_t *srg;
        snprintf(path, sizeof path, DJINN_GRAPHS "/%s.djs", names[i]);
        assert_ok(dj_snapshot_read(path, &snapshot));
        assert_ok(dj_snapshot_graph(snapshot, snapshot->n_programs / 2, &graph));
        assert_ok(dj_srg_make(graph, NULL, DJ_PHASE_UNKNOWN, &srg));
        for (uint32_t k = 2; k <= 8; k *= 2) {
            dj_cut_t *by_bytes, *by_time;
            uint64_t bytes;
            double slowest;
            equal_counts(srg, k, &bytes, &slowest);
            assert_ok(dj_cut_make(srg, &(dj_cut_request_t){.n_stages = k}, &by_bytes));
            assert_ok(
                dj_cut_make(srg, &(dj_cut_request_t){.n_stages = k, .aim = DJ_CUT_TIME}, &by_time));
            print_message(
                "%s, %u stages: %llu bytes and %.1f ms; by time %llu and %.1f; equal counts "
                "%llu and %.1f\n",
                names[i], k, (unsigned long long)by_bytes->crossing_bytes,
                by_bytes->slowest_ns / 1e6, (unsigned long long)by_time->crossing_bytes,
                by_time->slowest_ns / 1e6, (unsigned long long)bytes, slowest / 1e6);
            assert_true(by_bytes->crossing_bytes <= bytes);
            assert_true(by_time->slowest_ns <= slowest * (1 + 1e-9));
            assert_true(by_bytes->crossing_bytes <= by_time->crossing_bytes);
            assert_true(by_time->slowest_ns <= by_bytes->slowest_ns * (1 + 1e-9));
            dj_cut_destroy(by_bytes);
            dj_cut_destroy(by_time);
        }
        dj_srg_destroy(srg);
        dj_graph_destroy(graph);
        dj_snapshot_destroy(snapshot);
    }
}

/* A hundred thousand nodes into 64 stages. */
static void is_linear(void **state)
{
    dj_program_t program = {0};
    dj_graph_t *graph;
    dj_srg_t *srg;
    dj_cut_t *cut;
    dj_program_reset(&program);
    dj_operand_t x = input_of(&program, DJ_CLASS_STATE, shape(DJ_F32, 1, 64));
    for (uint32_t i = 0; i < 100000; i++)
        x = add_unary(&program, "neg", x);
    finish(&program, &x.storage, 1);
    assert_ok(decode(&program, &graph));
    assert_ok(dj_srg_make(graph, NULL, DJ_PHASE_UNKNOWN, &srg));
    for (uint8_t aim = DJ_CUT_BYTES; aim <= DJ_CUT_TIME; aim++) {
        assert_ok(dj_cut_make(srg, &(dj_cut_request_t){.n_stages = 64, .aim = aim}, &cut));
        assert_int_equal(cut->crossing_bytes, 63 * 256);
        if (aim == DJ_CUT_TIME)
            assert_true(cut->slowest_ns < srg->ns / 64 * 1.01);
        dj_cut_destroy(cut);
    }
    dj_srg_destroy(srg);
    dj_graph_destroy(graph);
    dj_program_fini(&program);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_nonsense),
        cmocka_unit_test(is_the_best_of_all),
        cmocka_unit_test(cuts_real_graphs),
        cmocka_unit_test(is_linear),
    };
    dj_hash_setup();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
