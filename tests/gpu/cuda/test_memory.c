/* test_memory.c - every page that was committed returns, to the byte, whatever the order of commits, decommits and
 * seals; what is committed is zero and keeps its contents; what fails leaves nothing behind. */
#include "tests/gpu/cuda/table.h"

#include <pthread.h>
#include <time.h>

#define PAGE (2ull << 20)
#define PAGES 90u
#define STEPS 400
#define NEVER UINT32_MAX

static dj_device_t *device;
static uint8_t *base;

/* ---- a driver that watches access, and refuses when told ---- */

enum { UNMAPPED = -1, NO_ACCESS = 0, READ = CU_MEM_ACCESS_FLAGS_PROT_READ, WRITE = CU_MEM_ACCESS_FLAGS_PROT_READWRITE };

static int access_of[PAGES]; /* of pages behind `base` */
static uint32_t creates_left = NEVER, maps_left = NEVER, accesses_left = NEVER;
static bool no_seals;

static void note_access(CUdeviceptr address, size_t bytes, int access)
{
    CUdeviceptr first = (CUdeviceptr)(uintptr_t)base;
    for (size_t at = 0; at < bytes; at += PAGE)
        if (address + at >= first && address + at < first + PAGES * PAGE)
            access_of[(address + at - first) / PAGE] = access;
}

static bool refuses(uint32_t *left)
{
    if (*left == NEVER)
        return false;
    if (*left == 0)
        return true;
    --*left;
    return false;
}

static CUresult create(CUmemGenericAllocationHandle *handle, size_t bytes, const CUmemAllocationProp *prop,
                       unsigned long long flags)
{
    assert_true(bytes > 0 && bytes % PAGE == 0);
    return refuses(&creates_left) ? CUDA_ERROR_OUT_OF_MEMORY : real.cuMemCreate(handle, bytes, prop, flags);
}

static CUresult map(CUdeviceptr address, size_t bytes, size_t offset, CUmemGenericAllocationHandle handle,
                    unsigned long long flags)
{
    assert_int_equal(offset, 0);
    if (refuses(&maps_left))
        return CUDA_ERROR_MAP_FAILED;
    CUresult result = real.cuMemMap(address, bytes, offset, handle, flags);
    if (result == CUDA_SUCCESS)
        note_access(address, bytes, NO_ACCESS);
    return result;
}

static CUresult unmap(CUdeviceptr address, size_t bytes)
{
    note_access(address, bytes, UNMAPPED);
    return real.cuMemUnmap(address, bytes);
}

static CUresult set_access(CUdeviceptr address, size_t bytes, const CUmemAccessDesc *desc, size_t count)
{
    if (refuses(&accesses_left))
        return CUDA_ERROR_UNKNOWN;
    if (no_seals && desc->flags == CU_MEM_ACCESS_FLAGS_PROT_READ)
        return CUDA_ERROR_NOT_SUPPORTED;
    CUresult result = real.cuMemSetAccess(address, bytes, desc, count);
    if (result == CUDA_SUCCESS)
        note_access(address, bytes, (int)desc->flags);
    return result;
}

static int watch(void **state)
{
    dj_cuda = real;
    dj_cuda.cuMemCreate = create;
    dj_cuda.cuMemMap = map;
    dj_cuda.cuMemUnmap = unmap;
    dj_cuda.cuMemSetAccess = set_access;
    creates_left = maps_left = accesses_left = NEVER;
    no_seals = false;
    for (uint32_t i = 0; i < PAGES; i++)
        access_of[i] = UNMAPPED;
    void *range = NULL;
    device = table_open();
    assert_int_equal(device->ops->info(device)->page_bytes, PAGE);
    TABLE_OK(device->ops->memory.reserve(device, PAGES * PAGE, &range));
    base = range;
    return 0;
}

static int all_is_back(void **state)
{
    dj_cuda_memory_counters_t counters;
    creates_left = maps_left = accesses_left = NEVER;
    device->ops->memory.release(device, base, PAGES * PAGE);
    dj_cuda_memory_counters(device, &counters);
    assert_int_equal(counters.reserved_bytes, 0);
    assert_int_equal(counters.mapped_bytes, 0);
    assert_int_equal(counters.held_bytes, 0);
    assert_int_equal(counters.chunks, 0);
    assert_int_equal(counters.ranges, 0);
    sim_counters_t sim = table_counters();
    assert_int_equal(sim.handles, 0);
    assert_int_equal(sim.mapped_bytes, 0);
    assert_int_equal(sim.reservations, 1); /* the scratch of cuts */
    dj_device_close(device);
    sim = table_counters();
    assert_int_equal(sim.used_bytes, 0);
    assert_int_equal(sim.reservations, 0);
    assert_int_equal(sim.pinned_bytes, 0);
    assert_int_equal(sim.streams, 0);
    assert_int_equal(sim.events, 0);
    assert_int_equal(sim.contexts, 0);
    return 0;
}

static dj_status_t commit(uint32_t first, uint32_t n)
{
    return device->ops->memory.commit(device, base + first * PAGE, n * PAGE);
}

static void decommit(uint32_t first, uint32_t n)
{
    device->ops->memory.decommit(device, base + first * PAGE, n * PAGE);
}

static dj_status_t seal(uint32_t first, uint32_t n, bool sealed)
{
    return device->ops->memory.seal(device, base + first * PAGE, n * PAGE, sealed);
}

static uint64_t mapped_bytes(void)
{
    dj_cuda_memory_counters_t counters;
    dj_cuda_memory_counters(device, &counters);
    assert_int_equal(counters.mapped_bytes, table_counters().mapped_bytes);
    return counters.mapped_bytes;
}

static uint64_t held_bytes(void)
{
    dj_cuda_memory_counters_t counters;
    dj_cuda_memory_counters(device, &counters);
    return counters.held_bytes;
}

static void put(uint32_t page, uint64_t word)
{
    TABLE_OK(device->ops->memory.copy_in(device, base + page * PAGE + PAGE - 8, &word, 8));
}

static uint64_t get(uint32_t page)
{
    uint64_t word = UINT64_MAX;
    TABLE_OK(device->ops->memory.copy_out(device, &word, base + page * PAGE + PAGE - 8, 8));
    return word;
}

/* ---- random orders ---- */

typedef struct model {
    int access[PAGES];
    uint64_t word[PAGES];
} model_t;

static uint32_t random_below(uint32_t *seed, uint32_t n)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)*seed * n >> 32);
}

static bool all_are(const model_t *model, uint32_t first, uint32_t n, bool mapped)
{
    for (uint32_t i = first; i < first + n; i++)
        if ((model->access[i] != UNMAPPED) != mapped)
            return false;
    return true;
}

static void one_step(model_t *model, uint32_t *seed)
{
    uint32_t first = random_below(seed, PAGES), n = 1 + random_below(seed, 40), what = random_below(seed, 5);
    n = n < PAGES - first ? n : PAGES - first;
    if (what < 2 && all_are(model, first, n, false)) {
        TABLE_OK(commit(first, n));
        for (uint32_t i = first; i < first + n; i++) {
            model->access[i] = WRITE;
            assert_int_equal(get(i), 0);
            put(i, model->word[i] = *seed + i);
        }
    } else if (what == 2) {
        decommit(first, n);
        for (uint32_t i = first; i < first + n; i++)
            model->access[i] = UNMAPPED;
    } else if (what > 2 && all_are(model, first, n, true)) {
        TABLE_OK(seal(first, n, what == 3));
        for (uint32_t i = first; i < first + n; i++)
            model->access[i] = what == 3 ? READ : WRITE;
    } else if (!all_are(model, first, n, false)) {
        assert_int_equal(commit(first, n), DJ_ERR_INVALID);
    }
}

static void random_orders_keep_pages_and_contents(void **state)
{
    model_t model;
    uint32_t seed = 17;
    for (uint32_t i = 0; i < PAGES; i++)
        model.access[i] = UNMAPPED;
    for (int step = 0; step < STEPS; step++) {
        uint64_t pages = 0;
        one_step(&model, &seed);
        for (uint32_t i = 0; i < PAGES; i++) {
            assert_int_equal(access_of[i], model.access[i]);
            pages += model.access[i] != UNMAPPED;
        }
        assert_int_equal(mapped_bytes(), pages * PAGE);
        assert_int_equal(held_bytes(), 0);
        for (uint32_t i = 0; i < PAGES; i++)
            if (model.access[i] != UNMAPPED)
                assert_int_equal(get(i), model.word[i]);
    }
}

static void a_large_commit_is_few_chunks(void **state)
{
    dj_cuda_memory_counters_t counters;
    TABLE_OK(commit(0, PAGES));
    dj_cuda_memory_counters(device, &counters);
    assert_int_equal(counters.chunks, 3);
    for (uint32_t i = 0; i < PAGES; i++)
        assert_int_equal(access_of[i], WRITE);
}

static void chunks_end_where_they_were_cut(void **state)
{
    assert_int_equal(dj_cuda_memory_chunk_end(device, base), 0);
    TABLE_OK(commit(0, 40));
    assert_int_equal(dj_cuda_memory_chunk_end(device, base), 32 * PAGE);
    assert_int_equal(dj_cuda_memory_chunk_end(device, base + 32 * PAGE - 1), 1);
    assert_int_equal(dj_cuda_memory_chunk_end(device, base + 32 * PAGE + 5), 8 * PAGE - 5);
    assert_int_equal(dj_cuda_memory_chunk_end(device, base + 40 * PAGE), 0);
    assert_int_equal(dj_cuda_memory_chunk_end(device, base - 1), 0);
    assert_int_equal(dj_cuda_memory_chunk_end(device, &seal), 0);
    decommit(4, 2);
    assert_int_equal(dj_cuda_memory_chunk_end(device, base), 4 * PAGE);
    assert_int_equal(dj_cuda_memory_chunk_end(device, base + 4 * PAGE), 0);
    assert_int_equal(dj_cuda_memory_chunk_end(device, base + 6 * PAGE), 26 * PAGE);
}

/* ---- what fails ---- */

static void a_commit_that_fails_half_way_leaves_nothing(void **state)
{
    uint32_t *limits[] = {&creates_left, &maps_left, &accesses_left};
    TABLE_OK(commit(3, 1));
    put(3, 99);
    for (int which = 0; which < 3; which++) {
        *limits[which] = which < 2; /* the second create or map; the first access */
        assert_true(commit(4, 70) != DJ_OK);
        assert_int_equal(dj_cuda_memory_chunk_end(device, base + 4 * PAGE), 0);
        assert_int_equal(mapped_bytes(), PAGE);
        assert_int_equal(table_counters().handles, 1);
        *limits[which] = NEVER;
    }
    creates_left = 1;
    assert_int_equal(commit(4, 70), DJ_ERR_MEMORY);
    TABLE_SAYS("146800640 bytes wanted");
    creates_left = NEVER;
    TABLE_OK(commit(4, 70));
    assert_int_equal(get(3), 99);
    assert_int_equal(get(73), 0);
}

static void zeroing_that_fails_returns_the_pages(void **state)
{
    sim_fail_next("cuMemsetD8Async", CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(commit(0, 5), DJ_ERR_SYSTEM);
    assert_int_equal(mapped_bytes(), 0);
}

static void the_gpu_is_really_full(void **state)
{
    void *range;
    uint64_t bytes = device->ops->info(device)->memory_bytes + PAGE;
    TABLE_OK(device->ops->memory.reserve(device, bytes, &range));
    assert_int_equal(device->ops->memory.commit(device, range, bytes), DJ_ERR_MEMORY);
    TABLE_SAYS("are free of");
    assert_int_equal(mapped_bytes(), 0);
    assert_int_equal(table_counters().used_bytes, 0);
    device->ops->memory.release(device, range, bytes);
}

static void without_memory_a_cut_waits(void **state)
{
    TABLE_OK(commit(0, 10));
    for (uint32_t i = 0; i < 10; i++)
        put(i, i + 1);
    creates_left = 1; /* a head and a tail stay: the second has no memory */
    decommit(4, 2);
    assert_int_equal(mapped_bytes(), 10 * PAGE);
    assert_int_equal(held_bytes(), 2 * PAGE);
    assert_int_equal(commit(5, 1), DJ_ERR_MEMORY);
    assert_int_equal(seal(4, 1, true), DJ_ERR_SYSTEM);
    creates_left = 0;
    decommit(0, 2);
    assert_int_equal(held_bytes(), 4 * PAGE);
    creates_left = NEVER;
    TABLE_OK(commit(5, 1));
    assert_int_equal(held_bytes(), 0);
    assert_int_equal(mapped_bytes(), 7 * PAGE);
    assert_int_equal(get(5), 0);
    for (uint32_t i = 0; i < 10; i++)
        if (i == 2 || i == 3 || i > 5)
            assert_int_equal(get(i), i + 1);
}

static void what_is_held_goes_with_its_chunk(void **state)
{
    TABLE_OK(commit(0, 10));
    creates_left = 0;
    decommit(0, 9);
    assert_int_equal(held_bytes(), 9 * PAGE);
    decommit(9, 1);
    assert_int_equal(held_bytes(), 0);
    assert_int_equal(mapped_bytes(), 0);
    creates_left = NEVER;
    TABLE_OK(commit(0, 10));
    creates_left = 0;
    decommit(3, 1); /* still held at release */
    assert_int_equal(held_bytes(), PAGE);
}

static void bad_ranges_are_refused(void **state)
{
    void *range = NULL;
    assert_int_equal(device->ops->memory.reserve(device, PAGE + 1, &range), DJ_ERR_INVALID);
    assert_int_equal(device->ops->memory.reserve(device, 0, &range), DJ_ERR_INVALID);
    assert_int_equal(device->ops->memory.reserve(device, 1ull << 62, &range), DJ_ERR_MEMORY);
    TABLE_SAYS("--data_bytes");
    assert_null(range);
    assert_int_equal(device->ops->memory.commit(device, base + 1, PAGE), DJ_ERR_INVALID);
    assert_int_equal(device->ops->memory.commit(device, base, PAGE - 1), DJ_ERR_INVALID);
    assert_int_equal(device->ops->memory.commit(device, base, (PAGES + 1) * PAGE), DJ_ERR_INVALID);
    assert_int_equal(device->ops->memory.commit(device, base + PAGE, UINT64_MAX - PAGE + 1), DJ_ERR_INVALID);
    assert_int_equal(device->ops->memory.commit(device, &range, PAGE), DJ_ERR_INVALID);
    assert_int_equal(seal(0, 1, true), DJ_ERR_SYSTEM);
    TABLE_OK(commit(0, 2));
    assert_int_equal(commit(1, 2), DJ_ERR_INVALID);
    TABLE_SAYS("already");
    assert_int_equal(seal(1, 2, true), DJ_ERR_SYSTEM);
    decommit(2, 5); /* nothing there: nothing happens */
    assert_int_equal(mapped_bytes(), 2 * PAGE);
}

static void a_driver_without_seals_is_no_obstacle(void **state)
{
    no_seals = true;
    TABLE_OK(commit(0, 40));
    TABLE_OK(seal(0, 40, true));
    TABLE_OK(seal(0, 40, false));
    assert_int_equal(access_of[39], WRITE);
    TABLE_OK(seal(0, 3, true));
    decommit(1, 1);
    assert_int_equal(access_of[0], WRITE);
}

static uint8_t *window_of(uint32_t pages)
{
    void *window = NULL;
    TABLE_OK(device->ops->memory.reserve(device, pages * PAGE, &window));
    return window;
}

static dj_status_t mirror(uint8_t *window, uint32_t first, uint32_t n)
{
    return device->ops->memory.mirror(device, window, base + first * PAGE, n * PAGE);
}

static void a_mirror_writes_where_pages_are_sealed(void **state)
{
    uint8_t *window = window_of(8), in[100], out[100];
    dj_cuda_memory_counters_t counters;
    TABLE_OK(commit(3, 2));
    TABLE_OK(commit(5, 1)); /* another chunk */
    TABLE_OK(seal(3, 3, true));
    TABLE_OK(mirror(window + PAGE, 3, 3));
    memset(in, 0x3c, sizeof(in));
    TABLE_OK(device->ops->memory.copy_in(device, window + 3 * PAGE - 50, in, sizeof(in)));
    TABLE_OK(device->ops->memory.copy_out(device, out, base + 5 * PAGE - 50, sizeof(out)));
    assert_memory_equal(in, out, sizeof(in));
    for (uint32_t i = 3; i < 6; i++)
        assert_int_equal(access_of[i], READ);
    dj_cuda_memory_counters(device, &counters);
    assert_int_equal(counters.mapped_bytes, 3 * PAGE); /* once */
    assert_int_equal(table_counters().used_bytes, 3 * PAGE);
    device->ops->memory.decommit(device, window + PAGE, 3 * PAGE);
    dj_cuda_memory_counters(device, &counters);
    assert_int_equal(counters.mapped_bytes, 3 * PAGE);
    assert_int_equal(mapped_bytes(), 3 * PAGE);
    TABLE_OK(device->ops->memory.copy_out(device, out, base + 5 * PAGE - 50, sizeof(out)));
    assert_memory_equal(in, out, sizeof(in));
    TABLE_OK(mirror(window, 5, 1)); /* once more, and elsewhere */
    TABLE_OK(device->ops->memory.copy_out(device, out, window, 50));
    assert_memory_equal(in, out, 50);
    device->ops->memory.release(device, window, 8 * PAGE);
    assert_int_equal(mapped_bytes(), 3 * PAGE);
}

static void what_no_commit_made_has_no_mirror(void **state)
{
    uint8_t *window = window_of(8);
    TABLE_OK(commit(3, 2));
    assert_int_equal(mirror(window, 2, 1), DJ_ERR_INVALID); /* no pages */
    assert_int_equal(mirror(window, 3, 3), DJ_ERR_INVALID); /* not as many */
    assert_int_equal(mirror(window, 3, 1), DJ_ERR_INVALID); /* half of one */
    assert_int_equal(mirror(window, 4, 1), DJ_ERR_INVALID);
    assert_int_equal(mirror(base + 10 * PAGE, 3, 2), DJ_ERR_INVALID); /* in its own range */
    assert_int_equal(mapped_bytes(), 2 * PAGE);
    TABLE_OK(mirror(window, 3, 2));
    assert_int_equal(mirror(window + PAGE, 3, 2), DJ_ERR_INVALID); /* something is there */
    assert_int_equal(device->ops->memory.mirror(device, window + 4 * PAGE, window, 2 * PAGE), DJ_ERR_INVALID);
    device->ops->memory.decommit(device, window, PAGE); /* only in whole */
    TABLE_OK(device->ops->memory.fill(device, window, 1, 2 * PAGE));
    device->ops->memory.release(device, window, 8 * PAGE);
}

static void a_mirror_that_fails_leaves_nothing(void **state)
{
    uint8_t *window = window_of(8);
    TABLE_OK(commit(3, 2));
    TABLE_OK(commit(5, 1));
    maps_left = 1;
    assert_int_not_equal(mirror(window, 3, 3), DJ_OK);
    maps_left = NEVER;
    assert_int_equal(mapped_bytes(), 3 * PAGE);
    accesses_left = 0;
    assert_int_not_equal(mirror(window, 3, 3), DJ_OK);
    accesses_left = NEVER;
    assert_int_equal(mapped_bytes(), 3 * PAGE);
    TABLE_OK(mirror(window, 3, 3));
    device->ops->memory.release(device, window, 8 * PAGE);
}

/* ---- a driver that waits for kernels before it unmaps ---- */

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t moved = PTHREAD_COND_INITIALIZER;
static bool inside, passed, timed_out;

/* Until others have used the memory, or for long. */
static CUresult slow_unmap(CUdeviceptr address, size_t bytes)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 5;
    pthread_mutex_lock(&gate);
    inside = true;
    pthread_cond_broadcast(&moved);
    while (!passed && !timed_out)
        timed_out = pthread_cond_timedwait(&moved, &gate, &until) != 0;
    pthread_mutex_unlock(&gate);
    return unmap(address, bytes);
}

static void *decommit_some(void *argument)
{
    decommit(10, 4);
    return NULL;
}

static void *release_other(void *argument)
{
    device->ops->memory.release(device, argument, 4 * PAGE);
    return NULL;
}

/* `main` goes on a thread of its own; meanwhile others are used. */
static void expect_no_waiting(void *(*main)(void *), void *argument)
{
    pthread_t thread;
    uint8_t bytes[16] = {7}, got[16];
    inside = passed = timed_out = false;
    dj_cuda.cuMemUnmap = slow_unmap;
    assert_int_equal(pthread_create(&thread, NULL, main, argument), 0);
    pthread_mutex_lock(&gate);
    while (!inside)
        pthread_cond_wait(&moved, &gate);
    pthread_mutex_unlock(&gate);
    TABLE_OK(device->ops->memory.copy_in(device, base, bytes, sizeof(bytes)));
    TABLE_OK(device->ops->memory.copy_out(device, got, base, sizeof(got)));
    TABLE_OK(commit(20, 1));
    TABLE_OK(seal(20, 1, true));
    pthread_mutex_lock(&gate);
    passed = true;
    pthread_cond_broadcast(&moved);
    pthread_mutex_unlock(&gate);
    pthread_join(thread, NULL);
    dj_cuda.cuMemUnmap = unmap;
    assert_false(timed_out);
    assert_memory_equal(bytes, got, sizeof(got));
    decommit(20, 1);
}

static void nobody_waits_for_pages_that_go(void **state)
{
    void *other = NULL;
    TABLE_OK(commit(0, 1));
    TABLE_OK(commit(10, 4));
    expect_no_waiting(decommit_some, NULL);
    assert_int_equal(mapped_bytes(), PAGE);
    TABLE_OK(commit(10, 4));
    TABLE_OK(device->ops->memory.reserve(device, 4 * PAGE, &other));
    TABLE_OK(device->ops->memory.commit(device, other, 4 * PAGE));
    expect_no_waiting(release_other, other);
    assert_int_equal(mapped_bytes(), 5 * PAGE);
}

static void close_returns_what_was_left(void **state)
{
    void *range;
    dj_device_t *other = table_open();
    TABLE_OK(other->ops->memory.reserve(other, 8 * PAGE, &range));
    TABLE_OK(other->ops->memory.commit(other, range, 3 * PAGE));
    dj_device_close(other);
    assert_int_equal(table_counters().used_bytes, 0);
}

int main(void)
{
#define WATCHED(test) cmocka_unit_test_setup_teardown(test, watch, all_is_back)
    const struct CMUnitTest tests[] = {
        WATCHED(bad_ranges_are_refused),
        WATCHED(a_large_commit_is_few_chunks),
        WATCHED(chunks_end_where_they_were_cut),
        WATCHED(a_commit_that_fails_half_way_leaves_nothing),
        WATCHED(zeroing_that_fails_returns_the_pages),
        WATCHED(the_gpu_is_really_full),
        WATCHED(without_memory_a_cut_waits),
        WATCHED(what_is_held_goes_with_its_chunk),
        WATCHED(a_driver_without_seals_is_no_obstacle),
        WATCHED(a_mirror_writes_where_pages_are_sealed),
        WATCHED(what_no_commit_made_has_no_mirror),
        WATCHED(a_mirror_that_fails_leaves_nothing),
        WATCHED(nobody_waits_for_pages_that_go),
        WATCHED(random_orders_keep_pages_and_contents),
        cmocka_unit_test_setup(close_returns_what_was_left, table_restore),
    };
    setenv("DJ_SIM_MEMORY", "512m", 1);
    if (!table_load())
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
