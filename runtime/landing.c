/* landing.c - bytes from a client on their way to a ref: UPLOAD and PUT.
 *
 * Where nothing else of the session is pending, they land at once where they will stay: in the block
 * of their ref, or in a draft of Text; a transfer of many megabytes is then copied once. A landing
 * may also follow other landings that have not ended, as long as no two of them write the same bytes.
 * Everything else goes through ingress and is applied when its turn comes.
 *
 * Beside a blind device nothing lands in place: all goes through ingress, but for a large weight, which
 * arrives in a bounce buffer of its own, as large as its draft, and is hashed there. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "runtime/rank.h"

enum {
    LOOK_AHEAD = 16,
    SHORT_BYTES = 64 << 10, /* copied in well under what the progress thread may take */
};

static dj_status_t check_range(const dj_ref_slot_t *slot, uint64_t offset, uint64_t bytes)
{
    uint64_t have = dj_ref_bytes(slot);
    if (offset <= have && bytes <= have - offset)
        return DJ_OK;
    return dj_fail(DJ_ERR_SHAPE, "%llu bytes put at %llu of a ref of %llu",
                   (unsigned long long)bytes, (unsigned long long)offset, (unsigned long long)have);
}

/* Only landings are before this job, which is the queue's last. */
static bool may_land(const dj_job_t *job)
{
    return job->session->pending == job->session->landing + 1;
}

static void note_landing(dj_job_t *job)
{
    job->landed = true;
    job->session->landing++;
}

/* ---- landing ---- */

static dj_status_t check_upload(const dj_upload_t *upload, uint64_t payload_bytes)
{
    if (upload->flags & ~(uint32_t)(DJ_UPLOAD_WEIGHT | DJ_UPLOAD_EMPTY) ||
        upload->flags == (DJ_UPLOAD_WEIGHT | DJ_UPLOAD_EMPTY))
        return dj_fail(DJ_ERR_PROTOCOL, "UPLOAD: unknown flags 0x%x", upload->flags);
    uint64_t wanted = upload->flags & DJ_UPLOAD_EMPTY ? 0 : upload->bytes;
    if (wanted != payload_bytes)
        return dj_fail(DJ_ERR_PROTOCOL, "UPLOAD announces %llu bytes and brings %llu",
                       (unsigned long long)wanted, (unsigned long long)payload_bytes);
    return DJ_OK;
}

/* `payload` NULL: a rendezvous, else it is here and may as well wait in ingress. */
static dj_status_t place_beside(dj_rank_t *rank, dj_job_t *job, void **memory_p)
{
    if (!(job->upload.flags & DJ_UPLOAD_WEIGHT) || job->payload || !job->payload_bytes)
        return DJ_OK;
    dj_status_t status = dj_text_draft(rank->home.text, job->payload_bytes, &job->draft);
    if (status == DJ_OK)
        status = dj_bounce_take(rank->home.bounce, job->payload_bytes, &job->bounce);
    *memory_p = job->bounce.memory;
    return status;
}

static dj_status_t place_upload(dj_rank_t *rank, dj_job_t *job, void **memory_p)
{
    const dj_upload_t *upload = &job->upload;
    dj_ref_slot_t *slot;
    dj_status_t status = check_upload(upload, job->payload_bytes);
    if (status != DJ_OK)
        return status;
    if (dj_home_is_blind(&rank->home))
        return place_beside(rank, job, memory_p);
    if (upload->flags & DJ_UPLOAD_WEIGHT) {
        status = dj_text_draft(rank->home.text, job->payload_bytes, &job->draft);
        if (status == DJ_OK)
            *memory_p = job->draft->data;
        return status;
    }
    if (!may_land(job))
        return DJ_OK;
    status = dj_ref_create(job->session, upload->ref, upload->bytes, &slot);
    if (status == DJ_OK) {
        note_landing(job);
        *memory_p = slot->block.data;
    }
    return status;
}

/* Whether a landing that has not ended writes any of these bytes. */
static bool overlaps(const dj_job_t *job)
{
    const dj_put_t *mine = &job->put;
    for (const dj_job_t *at = job->session->first_job; at != job; at = at->next) {
        if (at->header.type == DJ_MESSAGE_UPLOAD && at->upload.ref == mine->ref)
            return true;
        if (at->header.type == DJ_MESSAGE_PUT && at->put.ref == mine->ref &&
            at->put.offset < mine->offset + mine->bytes &&
            mine->offset < at->put.offset + at->put.bytes)
            return true;
    }
    return false;
}

static dj_status_t place_put(dj_rank_t *rank, dj_job_t *job, void **memory_p)
{
    dj_ref_slot_t *slot;
    dj_status_t status = dj_put_check(&job->put, job->payload_bytes);
    if (status != DJ_OK)
        return status;
    if (job->put.n_parts || !may_land(job) || dj_home_is_blind(&rank->home))
        return DJ_OK;
    if ((status = dj_ref_find(job->session, job->put.ref, &slot)) != DJ_OK)
        return status;
    if (slot->text)
        return DJ_OK; /* moves out of Text when its turn comes */
    if ((status = check_range(slot, job->put.offset, job->put.bytes)) != DJ_OK)
        return status;
    note_landing(job);
    *memory_p = (uint8_t *)slot->block.data + job->put.offset;
    return overlaps(job) ? DJ_IN_PROGRESS : DJ_OK;
}

/* Landings at the head of the queue that wait for others no more. */
void dj_landing_admit(dj_rank_t *rank, dj_session_t *session)
{
    dj_ref_slot_t *slot;
    int seen = 0;
    for (dj_job_t *job = session->first_job; job && job->landed && seen < LOOK_AHEAD;
         job = job->next, seen++) {
        if (!job->hold || overlaps(job))
            continue;
        void *hold = job->hold;
        job->hold = NULL;
        if (dj_ref_find(session, job->put.ref, &slot) == DJ_OK) /* only requests behind could drop it */
            dj_comm_accept(rank->comm, hold, (uint8_t *)slot->block.data + job->put.offset);
    }
}

dj_status_t dj_landing_place(dj_rank_t *rank, dj_job_t *job, void **memory_p)
{
    if (job->header.type == DJ_MESSAGE_UPLOAD)
        return place_upload(rank, job, memory_p);
    if (job->header.type == DJ_MESSAGE_PUT)
        return place_put(rank, job, memory_p);
    return DJ_OK;
}

/* ---- applying ---- */

/* Takes the draft over. `data`: its bytes, where they are not in it yet. */
static dj_status_t publish(dj_rank_t *rank, dj_session_t *session, uint64_t ref, dj_text_t *draft,
                           const void *data)
{
    dj_text_t *text;
    dj_hash_t content;
    dj_status_t status = DJ_OK;
    if (data) {
        status = dj_text_name_of(data, draft->bytes, &content);
        if (status == DJ_OK)
            status = dj_rank_copy_in(rank, draft->data, data, draft->bytes);
        if (status != DJ_OK) {
            dj_text_discard(rank->home.text, draft);
            return status;
        }
        status = dj_text_publish_as(rank->home.text, draft, content, (uint32_t)getuid(), &text);
    } else {
        status = dj_text_publish(rank->home.text, draft, (uint32_t)getuid(), &text);
    }
    if (status != DJ_OK)
        return status;
    status = dj_ref_create_text(session, ref, text);
    if (status != DJ_OK)
        dj_text_release(rank->home.text, text);
    return status;
}

static dj_status_t new_weight(dj_rank_t *rank, dj_session_t *session, uint64_t ref, const void *data,
                              uint64_t bytes)
{
    dj_text_t *draft;
    dj_status_t status = dj_text_draft(rank->home.text, bytes, &draft);
    return status == DJ_OK ? publish(rank, session, ref, draft, bytes ? data : "") : status;
}

static dj_status_t apply_upload(dj_rank_t *rank, dj_job_t *job)
{
    dj_ref_slot_t *slot;
    if (job->draft) {
        dj_text_t *draft = job->draft;
        job->draft = NULL;
        return publish(rank, job->session, job->upload.ref, draft, job->bounce.memory);
    }
    if (job->upload.flags & DJ_UPLOAD_WEIGHT)
        return new_weight(rank, job->session, job->upload.ref, job->payload, job->upload.bytes);
    dj_status_t status = dj_ref_create(job->session, job->upload.ref, job->upload.bytes, &slot);
    if (status == DJ_OK && !(job->upload.flags & DJ_UPLOAD_EMPTY))
        status = dj_rank_copy_in(rank, slot->block.data, job->payload, job->upload.bytes);
    return status;
}

static dj_status_t find_place(dj_rank_t *rank, dj_session_t *session, uint64_t ref, uint64_t offset, uint64_t bytes,
                              void **place_p)
{
    dj_ref_slot_t *slot;
    dj_status_t status = dj_ref_find(session, ref, &slot);
    if (status == DJ_OK)
        status = check_range(slot, offset, bytes);
    if (status == DJ_OK)
        status = dj_ref_make_private(session, &rank->home, slot);
    if (status == DJ_OK)
        *place_p = (uint8_t *)slot->block.data + offset;
    return status;
}

static dj_status_t write_ref(dj_rank_t *rank, dj_session_t *session, uint64_t ref, uint64_t offset,
                             const void *data, uint64_t bytes)
{
    void *place;
    dj_status_t status = find_place(rank, session, ref, offset, bytes, &place);
    return status == DJ_OK ? dj_rank_copy_in(rank, place, data, bytes) : status;
}

static dj_status_t apply_single(dj_rank_t *rank, dj_job_t *job)
{
    const dj_put_t *put = &job->put;
    void *place;
    if (!job->owned.memory) /* eager: UCX's */
        return write_ref(rank, job->session, put->ref, put->offset, job->payload, put->bytes);
    dj_status_t status = find_place(rank, job->session, put->ref, put->offset, put->bytes, &place);
    return status == DJ_OK ? dj_rank_drain(rank, place, &job->owned, 0, put->bytes) : status;
}

bool dj_landing_is_short(dj_session_t *session, const dj_put_t *put)
{
    dj_ref_slot_t *slot;
    return put->n_parts == 0 && put->bytes <= SHORT_BYTES &&
           (dj_ref_find(session, put->ref, &slot) != DJ_OK || !slot->text);
}

bool dj_landing_at_once(dj_rank_t *rank, dj_session_t *session, const dj_incoming_t *incoming)
{
    const dj_put_t *put = incoming->body;
    if (session->pending || put->n_parts || !(put->flags & DJ_PUT_QUIET) || incoming->rendezvous ||
        !dj_landing_is_short(session, put) || incoming->corrupt || incoming->header->request <= session->last_seen_request ||
        dj_put_check(put, incoming->payload_bytes) != DJ_OK ||
        write_ref(rank, session, put->ref, put->offset, incoming->payload, put->bytes) != DJ_OK)
        return false;
    session->last_seen_request = incoming->header->request;
    atomic_fetch_add_explicit(&rank->counters.requests, 1, memory_order_relaxed);
    return true;
}

static dj_status_t apply_part(dj_rank_t *rank, dj_session_t *session, const dj_put_part_t *part,
                              const void *data)
{
    dj_ref_slot_t *slot;
    if (!(part->flags & DJ_PART_NEW))
        return write_ref(rank, session, part->ref, part->offset, data, part->bytes);
    if (part->flags & DJ_PART_WEIGHT)
        return new_weight(rank, session, part->ref, data, part->bytes);
    dj_status_t status = dj_ref_create(session, part->ref, part->bytes, &slot);
    if (status == DJ_OK)
        status = dj_rank_copy_in(rank, slot->block.data, data, part->bytes);
    return status;
}

/* A part that fails costs the others nothing: their refs are used by requests behind this one. */
static dj_status_t apply_put(dj_rank_t *rank, dj_job_t *job)
{
    const dj_put_part_t *parts = NULL;
    const uint8_t *data = job->payload;
    dj_status_t first = dj_put_decode(&job->put, job->payload, job->payload_bytes, &parts);
    if (first != DJ_OK)
        return first;
    if (!parts)
        return apply_single(rank, job);
    char text[DJ_ERROR_TEXT_MAX];
    uint64_t at = dj_put_data_offset(job->put.n_parts);
    for (uint32_t i = 0; i < job->put.n_parts; i++) {
        dj_status_t status = apply_part(rank, job->session, &parts[i], data + at);
        if (status != DJ_OK && first == DJ_OK) {
            first = status;
            snprintf(text, sizeof(text), "%s", dj_error_text());
        }
        at = dj_put_next_offset(at, &parts[i]);
    }
    return first == DJ_OK ? DJ_OK : dj_fail(first, "%s", text);
}

dj_status_t dj_landing_apply(dj_rank_t *rank, dj_job_t *job)
{
    if (job->landed)
        return DJ_OK;
    return job->header.type == DJ_MESSAGE_PUT ? apply_put(rank, job) : apply_upload(rank, job);
}
