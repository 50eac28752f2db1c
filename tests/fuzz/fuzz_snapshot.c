/* fuzz_snapshot.c - snapshots from anywhere (planner/snapshot.h).
 *
 * Input: a snapshot's bytes without its hash, which is made good here so that mutations reach what
 * lies behind it. A graph that decodes must plan and pass the proof; a snapshot that was read must
 * come back the same from what is written of it. */
#include "planner/plan.h"
#include "planner/snapshot.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    return dj_hash_setup() ? 0 : 1;
}

static void check_program(const dj_snapshot_t *snapshot, uint32_t program)
{
    static const dj_plan_needs_t needs = {
        .device_class = {{1, 2}}, .flops_per_ns = 10, .bytes_per_ns = 10, .step_ns = 100};
    dj_graph_t *graph;
    dj_plan_t *plan;
    for (uint32_t i = 0; i < snapshot->programs[program].n_names; i++) {
        const dj_snapshot_name_t *name = &snapshot->programs[program].names[i];
        FUZZ_ASSERT(dj_snapshot_name(&snapshot->programs[program], name->storage) == name->text);
    }
    if (dj_snapshot_graph(snapshot, program, &graph) != DJ_OK)
        return;
    FUZZ_ASSERT(graph->n_scalars == snapshot->programs[program].n_scalars);
    if (dj_plan_make(graph, &needs, &plan) == DJ_OK) {
        FUZZ_ASSERT(dj_plan_verify(plan, graph) == DJ_OK);
        dj_plan_destroy(plan);
    }
    dj_graph_destroy(graph);
}

static void check_again(const dj_snapshot_t *snapshot)
{
    dj_bytes_t bytes = {0};
    dj_snapshot_t *again;
    FUZZ_ASSERT(dj_snapshot_encode(snapshot, &bytes) == DJ_OK);
    FUZZ_ASSERT(dj_snapshot_decode(bytes.data, bytes.size, &again) == DJ_OK);
    FUZZ_ASSERT(again->n_programs == snapshot->n_programs && again->phase == snapshot->phase);
    for (uint32_t i = 0; i < again->n_programs; i++) {
        const dj_snapshot_program_t *a = &snapshot->programs[i], *b = &again->programs[i];
        FUZZ_ASSERT(a->structure_size == b->structure_size &&
                    memcmp(a->structure, b->structure, a->structure_size) == 0);
        FUZZ_ASSERT(a->n_names == b->n_names && a->n_scalars == b->n_scalars);
    }
    dj_snapshot_destroy(again);
    dj_bytes_fini(&bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    dj_bytes_t bytes = {0};
    dj_snapshot_t *snapshot;
    dj_bytes_put(&bytes, data, size);
    dj_hash_t hash = dj_hash_of(data, size);
    dj_bytes_put(&bytes, &hash, sizeof(hash));
    if (dj_snapshot_decode(bytes.data, bytes.size, &snapshot) == DJ_OK) {
        for (uint32_t i = 0; i < snapshot->n_programs; i++)
            check_program(snapshot, i);
        check_again(snapshot);
        dj_snapshot_destroy(snapshot);
    } else {
        fuzz_check_text(dj_error_text());
    }
    dj_bytes_fini(&bytes);
    return 0;
}
