/* execute.c - runs one job: every segment is resolved before the first kernel, then replayed.
 *
 * Resolution finds the plan, checks offsets and sizes, makes room for outputs, moves a written weight out
 * of Text, and checks peak against the limit. If anything fails there, nothing has run and what was made
 * is dropped again. After it, replay cannot fail for want of memory. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gpu/poison.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/rank.h"

#define DJ_LOG_MODULE "runtime"
#define DJ_SHORT_NS 20000           /* contract 5: the progress thread replays plans below this */
#define DJ_PREDICTION_MARGIN 10.0
#define DJ_RELEASE_INLINE_BYTES (2ull << 20)
#define DJ_POISON_MARGIN (1u << 20) /* watched beyond the predicted peak */
#define DJ_IMMEDIATE_ALIGN 64       /* what clients align immediates to, and blind devices want */

/* A test's allocator interposer (tests/tools/alloc_count.c) provides these; without it they are NULL. */
extern uint64_t dj_alloc_count(void) __attribute__((weak));

dj_status_t dj_runner_init(dj_runner_t *runner, const dj_rank_t *rank)
{
    dj_status_t status = dj_segment_init(&runner->stack, rank->home.device,
                                         rank->config->stack_bytes + DJ_POISON_MARGIN);
    return status == DJ_OK ? dj_segment_init(&runner->spill, rank->home.device,
                                             rank->config->spill_bytes + DJ_ALIGN_BYTES)
                           : status;
}

void dj_runner_fini(dj_runner_t *runner)
{
    if (runner->stack.device)
        dj_segment_fini(&runner->stack);
    if (runner->spill.device)
        dj_segment_fini(&runner->spill);
    free(runner->bindings);
    free(runner->texts);
    free(runner->temporaries);
    dj_bytes_fini(&runner->scratch);
}

static dj_status_t reserve_bindings(dj_runner_t *runner, uint32_t count)
{
    if (count <= runner->room)
        return DJ_OK;
    void *bindings = realloc(runner->bindings, count * sizeof(void *));
    if (bindings)
        runner->bindings = bindings;
    void *texts = realloc(runner->texts, count * sizeof(void *));
    if (texts)
        runner->texts = texts;
    if (!bindings || !texts)
        return dj_fail(DJ_ERR_MEMORY, "no memory for %u bindings", count);
    runner->room = count;
    return DJ_OK;
}

/* ---- plans of a request ---- */

/* A program that this session has shown and that was let go for want of memory: made again from what the
 * cache kept of it. */
static dj_status_t recall(dj_rank_t *rank, dj_runner_t *runner, dj_job_t *job,
                          const dj_exec_segment_t *segment, dj_cache_entry_t **entry_p)
{
    dj_hash_t key = segment->header.exact_key;
    dj_cache_entry_t *entry = dj_cache_find(rank->home.cache, key);
    dj_bytes_t structure = {0}, sizes = {0}, plan = {0};
    dj_status_t status = DJ_OK;
    if (entry) {
        job->answer.result.plan_hits++;
    } else if (dj_cache_published(rank->home.cache, key, &structure, &sizes, &plan) == DJ_OK) {
        dj_exec_segment_t whole = *segment;
        whole.structure = structure.data;
        whole.sizes = sizes.data;
        whole.header.program_key = dj_program_key(structure.data, structure.size);
        whole.header.structure_bytes = (uint32_t)structure.size;
        whole.header.sizes_bytes = (uint32_t)sizes.size;
        status = dj_compile(rank, runner, job, &whole, &entry);
    } else {
        status = dj_fail(DJ_ERR_NO_PLAN, "the program was given up, because programs weigh more than "
                                         "%llu bytes here: raise --plan-bytes",
                         (unsigned long long)rank->config->plan_bytes);
    }
    dj_bytes_fini(&structure);
    dj_bytes_fini(&sizes);
    dj_bytes_fini(&plan);
    if (status == DJ_OK)
        status = dj_session_recall(job->session, &rank->home, key, entry);
    if (status == DJ_OK)
        *entry_p = entry;
    return status;
}

static dj_status_t find_plan(dj_rank_t *rank, dj_runner_t *runner, dj_job_t *job,
                             const dj_exec_segment_t *segment, dj_cache_entry_t **entry_p)
{
    const dj_segment_header_t *header = &segment->header;
    dj_session_t *session = job->session;
    dj_cache_entry_t *entry;
    if (!(header->flags & DJ_SEGMENT_STRUCTURE)) {
        entry = dj_session_plan(session, header->exact_key);
        if (!entry)
            return dj_fail(DJ_ERR_NO_PLAN, "the program was never shown here, or was refused when "
                                           "it was");
        if (entry == DJ_PARKED)
            return recall(rank, runner, job, segment, entry_p);
        job->answer.result.plan_hits++;
        dj_cache_count_hit(rank->home.cache, entry);
        *entry_p = entry;
        return DJ_OK;
    }
    entry = dj_cache_find(rank->home.cache, header->exact_key);
    dj_status_t status;
    if (entry) {
        status = dj_cache_compare(entry, segment->structure, header->structure_bytes,
                                  segment->sizes, header->sizes_bytes);
        if (status != DJ_OK) {
            dj_cache_release(rank->home.cache, entry);
            entry = NULL;
        } else {
            job->answer.result.plan_hits++;
        }
    } else {
        status = dj_compile(rank, runner, job, segment, &entry);
    }
    char text[DJ_ERROR_TEXT_MAX];
    snprintf(text, sizeof(text), "%s", dj_error_text());
    dj_status_t shown = dj_session_show(session, &rank->home, header->exact_key, entry);
    *entry_p = entry;
    return status != DJ_OK ? dj_fail(status, "%s", text) : shown;
}

static dj_status_t check_counts(const dj_exec_segment_t *segment, const dj_graph_t *graph)
{
    const dj_segment_header_t *header = &segment->header;
    if (header->n_inputs != graph->n_inputs ||
        header->n_outputs != graph->n_bindings - graph->n_inputs ||
        header->n_scalars != graph->n_scalars)
        return dj_fail(DJ_ERR_PROTOCOL,
                       "the program has %u inputs, %u outputs and %u scalars; the request brings "
                       "%u, %u and %u", graph->n_inputs, graph->n_bindings - graph->n_inputs,
                       graph->n_scalars, header->n_inputs, header->n_outputs, header->n_scalars);
    return dj_graph_check_offsets(graph, segment->scalars);
}

/* ---- bindings ---- */

typedef struct dj_resolution {
    dj_rank_t *rank;
    dj_runner_t *runner;
    dj_job_t *job;
    const dj_exec_body_t *body;
    uint8_t *immediates; /* a blind device's copy of all immediate bytes, once one is bound */
} dj_resolution_t;

dj_status_t dj_runner_borrow(dj_runner_t *runner, dj_session_t *session, uint64_t bytes,
                             void **data_p)
{
    if (runner->n_temporaries == runner->temporaries_room) {
        uint32_t room = runner->temporaries_room * 2 + 8;
        void *grown = realloc(runner->temporaries, room * sizeof(*runner->temporaries));
        if (!grown)
            return dj_fail(DJ_ERR_MEMORY, "no memory for a private copy");
        runner->temporaries = grown;
        runner->temporaries_room = room;
    }
    dj_block_t *block = &runner->temporaries[runner->n_temporaries];
    dj_status_t status = dj_data_alloc(session->data, bytes, bytes, block);
    if (status != DJ_OK)
        return status;
    runner->n_temporaries++;
    *data_p = block->data;
    return DJ_OK;
}

static dj_status_t private_copy(const dj_resolution_t *r, const void *data, uint64_t bytes,
                                void **data_p)
{
    dj_status_t status = dj_runner_borrow(r->runner, r->job->session, bytes, data_p);
    return status == DJ_OK ? dj_rank_copy_in(r->rank, *data_p, data, bytes) : status;
}

/* Where a blind device finds immediate bytes: all of the request's are copied in together, at the first. What
 * the client has not aligned, kernels may not read where it lies. */
static dj_status_t device_copy(dj_resolution_t *r, const dj_binding_t *binding, void **data_p)
{
    dj_status_t status = DJ_OK;
    void *all;
    if (binding->offset % DJ_IMMEDIATE_ALIGN)
        return private_copy(r, r->body->data + binding->offset, binding->bytes, data_p);
    if (!r->immediates && (status = private_copy(r, r->body->data, r->job->exec.data_bytes, &all)) == DJ_OK)
        r->immediates = all;
    if (status == DJ_OK)
        *data_p = r->immediates + binding->offset;
    return status;
}

static dj_status_t bind_immediate(dj_resolution_t *r, const dj_binding_t *binding,
                                  bool written, void **data_p)
{
    const dj_exec_t *exec = &r->job->exec;
    dj_ref_slot_t *slot;
    if (binding->offset % 8 || binding->offset > exec->data_bytes ||
        binding->bytes > exec->data_bytes - binding->offset)
        return dj_fail(DJ_ERR_PROTOCOL, "immediate bytes %llu at %llu of a region of %llu",
                       (unsigned long long)binding->bytes, (unsigned long long)binding->offset,
                       (unsigned long long)exec->data_bytes);
    const uint8_t *bytes = r->body->data + binding->offset;
    if (!binding->ref) {
        *data_p = (void *)bytes;
        if (written)
            return private_copy(r, bytes, binding->bytes, data_p);
        return dj_home_is_blind(&r->rank->home) ? device_copy(r, binding, data_p) : DJ_OK;
    }
    dj_status_t status = dj_ref_create(r->job->session, binding->ref, binding->bytes, &slot);
    if (status != DJ_OK)
        return status;
    *data_p = slot->block.data;
    status = dj_rank_copy_in(r->rank, *data_p, bytes, binding->bytes);
    if (status != DJ_OK)
        dj_ref_drop(r->job->session, &r->rank->home, binding->ref);
    return status;
}

static dj_status_t bind_input(dj_resolution_t *r, const dj_storage_t *storage,
                              const dj_binding_t *binding, void **data_p, dj_text_t **text_p)
{
    dj_ref_slot_t *slot = NULL;
    uint64_t bytes = binding->bytes;
    *text_p = NULL;
    if (binding->offset == DJ_BINDING_REF) {
        dj_status_t status = dj_ref_find(r->job->session, binding->ref, &slot);
        if (status != DJ_OK)
            return status;
        bytes = dj_ref_bytes(slot);
    }
    if (bytes != storage->bytes) /* before anything is made */
        return dj_fail(DJ_ERR_SHAPE, "an input has %llu bytes where the program says %llu",
                       (unsigned long long)bytes, (unsigned long long)storage->bytes);
    if (!slot)
        return bind_immediate(r, binding, storage->is_output, data_p);
    if (storage->is_output) {
        dj_status_t status = dj_ref_make_private(r->job->session, &r->rank->home, slot);
        if (status != DJ_OK)
            return status;
    }
    *data_p = dj_ref_data(slot);
    *text_p = slot->text;
    return DJ_OK;
}

static void drop_outputs(const dj_resolution_t *r, const dj_exec_segment_t *segment,
                         uint32_t n_inputs, uint32_t n_outputs)
{
    for (uint32_t i = 0; i < n_inputs; i++)
        if (segment->inputs[i].offset != DJ_BINDING_REF && segment->inputs[i].ref)
            dj_ref_drop(r->job->session, &r->rank->home, segment->inputs[i].ref);
    for (uint32_t i = 0; i < n_outputs; i++)
        dj_ref_drop(r->job->session, &r->rank->home, segment->outputs[i]);
}

/* Pointers for one segment, from bindings[0] on; refs made here are dropped again on failure. */
static dj_status_t bind_segment(dj_resolution_t *r, const dj_exec_segment_t *segment,
                                const dj_graph_t *graph, void **bindings, dj_text_t **texts)
{
    dj_status_t status = DJ_OK;
    uint32_t in, out = 0;
    for (in = 0; in < graph->n_inputs; in++) {
        status = bind_input(r, &graph->storages[graph->bindings[in]], &segment->inputs[in],
                            &bindings[in], &texts[in]);
        if (status != DJ_OK) {
            dj_fail_prefix(status, "input %u", in);
            break;
        }
    }
    for (; status == DJ_OK && out < segment->header.n_outputs; out++) {
        dj_ref_slot_t *slot;
        uint32_t binding = graph->n_inputs + out;
        status = dj_ref_create(r->job->session, segment->outputs[out],
                               graph->storages[graph->bindings[binding]].bytes, &slot);
        if (status != DJ_OK)
            break;
        bindings[binding] = slot->block.data;
        texts[binding] = NULL;
    }
    if (status != DJ_OK)
        drop_outputs(r, segment, in, out);
    return status;
}

/* ---- replay ---- */

/* One replay over a slab full of `value`; *peak_p is the highest byte changed, plus one. */
static dj_status_t replay_poisoned(dj_executable_t *exe, const dj_launch_t *launch,
                                   uint64_t predicted, uint8_t value, uint64_t *peak_p)
{
    uint64_t watched = predicted + DJ_POISON_MARGIN, peak = 0;
    dj_status_t status = dj_poison_fill_slab(exe->device, launch->stack, watched, value);
    if (status != DJ_OK)
        return status;
    uint64_t allocations = dj_alloc_count ? dj_alloc_count() : 0;
    status = exe->ops->replay(exe, launch);
    if (status != DJ_OK)
        return status;
    if (dj_alloc_count && dj_alloc_count() != allocations)
        return dj_fail(DJ_ERR_INTERNAL, "replay allocated memory %llu times",
                       (unsigned long long)(dj_alloc_count() - allocations));
    status = dj_poison_peak_slab(exe->device, launch->stack, watched, value, &peak);
    *peak_p = peak > *peak_p ? peak : *peak_p;
    return status;
}

static bool writes_inputs(const dj_graph_t *graph)
{
    for (uint32_t i = 0; i < graph->n_inputs; i++)
        if (graph->storages[graph->bindings[i]].is_output)
            return true;
    return false;
}

/* Predicted peak = measured peak, or the request fails. A last byte written with the poison's own value
 * hides; a second replay over the complement shows it, where a program may run twice. One that writes
 * its inputs may not: there a storage's last eight bytes are given the benefit of the doubt. */
static dj_status_t replay_and_measure(dj_rank_t *rank, dj_executable_t *exe,
                                      const dj_launch_t *launch, uint64_t predicted)
{
    uint64_t measured = 0, slack = 0;
    dj_status_t status = replay_poisoned(exe, launch, predicted, DJ_POISON_BYTE, &measured);
    if (status != DJ_OK && status != DJ_ERR_INTERNAL)
        return status; /* an index out of range, say: it stopped half-way */
    atomic_fetch_add(&rank->counters.peak_checks, 1);
    if (status == DJ_OK && measured < predicted) {
        if (writes_inputs(exe->graph))
            slack = 7;
        else
            status = replay_poisoned(exe, launch, predicted, (uint8_t)~DJ_POISON_BYTE, &measured);
    }
    if (status == DJ_OK && measured <= predicted && predicted - measured <= slack)
        return DJ_OK;
    atomic_fetch_add(&rank->counters.peak_mismatches, 1);
    return status != DJ_OK
               ? status
               : dj_fail(DJ_ERR_INTERNAL, "predicted peak %llu bytes, measured %llu",
                         (unsigned long long)predicted, (unsigned long long)measured);
}

/* `plan` is what room was made for; the executable's must be the same. */
dj_status_t dj_replay(dj_rank_t *rank, dj_runner_t *runner, dj_executable_t *exe,
                      const dj_plan_t *plan, const uint64_t *scalars, void *const *bindings)
{
    dj_launch_t launch = {bindings, runner->stack.base, runner->spill.base, scalars};
    return rank->config->poison ? replay_and_measure(rank, exe, &launch, plan->peak_bytes)
                                : exe->ops->replay(exe, &launch);
}

static void note_peak(dj_rank_t *rank, dj_job_t *job, uint64_t peak)
{
    if (peak > job->answer.result.stack_peak_bytes)
        job->answer.result.stack_peak_bytes = peak;
    if (peak > atomic_load_explicit(&rank->counters.stack_peak_bytes, memory_order_relaxed))
        atomic_store_explicit(&rank->counters.stack_peak_bytes, peak, memory_order_relaxed);
}

/* ---- EXEC ---- */

/* Everything of one request on this thread's stack. */
typedef struct dj_execution {
    dj_exec_segment_t segments[DJ_EXEC_SEGMENTS_MAX];
    dj_cache_entry_t *entries[DJ_EXEC_SEGMENTS_MAX];
    uint32_t first_binding[DJ_EXEC_SEGMENTS_MAX];
    dj_exec_body_t body;
} dj_execution_t;

/* A request whose kernels are predicted to run far past its deadline would hold the device for nothing.
 * Predictions err, so they must be past it by a wide margin. */
static dj_status_t check_time(const dj_job_t *job, double predicted_ns)
{
    double allowed_ns = (double)(job->deadline_ns - job->arrived_ns);
    if (predicted_ns < DJ_PREDICTION_MARGIN * allowed_ns)
        return DJ_OK;
    return dj_fail(DJ_ERR_DEADLINE,
                   "the request is predicted to take %.0f s, its deadline is %.3f s: send less at "
                   "once or raise --deadline-ms", predicted_ns / 1e9, allowed_ns / 1e9);
}

static dj_status_t plan_all(dj_rank_t *rank, dj_runner_t *runner, dj_job_t *job,
                            dj_execution_t *execution)
{
    uint32_t n_bindings = 0;
    dj_status_t status = DJ_OK, first = DJ_OK;
    uint64_t peak = 0, spill = 0;
    double predicted_ns = 0;
    char text[DJ_ERROR_TEXT_MAX];
    for (uint32_t i = 0; i < job->exec.n_segments; i++) {
        dj_cache_entry_t *entry = NULL;
        /* all are shown even after a failure: the client counts on it */
        status = find_plan(rank, runner, job, &execution->segments[i], &entry);
        if (status == DJ_OK)
            status = check_counts(&execution->segments[i], entry->graph);
        if (status != DJ_OK && first == DJ_OK) {
            first = status;
            job->answer.result.segment = i;
            snprintf(text, sizeof(text), "%s", dj_error_text());
        }
        execution->entries[i] = entry;
        execution->first_binding[i] = n_bindings;
        if (entry) {
            const dj_fold_t *fold = dj_fold_of(entry->executable);
            uint64_t fold_peak = fold ? dj_fold_peak(fold) : 0;
            n_bindings += entry->graph->n_bindings + entry->graph->n_folded;
            peak = fold_peak > peak ? fold_peak : peak;
            predicted_ns += (double)entry->plan->predicted_ns;
            peak = entry->plan->peak_bytes > peak ? entry->plan->peak_bytes : peak;
            spill = entry->plan->spill_bytes > spill ? entry->plan->spill_bytes : spill;
        }
    }
    if (first != DJ_OK)
        return dj_fail(first, "%s", text);
    if (peak > rank->config->stack_bytes)
        return dj_fail(DJ_ERR_RESOURCE,
                       "the request needs %llu bytes of Stack, the rank allows %llu: send less at "
                       "once or raise --stack-bytes",
                       (unsigned long long)peak, (unsigned long long)rank->config->stack_bytes);
    if ((status = check_time(job, predicted_ns)) != DJ_OK)
        return status;
    note_peak(rank, job, peak);
    status = dj_segment_grow(&runner->stack, peak + (rank->config->poison ? DJ_POISON_MARGIN : 0));
    if (status == DJ_OK && spill > 0)
        status = dj_segment_grow(&runner->spill, spill);
    return status == DJ_OK ? reserve_bindings(runner, n_bindings) : status;
}

static dj_status_t bind_all(dj_resolution_t *r, dj_execution_t *execution)
{
    uint32_t n = r->job->exec.n_segments;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = execution->first_binding[i];
        const dj_graph_t *graph = execution->entries[i]->graph;
        dj_status_t status = bind_segment(r, &execution->segments[i], graph,
                                          r->runner->bindings + at, r->runner->texts + at);
        if (status == DJ_OK)
            continue;
        r->job->answer.result.segment = i;
        for (uint32_t before = 0; before < i; before++)
            drop_outputs(r, &execution->segments[before], execution->segments[before].header.n_inputs,
                         execution->segments[before].header.n_outputs);
        return status;
    }
    return DJ_OK;
}

static dj_status_t run_all(const dj_resolution_t *r, dj_execution_t *execution)
{
    for (uint32_t i = 0; i < r->job->exec.n_segments; i++) {
        dj_cache_entry_t *entry = execution->entries[i];
        dj_executable_t *exe = entry->executable;
        uint32_t at = execution->first_binding[i];
        dj_folding_t folding = {r->rank, r->runner, r->job, execution->segments[i].scalars,
                                r->runner->bindings + at, r->runner->texts + at};
        dj_status_t status = DJ_OK;
        if (dj_fold_of(exe))
            status = dj_fold_bind(dj_fold_of(exe), &folding);
        if (status == DJ_OK && !exe->ops->reentrant(exe) && !exe->ops->bound(exe, folding.texts))
            status = exe->ops->bind(exe, folding.texts);
        if (status == DJ_OK)
            status = dj_replay(r->rank, r->runner, exe, entry->plan, folding.scalars,
                               folding.bindings);
        if (status != DJ_OK) {
            r->job->answer.result.segment = i;
            return status;
        }
    }
    return DJ_OK;
}

/* Before anything runs, when the refs of all outputs are there already. */
static dj_status_t check_fetches(const dj_job_t *job, const dj_fetch_t *fetches)
{
    for (uint32_t i = 0; i < job->exec.n_fetches; i++) {
        dj_ref_slot_t *slot;
        dj_status_t status = dj_ref_find(job->session, fetches[i].ref, &slot);
        if (status != DJ_OK)
            return status;
        uint64_t have = dj_ref_bytes(slot);
        if (fetches[i].offset > have || fetches[i].bytes > have - fetches[i].offset)
            return dj_fail(DJ_ERR_SHAPE, "fetch %u wants %llu bytes at %llu of a ref of %llu", i,
                           (unsigned long long)fetches[i].bytes,
                           (unsigned long long)fetches[i].offset, (unsigned long long)have);
    }
    return DJ_OK;
}

/* A blind device's: one after another into one buffer, which leaves as one piece. */
static dj_status_t copy_fetches(dj_rank_t *rank, dj_job_t *job, const dj_fetch_t *fetches)
{
    uint64_t bytes = 0, limit = rank->config->ingress_bytes;
    for (uint32_t i = 0; i < job->exec.n_fetches; i++) {
        if (fetches[i].bytes > limit - bytes)
            return dj_fail(DJ_ERR_RESOURCE, "the request fetches more than %llu bytes, which must wait in host "
                                            "memory: fetch less at once or raise --ingress-bytes",
                           (unsigned long long)limit);
        bytes += fetches[i].bytes;
    }
    dj_status_t status = dj_direct_take(rank, job->session->direct, bytes, &job->bounce);
    uint64_t at = 0;
    for (uint32_t i = 0; i < job->exec.n_fetches && status == DJ_OK; i++) {
        dj_ref_slot_t *slot;
        status = dj_ref_find(job->session, fetches[i].ref, &slot);
        if (status == DJ_OK)
            status = dj_rank_fill(rank, &job->bounce, at, (const uint8_t *)dj_ref_data(slot) + fetches[i].offset,
                                  fetches[i].bytes);
        at += fetches[i].bytes;
    }
    if (status != DJ_OK)
        return status;
    job->pieces[0] = (dj_piece_t){job->bounce.memory, bytes};
    job->n_pieces = bytes > 0;
    job->answer.result.bytes = bytes;
    return DJ_OK;
}

static dj_status_t collect_fetches(dj_job_t *job, const dj_fetch_t *fetches)
{
    uint64_t bytes = 0;
    uint32_t n = job->exec.n_fetches;
    for (uint32_t i = 0; i < n; i++) {
        dj_ref_slot_t *slot;
        dj_status_t status = dj_ref_find(job->session, fetches[i].ref, &slot);
        if (status != DJ_OK)
            return status;
        const uint8_t *data = (const uint8_t *)dj_ref_data(slot) + fetches[i].offset;
        bytes += fetches[i].bytes;
        if (n <= DJ_PIECES_MAX)
            job->pieces[job->n_pieces++] = (dj_piece_t){data, fetches[i].bytes};
        else
            dj_bytes_put(&job->reply, data, fetches[i].bytes);
    }
    if (job->reply.failed)
        return dj_fail(DJ_ERR_MEMORY, "no memory for an answer of %llu bytes",
                       (unsigned long long)bytes);
    job->answer.result.bytes = bytes;
    return DJ_OK;
}

static void free_temporaries(dj_runner_t *runner, dj_session_t *session)
{
    while (runner->n_temporaries)
        dj_data_free(session->data, &runner->temporaries[--runner->n_temporaries]);
}

/* After a failure: outputs hold nothing anybody should read. Immediates stay where kernels may have read
 * them already (`ran`); otherwise all that this request made goes. */
static void drop_all(const dj_resolution_t *r, const dj_execution_t *execution, bool ran)
{
    for (uint32_t i = 0; i < r->job->exec.n_segments; i++) {
        const dj_exec_segment_t *segment = &execution->segments[i];
        drop_outputs(r, segment, ran ? 0 : segment->header.n_inputs, segment->header.n_outputs);
    }
}

static dj_status_t execute(dj_rank_t *rank, dj_runner_t *runner, dj_job_t *job)
{
    dj_execution_t execution;
    dj_status_t status = dj_exec_decode(&job->exec, job->payload, job->payload_bytes,
                                        execution.segments, DJ_EXEC_SEGMENTS_MAX, &execution.body);
    if (status != DJ_OK)
        return status;
    dj_resolution_t r = {rank, runner, job, &execution.body, NULL};
    status = plan_all(rank, runner, job, &execution);
    if (status == DJ_OK)
        status = bind_all(&r, &execution);
    if (status == DJ_OK) {
        status = check_fetches(job, execution.body.fetches);
        bool ran = status == DJ_OK;
        if (ran)
            status = run_all(&r, &execution);
        if (status != DJ_OK)
            drop_all(&r, &execution, ran);
    }
    free_temporaries(runner, job->session);
    if (status == DJ_OK && job->exec.n_fetches)
        status = dj_home_is_blind(&rank->home) ? copy_fetches(rank, job, execution.body.fetches)
                                               : collect_fetches(job, execution.body.fetches);
    return status;
}

/* ---- jobs ---- */

void dj_job_execute(dj_rank_t *rank, dj_runner_t *runner, dj_job_t *job)
{
    if (!job->started_ns) /* a job that runs as it arrives has started then */
        job->started_ns = dj_clock_ns();
    dj_status_t status = job->status;
    if (status == DJ_OK && job->started_ns > job->deadline_ns) {
        status = dj_fail(DJ_ERR_DEADLINE, "the request waited past its deadline");
    } else if (status == DJ_OK) {
        if (job->header.type == DJ_MESSAGE_EXEC)
            status = execute(rank, runner, job);
        else if (job->header.type == DJ_MESSAGE_PULL)
            dj_pull_copy(rank, job);
        else if (job->header.type == DJ_MESSAGE_LOAD)
            status = dj_load_execute(rank, job);
        else
            status = dj_landing_apply(rank, job);
    }
    if (status != DJ_OK && job->status == DJ_OK) {
        dj_rank_heed(rank, status);
        job->status = status;
        snprintf(job->text, sizeof(job->text), "%s", dj_error_text());
    }
    if (dj_job_stands_alone(job))
        dj_job_release(rank, job);
    dj_session_settle(job->session, &rank->home);
    uint64_t ran_ns = dj_clock_ns() - job->started_ns;
    job->answer.result.queue_ns = job->started_ns - job->arrived_ns;
    job->answer.result.run_ns = ran_ns - job->answer.result.planning_ns;
    job->session->busy_ns += ran_ns;
    atomic_fetch_add_explicit(&rank->counters.busy_ns, ran_ns, memory_order_relaxed);
}

static uint64_t fetched_bytes(const dj_job_t *job, const dj_exec_body_t *body)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < job->exec.n_fetches && bytes <= DJ_TENSOR_BYTES_MAX; i++)
        bytes += body->fetches[i].bytes <= DJ_TENSOR_BYTES_MAX ? body->fetches[i].bytes : DJ_TENSOR_BYTES_MAX;
    return bytes;
}

/* Pages take a while to return. */
static bool releases_much(const dj_job_t *job, const dj_exec_body_t *body)
{
    enum { MANY = 4096 };
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < job->exec.n_releases && bytes <= DJ_RELEASE_INLINE_BYTES; i++) {
        dj_ref_slot_t *slot;
        if (dj_ref_find(job->session, body->releases[i], &slot) == DJ_OK)
            bytes += dj_ref_bytes(slot);
    }
    return bytes > DJ_RELEASE_INLINE_BYTES || job->exec.n_releases > MANY;
}

bool dj_job_is_short(dj_rank_t *rank, dj_job_t *job)
{
    dj_exec_segment_t segments[4];
    dj_exec_body_t body;
    uint64_t predicted_ns = 0;
    if (job->landed)
        return true;
    if (job->header.type == DJ_MESSAGE_PUT)
        return dj_landing_is_short(job->session, &job->put);
    if (job->header.type != DJ_MESSAGE_EXEC || job->exec.n_segments > 4 || rank->config->poison)
        return false;
    if (dj_exec_decode(&job->exec, job->payload, job->payload_bytes, segments, 4, &body) != DJ_OK)
        return true; /* the refusal is short */
    if (releases_much(job, &body))
        return false;
    if (dj_home_is_blind(&rank->home) && fetched_bytes(job, &body) > DJ_COPY_INLINE_BYTES)
        return false; /* copied out first */
    for (uint32_t i = 0; i < job->exec.n_segments; i++) {
        if (segments[i].header.flags & DJ_SEGMENT_STRUCTURE)
            return false;
        dj_cache_entry_t *entry = dj_session_plan(job->session, segments[i].header.exact_key);
        if (!entry)
            return true;
        if (entry == DJ_PARKED)
            return false;
        if (dj_exchange_holds(rank, entry))
            return false;
        const dj_executable_t *exe = entry->executable;
        predicted_ns += entry->plan->predicted_ns;
        if (predicted_ns > DJ_SHORT_NS || !exe->ops->reentrant(exe) || dj_fold_of(exe))
            return false;
    }
    return true;
}
