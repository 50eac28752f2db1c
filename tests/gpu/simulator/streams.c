/* streams.c - streams and events.
 *
 * A stream is a queue that runs only when somebody waits: a synchronisation runs what it needs, a query one
 * operation. What nobody waits for stays undone as long as possible, so a host that reads too early reads poison.
 * With DJ_SIM_SEED the runner takes ready work of any stream at random until what is needed is done: now other
 * streams run ahead as well.
 *
 * Operations are numbered as they are enqueued. All that one waits for has a lower number (an event's wait names a
 * record that was enqueued before), so lowest first always gets on. But for what comes after a kernel that never ends:
 * a query says so, a synchronisation stands still. */
#include <stdlib.h>

#include "tests/gpu/simulator/inner.h"

sim_stream_t sim_default = {.object = {.magic = SIM_STREAM}, .blocking = true};
sim_stream_t *sim_streams = &sim_default;
static uint64_t newest;

sim_stream_t *sim_stream_of(CUstream stream)
{
    if (stream == NULL || stream == CU_STREAM_LEGACY || stream == CU_STREAM_PER_THREAD)
        return &sim_default;
    return sim_is(stream, SIM_STREAM) ? (sim_stream_t *)stream : NULL;
}

/* ---- running ---- */

static bool is_met(const sim_stream_t *a, const sim_stream_t *b)
{
    return a != b && a->blocking && b->blocking && (a == &sim_default || b == &sim_default);
}

static bool raise_target(sim_stream_t *stream, uint64_t sequence)
{
    if (stream->head == NULL || stream->head->sequence > sequence || stream->target >= sequence)
        return false;
    stream->target = sequence;
    return true;
}

/* Raises the targets of streams that the stream's needed work waits for. */
static bool spread(sim_stream_t *stream)
{
    bool raised = false;
    uint64_t last = 0;
    for (const sim_op_t *op = stream->head; op && op->sequence <= stream->target; op = op->next) {
        last = op->sequence;
        if (op->kind == SIM_WAIT && !op->ticket->done)
            raised |= raise_target(op->ticket->stream, op->ticket->sequence);
    }
    for (sim_stream_t *other = sim_streams; last && other; other = other->next) {
        if (is_met(stream, other))
            raised |= raise_target(other, last);
    }
    return raised;
}

static bool is_ready(const sim_stream_t *stream)
{
    const sim_op_t *op = stream->head;
    if (op == NULL || stream->hangs || (op->kind == SIM_WAIT && !op->ticket->done))
        return false;
    for (const sim_stream_t *other = sim_streams; other; other = other->next) {
        if (is_met(stream, other) && other->head && other->head->sequence < op->sequence)
            return false;
    }
    return true;
}

static bool is_needed(const sim_stream_t *stream)
{
    return stream->head && stream->head->sequence <= stream->target;
}

/* The stream whose first operation runs next; NULL: all that is needed is done. */
static sim_stream_t *choose(void)
{
    sim_stream_t *chosen = NULL;
    bool needed = false, hangs = false;
    uint64_t seen = 0;
    for (sim_stream_t *stream = sim_streams; stream; stream = stream->next) {
        needed |= is_needed(stream);
        hangs |= stream->hangs;
        if (!is_ready(stream))
            continue;
        if (sim_seed ? sim_draw() % ++seen == 0
                     : is_needed(stream) && (!chosen || stream->head->sequence < chosen->head->sequence))
            chosen = stream;
    }
    if (needed && chosen == NULL && !hangs) {
        sim_say("work is needed and none is ready");
        abort();
    }
    return needed ? chosen : NULL;
}

static enum sim_hang run_first(sim_stream_t *stream)
{
    sim_op_t *op = stream->head;
    enum sim_hang hang = sim_execute(op);
    stream->hangs = hang != SIM_RUNS;
    if (stream->hangs)
        return hang;
    stream->head = op->next;
    if (stream->head == NULL)
        stream->tail = NULL;
    sim_op_destroy(op);
    return SIM_RUNS;
}

static CUresult run(uint64_t limit)
{
    enum sim_hang hang = SIM_RUNS;
    bool raised = true;
    sim_stream_t *stream;
    while (raised) {
        raised = false;
        for (stream = sim_streams; stream; stream = stream->next)
            raised |= spread(stream);
    }
    if (sim_fault == CUDA_SUCCESS && choose() != NULL) {
        sim_work_begin();
        while (limit-- && sim_fault == CUDA_SUCCESS && hang != SIM_STUCK && (stream = choose()) != NULL)
            hang = run_first(stream);
        sim_work_end();
    }
    for (stream = sim_streams; stream; stream = stream->next)
        stream->target = 0;
    if (hang == SIM_STUCK)
        sim_stand();
    return sim_fault;
}

static bool is_behind(const sim_stream_t *stream, uint64_t sequence)
{
    return sim_fault == CUDA_SUCCESS && stream->head && stream->head->sequence <= sequence;
}

/* As long as some stream hangs. */
static void stand(void)
{
    const sim_stream_t *stream = sim_streams;
    while (stream && !stream->hangs)
        stream = stream->next;
    if (stream)
        sim_stand();
}

CUresult sim_run_to(sim_stream_t *stream, uint64_t sequence)
{
    for (;;) {
        raise_target(stream, sequence);
        run(UINT64_MAX);
        if (!is_behind(stream, sequence))
            return sim_fault;
        stand();
    }
}

CUresult sim_run_all(void)
{
    for (uint64_t last = newest;;) {
        bool behind = false;
        for (sim_stream_t *stream = sim_streams; stream; stream = stream->next)
            raise_target(stream, last);
        run(UINT64_MAX);
        for (sim_stream_t *stream = sim_streams; stream; stream = stream->next)
            behind |= is_behind(stream, last);
        if (!behind)
            return sim_fault;
        stand();
    }
}

void sim_drop_all(void)
{
    for (sim_stream_t *stream = sim_streams; stream; stream = stream->next) {
        while (stream->head) {
            sim_op_t *op = stream->head;
            stream->head = op->next;
            sim_op_destroy(op);
        }
        stream->tail = NULL;
    }
}

CUresult sim_submit(sim_stream_t *stream, sim_op_t *op)
{
    CUresult result = sim_capture_beside(stream);
    if (result != CUDA_SUCCESS) {
        sim_op_destroy(op);
        return result;
    }
    if (stream->capture)
        return sim_capture_op(stream, op);
    op->sequence = ++newest;
    if (op->kind == SIM_RECORD) {
        op->ticket->stream = stream;
        op->ticket->sequence = newest;
    }
    *(stream->tail ? &stream->tail->next : &stream->head) = op;
    stream->tail = op;
    return CUDA_SUCCESS;
}

/* ---- streams ---- */

CUresult cuStreamCreateWithPriority(CUstream *stream, unsigned flags, int priority)
{
    CUresult result = sim_enter("cuStreamCreateWithPriority", SIM_CONTEXT);
    if (result == CUDA_SUCCESS && (flags & ~1u))
        result = CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS) {
        sim_stream_t *made = sim_object_create(sizeof *made, SIM_STREAM);
        made->blocking = !(flags & CU_STREAM_NON_BLOCKING);
        made->next = sim_streams;
        sim_streams = made;
        ++sim_count.streams;
        *stream = (CUstream)made;
    }
    return sim_leave(result);
}

CUresult cuStreamDestroy(CUstream handle)
{
    CUresult result = sim_enter("cuStreamDestroy", SIM_CONTEXT);
    sim_stream_t *stream = sim_stream_of(handle);
    if (result == CUDA_SUCCESS && (stream == NULL || stream == &sim_default))
        result = CUDA_ERROR_INVALID_HANDLE;
    if (result == CUDA_SUCCESS && stream->capture)
        result = sim_capture_spoil(stream);
    if (result == CUDA_SUCCESS) {
        result = sim_run_to(stream, newest);
        for (sim_stream_t **at = &sim_streams; *at; at = &(*at)->next) {
            if (*at == stream) {
                *at = stream->next;
                break;
            }
        }
        stream->object.magic = SIM_DEAD;
        --sim_count.streams;
    }
    return sim_leave(result);
}

static CUresult stream_ready(const char *name, CUstream handle, sim_stream_t **stream_p)
{
    CUresult result = sim_enter(name, SIM_CONTEXT);
    *stream_p = sim_stream_of(handle);
    if (result != CUDA_SUCCESS)
        return result;
    if (*stream_p == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    return (*stream_p)->capture ? sim_capture_spoil(*stream_p) : sim_capture_beside(*stream_p);
}

CUresult cuStreamSynchronize(CUstream handle)
{
    sim_stream_t *stream;
    CUresult result = stream_ready("cuStreamSynchronize", handle, &stream);
    if (result == CUDA_SUCCESS) {
        ++sim_count.synchronizations;
        result = sim_run_to(stream, newest);
    }
    return sim_leave(result);
}

CUresult cuStreamQuery(CUstream handle)
{
    sim_stream_t *stream;
    CUresult result = stream_ready("cuStreamQuery", handle, &stream);
    ++sim_count.queries;
    if (result == CUDA_SUCCESS && raise_target(stream, newest)) {
        result = run(1);
        if (result == CUDA_SUCCESS)
            result = CUDA_ERROR_NOT_READY;
    }
    return sim_leave(result);
}

/* ---- events ---- */

static sim_event_t *event_of(CUevent event)
{
    return sim_is(event, SIM_EVENT) ? (sim_event_t *)event : NULL;
}

CUresult cuEventCreate(CUevent *event, unsigned flags)
{
    CUresult result = sim_enter("cuEventCreate", SIM_CONTEXT);
    if (result == CUDA_SUCCESS && (flags & ~7u))
        result = CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS) {
        sim_event_t *made = sim_object_create(sizeof *made, SIM_EVENT);
        made->timing = !(flags & CU_EVENT_DISABLE_TIMING);
        ++sim_count.events;
        *event = (CUevent)made;
    }
    return sim_leave(result);
}

CUresult cuEventDestroy(CUevent handle)
{
    CUresult result = sim_enter("cuEventDestroy", SIM_CONTEXT);
    sim_event_t *event = event_of(handle);
    if (result == CUDA_SUCCESS && event == NULL)
        result = CUDA_ERROR_INVALID_HANDLE;
    if (result == CUDA_SUCCESS) {
        sim_ticket_unref(event->ticket);
        event->ticket = NULL;
        event->object.magic = SIM_DEAD;
        --sim_count.events;
    }
    return sim_leave(result);
}

static CUresult record(sim_event_t *event, sim_stream_t *stream)
{
    if (event == NULL || stream == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    if (stream->capture)
        return sim_capture_record(stream, event);
    sim_op_t *op = sim_op_create(SIM_RECORD, 0);
    sim_ticket_t *ticket = sim_room_take(sizeof *ticket);
    *ticket = (sim_ticket_t){.refs = 2};
    op->ticket = ticket;
    CUresult result = sim_submit(stream, op);
    if (result != CUDA_SUCCESS) {
        sim_ticket_unref(ticket);
        return result;
    }
    sim_ticket_unref(event->ticket);
    event->ticket = ticket;
    event->capture = NULL;
    return CUDA_SUCCESS;
}

CUresult cuEventRecord(CUevent event, CUstream stream)
{
    CUresult result = sim_enter("cuEventRecord", SIM_CONTEXT);
    if (result == CUDA_SUCCESS)
        result = record(event_of(event), sim_stream_of(stream));
    return sim_leave(result);
}

static CUresult wait(sim_stream_t *stream, sim_event_t *event)
{
    if (event == NULL || stream == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    if (stream->capture || sim_capture_has(event))
        return sim_capture_wait(stream, event);
    if (event->ticket == NULL || event->ticket->done)
        return CUDA_SUCCESS;
    sim_op_t *op = sim_op_create(SIM_WAIT, 0);
    op->ticket = event->ticket;
    ++op->ticket->refs;
    return sim_submit(stream, op);
}

CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags)
{
    CUresult result = sim_enter("cuStreamWaitEvent", SIM_CONTEXT);
    if (result == CUDA_SUCCESS)
        result = wait(sim_stream_of(stream), event_of(event));
    return sim_leave(result);
}

static CUresult event_ready(const char *name, CUevent handle, sim_event_t **event_p)
{
    CUresult result = sim_enter(name, SIM_CONTEXT);
    *event_p = event_of(handle);
    if (result != CUDA_SUCCESS)
        return result;
    if (*event_p == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    return sim_capture_has(*event_p) ? CUDA_ERROR_CAPTURED_EVENT : CUDA_SUCCESS;
}

CUresult cuEventSynchronize(CUevent handle)
{
    sim_event_t *event;
    CUresult result = event_ready("cuEventSynchronize", handle, &event);
    if (result == CUDA_SUCCESS) {
        ++sim_count.synchronizations;
        if (event->ticket && !event->ticket->done)
            result = sim_run_to(event->ticket->stream, event->ticket->sequence);
    }
    return sim_leave(result);
}

CUresult cuEventQuery(CUevent handle)
{
    sim_event_t *event;
    CUresult result = event_ready("cuEventQuery", handle, &event);
    ++sim_count.queries;
    if (result == CUDA_SUCCESS && event->ticket && !event->ticket->done) {
        raise_target(event->ticket->stream, event->ticket->sequence);
        result = run(1);
        if (result == CUDA_SUCCESS)
            result = CUDA_ERROR_NOT_READY;
    }
    return sim_leave(result);
}

CUresult cuEventElapsedTime(float *ms, CUevent from, CUevent to)
{
    sim_event_t *first, *last = event_of(to);
    CUresult result = event_ready("cuEventElapsedTime", from, &first);
    if (result == CUDA_SUCCESS &&
        (!last || !first->timing || !last->timing || !first->ticket || !last->ticket || sim_capture_has(last)))
        result = CUDA_ERROR_INVALID_HANDLE;
    if (result == CUDA_SUCCESS && (!first->ticket->done || !last->ticket->done))
        result = CUDA_ERROR_NOT_READY;
    if (result == CUDA_SUCCESS)
        *ms = (float)(last->ticket->time_ms - first->ticket->time_ms);
    return sim_leave(result);
}
