/* graphs.c - capture and graphs.
 *
 * A stream that captures keeps the nodes its next one depends on, its leaves. An event recorded there takes a copy;
 * a stream that waits for such an event joins the capture with them. A graph is nodes with what they depend on, in
 * an order that is topological because nodes are made in it; with DJ_SIM_SEED a launch takes another such order. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "tests/gpu/simulator/inner.h"

typedef struct node {
    sim_op_t *op;
    sim_node_set_t *needs;
    bool done; /* scratch of a run */
} node_t;

typedef struct sim_graph {
    sim_object_t object;
    uint32_t n, room;
    node_t *nodes;
} sim_graph_t;

typedef struct sim_capture {
    sim_object_t object;
    sim_stream_t *origin;
    sim_graph_t *graph;
    CUstreamCaptureMode mode;
    pthread_t thread;
    bool spoiled, ended;
    struct sim_capture *next; /* of those not ended */
} sim_capture_t;

typedef struct sim_exec {
    sim_object_t object;
    uint32_t refs;
    sim_graph_t graph;
} sim_exec_t;

static sim_capture_t *captures;

/* ---- sets of nodes ---- */

static sim_node_set_t *set_create(uint32_t n)
{
    sim_node_set_t *set = calloc(1, sizeof *set + n * sizeof set->at[0]);
    if (set == NULL)
        abort();
    set->n = n;
    return set;
}

static bool set_has(const sim_node_set_t *set, uint32_t node)
{
    for (uint32_t i = 0; set && i < set->n; ++i) {
        if (set->at[i] == node)
            return true;
    }
    return false;
}

static sim_node_set_t *set_union(const sim_node_set_t *a, const sim_node_set_t *b)
{
    uint32_t na = a ? a->n : 0, nb = b ? b->n : 0;
    sim_node_set_t *set = set_create(na + nb);
    if (na)
        memcpy(set->at, a->at, na * sizeof set->at[0]);
    set->n = na;
    for (uint32_t i = 0; i < nb; ++i) {
        if (!set_has(a, b->at[i]))
            set->at[set->n++] = b->at[i];
    }
    return set;
}

static void set_replace(sim_node_set_t **at, sim_node_set_t *set)
{
    free(*at);
    *at = set;
}

/* ---- graphs ---- */

static void graph_add(sim_graph_t *graph, sim_op_t *op, sim_node_set_t *needs)
{
    if (graph->n == graph->room) {
        graph->room = graph->room ? graph->room * 2 : 64;
        graph->nodes = realloc(graph->nodes, graph->room * sizeof graph->nodes[0]);
        if (graph->nodes == NULL)
            abort();
    }
    graph->nodes[graph->n++] = (node_t){op, needs, false};
}

static void graph_clear(sim_graph_t *graph)
{
    for (uint32_t i = 0; i < graph->n; ++i) {
        sim_op_destroy(graph->nodes[i].op);
        free(graph->nodes[i].needs);
    }
    free(graph->nodes);
    graph->nodes = NULL;
    graph->n = graph->room = 0;
}

static sim_op_t *op_copy(const sim_op_t *op)
{
    sim_op_t *copy = sim_op_create(op->kind, op->bytes - sizeof *op);
    memcpy(copy, op, op->bytes);
    copy->next = NULL;
    if (op->kind == SIM_LAUNCH)
        ++op->exec->refs;
    return copy;
}

/* ---- what a capture forbids ---- */

CUresult sim_capture_spoil(sim_stream_t *stream)
{
    stream->capture->spoiled = true;
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
}

CUresult sim_capture_forbid(bool always)
{
    CUresult result = CUDA_SUCCESS;
    for (sim_capture_t *capture = captures; capture; capture = capture->next) {
        if (!always && capture->mode == CU_STREAM_CAPTURE_MODE_RELAXED)
            continue;
        if (!always && capture->mode == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL &&
            !pthread_equal(capture->thread, pthread_self()))
            continue;
        capture->spoiled = true;
        result = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    return result;
}

CUresult sim_capture_beside(const sim_stream_t *stream)
{
    CUresult result = CUDA_SUCCESS;
    for (sim_capture_t *capture = captures; stream == &sim_default && capture; capture = capture->next) {
        if (capture->origin->blocking) {
            capture->spoiled = true;
            result = CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
        }
    }
    return result;
}

/* ---- capturing ---- */

CUresult sim_capture_op(sim_stream_t *stream, sim_op_t *op)
{
    sim_capture_t *capture = stream->capture;
    if (capture->spoiled) {
        sim_op_destroy(op);
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    }
    graph_add(capture->graph, op, stream->leaves);
    stream->leaves = set_create(1);
    stream->leaves->at[0] = capture->graph->n - 1;
    return CUDA_SUCCESS;
}

bool sim_capture_has(const sim_event_t *event)
{
    return event->capture != NULL;
}

CUresult sim_capture_record(sim_stream_t *stream, sim_event_t *event)
{
    if (stream->capture->spoiled)
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    event->capture = stream->capture;
    set_replace(&event->leaves, set_union(stream->leaves, NULL));
    return CUDA_SUCCESS;
}

CUresult sim_capture_wait(sim_stream_t *stream, sim_event_t *event)
{
    sim_capture_t *capture = event->capture;
    if (capture == NULL) { /* the stream captures, the event is of work outside */
        if (stream->capture->spoiled)
            return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
        if (event->ticket == NULL)
            return CUDA_SUCCESS;
        stream->capture->spoiled = true;
        return CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
    }
    if (capture->ended)
        return CUDA_ERROR_CAPTURED_EVENT;
    if (capture->spoiled)
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (stream == &sim_default)
        return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
    if (stream->capture && stream->capture != capture) {
        stream->capture->spoiled = capture->spoiled = true;
        return CUDA_ERROR_STREAM_CAPTURE_MERGE;
    }
    stream->capture = capture;
    set_replace(&stream->leaves, set_union(stream->leaves, event->leaves));
    return CUDA_SUCCESS;
}

static CUresult begin(sim_stream_t *stream, CUstreamCaptureMode mode)
{
    if (stream == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    if (stream == &sim_default)
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (stream->capture)
        return CUDA_ERROR_ILLEGAL_STATE;
    sim_capture_t *capture = sim_object_create(sizeof *capture, SIM_CAPTURE);
    capture->origin = stream;
    capture->graph = sim_object_create(sizeof *capture->graph, SIM_GRAPH);
    capture->mode = mode;
    capture->thread = pthread_self();
    capture->next = captures;
    captures = capture;
    stream->capture = capture;
    set_replace(&stream->leaves, NULL);
    return CUDA_SUCCESS;
}

CUresult cuStreamBeginCapture(CUstream stream, CUstreamCaptureMode mode)
{
    CUresult result = sim_enter("cuStreamBeginCapture", SIM_CONTEXT);
    if (result == CUDA_SUCCESS)
        result = begin(sim_stream_of(stream), mode);
    return sim_leave(result);
}

/* Does all captured work end in the origin's leaves? */
static bool is_joined(const sim_capture_t *capture)
{
    const sim_graph_t *graph = capture->graph;
    bool *needed = calloc(graph->n + 1, sizeof *needed), joined = true;
    if (needed == NULL)
        abort();
    for (uint32_t i = 0; i < graph->n; ++i) {
        const sim_node_set_t *needs = graph->nodes[i].needs;
        for (uint32_t k = 0; needs && k < needs->n; ++k)
            needed[needs->at[k]] = true;
    }
    for (uint32_t i = 0; i < graph->n; ++i)
        joined &= needed[i] || set_has(capture->origin->leaves, i);
    free(needed);
    return joined;
}

static CUresult end(sim_stream_t *stream, sim_graph_t **graph_p)
{
    sim_capture_t *capture = stream ? stream->capture : NULL;
    if (capture == NULL)
        return stream ? CUDA_ERROR_ILLEGAL_STATE : CUDA_ERROR_INVALID_HANDLE;
    if (capture->origin != stream) {
        capture->spoiled = true;
        return CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
    }
    if (capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED && !pthread_equal(capture->thread, pthread_self()))
        return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
    CUresult result = capture->spoiled ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
                      : is_joined(capture) ? CUDA_SUCCESS : CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
    capture->ended = true;
    for (sim_capture_t **at = &captures; *at; at = &(*at)->next) {
        if (*at == capture) {
            *at = capture->next;
            break;
        }
    }
    for (sim_stream_t *each = sim_streams; each; each = each->next) {
        if (each->capture == capture) {
            each->capture = NULL;
            set_replace(&each->leaves, NULL);
        }
    }
    if (result == CUDA_SUCCESS) {
        ++sim_count.graphs;
        *graph_p = capture->graph;
    } else {
        graph_clear(capture->graph);
        capture->graph->object.magic = SIM_DEAD;
    }
    return result;
}

CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph)
{
    sim_graph_t *made = NULL;
    CUresult result = sim_enter("cuStreamEndCapture", SIM_CONTEXT);
    if (result == CUDA_SUCCESS)
        result = end(sim_stream_of(stream), &made);
    *graph = (CUgraph)made;
    return sim_leave(result);
}

/* ---- running graphs ---- */

static bool node_ready(const sim_graph_t *graph, const node_t *node)
{
    for (uint32_t k = 0; node->needs && k < node->needs->n; ++k) {
        if (!graph->nodes[node->needs->at[k]].done)
            return false;
    }
    return !node->done;
}

void sim_exec_run(sim_exec_t *exec)
{
    sim_graph_t *graph = &exec->graph;
    for (uint32_t i = 0; i < graph->n; ++i)
        graph->nodes[i].done = false;
    for (uint32_t k = 0; k < graph->n && sim_fault == CUDA_SUCCESS; ++k) {
        uint32_t i = k;
        if (sim_seed) {
            /* Somewhere there is a node that can run. */
            for (i = (uint32_t)(sim_draw() % graph->n); !node_ready(graph, &graph->nodes[i]);)
                i = (i + 1) % graph->n;
        }
        graph->nodes[i].done = true;
        sim_perform(graph->nodes[i].op);
    }
}

void sim_exec_unref(sim_exec_t *exec)
{
    if (--exec->refs == 0)
        graph_clear(&exec->graph);
}

CUresult cuGraphInstantiate(CUgraphExec *handle, CUgraph graph_handle, unsigned long long flags)
{
    CUresult result = sim_enter("cuGraphInstantiate", SIM_CONTEXT);
    if (result == CUDA_SUCCESS && !sim_is(graph_handle, SIM_GRAPH))
        result = CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS) {
        const sim_graph_t *graph = (const sim_graph_t *)graph_handle;
        sim_exec_t *exec = sim_object_create(sizeof *exec, SIM_EXEC);
        exec->refs = 1;
        for (uint32_t i = 0; i < graph->n; ++i)
            graph_add(&exec->graph, op_copy(graph->nodes[i].op), set_union(graph->nodes[i].needs, NULL));
        ++sim_count.graph_execs;
        *handle = (CUgraphExec)exec;
    }
    return sim_leave(result);
}

static CUresult exec_ready(const char *name, CUgraphExec exec, CUstream handle, sim_stream_t **stream_p)
{
    CUresult result = sim_enter(name, SIM_CONTEXT);
    *stream_p = sim_stream_of(handle);
    if (result == CUDA_SUCCESS && !sim_is(exec, SIM_EXEC))
        result = CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS && *stream_p == NULL)
        result = CUDA_ERROR_INVALID_HANDLE;
    return result;
}

CUresult cuGraphUpload(CUgraphExec exec, CUstream handle)
{
    sim_stream_t *stream;
    CUresult result = exec_ready("cuGraphUpload", exec, handle, &stream);
    if (result == CUDA_SUCCESS && stream->capture)
        result = sim_capture_spoil(stream);
    if (result == CUDA_SUCCESS)
        result = sim_submit(stream, sim_op_create(SIM_NOTHING, 0));
    return sim_leave(result);
}

CUresult cuGraphLaunch(CUgraphExec handle, CUstream stream_handle)
{
    sim_stream_t *stream;
    CUresult result = exec_ready("cuGraphLaunch", handle, stream_handle, &stream);
    if (result == CUDA_SUCCESS) {
        sim_op_t *op = sim_op_create(SIM_LAUNCH, 0);
        op->exec = (sim_exec_t *)handle;
        ++op->exec->refs;
        result = sim_submit(stream, op);
    }
    return sim_leave(result);
}

CUresult cuGraphDestroy(CUgraph handle)
{
    CUresult result = sim_enter("cuGraphDestroy", SIM_CONTEXT);
    if (result == CUDA_SUCCESS && !sim_is(handle, SIM_GRAPH))
        result = CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS) {
        graph_clear((sim_graph_t *)handle);
        ((sim_graph_t *)handle)->object.magic = SIM_DEAD;
        --sim_count.graphs;
    }
    return sim_leave(result);
}

CUresult cuGraphExecDestroy(CUgraphExec handle)
{
    CUresult result = sim_enter("cuGraphExecDestroy", SIM_CONTEXT);
    if (result == CUDA_SUCCESS && !sim_is(handle, SIM_EXEC))
        result = CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS) {
        ((sim_exec_t *)handle)->object.magic = SIM_DEAD;
        sim_exec_unref((sim_exec_t *)handle);
        --sim_count.graph_execs;
    }
    return sim_leave(result);
}
