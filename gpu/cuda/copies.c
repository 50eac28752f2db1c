/* copies.c - bytes between host memory and the GPU's.
 *
 * The GPU reads and writes pinned host memory alone at full speed, so other memory passes through pinned slots. Up to
 * SMALL_BYTES go through one slot and are over in microseconds; more goes through a ring of slots, where the host's
 * memcpy of one overlaps the GPU's transfer of another. Memory that is pinned already (pin(), or registered) goes
 * direct. Each direction has two lanes, so a small copy does not wait for a large one's memcpys, only for the slots
 * that are on the stream before it. A lane is one caller's at a time.
 *
 * A transfer never crosses the end of a mapped chunk (memory.h).
 *
 * Order: in and out have streams of their own, and no event ties them to compute. None is needed: a copy is over when
 * its function returns, and so is a replay, so whoever calls them one after the other has them in that order. What
 * overlaps is what different threads do to different memory. The loader's copies (start, finish) are on the fourth
 * stream, in the order of their tickets; an event a ticket, of which there are DJ_COPIES_MAX.
 *
 * Threads: any. Nothing here synchronises the device; a failed transfer waits for its own stream, because its slots
 * must not be written while the GPU still reads them. */
#include <stdlib.h>
#include <string.h>

#include "gpu/cuda/cuda_device.h"
#include "gpu/cuda/memory.h"
#include "gpu/cuda/watch.h"

#define SLOTS 4u
#define SLOT_BYTES (4ull << 20)
#define SMALL_BYTES (64ull << 10)

typedef struct lane {
    pthread_mutex_t lock;
    bool has_lock;
    uint32_t n_slots;
    uint64_t slot_bytes;
    uint8_t *pinned; /* NULL: a lane of the device's own memory */
    CUevent events[SLOTS];
} lane_t;

struct dj_cuda_copies {
    lane_t in, out, small_in, small_out, inner;
    pthread_mutex_t start_lock;
    _Atomic uint64_t started; /* the last ticket */
    CUevent starts[DJ_COPIES_MAX]; /* of ticket t: (t - 1) % DJ_COPIES_MAX */
};

static dj_cuda_device_t *device_of(dj_device_t *device)
{
    return (dj_cuda_device_t *)device;
}

static dj_status_t answer(const dj_cuda_device_t *device, CUresult result, const char *what)
{
    dj_status_t status = dj_cuda_status(result, what);
    return status == DJ_OK ? status : dj_fail_prefix(status, "GPU %s (%s)", device->info.name, device->pci);
}

/* ---- transfers, enqueued ---- */

/* How much of `bytes` at a device address one transfer may move; all where the address is no range's. */
static uint64_t within_chunk(dj_cuda_device_t *device, CUdeviceptr address, uint64_t bytes)
{
    uint64_t left = dj_cuda_memory_chunk_end(&device->base, (const void *)(uintptr_t)address);
    return left && left < bytes ? left : bytes;
}

static CUresult send_in(dj_cuda_device_t *device, CUdeviceptr target, const uint8_t *host, uint64_t bytes,
                        CUstream stream)
{
    CUresult result = CUDA_SUCCESS;
    for (uint64_t done = 0, piece; done < bytes && result == CUDA_SUCCESS; done += piece) {
        piece = within_chunk(device, target + done, bytes - done);
        result = dj_cuda.cuMemcpyHtoDAsync(target + done, host + done, piece, stream);
    }
    return result;
}

static CUresult send_out(dj_cuda_device_t *device, uint8_t *host, CUdeviceptr source, uint64_t bytes,
                         CUstream stream)
{
    CUresult result = CUDA_SUCCESS;
    for (uint64_t done = 0, piece; done < bytes && result == CUDA_SUCCESS; done += piece) {
        piece = within_chunk(device, source + done, bytes - done);
        result = dj_cuda.cuMemcpyDtoHAsync(host + done, source + done, piece, stream);
    }
    return result;
}

/* After a failure: waits for what is on the stream, which may say that the context is lost. */
static CUresult drain(dj_cuda_device_t *device, CUstream stream, CUresult result)
{
    CUresult waited = dj_cuda_drain(device, stream);
    return dj_cuda_is_fault(waited) ? waited : result;
}

/* Waits for what is on the stream by an event; when anything failed, for the whole stream. */
static CUresult settle(dj_cuda_device_t *device, lane_t *lane, CUstream stream, CUresult result)
{
    if (result == CUDA_SUCCESS)
        result = dj_cuda.cuEventRecord(lane->events[0], stream);
    if (result == CUDA_SUCCESS)
        result = dj_cuda_wait(device, lane->events[0]);
    return result == CUDA_SUCCESS ? result : drain(device, stream, result);
}

/* ---- rings ---- */

static uint64_t slot_bytes_of(const lane_t *lane, uint64_t bytes, uint64_t slot)
{
    uint64_t left = bytes - slot * lane->slot_bytes;
    return left < lane->slot_bytes ? left : lane->slot_bytes;
}

static CUresult ring_in(dj_cuda_device_t *device, lane_t *lane, CUdeviceptr target, const uint8_t *host,
                        uint64_t bytes)
{
    uint64_t n = (bytes + lane->slot_bytes - 1) / lane->slot_bytes;
    CUresult result = CUDA_SUCCESS;
    for (uint64_t i = 0; i < n && result == CUDA_SUCCESS; i++) {
        uint64_t slot = i % lane->n_slots, at = i * lane->slot_bytes, piece = slot_bytes_of(lane, bytes, i);
        uint8_t *pinned = lane->pinned + slot * lane->slot_bytes;
        if (i >= lane->n_slots)
            result = dj_cuda_wait(device, lane->events[slot]);
        if (result != CUDA_SUCCESS)
            break;
        memcpy(pinned, host + at, piece);
        result = send_in(device, target + at, pinned, piece, device->in);
        if (result == CUDA_SUCCESS)
            result = dj_cuda.cuEventRecord(lane->events[slot], device->in);
    }
    if (result == CUDA_SUCCESS)
        result = dj_cuda_wait(device, lane->events[(n - 1) % lane->n_slots]);
    return result == CUDA_SUCCESS ? result : drain(device, device->in, result);
}

static CUresult ring_out(dj_cuda_device_t *device, lane_t *lane, uint8_t *host, CUdeviceptr source, uint64_t bytes)
{
    uint64_t n = (bytes + lane->slot_bytes - 1) / lane->slot_bytes, sent = 0;
    CUresult result = CUDA_SUCCESS;
    for (uint64_t i = 0; i < n && result == CUDA_SUCCESS; i++) {
        for (; sent < n && sent < i + lane->n_slots && result == CUDA_SUCCESS; sent++) {
            uint64_t slot = sent % lane->n_slots;
            result = send_out(device, lane->pinned + slot * lane->slot_bytes, source + sent * lane->slot_bytes,
                              slot_bytes_of(lane, bytes, sent), device->out);
            if (result == CUDA_SUCCESS)
                result = dj_cuda.cuEventRecord(lane->events[slot], device->out);
        }
        if (result == CUDA_SUCCESS)
            result = dj_cuda_wait(device, lane->events[i % lane->n_slots]);
        if (result == CUDA_SUCCESS)
            memcpy(host + i * lane->slot_bytes, lane->pinned + i % lane->n_slots * lane->slot_bytes,
                   slot_bytes_of(lane, bytes, i));
    }
    return result == CUDA_SUCCESS ? result : drain(device, device->out, result);
}

static bool is_pinned(const uint8_t *host, uint64_t bytes)
{
    const uint8_t *ends[2] = {host, host + bytes - 1};
    for (int i = 0; i < 2; i++) {
        CUmemorytype type = 0;
        CUresult result = dj_cuda.cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
                                                        (CUdeviceptr)(uintptr_t)ends[i]);
        if (result != CUDA_SUCCESS || type != CU_MEMORYTYPE_HOST)
            return false;
    }
    return true;
}

/* ---- device.h's copies ---- */

dj_status_t dj_cuda_copies_in(dj_device_t *base, void *target, const void *host, uint64_t bytes)
{
    dj_cuda_device_t *device = device_of(base);
    CUdeviceptr to = (CUdeviceptr)(uintptr_t)target;
    dj_status_t status = dj_cuda_enter(device);
    if (status != DJ_OK || bytes == 0)
        return status;
    lane_t *lane = bytes <= SMALL_BYTES ? &device->copies->small_in : &device->copies->in;
    bool direct = bytes > SMALL_BYTES && is_pinned(host, bytes);
    pthread_mutex_lock(&lane->lock);
    CUresult result = direct ? settle(device, lane, device->in, send_in(device, to, host, bytes, device->in))
                             : ring_in(device, lane, to, host, bytes);
    pthread_mutex_unlock(&lane->lock);
    return answer(device, result, "a copy into its memory");
}

dj_status_t dj_cuda_copies_out(dj_device_t *base, void *host, const void *source, uint64_t bytes)
{
    dj_cuda_device_t *device = device_of(base);
    CUdeviceptr from = (CUdeviceptr)(uintptr_t)source;
    dj_status_t status = dj_cuda_enter(device);
    if (status != DJ_OK || bytes == 0)
        return status;
    lane_t *lane = bytes <= SMALL_BYTES ? &device->copies->small_out : &device->copies->out;
    bool direct = bytes > SMALL_BYTES && is_pinned(host, bytes);
    pthread_mutex_lock(&lane->lock);
    CUresult result = direct ? settle(device, lane, device->out, send_out(device, host, from, bytes, device->out))
                             : ring_out(device, lane, host, from, bytes);
    pthread_mutex_unlock(&lane->lock);
    return answer(device, result, "a copy out of its memory");
}

dj_status_t dj_cuda_copies_between(dj_device_t *base, void *target, const void *source, uint64_t bytes)
{
    dj_cuda_device_t *device = device_of(base);
    CUdeviceptr to = (CUdeviceptr)(uintptr_t)target, from = (CUdeviceptr)(uintptr_t)source;
    lane_t *lane = &device->copies->inner;
    CUresult result = CUDA_SUCCESS;
    dj_status_t status = dj_cuda_enter(device);
    if (status != DJ_OK || bytes == 0)
        return status;
    pthread_mutex_lock(&lane->lock);
    result = dj_cuda_slab_see(device, from);
    for (uint64_t done = 0, piece; done < bytes && result == CUDA_SUCCESS; done += piece) {
        piece = within_chunk(device, from + done, within_chunk(device, to + done, bytes - done));
        result = dj_cuda.cuMemcpyDtoDAsync(to + done, from + done, piece, device->in);
    }
    result = settle(device, lane, device->in, result);
    pthread_mutex_unlock(&lane->lock);
    return answer(device, result, "a copy inside its memory");
}

dj_status_t dj_cuda_copies_fill(dj_device_t *base, void *target, uint8_t value, uint64_t bytes)
{
    dj_cuda_device_t *device = device_of(base);
    CUdeviceptr to = (CUdeviceptr)(uintptr_t)target;
    lane_t *lane = &device->copies->inner;
    CUresult result = CUDA_SUCCESS;
    dj_status_t status = dj_cuda_enter(device);
    if (status != DJ_OK || bytes == 0)
        return status;
    pthread_mutex_lock(&lane->lock);
    for (uint64_t done = 0, piece; done < bytes && result == CUDA_SUCCESS; done += piece) {
        piece = within_chunk(device, to + done, bytes - done);
        result = dj_cuda.cuMemsetD8Async(to + done, value, piece, device->in);
    }
    result = settle(device, lane, device->in, result);
    pthread_mutex_unlock(&lane->lock);
    return answer(device, result, "filling its memory");
}

dj_status_t dj_cuda_copies_pin(dj_device_t *base, uint64_t bytes, void **memory_p)
{
    void *memory = NULL;
    dj_status_t status = dj_cuda_enter(device_of(base));
    if (status != DJ_OK)
        return status;
    status = dj_cuda_status(dj_cuda.cuMemHostAlloc(&memory, bytes, CU_MEMHOSTALLOC_PORTABLE), "pinned host memory");
    if (status != DJ_OK)
        return dj_fail_prefix(status, "%llu bytes", (unsigned long long)bytes);
    *memory_p = memory;
    return DJ_OK;
}

void dj_cuda_copies_unpin(dj_device_t *base, void *memory, uint64_t bytes)
{
    if (memory && dj_cuda_enter(device_of(base)) == DJ_OK)
        dj_cuda.cuMemFreeHost(memory);
}

/* ---- the loader's ---- */

dj_status_t dj_cuda_copies_start(dj_device_t *base, void *target, const void *host, uint64_t bytes,
                                 uint64_t *ticket_p)
{
    dj_cuda_device_t *device = device_of(base);
    struct dj_cuda_copies *copies = device->copies;
    CUresult result = CUDA_SUCCESS;
    dj_status_t status = dj_cuda_enter(device);
    if (status != DJ_OK)
        return status;
    pthread_mutex_lock(&copies->start_lock);
    uint64_t last = atomic_load(&copies->started);
    CUevent event = copies->starts[last % DJ_COPIES_MAX];
    if (last >= DJ_COPIES_MAX)
        result = dj_cuda_wait(device, event);
    if (result == CUDA_SUCCESS)
        result = send_in(device, (CUdeviceptr)(uintptr_t)target, host, bytes, device->weights);
    if (result == CUDA_SUCCESS)
        result = dj_cuda.cuEventRecord(event, device->weights);
    if (result == CUDA_SUCCESS) {
        *ticket_p = last + 1;
        atomic_store(&copies->started, last + 1);
    } else {
        result = drain(device, device->weights, result); /* pieces of it may be on their way */
    }
    pthread_mutex_unlock(&copies->start_lock);
    return answer(device, result, "a copy of weights");
}

dj_status_t dj_cuda_copies_finish(dj_device_t *base, uint64_t ticket)
{
    dj_cuda_device_t *device = device_of(base);
    struct dj_cuda_copies *copies = device->copies;
    dj_status_t status = dj_cuda_enter(device);
    if (status != DJ_OK)
        return status;
    uint64_t last = atomic_load(&copies->started);
    if (ticket == 0 || ticket > last)
        return dj_fail(DJ_ERR_INVALID, "copy %llu of weights was not started", (unsigned long long)ticket);
    if (last - ticket >= DJ_COPIES_MAX)
        return DJ_OK; /* its event was used again, which start() waited for */
    return answer(device, dj_cuda_wait(device, copies->starts[(ticket - 1) % DJ_COPIES_MAX]),
                  "a copy of weights");
}

/* ---- open and close ---- */

static dj_status_t lane_open(lane_t *lane, uint32_t n_slots, uint64_t slot_bytes)
{
    void *pinned = NULL;
    pthread_mutex_init(&lane->lock, NULL);
    lane->has_lock = true;
    lane->n_slots = n_slots;
    lane->slot_bytes = slot_bytes;
    CUresult result = CUDA_SUCCESS;
    if (slot_bytes)
        result = dj_cuda.cuMemHostAlloc(&pinned, n_slots * slot_bytes, CU_MEMHOSTALLOC_PORTABLE);
    lane->pinned = pinned;
    for (uint32_t i = 0; i < n_slots && result == CUDA_SUCCESS; i++)
        result = dj_cuda.cuEventCreate(&lane->events[i], CU_EVENT_DISABLE_TIMING);
    return dj_cuda_status(result, "pinned memory for copies");
}

static void lane_close(lane_t *lane)
{
    for (uint32_t i = 0; i < lane->n_slots; i++)
        if (lane->events[i])
            dj_cuda.cuEventDestroy(lane->events[i]);
    if (lane->pinned)
        dj_cuda.cuMemFreeHost(lane->pinned);
    if (lane->has_lock)
        pthread_mutex_destroy(&lane->lock);
}

dj_status_t dj_cuda_copies_open(dj_cuda_device_t *device)
{
    struct dj_cuda_copies *copies = calloc(1, sizeof(*copies));
    if (!copies)
        return dj_fail(DJ_ERR_MEMORY, "device cuda: out of memory");
    device->copies = copies;
    pthread_mutex_init(&copies->start_lock, NULL);
    dj_status_t status = lane_open(&copies->in, SLOTS, SLOT_BYTES);
    if (status == DJ_OK)
        status = lane_open(&copies->out, SLOTS, SLOT_BYTES);
    if (status == DJ_OK)
        status = lane_open(&copies->small_in, 1, SMALL_BYTES);
    if (status == DJ_OK)
        status = lane_open(&copies->small_out, 1, SMALL_BYTES);
    if (status == DJ_OK)
        status = lane_open(&copies->inner, 1, 0);
    for (int i = 0; i < DJ_COPIES_MAX && status == DJ_OK; i++)
        status = dj_cuda_status(
            dj_cuda.cuEventCreate(&copies->starts[i], CU_EVENT_DISABLE_TIMING | CU_EVENT_BLOCKING_SYNC),
            "events for copies");
    if (status != DJ_OK)
        dj_cuda_copies_close(device);
    return status;
}

void dj_cuda_copies_close(dj_cuda_device_t *device)
{
    struct dj_cuda_copies *copies = device->copies;
    if (!copies)
        return;
    for (int i = 0; i < DJ_COPIES_MAX; i++)
        if (copies->starts[i])
            dj_cuda.cuEventDestroy(copies->starts[i]);
    lane_t *lanes[] = {&copies->in, &copies->out, &copies->small_in, &copies->small_out, &copies->inner};
    for (size_t i = 0; i < sizeof(lanes) / sizeof(lanes[0]); i++)
        lane_close(lanes[i]);
    pthread_mutex_destroy(&copies->start_lock);
    free(copies);
    device->copies = NULL;
}
