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

void dj_session_destroy(dj_session_t *session, const dj_session_home_t *home)
{
    size_t at = 0;
    dj_hash_t key;
    dj_cache_entry_t *entry;
    dj_refs_fini(session, home);
    while ((entry = dj_table_next(&session->shown.entries, &at, &key)))
        dj_cache_release(home->cache, entry);
    dj_table_fini(&session->shown.entries);
    dj_data_destroy(session->data);
    free(session);
}

dj_cache_entry_t *dj_session_plan(const dj_session_t *session, dj_hash_t exact_key)
{
    return dj_table_get(&session->shown.entries, exact_key);
}

static void forget(dj_session_t *session, const dj_session_home_t *home, dj_hash_t key)
{
    dj_cache_entry_t *entry = dj_table_remove(&session->shown.entries, key);
    if (entry)
        dj_cache_release(home->cache, entry);
}

dj_status_t dj_session_show(dj_session_t *session, const dj_session_home_t *home,
                            dj_hash_t exact_key, dj_cache_entry_t *entry)
{
    dj_shown_plans_t *shown = &session->shown;
    dj_hash_t *slot = &shown->ring[shown->count % DJ_SHOWN_MAX];
    forget(session, home, exact_key); /* shown twice: the later one counts */
    if (shown->count >= DJ_SHOWN_MAX)
        forget(session, home, *slot);
    *slot = exact_key;
    shown->count++;
    if (!entry)
        return DJ_OK;
    dj_status_t status = dj_table_put(&shown->entries, exact_key, entry);
    if (status != DJ_OK)
        dj_cache_release(home->cache, entry);
    return status;
}
