/* report.c - the counters of one rank, gathered from where they are kept. */
#include "runtime/rank.h"

static void report_stores(dj_rank_t *rank, dj_report_t *report)
{
    dj_cache_counters_t plans;
    dj_text_counters_t text;
    dj_cache_counters(rank->home.cache, &plans);
    dj_text_counters(rank->home.text, &text);
    report->plan_hits = plans.hits;
    report->plan_resizes = plans.resizes;
    report->plan_misses = plans.misses;
    report->plan_received = plans.received;
    report->plan_adopted = plans.adopted;
    report->plan_rejected = plans.rejected;
    report->plan_loaded = plans.loaded;
    report->plan_improved = plans.improved;
    report->plan_evicted = plans.evicted;
    report->plan_entries = plans.entries;
    report->plan_bytes = plans.bytes;
    report->text_entries = text.entries;
    report->text_bytes = text.bytes;
    report->pack_bytes = text.pack_bytes;
    report->text_mapped_bytes = text.mapped_bytes;
    report->text_shared = text.shared;
    report->stack_bytes = dj_gauge_get(&rank->progress_runner.stack.committed_bytes) +
                          dj_gauge_get(&rank->device_runner.stack.committed_bytes);
}

void dj_rank_report(dj_rank_t *rank, dj_report_t *report)
{
    *report = (dj_report_t){0};
#define X(name) report->name = atomic_load_explicit(&rank->counters.name, memory_order_relaxed);
    DJ_COUNTER_LIST(X)
#undef X
    if (rank->serves)
        report_stores(rank, report);
}
