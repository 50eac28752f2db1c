/* test_emit.c - lists of launches, looked at: who is called with which addresses, rows and slots, where lists are cut,
 * what is copied for a library, and which instance a launch finds. Nothing is replayed here. */
#include "tests/gpu/cuda/open.h"

#include "planner/fold.h"

#define STACK 0x10000000u
#define SPILL 0x20000000u
#define BINDING(i) ((void *)(uintptr_t)(0x30000000u + (i) * 0x100000u))

static dj_device_t *device;

static dj_view_t vector(int64_t n)
{
    return dj_view_contiguous(DJ_F32, 1, &n);
}

static dj_operand_t input(test_case_t *test, dj_operand_class_t class, dj_view_t view, uint64_t bytes)
{
    return case_input(test, class, BINDING(test->n_inputs), bytes, view);
}

static dj_operand_t add(test_case_t *test, uint16_t op, const dj_operand_t *a, const dj_operand_t *b,
                        const dj_operand_t *target)
{
    dj_arg_t args[] = {tensor_arg(a), tensor_arg(b)};
    return case_add(test, op, args, b ? 2 : 1, target);
}

/* A copy into another dtype: a kernel of one launch. */
static dj_operand_t convert(test_case_t *test, const dj_operand_t *a, uint8_t dtype)
{
    dj_arg_t args[] = {tensor_arg(a), {.kind = DJ_ARG_INTEGER, .integer = dtype, .slot = DJ_SLOT_NONE}};
    return case_add(test, DJ_OP_TO_COPY, args, 2, NULL);
}

static void build(test_case_t *test, dj_operand_t output)
{
    CHECK_OK(case_build(test, &output.storage, 1));
    for (uint32_t i = test->n_inputs; i < dj_cuda_bindings(test->graph); i++)
        test->bindings[i] = BINDING(i);
}

static void list_of(test_case_t *test, bool direct, dj_cuda_list_t *list)
{
    dj_cuda_resolution_t resolution = {STACK, SPILL, test->bindings, (uint64_t *)test->program.scalars.data, direct};
    *list = (dj_cuda_list_t){0};
    CHECK_OK(dj_cuda_list_make(exe_of(test), &resolution, list));
}

static const void *params_of(const dj_cuda_list_t *list, uint32_t record)
{
    assert_in_range(record, 0, list->n_records - 1);
    return list->blob + list->records[record].at;
}

#define REF(ref_, base_, table_, slot_)                                                            \
    do {                                                                                           \
        assert_int_equal((ref_).present, 1);                                                       \
        assert_int_equal((ref_).base, (base_));                                                    \
        assert_int_equal((ref_).table, (table_));                                                  \
        assert_int_equal((ref_).slot, (slot_));                                                    \
    } while (0)

/* ---- places ---- */

static void a_session_s_memory_is_a_row_of_the_table_or_an_address(void **state)
{
    test_case_t test;
    dj_cuda_list_t list;
    case_open(&test, device);
    dj_operand_t a = input(&test, DJ_CLASS_STATE, vector(100), 400);
    build(&test, convert(&test, &a, DJ_F64));
    list_of(&test, false, &list);
    assert_int_equal(list.n_records, 1);
    const dj_layout_convert_t *p = params_of(&list, 0);
    REF(p->from, 0, 0, DJ_CUDA_NONE);
    REF(p->to, 0, 1, DJ_CUDA_NONE);
    const dj_cuda_block_t *block = &exe_of(&test)->block;
    assert_int_equal(p->head.table, block->device);
    assert_int_equal(p->head.scalars, block->device + 2 * 8);
    assert_int_equal(p->head.fault, (uint64_t)(uintptr_t)block->fault);
    assert_int_equal(p->head.node, 0);
    dj_cuda_list_fini(&list);
    list_of(&test, true, &list);
    p = params_of(&list, 0);
    REF(p->from, (uint64_t)(uintptr_t)BINDING(0), DJ_CUDA_NONE, DJ_CUDA_NONE);
    REF(p->to, (uint64_t)(uintptr_t)BINDING(1), DJ_CUDA_NONE, DJ_CUDA_NONE);
    dj_cuda_list_fini(&list);
    case_close(&test);
}

static void weights_and_slabs_are_addresses(void **state)
{
    test_case_t test;
    dj_cuda_list_t list;
    case_open(&test, device);
    dj_operand_t w = input(&test, DJ_CLASS_WEIGHT, vector(100), 400);
    dj_operand_t middle = convert(&test, &w, DJ_F64);
    build(&test, convert(&test, &middle, DJ_F16));
    uint64_t offset = test.plan->offsets[middle.storage];
    list_of(&test, false, &list);
    assert_int_equal(list.n_records, 2);
    const dj_layout_convert_t *first = params_of(&list, 0), *second = params_of(&list, 1);
    REF(first->from, (uint64_t)(uintptr_t)BINDING(0), DJ_CUDA_NONE, DJ_CUDA_NONE);
    REF(first->to, STACK + offset, DJ_CUDA_NONE, DJ_CUDA_NONE);
    REF(second->from, STACK + offset, DJ_CUDA_NONE, DJ_CUDA_NONE);
    REF(second->to, 0, 1, DJ_CUDA_NONE);
    assert_int_equal(list.records[1].step, 1);
    assert_int_equal(second->head.node, 1);
    dj_cuda_list_fini(&list);
    case_close(&test);
}

/* A graph that somebody changed: compiled and planned again. */
static void build_again(test_case_t *test)
{
    device->ops->destroy(test->exe);
    dj_plan_destroy(test->plan);
    dj_plan_needs_t needs = {.device_class = device->ops->info(device)->class_hash};
    CHECK_OK(device->ops->compile(device, test->graph, &test->exe));
    CHECK_OK(dj_plan_make(test->graph, &needs, &test->plan));
    CHECK_OK(device->ops->place(test->exe, test->plan));
}

static void a_spilled_value_lies_in_the_second_slab(void **state)
{
    test_case_t test;
    dj_cuda_list_t list;
    case_open(&test, device);
    dj_operand_t a = input(&test, DJ_CLASS_STATE, vector(100), 400);
    dj_operand_t middle = convert(&test, &a, DJ_F64);
    build(&test, convert(&test, &middle, DJ_F16));
    test.graph->storages[middle.storage].is_spilled = 1;
    build_again(&test);
    list_of(&test, false, &list);
    const dj_layout_convert_t *p = params_of(&list, 1);
    REF(p->from, SPILL + test.plan->offsets[middle.storage], DJ_CUDA_NONE, DJ_CUDA_NONE);
    dj_cuda_list_fini(&list);
    case_close(&test);
}

static dj_graph_t *decode(const test_case_t *test)
{
    const dj_program_t *p = &test->program;
    dj_graph_t *graph;
    CHECK_OK(dj_graph_decode(p->structure.data, p->structure.size, p->sizes.data, p->sizes.size,
                             (uint32_t)(p->scalars.size / 8), &graph));
    return graph;
}

/* The graph that reads them bakes them in; the twin that makes them gets them anywhere. */
static void folded_values_are_addresses_for_who_reads_them(void **state)
{
    test_case_t test;
    dj_cuda_list_t list;
    case_open(&test, device);
    dj_operand_t w = input(&test, DJ_CLASS_WEIGHT, vector(100), 400), x = input(&test, DJ_CLASS_STATE, vector(100), 400);
    dj_operand_t folded = convert(&test, &w, DJ_F64), other = convert(&test, &x, DJ_F64);
    dj_operand_t sum = add(&test, DJ_OP_MUL, &folded, &other, NULL);
    build(&test, sum);
    dj_graph_t *twin = decode(&test), *first = test.graph;
    test.graph = decode(&test);
    CHECK_OK(dj_graph_fold(test.graph, twin));
    assert_int_equal(test.graph->n_folded, 1);
    test.bindings[3] = BINDING(3);
    build_again(&test);
    assert_false(exe_of(&test)->moves[3]);
    assert_true(exe_of(&test)->moves[2]);
    dj_graph_t *reader = test.graph;
    test.graph = twin;
    build_again(&test);
    assert_true(exe_of(&test)->moves[3]);
    list_of(&test, false, &list);
    assert_int_equal(list.n_records, 1);
    const dj_layout_convert_t *p = params_of(&list, 0);
    REF(p->from, (uint64_t)(uintptr_t)BINDING(0), DJ_CUDA_NONE, DJ_CUDA_NONE);
    REF(p->to, 0, 3, DJ_CUDA_NONE);
    dj_cuda_list_fini(&list);
    case_close(&test);
    dj_graph_destroy(first);
    dj_graph_destroy(reader);
}

/* Rewrites place windows at constant offsets. */
static void a_constant_offset_is_in_the_base(void **state)
{
    test_case_t test;
    dj_cuda_list_t list;
    case_open(&test, device);
    dj_operand_t a = input(&test, DJ_CLASS_STATE, vector(100), 440);
    build(&test, convert(&test, &a, DJ_F64));
    ((dj_operand_t *)test.graph->nodes[0].call.args[0].operands)->view.offset = 10;
    build_again(&test);
    list_of(&test, false, &list);
    const dj_layout_convert_t *p = params_of(&list, 0);
    REF(p->from, 40, 0, DJ_CUDA_NONE);
    dj_cuda_list_fini(&list);
    case_close(&test);
}

static void a_view_s_offset_travels_in_the_scalars(void **state)
{
    test_case_t test;
    dj_cuda_list_t list;
    case_open(&test, device);
    dj_view_t window = vector(10);
    window.offset = 30;
    dj_operand_t a = input(&test, DJ_CLASS_STATE, window, 400);
    build(&test, convert(&test, &a, DJ_F64));
    list_of(&test, false, &list);
    const dj_layout_convert_t *p = params_of(&list, 0);
    REF(p->from, 0, 0, 0);
    assert_int_equal(p->from.item_bytes, 4);
    dj_cuda_list_fini(&list);
    list_of(&test, true, &list);
    p = params_of(&list, 0);
    REF(p->from, (uint64_t)(uintptr_t)BINDING(0) + 120, DJ_CUDA_NONE, DJ_CUDA_NONE);
    dj_cuda_list_fini(&list);
    case_close(&test);
}

/* A shift by one inside one storage: the result is made aside, then copied home. */
static void a_staged_result_is_copied_home(void **state)
{
    test_case_t test;
    dj_cuda_list_t list;
    case_open(&test, device);
    dj_view_t from = vector(50), to = vector(50);
    from.strides[0] = to.strides[0] = 2;
    to.offset = 1;
    dj_operand_t a = input(&test, DJ_CLASS_STATE, from, 400), target = a;
    target.view = to;
    target.view.offset = 2;
    dj_arg_t args[] = {tensor_arg(&a), {.kind = DJ_ARG_INTEGERS, .count = 1, .slot = DJ_SLOT_NONE}};
    int64_t dims[] = {0};
    args[1].integers = dims;
    case_add(&test, DJ_OP_FLIP, args, 2, &target);
    CHECK_OK(case_build(&test, NULL, 0));
    uint64_t staging = test.plan->steps[0].staging;
    assert_int_not_equal(staging, DJ_OFFSET_NONE);
    list_of(&test, false, &list);
    assert_int_equal(list.n_records, 2);
    const dj_layout_copy_t *made = params_of(&list, 0), *home = params_of(&list, 1);
    REF(made->from, 49 * 8, 0, DJ_CUDA_NONE); /* from its last element on */
    REF(made->to, STACK + staging, DJ_CUDA_NONE, DJ_CUDA_NONE);
    assert_int_equal(made->loop.strides[1][0], 4);
    REF(home->from, STACK + staging, DJ_CUDA_NONE, DJ_CUDA_NONE);
    REF(home->to, 0, 0, 0);
    assert_int_equal(home->loop.strides[1][0], 8);
    assert_true(dj_cuda_is_staged(test.exe, exe_of(&test)->kernels[0].node));
    assert_int_equal(dj_cuda_moving_bytes(test.exe, exe_of(&test)->kernels[0].node, 1), 0);
    dj_cuda_list_fini(&list);
    case_close(&test);
}

/* ---- groups ---- */

static void pointwise_steps_are_one_launch_and_survive_another_plan(void **state)
{
    test_case_t test;
    dj_cuda_list_t list;
    case_open(&test, device);
    dj_operand_t a = input(&test, DJ_CLASS_STATE, vector(1000), 4000);
    dj_operand_t b = add(&test, DJ_OP_RELU, &a, NULL, NULL), c = add(&test, DJ_OP_MUL, &a, &b, NULL);
    dj_operand_t d = convert(&test, &c, DJ_F64);
    build(&test, d);
    dj_cuda_executable_t *exe = exe_of(&test);
    assert_int_equal(test.plan->steps[0].group, test.plan->steps[1].group);
    list_of(&test, false, &list);
    assert_int_equal(list.n_records, 2);
    assert_int_equal(list.records[0].step, 0);
    assert_int_equal(list.records[1].step, 2);
    assert_int_equal(exe->steps[0].group_steps, 2);
    assert_int_equal(exe->steps[1].group_steps, 0);
    dj_cuda_fused_t *fused = exe->steps[0].fused;
    assert_non_null(fused);
    dj_cuda_list_fini(&list);
    test.plan->offsets[c.storage] += 4096; /* the same steps at other offsets */
    CHECK_OK(device->ops->place(test.exe, test.plan));
    assert_ptr_equal(exe->steps[0].fused, fused);
    list_of(&test, false, &list);
    const dj_layout_convert_t *p = params_of(&list, 1);
    REF(p->from, STACK + test.plan->offsets[c.storage], DJ_CUDA_NONE, DJ_CUDA_NONE);
    dj_cuda_list_fini(&list);
    case_close(&test);
}

/* ---- library calls ---- */

static CUdeviceptr room_of(const dj_cuda_emit_t *emit, int i)
{
    return dj_cuda_emit_workspace(emit) + (CUdeviceptr)i * 4096;
}

static dj_status_t call(const dj_cuda_kernel_t *kernel, dj_cuda_device_t *on, CUstream stream,
                        const CUdeviceptr *addresses)
{
    return DJ_OK;
}

/* A product that a library would make: two operands, one result, rooms for all. */
static dj_status_t emit_library(const dj_cuda_kernel_t *kernel, dj_cuda_emit_t *emit)
{
    CUdeviceptr addresses[3];
    dj_status_t status = dj_cuda_emit_fixed_in(emit, 0, room_of(emit, 0), &addresses[0]);
    if (status == DJ_OK)
        status = dj_cuda_emit_fixed_in(emit, 1, room_of(emit, 1), &addresses[1]);
    if (status == DJ_OK)
        status = dj_cuda_emit_fixed_out(emit, 2, room_of(emit, 2), &addresses[2]);
    if (status == DJ_OK)
        status = dj_cuda_emit_call(emit, kernel, call, addresses, 3);
    return status == DJ_OK ? dj_cuda_emit_fixed_done(emit, 2, room_of(emit, 2)) : status;
}

static void open_library(test_case_t *test, dj_operand_class_t class)
{
    int64_t sizes[] = {8, 8};
    dj_view_t view = dj_view_contiguous(DJ_F32, 2, sizes);
    case_open(test, device);
    dj_operand_t a = input(test, DJ_CLASS_STATE, view, 256), b = input(test, class, view, 256);
    build(test, add(test, DJ_OP_MM, &a, &b, NULL));
    exe_of(test)->kernels[0].emit = emit_library;
}

static void move_is(const dj_cuda_list_t *list, uint32_t record, uint64_t bytes)
{
    CUfunction function;
    CHECK_OK(dj_cuda_function((dj_cuda_device_t *)device, "dj_layout_bytes", &function));
    assert_null(list->records[record].call);
    assert_ptr_equal(list->records[record].function, function);
    assert_int_equal(((const dj_layout_bytes_t *)params_of(list, record))->bytes, bytes);
}

static void a_library_is_given_copies_of_what_moves_alone(void **state)
{
    test_case_t test;
    dj_cuda_list_t list;
    open_library(&test, DJ_CLASS_WEIGHT);
    const dj_node_t *node = &test.graph->nodes[0];
    assert_int_equal(dj_cuda_moving_bytes(test.exe, node, 0), 256);
    assert_int_equal(dj_cuda_moving_bytes(test.exe, node, 1), 0);
    assert_int_equal(dj_cuda_moving_bytes(test.exe, node, 2), 256);
    list_of(&test, false, &list);
    assert_int_equal(list.n_records, 3);
    move_is(&list, 0, 256);
    move_is(&list, 2, 256);
    const CUdeviceptr *addresses = params_of(&list, 1);
    assert_ptr_equal(list.records[1].call, call);
    assert_int_equal(addresses[0], STACK);
    assert_int_equal(addresses[1], (uint64_t)(uintptr_t)BINDING(1));
    assert_int_equal(addresses[2], STACK + 2 * 4096);
    const dj_layout_bytes_t *in = params_of(&list, 0), *out = params_of(&list, 2);
    REF(in->from, 0, 0, DJ_CUDA_NONE);
    REF(in->to, STACK, DJ_CUDA_NONE, DJ_CUDA_NONE);
    REF(out->from, STACK + 2 * 4096, DJ_CUDA_NONE, DJ_CUDA_NONE);
    REF(out->to, 0, 2, DJ_CUDA_NONE);
    dj_cuda_list_fini(&list);
    case_close(&test);
}

static void played_directly_it_is_given_what_is_aligned_as_it_is(void **state)
{
    test_case_t test;
    dj_cuda_list_t list;
    open_library(&test, DJ_CLASS_STATE);
    list_of(&test, true, &list);
    assert_int_equal(list.n_records, 1);
    const CUdeviceptr *addresses = params_of(&list, 0);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(addresses[i], (uint64_t)(uintptr_t)BINDING(i));
    dj_cuda_list_fini(&list);
    test.bindings[1] = (uint8_t *)test.bindings[1] + 8;
    list_of(&test, true, &list);
    assert_int_equal(list.n_records, 2);
    move_is(&list, 0, 256);
    addresses = params_of(&list, 1);
    assert_int_equal(addresses[1], STACK + 4096);
    dj_cuda_list_fini(&list);
    case_close(&test);
}

static void a_weight_at_a_moving_offset_moves(void **state)
{
    test_case_t test;
    case_open(&test, device);
    dj_view_t window = vector(10);
    window.offset = 30;
    dj_operand_t w = input(&test, DJ_CLASS_WEIGHT, window, 400);
    build(&test, convert(&test, &w, DJ_F64));
    assert_int_equal(dj_cuda_moving_bytes(test.exe, &test.graph->nodes[0], 0), 256);
    case_close(&test);
}

/* ---- cuts ---- */

static void a_list_is_cut_between_steps_at_two_milliseconds(void **state)
{
    test_case_t test;
    dj_cuda_list_t list;
    case_open(&test, device);
    dj_operand_t at = input(&test, DJ_CLASS_STATE, vector(100), 400);
    for (int i = 0; i < 6; i++)
        at = convert(&test, &at, i % 2 ? DJ_F32 : DJ_F64);
    build(&test, at);
    const double ms[] = {0.9, 0.9, 0.9, 5, 0.1, 1.8};
    for (int i = 0; i < 6; i++)
        exe_of(&test)->steps[i].predicted_ns = ms[i] * 1e6;
    list_of(&test, false, &list);
    assert_int_equal(list.n_records, 6);
    assert_int_equal(dj_cuda_list_cut(exe_of(&test), &list, 0), 2);
    assert_int_equal(dj_cuda_list_cut(exe_of(&test), &list, 2), 3);
    assert_int_equal(dj_cuda_list_cut(exe_of(&test), &list, 3), 4);
    assert_int_equal(dj_cuda_list_cut(exe_of(&test), &list, 4), 6);
    list.records[2].step = 1; /* a step of two launches stays whole */
    assert_int_equal(dj_cuda_list_cut(exe_of(&test), &list, 0), 3);
    dj_cuda_list_fini(&list);
    case_close(&test);
}

static void steps_predict_what_the_plan_predicts(void **state)
{
    test_case_t test;
    double sum = 0;
    case_open(&test, device);
    dj_operand_t at = input(&test, DJ_CLASS_STATE, vector(100000), 400000);
    for (int i = 0; i < 4; i++)
        at = convert(&test, &at, i % 2 ? DJ_F32 : DJ_F64);
    build(&test, at);
    const dj_device_info_t *info = device->ops->info(device);
    dj_plan_needs_t needs = {info->class_hash, device->ops->workspaces(test.exe), info->flops_per_ns,
                             info->bytes_per_ns, info->step_ns};
    dj_plan_destroy(test.plan);
    CHECK_OK(dj_plan_make(test.graph, &needs, &test.plan));
    for (uint32_t i = 0; i < exe_of(&test)->n_steps; i++)
        sum += exe_of(&test)->steps[i].predicted_ns;
    assert_true(sum > 0 && (uint64_t)sum == test.plan->predicted_ns);
    case_close(&test);
}

/* ---- instances ---- */

static void the_instance_least_recently_used_makes_room(void **state)
{
    test_case_t test;
    case_open(&test, device);
    dj_operand_t w = input(&test, DJ_CLASS_WEIGHT, vector(100), 400), a = input(&test, DJ_CLASS_STATE, vector(100), 400);
    dj_operand_t out = add(&test, DJ_OP_MUL, &w, &a, NULL);
    build(&test, out);
    dj_cuda_executable_t *exe = exe_of(&test);
    dj_launch_t launch = {test.bindings, BINDING(20), NULL, NULL};
    dj_cuda_instance_t *first = dj_cuda_instance_of(exe, &launch);
    first->seen = 7;
    test.bindings[1] = BINDING(9); /* another session's: the table's business */
    assert_ptr_equal(dj_cuda_instance_of(exe, &launch), first);
    test.bindings[0] = BINDING(10); /* another weight */
    dj_cuda_instance_t *second = dj_cuda_instance_of(exe, &launch);
    assert_ptr_not_equal(second, first);
    launch.stack = BINDING(21);
    dj_cuda_instance_t *third = dj_cuda_instance_of(exe, &launch);
    launch.spill = BINDING(22);
    dj_cuda_instance_t *fourth = dj_cuda_instance_of(exe, &launch);
    assert_true(third != first && third != second && fourth != first && fourth != second && fourth != third);
    launch = (dj_launch_t){test.bindings, BINDING(20), NULL, NULL};
    test.bindings[0] = BINDING(0);
    assert_ptr_equal(dj_cuda_instance_of(exe, &launch), first); /* used again: the second is oldest */
    launch.stack = BINDING(23);
    assert_ptr_equal(dj_cuda_instance_of(exe, &launch), second);
    assert_int_equal(second->seen, 0);
    assert_int_equal(first->seen, 7);
    CHECK_OK(device->ops->place(test.exe, test.plan)); /* another plan, other places: nothing stays */
    assert_int_equal(first->seen, 0);
    case_close(&test);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_session_s_memory_is_a_row_of_the_table_or_an_address),
        cmocka_unit_test(weights_and_slabs_are_addresses),
        cmocka_unit_test(a_spilled_value_lies_in_the_second_slab),
        cmocka_unit_test(folded_values_are_addresses_for_who_reads_them),
        cmocka_unit_test(a_constant_offset_is_in_the_base),
        cmocka_unit_test(a_view_s_offset_travels_in_the_scalars),
        cmocka_unit_test(a_staged_result_is_copied_home),
        cmocka_unit_test(pointwise_steps_are_one_launch_and_survive_another_plan),
        cmocka_unit_test(a_library_is_given_copies_of_what_moves_alone),
        cmocka_unit_test(played_directly_it_is_given_what_is_aligned_as_it_is),
        cmocka_unit_test(a_weight_at_a_moving_offset_moves),
        cmocka_unit_test(a_list_is_cut_between_steps_at_two_milliseconds),
        cmocka_unit_test(steps_predict_what_the_plan_predicts),
        cmocka_unit_test(the_instance_least_recently_used_makes_room),
    };
    device = open_cuda();
    if (!device)
        return 77;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    dj_device_close(device);
    return failed;
}
