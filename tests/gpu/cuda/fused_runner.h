/* fused_runner.h - runs the pointwise steps of a plan by their fused texts on the CPU, without a CUDA library: all
 * texts of a test become one file, which g++ compiles with the simulator's emulation of device code.
 *
 * A test goes twice over its programs: first the runner only collects texts, then it runs them. */
#ifndef DJ_TESTS_GPU_CUDA_FUSED_RUNNER_H
#define DJ_TESTS_GPU_CUDA_FUSED_RUNNER_H

#include <dlfcn.h>

#include "gpu/cuda/part.h"
#include "gpu/place.h"
#include "tests/gpu/program.h"

#define RUNNER_KERNELS_MAX 4096
#define RUNNER_REFS_MAX 4

typedef void (*runner_kernel_t)(const void *params);
typedef void (*runner_launch_t)(runner_kernel_t kernel, const unsigned grid[3], const unsigned block[3],
                                unsigned shared_bytes, const void *params);

typedef struct runner {
    char folder[64], names[RUNNER_KERNELS_MAX][32];
    uint32_t n_names, n_launches;
    bool wide; /* indices as for 2^31 elements and more */
    FILE *texts; /* while collecting */
    void *library;
    runner_launch_t launch;
} runner_t;

static inline void runner_open(runner_t *runner)
{
    char path[128];
    memset(runner, 0, sizeof(*runner));
    snprintf(runner->folder, sizeof(runner->folder), "/tmp/dj_fused_XXXXXX");
    assert_non_null(mkdtemp(runner->folder));
    snprintf(path, sizeof(path), "%s/texts.cpp", runner->folder);
    runner->texts = fopen(path, "w");
    assert_non_null(runner->texts);
}

/* Signed overflow anywhere in the texts ends the process. */
static inline void runner_compile(runner_t *runner)
{
    char command[1024];
    fclose(runner->texts);
    runner->texts = NULL;
    snprintf(command, sizeof(command),
             "g++ -std=c++17 -O0 -fPIC -shared -ffp-contract=off -fsanitize=signed-integer-overflow "
             "-fsanitize-undefined-trap-on-error -w -I %s -isystem " DJ_CUDA_INCLUDE " -o %s/texts.so %s/texts.cpp "
             "%s/tests/gpu/simulator/emulate.cpp -ldl", DJ_SOURCE_FOLDER, runner->folder, runner->folder,
             DJ_SOURCE_FOLDER);
    assert_int_equal(system(command), 0);
    snprintf(command, sizeof(command), "%s/texts.so", runner->folder);
    setenv("DJ_SIM_SEED", "7", 0);
    runner->library = dlopen(command, RTLD_NOW);
    if (!runner->library)
        fail_msg("%s", dlerror());
    *(void **)&runner->launch = dlsym(runner->library, "sim_launch");
    assert_non_null(runner->launch);
}

static inline void runner_close(runner_t *runner)
{
    char command[128];
    snprintf(command, sizeof(command), "rm -rf %s", runner->folder);
    assert_int_equal(system(command), 0);
}

static inline void runner_collect(runner_t *runner, const char *source, const char *name)
{
    for (uint32_t i = 0; i < runner->n_names; i++)
        if (strcmp(runner->names[i], name) == 0)
            return;
    assert_true(runner->n_names < RUNNER_KERNELS_MAX);
    snprintf(runner->names[runner->n_names++], 32, "%s", name);
    fprintf(runner->texts, "%s\n", source);
}

/* Bindings by the pointer table, the slab by address. */
static inline dj_cuda_ref_t runner_ref(const test_case_t *test, const dj_place_t *place, uint8_t *slab)
{
    if (place->storage == DJ_STORAGE_NONE)
        return (dj_cuda_ref_t){.table = DJ_CUDA_NONE, .slot = DJ_CUDA_NONE};
    bool bound = place->binding != DJ_SLOT_NONE;
    uint64_t offset = bound ? 0 : test->plan->offsets[place->storage];
    return (dj_cuda_ref_t){
        .base = (bound ? 0 : (uint64_t)(uintptr_t)slab + offset) + place->inside,
        .table = bound ? (int32_t)place->binding : DJ_CUDA_NONE,
        .slot = place->slot == DJ_SLOT_NONE ? DJ_CUDA_NONE : (int32_t)place->slot,
        .item_bytes = place->item_bytes,
        .present = 1,
    };
}

static inline void runner_run(runner_t *runner, const test_case_t *test, const dj_part_t *part, uint32_t first,
                              uint8_t *slab, const char *name)
{
    _Alignas(16) uint8_t params[DJ_CUDA_PARAMS_MAX] = {0};
    dj_part_layout_t layout = dj_part_layout(part);
    uint32_t fault = 0;
    dj_cuda_head_t head = {.table = (uint64_t)(uintptr_t)test->bindings,
                           .scalars = (uint64_t)(uintptr_t)test->program.scalars.data,
                           .fault = (uint64_t)(uintptr_t)&fault};
    dj_part_params(part, params);
    memcpy(params, &head, sizeof(head));
    dj_cuda_ref_t *refs = (dj_cuda_ref_t *)(void *)(params + layout.inputs);
    for (uint32_t i = 0; i < part->n_inputs + part->n_steps; i++) {
        const dj_part_window_t *w = i < part->n_inputs ? &part->inputs[i] : &part->steps[i - part->n_inputs].out;
        const dj_node_t *node = &test->graph->nodes[test->plan->steps[first + w->step].node];
        dj_place_t places[RUNNER_REFS_MAX];
        assert_true(dj_places_count(node) <= RUNNER_REFS_MAX);
        dj_places_fill(test->graph, node, places);
        refs[i] = runner_ref(test, &places[w->operand], slab);
    }
    runner_kernel_t kernel;
    *(void **)&kernel = dlsym(runner->library, name);
    assert_non_null(kernel);
    runner->launch(kernel, (unsigned[3]){3, 1, 1}, (unsigned[3]){64, 1, 1}, 0, params);
    assert_int_equal(fault, 0);
    runner->n_launches++;
}

/* Steps [first, first + n) of the plan, in parts of at most `most` steps; only collects while it collects. */
static inline void runner_steps(runner_t *runner, const test_case_t *test, uint32_t first, uint32_t n, uint32_t most,
                                uint8_t *slab)
{
    static dj_part_t part;
    const dj_node_t *nodes[DJ_PART_STEPS_MAX];
    assert_true(n <= DJ_PART_STEPS_MAX);
    for (uint32_t i = 0; i < n; i++)
        nodes[i] = &test->graph->nodes[test->plan->steps[first + i].node];
    for (uint32_t at = 0; at < n; at += part.n_steps) {
        char *source;
        const char *name;
        dj_status_t status = dj_part_make(&part, &nodes[at], n - at < most ? n - at : most);
        part.narrow &= !runner->wide;
        if (status == DJ_OK)
            status = dj_part_source(&part, &source, &name);
        if (status != DJ_OK)
            fail_msg("%s", dj_error_text());
        if (runner->texts)
            runner_collect(runner, source, name);
        else if (part.count > 0)
            runner_run(runner, test, &part, first + at, slab, name);
        free(source);
    }
}

/* The whole plan: groups as they are, or (most 1) step by step. */
static inline void runner_plan(runner_t *runner, const test_case_t *test, uint32_t most)
{
    const dj_plan_t *plan = test->plan;
    uint64_t bytes = plan->peak_bytes + 4096;
    uint8_t *slab = aligned_alloc(DJ_ALIGN_BYTES, (bytes + DJ_ALIGN_BYTES) & ~(uint64_t)(DJ_ALIGN_BYTES - 1));
    assert_non_null(slab);
    dj_poison_fill(slab, bytes, DJ_POISON_BYTE);
    for (uint32_t first = 0, n; first < plan->n_steps; first += n) {
        for (n = 1; first + n < plan->n_steps && plan->steps[first + n].group == plan->steps[first].group;)
            n++;
        runner_steps(runner, test, first, n, most, slab);
    }
    if (!runner->texts) /* below where a value ends in the poison's byte */
        assert_in_range(dj_poison_peak(slab, bytes, DJ_POISON_BYTE), 0, plan->peak_bytes);
    free(slab);
}

#endif
