/* fuzz_program.c - recorded graphs and published plans: decode, plan, serialise, prove.
 *
 * Input: structure_bytes:u16, sizes_bytes:u16, n_scalars:u8, structure, sizes, scalars, then the bytes of
 * a plan from elsewhere. The plan's magic and keys are filled in, so that the proof has to find what is
 * wrong. A plan made here must pass its own proof and come back from its bytes; one that was let in must
 * pass the proof too. The graph is rewritten, fitted to half of the Stack it needs, and folded, and what
 * comes of it must plan as well. With FUZZ_SHALLOW in the environment it ends after the decoder and its check:
 * ten times as many inputs for that part. */
#include <stdlib.h>

#include "planner/cache.h"
#include "planner/cut.h"
#include "planner/fit.h"
#include "planner/fold.h"
#include "planner/rewrite.h"
#include "planner/svg.h"
#include "tests/fuzz/fuzz.h"

static bool shallow;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    shallow = getenv("FUZZ_SHALLOW") != NULL;
    return dj_hash_setup() ? 0 : 1;
}

static const dj_plan_needs_t needs = {
    .device_class = {{1, 2}}, .flops_per_ns = 10, .bytes_per_ns = 10, .step_ns = 100};

static void check_own(const dj_graph_t *graph, dj_bytes_t *own)
{
    dj_plan_t *plan, *again;
    dj_status_t status = dj_plan_make(graph, &needs, &plan);
    if (status != DJ_OK) {
        FUZZ_ASSERT(status == DJ_ERR_LIMIT || status == DJ_ERR_MEMORY);
        return;
    }
    FUZZ_ASSERT(dj_plan_verify(plan, graph) == DJ_OK);
    FUZZ_ASSERT(dj_plan_encode(plan, own) == DJ_OK);
    FUZZ_ASSERT(dj_plan_decode(own->data, own->size, graph, &needs, &again) == DJ_OK);
    FUZZ_ASSERT(again->peak_bytes == plan->peak_bytes);
    dj_plan_destroy(again);
    dj_plan_destroy(plan);
}

/* The first 53 bytes are magic, version and keys: ours. */
static void check_foreign(const dj_graph_t *graph, const dj_bytes_t *own, const uint8_t *data,
                          size_t size)
{
    enum { SIGNED = 4 + 1 + 3 * sizeof(dj_hash_t) };
    dj_plan_t *plan;
    dj_bytes_t foreign = {0};
    if (own->size < SIGNED)
        return;
    dj_bytes_put(&foreign, own->data, SIGNED);
    dj_bytes_put(&foreign, data, size);
    if (dj_plan_decode(foreign.data, foreign.size, graph, &needs, &plan) == DJ_OK) {
        FUZZ_ASSERT(dj_plan_verify(plan, graph) == DJ_OK);
        dj_plan_destroy(plan);
    }
    dj_bytes_fini(&foreign);
}

/* What a graph means, a cut and a picture of it: no graph is too odd for them. */
static void check_view(const dj_graph_t *graph)
{
    dj_srg_t *srg;
    dj_cut_t *cut;
    dj_plan_t *plan;
    dj_bytes_t text = {0};
    FUZZ_ASSERT(dj_srg_make(graph, NULL, DJ_PHASE_UNKNOWN, &srg) == DJ_OK);
    FUZZ_ASSERT(srg->flops >= 0 && srg->ns >= 0 && srg->verdict.confidence > 0);
    uint32_t stages = graph->n_nodes < 3 ? graph->n_nodes : 3;
    for (uint8_t aim = DJ_CUT_BYTES; stages > 0 && aim <= DJ_CUT_TIME; aim++) {
        dj_cut_request_t request = {.n_stages = stages, .aim = aim};
        FUZZ_ASSERT(dj_cut_make(srg, &request, &cut) == DJ_OK);
        FUZZ_ASSERT(cut->stages[stages - 1].last == graph->n_nodes - 1);
        dj_cut_destroy(cut);
    }
    if (dj_plan_make(graph, &needs, &plan) == DJ_OK) {
        FUZZ_ASSERT(dj_plan_draw(srg, plan, "a graph", NULL, &text) == DJ_OK);
        dj_plan_destroy(plan);
    }
    dj_bytes_fini(&text);
    dj_srg_destroy(srg);
}

/* Half of what it needs: refused, or a graph that plans. The graph is used up. */
static void check_fitted(dj_graph_t *graph)
{
    uint64_t *alive = malloc((graph->n_nodes + 1) * sizeof *alive);
    dj_bytes_t own = {0};
    dj_fit_report_t report;
    FUZZ_ASSERT(alive != NULL);
    dj_fit_limits_t limits = {.stack_bytes = dj_graph_alive(graph, alive) / 2 + 1,
                              .spill_bytes = 1 << 20,
                              .spill_bytes_per_ns = 1};
    free(alive);
    dj_status_t status = dj_graph_fit(graph, &needs, &limits, &report);
    FUZZ_ASSERT(status == DJ_OK || status == DJ_ERR_RESOURCE || status == DJ_ERR_MEMORY);
    if (status != DJ_OK)
        return;
    FUZZ_ASSERT(report.after_bytes <= limits.stack_bytes);
    FUZZ_ASSERT(dj_graph_check(graph) == DJ_OK);
    check_own(graph, &own);
    dj_bytes_fini(&own);
}

/* Two graphs of one program, split: both halves plan. */
static void check_folded(dj_graph_t *graph, dj_graph_t *twin)
{
    dj_bytes_t own = {0};
    FUZZ_ASSERT(dj_graph_fold(graph, twin) == DJ_OK);
    FUZZ_ASSERT(graph->n_folded == twin->n_folded);
    FUZZ_ASSERT(dj_graph_rewrite(graph, NULL, 0, NULL) == DJ_OK);
    FUZZ_ASSERT(dj_graph_rewrite(twin, NULL, 0, NULL) == DJ_OK);
    FUZZ_ASSERT(dj_graph_check(graph) == DJ_OK);
    check_own(twin, &own);
    dj_bytes_clear(&own);
    check_own(graph, &own);
    dj_bytes_fini(&own);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    dj_reader_t reader;
    dj_graph_t *graph, *half, *twin;
    size_t structure_bytes, sizes_bytes, left;
    uint64_t scalars[256] = {0};
    dj_bytes_t own = {0};
    dj_reader_init(&reader, data, size);
    size_t structure_wanted = dj_reader_u16(&reader), sizes_wanted = dj_reader_u16(&reader);
    uint8_t n_scalars = dj_reader_u8(&reader);
    const uint8_t *structure = fuzz_take(&reader, structure_wanted, &structure_bytes);
    const uint8_t *sizes = fuzz_take(&reader, sizes_wanted, &sizes_bytes);
    for (uint32_t i = 0; i < n_scalars && dj_reader_left(&reader) >= 8; i++)
        scalars[i] = dj_reader_u64(&reader);
    const uint8_t *plan = fuzz_take(&reader, SIZE_MAX, &left);
    if (dj_graph_decode(structure, structure_bytes, sizes, sizes_bytes, n_scalars, &graph) != DJ_OK)
        return 0;
    FUZZ_ASSERT(graph->n_scalars == n_scalars);
    dj_graph_check_offsets(graph, scalars);
    FUZZ_ASSERT(dj_graph_check(graph) == DJ_OK);
    if (shallow) {
        dj_graph_destroy(graph);
        return 0;
    }
    check_view(graph);
    check_own(graph, &own);
    check_foreign(graph, &own, plan, left);
    FUZZ_ASSERT(dj_graph_rewrite(graph, NULL, 0, NULL) == DJ_OK);
    FUZZ_ASSERT(dj_graph_check(graph) == DJ_OK);
    dj_bytes_clear(&own);
    check_own(graph, &own);
    check_fitted(graph);
    dj_bytes_fini(&own);
    dj_graph_destroy(graph);
    if (dj_graph_decode(structure, structure_bytes, sizes, sizes_bytes, n_scalars, &half) != DJ_OK ||
        dj_graph_decode(structure, structure_bytes, sizes, sizes_bytes, n_scalars, &twin) != DJ_OK)
        abort(); /* it could before */
    if (dj_graph_has_folds(half))
        check_folded(half, twin);
    dj_graph_destroy(half);
    dj_graph_destroy(twin);
    return 0;
}
