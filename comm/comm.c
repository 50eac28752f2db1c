/* comm.c - one UCX worker and the thread that owns it: progress, waiting, waking.
 *
 * UCX calls back while it makes progress: messages, completions, errors. Callbacks only note what
 * happened to an endpoint (`attention`); the work that must not run inside UCX (closing, reporting
 * what was lost) is done after, by tend(). A thread that waits polls first, because arming costs
 * several microseconds, then sleeps on one descriptor which dj_comm_wake() can also raise. */
#define DJ_LOG_MODULE "comm"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "comm/ucx.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"

#define BLOCK_OPERATIONS 16
#define YIELD_NS 3000
#define DESTROY_DRAIN_NS (700 * DJ_NS_PER_MS)

/* ---- operations ---- */

static bool add_block(dj_comm_t *comm)
{
    size_t bytes = sizeof(dj_operation_block_t) + BLOCK_OPERATIONS * sizeof(dj_operation_t);
    bytes = (bytes + 63) & ~(size_t)63;
    dj_operation_block_t *block = aligned_alloc(_Alignof(dj_operation_t), bytes);
    if (!block)
        return false;
    block->next = comm->blocks;
    comm->blocks = block;
    for (int i = 0; i < BLOCK_OPERATIONS; ++i) {
        block->operations[i].comm = comm;
        block->operations[i].next = comm->free_operations;
        comm->free_operations = &block->operations[i];
    }
    return true;
}

dj_operation_t *dj_operation_take(dj_comm_t *comm, dj_operation_kind_t kind)
{
    if (!comm->free_operations && !add_block(comm))
        return NULL;
    dj_operation_t *operation = comm->free_operations;
    comm->free_operations = operation->next;
    operation->kind = (uint8_t)kind;
    operation->endpoint = NULL;
    operation->done = NULL;
    operation->descriptor = NULL;
    return operation;
}

void dj_operation_give(dj_operation_t *operation)
{
    operation->next = operation->comm->free_operations;
    operation->comm->free_operations = operation;
}

/* ---- creation ---- */

/* What precedes a worker address on its way to a peer: UCX itself does not check what it unpacks.
 */
static dj_status_t read_address(dj_comm_t *comm)
{
    ucp_worker_attr_t attributes = {
        .field_mask = UCP_WORKER_ATTR_FIELD_MAX_AM_HEADER,
    };
    size_t bytes;
    if (ucp_worker_query(comm->worker, &attributes) != UCS_OK ||
        attributes.max_am_header < DJ_ENDPOINT_HEADER_MAX)
        return dj_fail(DJ_ERR_UNSUPPORTED,
                       "ucx carries message headers of %zu bytes, %d are needed",
                       attributes.max_am_header, DJ_ENDPOINT_HEADER_MAX);
    ucs_status_t status = ucp_worker_get_address(comm->worker, &comm->ucp_address, &bytes);
    if (status != UCS_OK)
        return dj_fail(DJ_ERR_UNSUPPORTED, "ucx has no address for its worker: %s",
                       ucs_status_string(status));
    return dj_address_wrap(comm->ucp_address, bytes, &comm->address, &comm->address_bytes);
}

static dj_status_t create_worker(dj_comm_t *comm)
{
    const ucp_worker_params_t parameters = {
        .field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
        .thread_mode = UCS_THREAD_MODE_SINGLE,
    };
    const ucp_am_handler_param_t handler = {
        .field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_CB |
                      UCP_AM_HANDLER_PARAM_FIELD_ARG,
        .id = 0,
        .cb = dj_incoming_handle,
        .arg = comm,
    };
    ucs_status_t status = ucp_worker_create(comm->context, &parameters, &comm->worker);
    if (status == UCS_OK)
        status = ucp_worker_get_efd(comm->worker, &comm->fd);
    /* Before the address is known to anyone: an unknown id crashes UCX 1.13. */
    if (status == UCS_OK)
        status = ucp_worker_set_am_recv_handler(comm->worker, &handler);
    if (status != UCS_OK)
        return dj_fail(DJ_ERR_UNSUPPORTED, "ucx cannot make a worker: %s",
                       ucs_status_string(status));
    ucp_context_attr_t attributes = {.field_mask = UCP_ATTR_FIELD_MEMORY_TYPES};
    if (ucp_context_query(comm->context, &attributes) == UCS_OK)
        comm->memory_types = attributes.memory_types;
    comm->host_memory_only = comm->memory_types == UCS_BIT(UCS_MEMORY_TYPE_HOST);
    return DJ_OK;
}

static ucs_memory_type_t type_of(dj_memory_kind_t kind)
{
    return kind == DJ_MEMORY_CUDA ? UCS_MEMORY_TYPE_CUDA : UCS_MEMORY_TYPE_HOST;
}

bool dj_comm_knows(const dj_comm_t *comm, dj_memory_kind_t kind)
{
    return comm->memory_types & UCS_BIT(type_of(kind));
}

dj_status_t dj_comm_map(dj_comm_t *comm, void *memory, uint64_t bytes, dj_memory_kind_t kind)
{
    const ucp_mem_map_params_t parameters = {
        .field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH |
                      UCP_MEM_MAP_PARAM_FIELD_MEMORY_TYPE,
        .address = memory,
        .length = bytes,
        .memory_type = type_of(kind),
    };
    if (comm->mapped)
        return dj_fail(DJ_ERR_INVALID, "memory is mapped already");
    if (!dj_comm_knows(comm, kind))
        return dj_fail(DJ_ERR_UNSUPPORTED, "UCX here knows no such memory");
    ucs_status_t status = ucp_mem_map(comm->context, &parameters, &comm->mapped);
    if (status == UCS_OK) {
        comm->mapped_base = memory;
        comm->mapped_bytes = bytes;
        comm->mapped_type = type_of(kind);
        return DJ_OK;
    }
    comm->mapped = NULL;
    return dj_fail(DJ_ERR_UNSUPPORTED, "UCX does not register the device's memory (%s)", ucs_status_string(status));
}

dj_status_t dj_comm_create(const dj_comm_options_t *options, dj_comm_t **comm_p)
{
    dj_ucx_setup();
    dj_comm_t *comm = calloc(1, sizeof(*comm));
    if (!comm || !add_block(comm)) {
        free(comm);
        return dj_fail(DJ_ERR_MEMORY, "no memory for a communication context");
    }
    comm->options = *options;
    dj_status_t status = dj_ucx_context_create(options, &comm->context);
    if (status == DJ_OK)
        status = create_worker(comm);
    if (status == DJ_OK)
        status = read_address(comm);
    if (status != DJ_OK) {
        dj_comm_destroy(comm);
        return status;
    }
    *comm_p = comm;
    return DJ_OK;
}

static void close_endpoints(dj_comm_t *comm)
{
    uint64_t until_ns = dj_clock_ns() + DESTROY_DRAIN_NS;
    for (dj_endpoint_t *at = comm->endpoints; at; at = at->next)
        dj_endpoint_close(at);
    while (comm->endpoints && dj_clock_ns() < until_ns)
        dj_comm_progress(comm);
    while (comm->endpoints) {
        dj_endpoint_t *endpoint = comm->endpoints;
        comm->endpoints = endpoint->next;
        dj_endpoint_abandon(endpoint);
        free(endpoint);
    }
}

void dj_comm_destroy(dj_comm_t *comm)
{
    if (!comm)
        return;
    close_endpoints(comm);
    if (comm->ucp_address)
        ucp_worker_release_address(comm->worker, comm->ucp_address);
    if (comm->worker)
        ucp_worker_destroy(comm->worker);
    if (comm->mapped)
        ucp_mem_unmap(comm->context, comm->mapped);
    if (comm->context)
        ucp_cleanup(comm->context);
    while (comm->blocks) {
        dj_operation_block_t *block = comm->blocks;
        comm->blocks = block->next;
        free(block);
    }
    dj_table_fini(&comm->by_ucp);
    free(comm->address);
    free(comm);
}

dj_status_t dj_comm_address(dj_comm_t *comm, const void **address_p, uint32_t *bytes_p)
{
    *address_p = comm->address;
    *bytes_p = comm->address_bytes;
    return DJ_OK;
}

void dj_comm_counters(const dj_comm_t *comm, dj_comm_counters_t *counters)
{
    *counters = comm->counters;
}

/* ---- progress ---- */

static void tend(dj_comm_t *comm)
{
    uint64_t now_ns = dj_clock_ns();
    bool restless = false;
    comm->attention = false;
    dj_incoming_tend(comm);
    for (dj_endpoint_t **at_p = &comm->endpoints; *at_p;) {
        dj_endpoint_t *endpoint = *at_p;
        if (dj_endpoint_tend(endpoint, now_ns)) {
            *at_p = endpoint->next;
            free(endpoint);
            continue;
        }
        restless = restless || dj_endpoint_restless(endpoint);
        at_p = &endpoint->next;
    }
    if (restless) /* a plain assignment could undo what another thread has set meanwhile */
        comm->attention = true;
}

unsigned dj_comm_progress(dj_comm_t *comm)
{
    comm->round += comm->corks++ == 0;
    unsigned events = ucp_worker_progress(comm->worker);
    if (__builtin_expect(comm->attention, 0)) {
        tend(comm);
        ++events;
    }
    if (__builtin_expect(comm->batched != NULL, 0))
        dj_comm_uncork(comm);
    else
        --comm->corks;
    return events;
}

bool dj_comm_draining(const dj_comm_t *comm)
{
    for (const dj_endpoint_t *at = comm->endpoints; at; at = at->next)
        if (at->closed)
            return true;
    return false;
}

static bool flushing(const dj_comm_t *comm)
{
    for (const dj_endpoint_t *at = comm->endpoints; at; at = at->next)
        if (dj_endpoint_flushing(at))
            return true;
    return false;
}

void dj_comm_flush(dj_comm_t *comm, uint64_t deadline_ns)
{
    for (dj_endpoint_t *at = comm->endpoints; at; at = at->next)
        dj_endpoint_flush(at);
    while (flushing(comm) && dj_clock_ns() < deadline_ns)
        dj_comm_progress(comm);
}

int dj_comm_fd(dj_comm_t *comm)
{
    return comm->fd;
}

/* Woken before armed is seen here; woken after is signalled: dj_comm_wake() reads in the other
 * order. */
bool dj_comm_arm(dj_comm_t *comm)
{
    if (comm->attention)
        return false;
    atomic_store(&comm->armed, true);
    if (atomic_load(&comm->woken) || ucp_worker_arm(comm->worker) != UCS_OK) {
        atomic_store(&comm->armed, false);
        atomic_store(&comm->woken, false);
        return false;
    }
    return true;
}

void dj_comm_wake(dj_comm_t *comm)
{
    atomic_store(&comm->woken, true);
    if (atomic_load(&comm->armed))
        ucp_worker_signal(comm->worker);
}

/* Polls until something happens or the time is over; true when something did. The peer that is waited for
 * may want this very core: it gets it after a moment. */
static bool spin(dj_comm_t *comm, uint64_t spin_ns)
{
    uint64_t until_ns = 0;
    for (uint32_t round = 0;; ++round) {
        if (dj_comm_progress(comm) > 0)
            return true;
        if (atomic_load_explicit(&comm->woken, memory_order_relaxed)) {
            atomic_store(&comm->woken, false);
            return true;
        }
        if (round % 16 != 0)
            continue;
        uint64_t now_ns = dj_clock_ns();
        if (until_ns == 0)
            until_ns = now_ns + spin_ns;
        if (now_ns >= until_ns)
            return false;
        if (now_ns + spin_ns > until_ns + YIELD_NS)
            sched_yield();
    }
}

void dj_comm_wait(dj_comm_t *comm, uint64_t spin_ns, int timeout_ms)
{
    if (spin(comm, spin_ns) || timeout_ms == 0)
        return;
    if (!dj_comm_arm(comm)) {
        dj_comm_progress(comm);
        return;
    }
    struct pollfd entry = {.fd = comm->fd, .events = POLLIN};
    poll(&entry, 1, timeout_ms);
    atomic_store(&comm->armed, false);
    atomic_store(&comm->woken, false);
    dj_comm_progress(comm);
}
