/* test_replay.c - programs replayed on the CUDA device, to the stream and as graphs, against the host device
 * (replayed.h). What needs the simulator (its counters, its faults) is skipped on a GPU. */
#include "tests/gpu/cuda/replayed.h"

#include <pthread.h>
#include <time.h>

/* ---- tests ---- */

static void same_on_both(record_t record)
{
    program_t program;
    session_t session;
    program_open(&program, record);
    session_open(&session, &program, 1, NULL);
    for (int i = 0; i < 4; i++)
        run_both(&program, &session);
    COUNTED(&program, 1, 3, 1);
    session_close(&session);
    program_close(&program);
}

static void a_network_gives_the_host_s_bytes(void **state)
{
    same_on_both(record_network);
}

static void moves_give_the_host_s_bytes(void **state)
{
    same_on_both(record_moves);
}

static void lookups_give_the_host_s_bytes(void **state)
{
    same_on_both(record_lookup);
}

static void a_staged_result_gives_the_host_s_bytes(void **state)
{
    same_on_both(record_staged);
}

static void without_graphs_every_replay_is_direct(void **state)
{
    program_t program;
    session_t session;
    ((dj_cuda_device_t *)cuda)->use_graphs = false;
    program_open(&program, record_network);
    session_open(&session, &program, 1, NULL);
    for (int i = 0; i < 3; i++)
        run_both(&program, &session);
    COUNTED(&program, 3, 0, 0);
    ((dj_cuda_device_t *)cuda)->use_graphs = true;
    session_close(&session);
    program_close(&program);
}

static void a_graph_serves_every_session(void **state)
{
    program_t program;
    session_t one, other, tuned;
    program_open(&program, record_network);
    session_open(&one, &program, 1, NULL);
    session_open(&other, &program, 100, &one);
    session_open(&tuned, &program, 200, NULL); /* other weights */
    run_both(&program, &one);
    run_both(&program, &other);
    run_both(&program, &one);
    run_both(&program, &other);
    COUNTED(&program, 1, 3, 1);
    run_both(&program, &tuned);
    COUNTED(&program, 2, 3, 1);
    run_both(&program, &tuned);
    run_both(&program, &one);
    COUNTED(&program, 2, 5, 2);
    session_close(&other);
    session_close(&one);
    session_close(&tuned);
    program_close(&program);
}

static void a_weight_that_is_not_text_replays_directly(void **state)
{
    program_t program;
    session_t session;
    dj_text_t *texts[CASE_BINDINGS_MAX];
    program_open(&program, record_network);
    session_open(&session, &program, 1, NULL);
    memcpy(texts, program.on_cuda.texts, sizeof(texts));
    texts[1] = NULL;
    assert_false(cuda->ops->bound(program.on_cuda.exe, texts));
    CHECK_OK(cuda->ops->bind(program.on_cuda.exe, texts));
    assert_true(cuda->ops->bound(program.on_cuda.exe, texts));
    for (int i = 0; i < 3; i++)
        run_both(&program, &session);
    COUNTED(&program, 3, 0, 0);
    session_close(&session);
    program_close(&program);
}

static void a_position_moves_through_one_graph(void **state)
{
    program_t program;
    session_t session;
    program_open(&program, record_cache);
    session_open(&session, &program, 1, NULL);
    assert_int_equal(program.on_cuda.graph->n_scalars, 1);
    for (uint64_t i = 0; i < 16; i++) {
        scalars_of(&program)[0] = i * 8;
        run_both(&program, &session);
    }
    COUNTED(&program, 1, 15, 1);
    session_close(&session);
    program_close(&program);
}

static void an_index_out_of_range_names_its_node(void **state)
{
    program_t program;
    session_t session;
    program_open(&program, record_lookup);
    session_open(&session, &program, 1, NULL);
    for (int i = 0; i < 3; i++) {
        run_both(&program, &session);
        int64_t *index = (int64_t *)(void *)session.first[1] + 3, good = *index;
        *index = 50;
        assert_int_equal(replay(&program, &session), DJ_ERR_INVALID);
        assert_non_null(strstr(dj_error_text(), "node 0, "));
        assert_non_null(strstr(dj_error_text(), "embedding: an index is out of range"));
        *index = good;
    }
    COUNTED(&program, 1, 5, 1);
    session_close(&session);
    program_close(&program);
}

static void long_programs_are_several_graphs(void **state)
{
    program_t program;
    session_t session;
    program_open(&program, record_moves);
    dj_cuda_executable_t *exe = exe_of(&program.on_cuda);
    session_open(&session, &program, 1, NULL);
    for (uint32_t i = 0; i < exe->n_steps; i++)
        exe->steps[i].predicted_ns = 3e6;
    for (int i = 0; i < 3; i++)
        run_both(&program, &session);
    COUNTED(&program, 1, 2, 1);
    assert_int_equal(exe->n_steps, 4);
    assert_int_equal(exe->instances[0].n_pieces, 4);
    assert_int_equal(exe->counters.launches, 3 * 4);
    session_close(&session);
    program_close(&program);
}

/* Two pieces are under way, and no third. */
static void a_long_program_leaves_room_for_others(void **state)
{
    program_t program;
    session_t session;
    sim_counters_t before, after;
    if (!counters_of)
        skip();
    program_open(&program, record_moves);
    session_open(&session, &program, 1, NULL);
    for (int i = 0; i < 3; i++) { /* directly, captured, as graphs */
        dj_launch_t launch = {session.bindings, program.stack.base, NULL, scalars_of(&program)};
        for (uint32_t j = 0; j < 4; j++)
            exe_of(&program.on_cuda)->steps[j].predicted_ns = 3e6;
        run_both(&program, &session);
        counters_of(&before);
        CHECK_OK(cuda->ops->replay(program.on_cuda.exe, &launch));
        counters_of(&after);
        assert_in_range(after.synchronizations - before.synchronizations, 3, 4); /* of four pieces, and the end */
    }
    session_close(&session);
    program_close(&program);
}

static void another_plan_is_captured_anew(void **state)
{
    program_t program;
    session_t session;
    program_open(&program, record_moves);
    session_open(&session, &program, 1, NULL);
    for (int i = 0; i < 3; i++)
        run_both(&program, &session);
    CHECK_OK(cuda->ops->place(program.on_cuda.exe, program.on_cuda.plan));
    assert_true(cuda->ops->bound(program.on_cuda.exe, program.on_cuda.texts));
    for (int i = 0; i < 3; i++)
        run_both(&program, &session);
    COUNTED(&program, 2, 4, 2);
    session_close(&session);
    program_close(&program);
}

/* One past the highest byte of the slab that is not the poison's. */
static uint64_t peak_of(program_t *program)
{
    uint64_t bytes = program->on_cuda.plan->peak_bytes + SLACK_BYTES, peak = bytes;
    uint8_t *slab = malloc(bytes);
    assert_non_null(slab);
    CHECK_OK(cuda->ops->memory.copy_out(cuda, slab, program->stack.base, bytes));
    while (peak > 0 && slab[peak - 1] == DJ_POISON_BYTE)
        peak--;
    free(slab);
    return peak;
}

static void poison(program_t *program)
{
    uint64_t bytes = program->on_cuda.plan->peak_bytes + SLACK_BYTES;
    uint8_t *slab = malloc(bytes);
    assert_non_null(slab);
    memset(slab, DJ_POISON_BYTE, bytes);
    CHECK_OK(cuda->ops->memory.copy_in(cuda, program->stack.base, slab, bytes));
    free(slab);
}

static void the_peak_is_the_plan_s(void **state)
{
    static const record_t records[] = {record_network, record_moves, record_lookup, record_staged, record_cache};
    ((dj_cuda_device_t *)cuda)->poison = true;
    for (size_t r = 0; r < sizeof(records) / sizeof(records[0]); r++) {
        program_t program;
        session_t session;
        program_open(&program, records[r]);
        session_open(&session, &program, 1, NULL);
        for (int i = 0; i < 3; i++) {
            poison(&program);
            run_both(&program, &session);
            assert_int_equal(peak_of(&program), program.on_cuda.plan->peak_bytes);
        }
        COUNTED(&program, 1, 2, 1);
        session_close(&session);
        program_close(&program);
    }
    ((dj_cuda_device_t *)cuda)->poison = false;
}

/* A kernel that writes *state bytes of workspace. */
static dj_status_t overwrite(const dj_cuda_kernel_t *kernel, dj_cuda_device_t *device, CUstream stream,
                             const CUdeviceptr *addresses)
{
    return dj_cuda_status(dj_cuda.cuMemsetD8Async(addresses[0], 1, *(const uint32_t *)kernel->state, stream), "a test");
}

static dj_status_t emit_overwrite(const dj_cuda_kernel_t *kernel, dj_cuda_emit_t *emit)
{
    CUdeviceptr workspace = dj_cuda_emit_workspace(emit);
    return dj_cuda_emit_call(emit, kernel, overwrite, &workspace, 1);
}

static void who_writes_past_a_workspace_is_found(void **state)
{
    program_t program;
    session_t session;
    uint32_t bytes = 128;
    ((dj_cuda_device_t *)cuda)->poison = true;
    program_open(&program, record_cache); /* which has nothing else in the slab */
    session_open(&session, &program, 1, NULL);
    dj_cuda_kernel_t *kernel = &exe_of(&program.on_cuda)->kernels[0];
    assert_int_equal(program.on_cuda.plan->peak_bytes, 0);
    program.on_cuda.plan->workspace_bytes = 128 + DJ_CUDA_GUARD_BYTES;
    kernel->emit = emit_overwrite;
    kernel->state = &bytes;
    CHECK_OK(replay(&program, &session));
    bytes = 129;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(replay(&program, &session), DJ_ERR_INTERNAL);
        assert_non_null(strstr(dj_error_text(), "past its workspace"));
    }
    ((dj_cuda_device_t *)cuda)->poison = false;
    session_close(&session);
    program_close(&program);
}

/* ---- compiling ---- */

static nvrtcResult (*compile)(nvrtcProgram, int, const char *const *);
static pthread_mutex_t meeting = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t met = PTHREAD_COND_INITIALIZER;
static int n_compiling, n_together;

/* Waits for another one to come, for some seconds at most. */
static nvrtcResult compile_together(nvrtcProgram program, int n_options, const char *const *options)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 3;
    pthread_mutex_lock(&meeting);
    n_compiling++;
    n_together = n_compiling > n_together ? n_compiling : n_together;
    pthread_cond_broadcast(&met);
    while (n_together < 2 && pthread_cond_timedwait(&met, &meeting, &until) == 0)
        continue;
    pthread_mutex_unlock(&meeting);
    nvrtcResult result = compile(program, n_options, options);
    pthread_mutex_lock(&meeting);
    n_compiling--;
    pthread_mutex_unlock(&meeting);
    return result;
}

static dj_operand_t record_two_groups(program_t *program, test_case_t *test)
{
    dj_operand_t w = input(program, test, DJ_CLASS_WEIGHT, view(DJ_F32, 2, 24, 24), 0);
    dj_operand_t x = input(program, test, DJ_CLASS_IMMEDIATE, view(DJ_F32, 2, 5, 24), 0);
    dj_operand_t h = op1(test, DJ_OP_RELU, op2(test, DJ_OP_MM, x, w));
    return plus(test, op2(test, DJ_OP_MM, h, w), h, 3);
}

static void groups_compile_side_by_side(void **state)
{
    char folder[] = "/tmp/dj_compile_XXXXXX", command[64];
    dj_config_t config = {.device = "cuda", .cores = "", .cuda_graphs = true, .numerics = "exact", .threads = 2};
    dj_device_t *other = cuda;
    program_t program;
    session_t session;
    assert_non_null(config.kernel_cache = mkdtemp(folder)); /* with nothing in it */
    CHECK_OK(dj_device_open(&config, &cuda));
    compile = dj_cuda.nvrtcCompileProgram;
    dj_cuda.nvrtcCompileProgram = compile_together;
    program_open(&program, record_two_groups);
    dj_cuda.nvrtcCompileProgram = compile;
    assert_int_equal(n_together, 2);
    session_open(&session, &program, 1, NULL);
    for (int i = 0; i < 3; i++)
        run_both(&program, &session);
    session_close(&session);
    program_close(&program);
    dj_device_close(cuda);
    cuda = other;
    snprintf(command, sizeof(command), "rm -rf %s", folder);
    assert_int_equal(system(command), 0);
}

/* ---- with the simulator ---- */

static void replays_allocate_nothing(void **state)
{
    program_t program;
    session_t session;
    sim_counters_t before, after;
    if (!counters_of)
        skip();
    program_open(&program, record_network);
    session_open(&session, &program, 1, NULL);
    counters_of(&before);
    run_both(&program, &session);
    counters_of(&after);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(after.allocations, before.allocations);
        assert_int_equal(after.handles, before.handles);
        assert_int_equal(after.pinned_bytes, before.pinned_bytes);
        assert_int_equal(after.streams, before.streams);
        assert_int_equal(after.events, before.events);
        assert_int_equal(after.graphs, before.graphs);
        assert_int_equal(after.graph_execs, before.graph_execs);
        run_both(&program, &session);
        if (i == 0) {
            counters_of(&before); /* the second replay has made its graphs */
            assert_int_equal(before.streams, after.streams);
            assert_int_equal(before.graphs, after.graphs);
            assert_int_equal(before.graph_execs, after.graph_execs + 1);
        }
        counters_of(&after);
    }
    program_close(&program);
    session_close(&session);
    counters_of(&after);
    assert_int_equal(after.graph_execs, before.graph_execs - 1);
    assert_int_equal(after.allocations, before.allocations - 1);
    assert_int_equal(after.events, before.events - 3);
}

static void a_graph_replay_is_one_launch(void **state)
{
    program_t program;
    session_t session;
    sim_counters_t before, after;
    if (!counters_of)
        skip();
    program_open(&program, record_network);
    session_open(&session, &program, 1, NULL);
    run_both(&program, &session);
    run_both(&program, &session);
    dj_launch_t launch = {session.bindings, program.stack.base, NULL, scalars_of(&program)};
    counters_of(&before);
    CHECK_OK(cuda->ops->replay(program.on_cuda.exe, &launch));
    counters_of(&after);
    assert_int_equal(after.graph_launches - before.graph_launches, 1);
    assert_int_equal(after.copies - before.copies, 0);
    assert_int_equal(after.memsets - before.memsets, 0);
    /* Entering the context, the launch, an event's record, and queries until it is over: the simulator gets on by one
     * operation a query, so that is one for the graph, one for the record, and one that finds both done. A thread that
     * spun for its time sleeps at the event in place of further queries. */
    uint64_t waits = after.queries - before.queries + after.synchronizations - before.synchronizations;
    assert_int_equal(after.entered - before.entered, 3 + waits);
    assert_in_range(waits, 1, 3);
    session_close(&session);
    program_close(&program);
}

static void what_cannot_be_captured_plays_directly(void **state)
{
    static const char *const functions[] = {"cuStreamCreateWithPriority", "cuStreamBeginCapture",
                                            "cuGraphInstantiate", "cuGraphUpload"};
    if (!fail_next)
        skip();
    for (size_t f = 0; f < sizeof(functions) / sizeof(functions[0]); f++) {
        program_t program;
        session_t session;
        sim_counters_t before, after;
        program_open(&program, record_network);
        session_open(&session, &program, 1, NULL);
        run_both(&program, &session);
        counters_of(&before);
        fail_next(functions[f], CUDA_ERROR_OUT_OF_MEMORY);
        for (int i = 0; i < 3; i++)
            run_both(&program, &session);
        COUNTED(&program, 4, 0, 0);
        counters_of(&after);
        assert_int_equal(after.graph_execs, before.graph_execs);
        assert_int_equal(after.graphs, before.graphs);
        assert_int_equal(after.streams, before.streams);
        for (uint32_t i = 0; i < DJ_CUDA_CAPTURE_REST - 2; i++) /* two of the three above were of it */
            run_both(&program, &session);
        COUNTED(&program, DJ_CUDA_CAPTURE_REST + 2, 0, 0);
        run_both(&program, &session);
        COUNTED(&program, DJ_CUDA_CAPTURE_REST + 2, 1, 1);
        session_close(&session);
        program_close(&program);
    }
}

static void a_refused_launch_leaves_the_device_usable(void **state)
{
    program_t program;
    session_t session;
    if (!fail_next)
        skip();
    program_open(&program, record_network);
    session_open(&session, &program, 1, NULL);
    fail_next("cuLaunchKernel", CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES);
    assert_int_not_equal(replay(&program, &session), DJ_OK);
    assert_non_null(strstr(dj_error_text(), "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"));
    for (int i = 0; i < 3; i++)
        run_both(&program, &session);
    session_close(&session);
    program_close(&program);
}

/* A library in a lost context: it answers with an error of its own. */
static dj_status_t fail_as_a_library(const dj_cuda_kernel_t *kernel, dj_cuda_device_t *device, CUstream stream,
                                     const CUdeviceptr *addresses)
{
    set_fault(*(const CUresult *)kernel->state);
    return dj_fail(DJ_ERR_SYSTEM, "a library: status 13");
}

static dj_status_t emit_failure(const dj_cuda_kernel_t *kernel, dj_cuda_emit_t *emit)
{
    return dj_cuda_emit_call(emit, kernel, fail_as_a_library, NULL, 0);
}

static void a_fault_behind_a_library_s_error_is_found(void **state)
{
    program_t program;
    session_t session;
    CUresult fault = CUDA_ERROR_ILLEGAL_ADDRESS;
    if (!set_fault)
        skip();
    program_open(&program, record_cache);
    session_open(&session, &program, 1, NULL);
    dj_cuda_kernel_t *kernel = &exe_of(&program.on_cuda)->kernels[0];
    kernel->emit = emit_failure;
    kernel->state = &fault;
    for (int i = 0; i < 2; i++) { /* directly, and captured first */
        assert_int_equal(replay(&program, &session), DJ_ERR_DEVICE);
        assert_non_null(strstr(dj_error_text(), "CUDA_ERROR_ILLEGAL_ADDRESS"));
        set_fault(CUDA_SUCCESS);
    }
    fault = CUDA_SUCCESS;
    assert_int_equal(replay(&program, &session), DJ_ERR_SYSTEM);
    session_close(&session);
    program_close(&program);
}

/* Last: the device is lost. */
static void a_fault_of_the_gpu_names_it(void **state)
{
    program_t program;
    session_t session;
    if (!set_fault)
        skip();
    program_open(&program, record_network);
    session_open(&session, &program, 1, NULL);
    for (int i = 0; i < 4; i++) { /* direct and as a graph */
        run_both(&program, &session);
        set_fault(CUDA_ERROR_ECC_UNCORRECTABLE);
        dj_launch_t launch = {session.bindings, program.stack.base, NULL, scalars_of(&program)};
        assert_int_equal(cuda->ops->replay(program.on_cuda.exe, &launch), DJ_ERR_DEVICE);
        assert_non_null(strstr(dj_error_text(), cuda->ops->info(cuda)->name));
        assert_non_null(strstr(dj_error_text(), "CUDA_ERROR_ECC_UNCORRECTABLE"));
        set_fault(CUDA_SUCCESS);
    }
    set_fault(CUDA_ERROR_ILLEGAL_ADDRESS);
    cuda->ops->destroy(program.on_cuda.exe); /* with the context lost */
    program.on_cuda.exe = NULL;
    set_fault(CUDA_SUCCESS);
    session_close(&session);
    program_close(&program);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_network_gives_the_host_s_bytes),
        cmocka_unit_test(moves_give_the_host_s_bytes),
        cmocka_unit_test(lookups_give_the_host_s_bytes),
        cmocka_unit_test(a_staged_result_gives_the_host_s_bytes),
        cmocka_unit_test(without_graphs_every_replay_is_direct),
        cmocka_unit_test(a_graph_serves_every_session),
        cmocka_unit_test(a_weight_that_is_not_text_replays_directly),
        cmocka_unit_test(a_position_moves_through_one_graph),
        cmocka_unit_test(an_index_out_of_range_names_its_node),
        cmocka_unit_test(long_programs_are_several_graphs),
        cmocka_unit_test(a_long_program_leaves_room_for_others),
        cmocka_unit_test(another_plan_is_captured_anew),
        cmocka_unit_test(the_peak_is_the_plan_s),
        cmocka_unit_test(who_writes_past_a_workspace_is_found),
        cmocka_unit_test(groups_compile_side_by_side),
        cmocka_unit_test(replays_allocate_nothing),
        cmocka_unit_test(a_graph_replay_is_one_launch),
        cmocka_unit_test(what_cannot_be_captured_plays_directly),
        cmocka_unit_test(a_refused_launch_leaves_the_device_usable),
        cmocka_unit_test(a_fault_behind_a_library_s_error_is_found),
        cmocka_unit_test(a_fault_of_the_gpu_names_it),
    };
    if (!devices_open())
        return 77;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    devices_close();
    return failed;
}
