/* test_slab.c - memory that the network may be shown: plain allocations that synchronise, copies to and from ranges of
 * any chunks, the order of what a card writes, and each failure on the way. */
#include "gpu/bounce.h"
#include "tests/gpu/cuda/table.h"

#define PAGE (2ull << 20)
#define SLAB (64ull << 16)

static dj_device_t *device;
static int ordering, flush_options;
static uint64_t flushes, copies;
static bool copied_first;

static CUresult say(int *value, CUdevice_attribute name, CUdevice gpu)
{
    CUresult result = real.cuDeviceGetAttribute(value, name, gpu);
    if (name == CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WRITES_ORDERING)
        *value = ordering;
    if (name == CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_FLUSH_WRITES_OPTIONS)
        *value = flush_options;
    return result;
}

static CUresult flush(CUflushGPUDirectRDMAWritesTarget target, CUflushGPUDirectRDMAWritesScope scope)
{
    flushes++;
    copied_first = copies > 0;
    return real.cuFlushGPUDirectRDMAWrites(target, scope);
}

static CUresult inside(CUdeviceptr target, CUdeviceptr source, size_t bytes, CUstream stream)
{
    copies++;
    return real.cuMemcpyDtoDAsync(target, source, bytes, stream);
}

static void open_as(int order, int options)
{
    dj_cuda = real;
    ordering = order;
    flush_options = options;
    flushes = copies = 0;
    dj_cuda.cuDeviceGetAttribute = say;
    dj_cuda.cuFlushGPUDirectRDMAWrites = flush;
    dj_cuda.cuMemcpyDtoDAsync = inside;
    device = table_open();
}

static void close_device(void)
{
    dj_device_close(device);
    assert_int_equal(table_counters().used_bytes, 0);
    assert_int_equal(table_counters().allocations, 0);
}

static dj_status_t make(void **memory_p)
{
    return device->ops->memory.slab_make(device, SLAB, memory_p);
}

static void what_fails_leaves_nothing(void **state)
{
    static const char *const calls[] = {"cuMemAlloc", "cuPointerSetAttribute"};
    static const CUresult results[] = {CUDA_ERROR_OUT_OF_MEMORY, CUDA_ERROR_NOT_SUPPORTED};
    static const dj_status_t wanted[] = {DJ_ERR_MEMORY, DJ_ERR_SYSTEM};
    open_as(CU_GPU_DIRECT_RDMA_WRITES_ORDERING_OWNER, 0);
    for (int i = 0; i < 2; i++) {
        void *memory = NULL;
        sim_fail_next(calls[i], results[i]);
        assert_int_equal(make(&memory), wanted[i]);
        TABLE_SAYS("memory to show the network");
        assert_null(memory);
        assert_int_equal(table_counters().allocations, 0);
    }
    close_device();
}

static void a_gpu_that_would_not_see_what_a_card_writes_is_not_shown(void **state)
{
    void *memory = NULL;
    open_as(CU_GPU_DIRECT_RDMA_WRITES_ORDERING_NONE, CU_FLUSH_GPU_DIRECT_RDMA_WRITES_OPTION_MEMOPS);
    assert_int_equal(make(&memory), DJ_ERR_UNSUPPORTED);
    TABLE_SAYS("may not see what a network card writes");
    assert_int_equal(table_counters().allocations, 0);
    close_device();
}

/* A range of chunks of one and two pages, a slab, and the range again. */
static void round_trip(void)
{
    const dj_device_memory_t *memory = &device->ops->memory;
    dj_bounce_pool_t *pool;
    dj_bounce_t bounce;
    void *slab, *range;
    static uint8_t in[SLAB / 2], out[SLAB / 2];
    TABLE_OK(dj_bounce_pool_create(device, 1 << 20, &pool));
    TABLE_OK(dj_bounce_slab_open(pool, SLAB, &slab));
    TABLE_OK(memory->reserve(device, 3 * PAGE, &range));
    TABLE_OK(memory->commit(device, range, PAGE));
    TABLE_OK(memory->commit(device, (uint8_t *)range + PAGE, 2 * PAGE));
    for (uint64_t i = 0; i < sizeof(in); i++)
        in[i] = (uint8_t)(i * 2654435761u >> 11);
    uint8_t *across = (uint8_t *)range + PAGE - 1000;
    TABLE_OK(dj_bounce_take_slab(pool, sizeof(in), &bounce));
    assert_true(bounce.slab);
    TABLE_OK(memory->copy_in(device, across, in, sizeof(in)));
    TABLE_OK(dj_bounce_fill(device, &bounce, 0, across, sizeof(in)));
    assert_int_equal(flushes, 0); /* nothing came from a card */
    assert_true(copies > 1);
    TABLE_OK(memory->fill(device, across, 0, sizeof(in)));
    copies = 0;
    TABLE_OK(dj_bounce_drain(device, across, &bounce, 0, sizeof(in)));
    TABLE_OK(memory->copy_out(device, out, across, sizeof(in)));
    assert_memory_equal(in, out, sizeof(in));
    dj_bounce_give(pool, &bounce);
    memory->release(device, range, 3 * PAGE);
    dj_bounce_pool_destroy(pool);
}

static void bytes_pass_through(void **state)
{
    open_as(CU_GPU_DIRECT_RDMA_WRITES_ORDERING_OWNER, 0);
    assert_true(device->ops->info(device)->dma_buf);
    assert_false(device->ops->info(device)->slabs_in_host);
    round_trip();
    assert_int_equal(flushes, 0);
    close_device();
}

static void what_a_card_wrote_is_seen_before_it_is_copied(void **state)
{
    open_as(CU_GPU_DIRECT_RDMA_WRITES_ORDERING_NONE, CU_FLUSH_GPU_DIRECT_RDMA_WRITES_OPTION_HOST);
    round_trip();
    assert_int_equal(flushes, 1);
    assert_false(copied_first);
    close_device();
}

static void a_flush_that_fails_is_the_copys_failure(void **state)
{
    void *slab, *range;
    open_as(CU_GPU_DIRECT_RDMA_WRITES_ORDERING_NONE, CU_FLUSH_GPU_DIRECT_RDMA_WRITES_OPTION_HOST);
    TABLE_OK(make(&slab));
    TABLE_OK(device->ops->memory.reserve(device, PAGE, &range));
    TABLE_OK(device->ops->memory.commit(device, range, PAGE));
    sim_fail_next("cuFlushGPUDirectRDMAWrites", CUDA_ERROR_NOT_SUPPORTED);
    assert_int_equal(device->ops->memory.copy(device, range, slab, 100), DJ_ERR_SYSTEM);
    assert_int_equal(copies, 0);
    TABLE_OK(device->ops->memory.copy(device, range, slab, 100));
    device->ops->memory.release(device, range, PAGE);
    device->ops->memory.slab_drop(device, slab, SLAB);
    close_device();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_fails_leaves_nothing),
        cmocka_unit_test(a_gpu_that_would_not_see_what_a_card_writes_is_not_shown),
        cmocka_unit_test(bytes_pass_through),
        cmocka_unit_test(what_a_card_wrote_is_seen_before_it_is_copied),
        cmocka_unit_test(a_flush_that_fails_is_the_copys_failure),
    };
    if (!table_load())
        return 77;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
