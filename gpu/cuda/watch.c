/* watch.c - the point at which a GPU is given up that ends nothing any more.
 *
 * A kernel that never ends gives no error: the driver waits with it, and so would the rank and all its clients. Who
 * waits does so in the driver all the same: its interrupt wakes a thread soonest and costs no core meanwhile. (Asking
 * the event between naps of 10 to 50 us, which could keep a limit by itself, was measured to wake 15 to 25 us later and
 * to take a quarter of a core.) Besides, calls that only enqueue may wait, too: a launch into a full queue does.
 *
 * So a thread that may be held writes down since when, in a place of its own; it costs a replay two atomic stores. A
 * thread that never enters the driver looks there now and then (dj_cuda_responds()). The limit (--kernel-limit-ms) is
 * of silence: of a replay, since it began or an event of the compute stream was seen to be over, of whichever replay;
 * of a copy, since that wait began.
 *
 * Past it the device *hangs*, for good: every call of it is refused (dj_cuda_enter()), and nothing is given back to a
 * driver that might not return. The process has to end; the threads that are held cannot. */
#include "gpu/cuda/watch.h"
#include "runtime/base/clock.h"

#define NO_NODES UINT64_MAX
#define CONFIRM_NS (100 * DJ_NS_PER_MS)

dj_cuda_watch_t *dj_cuda_watch_begin(dj_cuda_device_t *device, bool is_replay)
{
    uint64_t now_ns = dj_clock_ns();
    for (uint32_t i = 0; i < DJ_CUDA_WATCHES_MAX; i++) {
        dj_cuda_watch_t *watch = &device->watches[i];
        uint64_t nobody = 0;
        if (atomic_load_explicit(&watch->since_ns, memory_order_relaxed) ||
            !atomic_compare_exchange_strong(&watch->since_ns, &nobody, now_ns))
            continue;
        atomic_store_explicit(&watch->is_replay, is_replay, memory_order_relaxed);
        atomic_store_explicit(&watch->nodes, NO_NODES, memory_order_relaxed);
        return watch;
    }
    return NULL;
}

void dj_cuda_watch_end(dj_cuda_watch_t *watch)
{
    if (watch)
        atomic_store_explicit(&watch->since_ns, 0, memory_order_release);
}

void dj_cuda_watch_nodes(dj_cuda_watch_t *watch, const dj_graph_t *graph, uint32_t from, uint32_t to)
{
    if (!watch)
        return;
    uint32_t ops = (uint32_t)graph->nodes[from].call.op << 16 | graph->nodes[to].call.op;
    atomic_store_explicit(&watch->ops, ops, memory_order_relaxed);
    atomic_store_explicit(&watch->nodes, (uint64_t)from << 32 | to, memory_order_relaxed);
}

void dj_cuda_watch_heard(dj_cuda_device_t *device)
{
    atomic_store_explicit(&device->heard_ns, dj_clock_ns(), memory_order_relaxed);
}

static dj_status_t give_up(const dj_cuda_device_t *device, const dj_cuda_watch_t *watch)
{
    uint64_t nodes = atomic_load(&watch->nodes);
    uint32_t from = (uint32_t)(nodes >> 32), to = (uint32_t)nodes, ops = atomic_load(&watch->ops);
    dj_status_t status =
        dj_fail(DJ_ERR_DEVICE,
                "nothing has ended there for %llu ms (--kernel-limit-ms), so the GPU is given up: a kernel runs for "
                "ever, or the GPU hangs (look for its Xid in dmesg); if programs need longer, raise the limit",
                (unsigned long long)(device->limit_ns / DJ_NS_PER_MS));
    if (!atomic_load(&watch->is_replay))
        dj_fail_prefix(status, "a copy");
    else if (nodes == NO_NODES)
        dj_fail_prefix(status, "a replay that begins");
    else if (from == to)
        dj_fail_prefix(status, "a replay, node %u, %s", from, dj_op_info((uint16_t)ops)->name);
    else
        dj_fail_prefix(status, "a replay, nodes %u, %s, to %u, %s", from, dj_op_info((uint16_t)(ops >> 16))->name, to,
                       dj_op_info((uint16_t)ops)->name);
    return dj_fail_prefix(status, "GPU %s (%s)", device->info.name, device->pci);
}

/* A process that was stopped for a while must not blame the GPU: the same silence is found twice. */
static bool is_silent(dj_cuda_watch_t *watch, uint64_t heard_ns, uint64_t now_ns, uint64_t limit_ns)
{
    uint64_t since_ns = atomic_load_explicit(&watch->since_ns, memory_order_acquire);
    if (since_ns && atomic_load(&watch->is_replay) && heard_ns > since_ns)
        since_ns = heard_ns;
    if (since_ns == 0 || now_ns < since_ns || now_ns - since_ns < limit_ns) {
        watch->suspect_ns = 0;
        return false;
    }
    if (watch->suspect_ns != since_ns)
        watch->suspected_ns = now_ns;
    watch->suspect_ns = since_ns;
    return now_ns - watch->suspected_ns >= CONFIRM_NS;
}

dj_status_t dj_cuda_responds(dj_device_t *base)
{
    dj_cuda_device_t *device = (dj_cuda_device_t *)base;
    uint64_t now_ns = dj_clock_ns(), heard_ns = atomic_load(&device->heard_ns);
    for (uint32_t i = 0; device->limit_ns && i < DJ_CUDA_WATCHES_MAX; i++) {
        if (!is_silent(&device->watches[i], heard_ns, now_ns, device->limit_ns))
            continue;
        atomic_store(&device->hangs, true);
        return give_up(device, &device->watches[i]);
    }
    return DJ_OK;
}

/* ---- waits of copies ---- */

CUresult dj_cuda_wait(dj_cuda_device_t *device, CUevent event)
{
    dj_cuda_watch_t *watch = dj_cuda_watch_begin(device, false);
    CUresult result = dj_cuda.cuEventSynchronize(event);
    dj_cuda_watch_end(watch);
    return result;
}

CUresult dj_cuda_drain(dj_cuda_device_t *device, CUstream stream)
{
    dj_cuda_watch_t *watch = dj_cuda_watch_begin(device, false);
    CUresult result = dj_cuda.cuStreamSynchronize(stream);
    dj_cuda_watch_end(watch);
    return result;
}
