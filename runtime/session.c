/* session.c - sessions come and go with everything they hold. */
#include <stdlib.h>

#include "runtime/session.h"

dj_status_t dj_session_create(const dj_session_home_t *home, uint64_t id, dj_session_t **session_p)
{
    dj_session_t *session = calloc(1, sizeof(*session));
    if (!session)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a session");
    dj_status_t status = dj_data_create(home->device, home->config->data_bytes,
                                        home->config->data_quota_bytes, &session->data);
    if (status != DJ_OK) {
        free(session);
        return status;
    }
    session->id = id;
    session->generation = 1;
    session->last_job_p = &session->first_job;
    session->default_deadline_ms = home->config->deadline_ms;
    *session_p = session;
    return DJ_OK;
}

dj_cache_entry_t dj_parked;

/* Lets go of an entry of the table, if it is one. */
static void let_go(const dj_session_home_t *home, dj_cache_entry_t *entry)
{
    if (entry && entry != DJ_PARKED)
        dj_cache_release(home->cache, entry);
}

static void release_leaving(dj_session_t *session, const dj_session_home_t *home)
{
    while (session->shown.n_leaving)
        let_go(home, session->shown.leaving[--session->shown.n_leaving]);
}

void dj_session_destroy(dj_session_t *session, const dj_session_home_t *home)
{
    size_t at = 0;
    dj_hash_t key;
    dj_cache_entry_t *entry;
    dj_refs_fini(session, home);
    release_leaving(session, home);
    while ((entry = dj_table_next(&session->shown.entries, &at, &key)))
        let_go(home, entry);
    dj_table_fini(&session->shown.entries);
    dj_data_destroy(session->data);
    free(session);
}

dj_cache_entry_t *dj_session_plan(const dj_session_t *session, dj_hash_t exact_key)
{
    return dj_table_get(&session->shown.entries, exact_key);
}

/* The request under way may have found the entry by its key: it goes when that is over. */
static void push_out(dj_session_t *session, const dj_session_home_t *home, dj_hash_t key)
{
    dj_shown_plans_t *shown = &session->shown;
    dj_cache_entry_t *entry = dj_table_remove(&shown->entries, key);
    if (entry && shown->n_leaving < DJ_EXEC_SEGMENTS_MAX)
        shown->leaving[shown->n_leaving++] = entry;
    else
        let_go(home, entry);
}

dj_status_t dj_session_show(dj_session_t *session, const dj_session_home_t *home,
                            dj_hash_t exact_key, dj_cache_entry_t *entry)
{
    dj_shown_plans_t *shown = &session->shown;
    dj_hash_t *slot = &shown->ring[shown->count % DJ_SHOWN_MAX];
    /* shown twice: the later one counts, and is the same unless it was refused */
    let_go(home, dj_table_remove(&shown->entries, exact_key));
    if (shown->count >= DJ_SHOWN_MAX)
        push_out(session, home, *slot);
    *slot = exact_key;
    shown->count++;
    if (!entry)
        return DJ_OK;
    dj_status_t status = dj_table_put(&shown->entries, exact_key, entry);
    if (status != DJ_OK)
        dj_cache_release(home->cache, entry);
    return status;
}

dj_status_t dj_session_recall(dj_session_t *session, const dj_session_home_t *home,
                              dj_hash_t exact_key, dj_cache_entry_t *entry)
{
    dj_status_t status = dj_table_put(&session->shown.entries, exact_key, entry);
    session->shown.n_parked = 0; /* one of those before it is there again */
    if (status != DJ_OK)
        dj_cache_release(home->cache, entry);
    return status;
}

/* Parks the entry of a key, if there is one and the cache takes its program. */
static void park(dj_session_t *session, const dj_session_home_t *home, dj_hash_t key)
{
    dj_cache_entry_t *entry = dj_session_plan(session, key);
    if (entry && entry != DJ_PARKED && dj_cache_park(home->cache, entry) == DJ_OK &&
        dj_table_put(&session->shown.entries, key, DJ_PARKED) == DJ_OK)
        dj_cache_release(home->cache, entry);
}

void dj_session_settle(dj_session_t *session, const dj_session_home_t *home)
{
    enum { KEPT = 16 };
    dj_shown_plans_t *shown = &session->shown;
    uint64_t oldest = shown->count > DJ_SHOWN_MAX ? shown->count - DJ_SHOWN_MAX : 0;
    release_leaving(session, home);
    uint64_t next = shown->n_parked > oldest ? shown->n_parked : oldest;
    for (; next + KEPT < shown->count && dj_cache_is_heavy(home->cache); next++)
        park(session, home, shown->ring[next % DJ_SHOWN_MAX]);
    shown->n_parked = next;
}
