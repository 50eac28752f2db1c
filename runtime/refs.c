/* refs.c - refs: what a client may name on its rank.
 *
 * The client chooses index and tag; the table only believes what it stored itself. A free slot has tag
 * 0, which no ref may carry. */
#include <stdlib.h>

#include "runtime/session.h"

static dj_ref_slot_t *slot_at(dj_session_t *session, uint32_t index)
{
    dj_ref_slot_t *chunk = session->refs.chunks[index / DJ_REF_CHUNK];
    return chunk ? &chunk[index % DJ_REF_CHUNK] : NULL;
}

/* A free slot for a new ref. */
static dj_status_t claim(dj_session_t *session, uint64_t ref, dj_ref_slot_t **slot_p)
{
    uint32_t index = (uint32_t)ref, tag = (uint32_t)(ref >> 32);
    if (index >= DJ_REFS_MAX || tag == 0)
        return dj_fail(DJ_ERR_LIMIT, "ref %#llx: the index must be below %u and the tag not 0",
                       (unsigned long long)ref, (unsigned)DJ_REFS_MAX);
    dj_ref_slot_t **chunk_p = &session->refs.chunks[index / DJ_REF_CHUNK];
    if (!*chunk_p && !(*chunk_p = calloc(DJ_REF_CHUNK, sizeof(**chunk_p))))
        return dj_fail(DJ_ERR_MEMORY, "no memory for refs");
    dj_ref_slot_t *slot = &(*chunk_p)[index % DJ_REF_CHUNK];
    if (slot->tag)
        return dj_fail(DJ_ERR_STALE, "ref %#llx: index %u is taken", (unsigned long long)ref, index);
    *slot_p = slot;
    return DJ_OK;
}

dj_status_t dj_ref_create(dj_session_t *session, uint64_t ref, uint64_t bytes,
                          dj_ref_slot_t **slot_p)
{
    dj_ref_slot_t *slot;
    dj_status_t status = claim(session, ref, &slot);
    if (status == DJ_OK)
        status = dj_data_alloc(session->data, bytes, bytes, &slot->block);
    if (status != DJ_OK)
        return status;
    slot->tag = (uint32_t)(ref >> 32);
    slot->text = NULL;
    dj_gauge_add(&session->refs.count, 1);
    *slot_p = slot;
    return DJ_OK;
}

dj_status_t dj_ref_create_text(dj_session_t *session, uint64_t ref, dj_text_t *text)
{
    dj_ref_slot_t *slot;
    dj_status_t status = claim(session, ref, &slot);
    if (status != DJ_OK)
        return status;
    slot->tag = (uint32_t)(ref >> 32);
    slot->text = text;
    dj_gauge_add(&session->refs.count, 1);
    return DJ_OK;
}

dj_status_t dj_ref_find(dj_session_t *session, uint64_t ref, dj_ref_slot_t **slot_p)
{
    uint32_t index = (uint32_t)ref, tag = (uint32_t)(ref >> 32);
    dj_ref_slot_t *slot = index < DJ_REFS_MAX ? slot_at(session, index) : NULL;
    if (!slot || !tag || slot->tag != tag)
        return dj_fail(DJ_ERR_STALE, "ref %#llx is not held by this session: it was released, lost "
                                     "with a failed request, or never made",
                       (unsigned long long)ref);
    *slot_p = slot;
    return DJ_OK;
}

static void clear_slot(dj_session_t *session, const dj_session_home_t *home, dj_ref_slot_t *slot)
{
    if (slot->text)
        dj_text_release(home->text, slot->text);
    else
        dj_data_free(session->data, &slot->block);
    *slot = (dj_ref_slot_t){0};
    dj_gauge_subtract(&session->refs.count, 1);
}

void dj_ref_drop(dj_session_t *session, const dj_session_home_t *home, uint64_t ref)
{
    dj_ref_slot_t *slot;
    if (dj_ref_find(session, ref, &slot) == DJ_OK)
        clear_slot(session, home, slot);
}

dj_status_t dj_ref_make_private(dj_session_t *session, const dj_session_home_t *home,
                                dj_ref_slot_t *slot)
{
    dj_block_t block;
    if (!slot->text)
        return DJ_OK;
    uint64_t bytes = slot->text->bytes;
    dj_status_t status = dj_data_alloc(session->data, bytes, bytes, &block);
    if (status != DJ_OK)
        return status;
    status = home->device->ops->memory.copy(home->device, block.data, slot->text->data, bytes);
    if (status != DJ_OK) {
        dj_data_free(session->data, &block);
        return status;
    }
    dj_text_release(home->text, slot->text);
    slot->text = NULL;
    slot->block = block;
    return DJ_OK;
}

void dj_refs_fini(dj_session_t *session, const dj_session_home_t *home)
{
    for (uint32_t c = 0; c < DJ_REFS_MAX / DJ_REF_CHUNK; c++) {
        dj_ref_slot_t *chunk = session->refs.chunks[c];
        for (uint32_t i = 0; chunk && i < DJ_REF_CHUNK; i++)
            if (chunk[i].tag)
                clear_slot(session, home, &chunk[i]);
        free(chunk);
        session->refs.chunks[c] = NULL;
    }
}
