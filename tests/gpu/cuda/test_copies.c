/* test_copies.c - bytes arrive, whatever their number and place; no transfer crosses a chunk, none waits for the whole
 * device; pinned memory goes direct; what fails says so and leaves the lane usable. */
#include <pthread.h>
#include <unistd.h>

#include "gpu/cuda/kernels/layout.h"
#include "runtime/base/clock.h"
#include "tests/gpu/cuda/table.h"

#define PAGE (2ull << 20)
#define PAGES 40u
#define BYTES (PAGES * PAGE)
#define THREADS 4

static dj_device_t *device;
static uint8_t *base, *host, *back;
static _Atomic uint64_t transfers, largest_bytes;

/* ---- a driver that watches transfers ---- */

static void watch_transfer(CUdeviceptr address, uint64_t bytes)
{
    uint64_t left = dj_cuda_memory_chunk_end(device, (const void *)(uintptr_t)address);
    transfers++;
    if (bytes > largest_bytes)
        largest_bytes = bytes;
    assert_true(bytes > 0 && bytes <= left);
}

static CUresult to_device(CUdeviceptr target, const void *source, size_t bytes, CUstream stream)
{
    watch_transfer(target, bytes);
    return real.cuMemcpyHtoDAsync(target, source, bytes, stream);
}

static CUresult to_host(void *target, CUdeviceptr source, size_t bytes, CUstream stream)
{
    watch_transfer(source, bytes);
    return real.cuMemcpyDtoHAsync(target, source, bytes, stream);
}

static CUresult inside(CUdeviceptr target, CUdeviceptr source, size_t bytes, CUstream stream)
{
    watch_transfer(target, bytes);
    watch_transfer(source, bytes);
    return real.cuMemcpyDtoDAsync(target, source, bytes, stream);
}

static CUresult set(CUdeviceptr target, unsigned char value, size_t bytes, CUstream stream)
{
    watch_transfer(target, bytes);
    return real.cuMemsetD8Async(target, value, bytes, stream);
}

static CUresult nobody_waits_for_the_device(void)
{
    fail_msg("cuCtxSynchronize was called");
    return CUDA_SUCCESS;
}

static uint8_t pattern(uint64_t at)
{
    return (uint8_t)(at * 0x9e3779b97f4a7c15u >> 56); /* of no short period */
}

/* Chunks of 1, 2, 4, ... pages, so that every copy of some length crosses some. */
static int watch(void **state)
{
    void *range;
    dj_cuda = real;
    device = table_open();
    TABLE_OK(device->ops->memory.reserve(device, BYTES, &range));
    base = range;
    dj_cuda.cuMemcpyHtoDAsync = to_device;
    dj_cuda.cuMemcpyDtoHAsync = to_host;
    dj_cuda.cuMemcpyDtoDAsync = inside;
    dj_cuda.cuMemsetD8Async = set;
    dj_cuda.cuCtxSynchronize = nobody_waits_for_the_device;
    for (uint32_t first = 0, n = 1; first < PAGES; first += n, n *= 2) {
        n = n < PAGES - first ? n : PAGES - first;
        TABLE_OK(device->ops->memory.commit(device, base + first * PAGE, n * PAGE));
    }
    transfers = largest_bytes = 0;
    for (uint64_t i = 0; i < BYTES; i++)
        host[i] = pattern(i);
    return 0;
}

static int close_device(void **state)
{
    device->ops->memory.release(device, base, BYTES);
    dj_device_close(device);
    sim_counters_t sim = table_counters();
    assert_int_equal(sim.used_bytes, 0);
    assert_int_equal(sim.pinned_bytes, 0);
    assert_int_equal(sim.events, 0);
    return 0;
}

static void there_and_back(uint64_t at, uint64_t bytes)
{
    const dj_device_memory_t *memory = &device->ops->memory;
    memset(back, 0xee, bytes + 1);
    TABLE_OK(memory->copy_in(device, base + at, host + at, bytes));
    TABLE_OK(memory->copy_out(device, back, base + at, bytes));
    assert_memory_equal(back, host + at, bytes);
    assert_int_equal(back[bytes], 0xee);
}

static void bytes_of_any_number_arrive(void **state)
{
    const uint64_t sizes[] = {0, 1, 7, 4096, (64 << 10) - 1, 64 << 10, (64 << 10) + 1, (4 << 20) - 1, 4 << 20,
                              (4 << 20) + 1, (16 << 20) + 3, 37 << 20};
    const uint64_t places[] = {0, 1, PAGE - 1, 3 * PAGE - 12345, 7 * PAGE};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        for (size_t k = 0; k < sizeof(places) / sizeof(places[0]); k++)
            there_and_back(places[k], sizes[i]);
}

static void what_lies_beside_stays(void **state)
{
    uint8_t byte;
    TABLE_OK(device->ops->memory.fill(device, base, 0x5a, BYTES));
    there_and_back(PAGE - 5, (5 << 20) + 1);
    TABLE_OK(device->ops->memory.copy_out(device, &byte, base + PAGE - 6, 1));
    assert_int_equal(byte, 0x5a);
    TABLE_OK(device->ops->memory.copy_out(device, &byte, base + PAGE - 5 + (5 << 20) + 1, 1));
    assert_int_equal(byte, 0x5a);
}

static void pinned_memory_goes_direct(void **state)
{
    void *pinned;
    uint64_t bytes = 31 * PAGE; /* chunks of 1, 2, 4, 8 and 16 pages */
    TABLE_OK(device->ops->memory.pin(device, bytes, &pinned));
    assert_int_equal((uintptr_t)pinned % 4096, 0);
    memcpy(pinned, host, bytes);
    TABLE_OK(device->ops->memory.copy_in(device, base, pinned, bytes));
    assert_int_equal(transfers, 5);
    assert_int_equal(largest_bytes, 16 * PAGE);
    memset(pinned, 0, bytes);
    TABLE_OK(device->ops->memory.copy_out(device, pinned, base, bytes));
    assert_int_equal(transfers, 10);
    assert_memory_equal(pinned, host, bytes);
    device->ops->memory.unpin(device, pinned, bytes);
    TABLE_OK(device->ops->memory.copy_in(device, base, host, bytes));
    assert_true(transfers > 10 + 15); /* through slots of 4 MiB */
}

static void memory_half_pinned_goes_through_the_ring(void **state)
{
    uint64_t at = 1 << 20;
    assert_int_equal(real.cuMemHostRegister(host, at, 0), CUDA_SUCCESS);
    there_and_back(at / 2, at);
    assert_int_equal(real.cuMemHostUnregister(host), CUDA_SUCCESS);
}

static void copies_inside_and_fills(void **state)
{
    const dj_device_memory_t *memory = &device->ops->memory;
    uint64_t from = 3, to = 17 * PAGE - 9, bytes = 9 * PAGE + 5;
    TABLE_OK(memory->copy_in(device, base + from, host + from, bytes));
    TABLE_OK(memory->copy(device, base + to, base + from, bytes));
    TABLE_OK(memory->copy_out(device, back, base + to, bytes));
    assert_memory_equal(back, host + from, bytes);
    TABLE_OK(memory->fill(device, base + 1, 0xc3, 3 * PAGE));
    TABLE_OK(memory->copy_out(device, back, base + 1, 3 * PAGE));
    for (uint64_t i = 0; i < 3 * PAGE; i++)
        assert_int_equal(back[i], 0xc3);
    TABLE_OK(memory->copy(device, base, base + PAGE, 0));
    TABLE_OK(memory->fill(device, base, 1, 0));
}

/* ---- a driver that does what was enqueued as late as it may: when somebody waits ---- */

#define LATE_MAX 64

static struct {
    CUdeviceptr at;
    uint8_t *host;
    size_t bytes;
    bool out;
} late[LATE_MAX];
static int n_late;

static void catch_up(void)
{
    for (int i = 0; i < n_late; i++)
        if (late[i].out)
            assert_int_equal(real.cuMemcpyDtoHAsync(late[i].host, late[i].at, late[i].bytes, NULL), CUDA_SUCCESS);
        else
            assert_int_equal(real.cuMemcpyHtoDAsync(late[i].at, late[i].host, late[i].bytes, NULL), CUDA_SUCCESS);
    assert_int_equal(real.cuStreamSynchronize(NULL), CUDA_SUCCESS);
    n_late = 0;
}

static CUresult late_in(CUdeviceptr target, const void *source, size_t bytes, CUstream stream)
{
    assert_in_range(n_late, 0, LATE_MAX - 1);
    late[n_late].at = target;
    late[n_late].host = (uint8_t *)(uintptr_t)source;
    late[n_late].bytes = bytes;
    late[n_late++].out = false;
    return CUDA_SUCCESS;
}

static CUresult late_out(void *target, CUdeviceptr source, size_t bytes, CUstream stream)
{
    late_in(source, target, bytes, stream);
    late[n_late - 1].out = true;
    return CUDA_SUCCESS;
}

static CUresult late_event(CUevent event)
{
    catch_up();
    return real.cuEventSynchronize(event);
}

static void slots_are_not_used_before_they_are_free(void **state)
{
    dj_cuda.cuMemcpyHtoDAsync = late_in;
    dj_cuda.cuMemcpyDtoHAsync = late_out;
    dj_cuda.cuEventSynchronize = late_event;
    there_and_back(5, 100);
    there_and_back(PAGE - 7, (37 << 20) + 11);
    assert_int_equal(n_late, 0);
}

/* ---- several threads ---- */

typedef struct worker {
    uint64_t at, bytes;
    uint8_t *back;
    int wrong;
} worker_t;

static void *work(void *argument)
{
    worker_t *worker = argument;
    const dj_device_memory_t *memory = &device->ops->memory;
    for (int i = 0; i < 12; i++) {
        uint64_t bytes = i % 2 ? worker->bytes : 1000 + (uint64_t)i;
        memset(worker->back, 0, bytes);
        worker->wrong += memory->copy_in(device, base + worker->at, host + worker->at, bytes) != DJ_OK;
        worker->wrong += memory->copy_out(device, worker->back, base + worker->at, bytes) != DJ_OK;
        worker->wrong += memcmp(worker->back, host + worker->at, bytes) != 0;
    }
    return NULL;
}

static void threads_do_not_mix_their_bytes(void **state)
{
    pthread_t threads[THREADS];
    worker_t workers[THREADS];
    for (uint64_t i = 0; i < THREADS; i++) {
        workers[i] = (worker_t){.at = i * 10 * PAGE, .bytes = 9 * PAGE + i, .back = back + i * 10 * PAGE};
        assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(workers[i].wrong, 0);
    }
}

/* ---- the loader's ---- */

static void tickets_rise_and_are_finished(void **state)
{
    const dj_device_memory_t *memory = &device->ops->memory;
    void *pinned;
    uint64_t piece = 300001, ticket = 0, last = 0, n = 3 * DJ_COPIES_MAX + 5;
    assert_true(n * piece < BYTES);
    TABLE_OK(memory->pin(device, n * piece, &pinned));
    memcpy(pinned, host, n * piece);
    for (uint64_t i = 0; i < n; i++) {
        TABLE_OK(memory->copy_in_start(device, base + i * piece, (uint8_t *)pinned + i * piece, piece, &ticket));
        assert_int_equal(ticket, last + 1);
        last = ticket;
    }
    assert_int_equal(memory->copy_in_finish(device, last + 1), DJ_ERR_INVALID);
    assert_int_equal(memory->copy_in_finish(device, 0), DJ_ERR_INVALID);
    TABLE_OK(memory->copy_in_finish(device, 1));
    TABLE_OK(memory->copy_in_finish(device, last));
    TABLE_OK(memory->copy_in_finish(device, last - 70));
    TABLE_OK(memory->copy_out(device, back, base, n * piece));
    assert_memory_equal(back, host, n * piece);
    TABLE_OK(memory->copy_in_start(device, base, pinned, 0, &ticket));
    TABLE_OK(memory->copy_in_finish(device, ticket));
    memory->unpin(device, pinned, n * piece);
}

/* ---- what fails ---- */

static void a_failed_transfer_is_answered(void **state)
{
    const dj_device_memory_t *memory = &device->ops->memory;
    uint64_t ticket;
    sim_fail_next("cuMemcpyHtoDAsync", CUDA_ERROR_ILLEGAL_ADDRESS);
    assert_int_equal(memory->copy_in(device, base, host, 9 * PAGE), DJ_ERR_DEVICE);
    TABLE_SAYS("GPU");
    TABLE_SAYS("ILLEGAL_ADDRESS");
    sim_fail_next("cuMemcpyDtoHAsync", CUDA_ERROR_ECC_UNCORRECTABLE);
    assert_int_equal(memory->copy_out(device, back, base, 100), DJ_ERR_DEVICE);
    sim_fail_next("cuMemcpyDtoDAsync", CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(memory->copy(device, base, base + PAGE, 100), DJ_ERR_SYSTEM);
    sim_fail_next("cuMemsetD8Async", CUDA_ERROR_LAUNCH_FAILED);
    assert_int_equal(memory->fill(device, base, 1, 100), DJ_ERR_DEVICE);
    sim_fail_next("cuEventRecord", CUDA_ERROR_UNKNOWN);
    assert_int_equal(memory->copy_in(device, base, host, 9 * PAGE), DJ_ERR_DEVICE);
    sim_fail_next("cuEventSynchronize", CUDA_ERROR_ILLEGAL_ADDRESS);
    assert_int_equal(memory->copy_out(device, back, base, 9 * PAGE), DJ_ERR_DEVICE);
    sim_fail_next("cuEventRecord", CUDA_ERROR_ILLEGAL_ADDRESS);
    assert_int_equal(memory->copy_in_start(device, base, host, 100, &ticket), DJ_ERR_DEVICE);
    there_and_back(1, 9 * PAGE);
}

static void a_lost_context_is_a_lost_device(void **state)
{
    void *memory;
    sim_set_fault(CUDA_ERROR_ECC_UNCORRECTABLE);
    assert_int_equal(device->ops->memory.copy_in(device, base, host, 9 * PAGE), DJ_ERR_DEVICE);
    assert_int_equal(device->ops->memory.copy_out(device, back, base, 9 * PAGE), DJ_ERR_DEVICE);
    assert_int_equal(device->ops->memory.fill(device, base, 0, 9), DJ_ERR_DEVICE);
    assert_true(device->ops->memory.pin(device, 4096, &memory) != DJ_OK);
    sim_set_fault(CUDA_SUCCESS);
    there_and_back(0, 100);
}

static uint64_t ticket;
static dj_status_t finished;

static void *finish(void *argument)
{
    finished = device->ops->memory.copy_in_finish(device, ticket);
    return NULL;
}

/* Behind a kernel that never ends. */
static void a_copy_that_never_ends_loses_the_device(void **state)
{
    const dj_device_memory_t *memory = &device->ops->memory;
    dj_cuda_device_t *cuda = (dj_cuda_device_t *)device;
    dj_layout_bytes_t nothing = {0};
    void *params[] = {&nothing}, *pinned;
    CUfunction function;
    pthread_t thread;
    dj_status_t status;
    cuda->limit_ns = 100 * DJ_NS_PER_MS;
    TABLE_OK(memory->pin(device, 4096, &pinned));
    TABLE_OK(dj_cuda_function(cuda, "dj_layout_bytes", &function));
    sim_hang_next(0);
    assert_int_equal(dj_cuda.cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, cuda->weights, params, NULL), CUDA_SUCCESS);
    TABLE_OK(memory->copy_in_start(device, base, pinned, 100, &ticket));
    uint64_t began_ns = dj_clock_ns();
    assert_int_equal(pthread_create(&thread, NULL, finish, NULL), 0);
    TABLE_OK(memory->copy_in(device, base + PAGE, host, 9 * PAGE)); /* on a stream of its own */
    while ((status = device->ops->responds(device)) == DJ_OK && dj_clock_ns() - began_ns < 5 * DJ_NS_PER_S)
        usleep(10000);
    assert_int_equal(status, DJ_ERR_DEVICE);
    TABLE_SAYS("a copy: nothing has ended there for 100 ms");
    assert_true(dj_clock_ns() - began_ns >= 100 * DJ_NS_PER_MS);
    assert_int_equal(memory->copy_in(device, base, host, 100), DJ_ERR_DEVICE);
    sim_end_hang();
    assert_int_equal(pthread_join(thread, NULL), 0);
    cuda->hangs = false; /* for what follows: closing all */
    memory->unpin(device, pinned, 4096);
}

int main(void)
{
#define WATCHED(test) cmocka_unit_test_setup_teardown(test, watch, close_device)
    const struct CMUnitTest tests[] = {
        WATCHED(a_failed_transfer_is_answered),
        WATCHED(a_lost_context_is_a_lost_device),
        WATCHED(a_copy_that_never_ends_loses_the_device),
        WATCHED(bytes_of_any_number_arrive),
        WATCHED(what_lies_beside_stays),
        WATCHED(pinned_memory_goes_direct),
        WATCHED(memory_half_pinned_goes_through_the_ring),
        WATCHED(copies_inside_and_fills),
        WATCHED(slots_are_not_used_before_they_are_free),
        WATCHED(threads_do_not_mix_their_bytes),
        WATCHED(tickets_rise_and_are_finished),
    };
    host = malloc(BYTES);
    back = malloc(BYTES + 1);
    if (!host || !back || !table_load())
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(host);
    free(back);
    return failed;
}
