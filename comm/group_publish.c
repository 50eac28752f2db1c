/* group_publish.c - publications: to come. */
#include "comm/group_state.h"

dj_status_t dj_group_publish(dj_group_t *group, const void *data, uint64_t bytes)
{
    return dj_fail(DJ_ERR_UNSUPPORTED, "no publications yet");
}

dj_status_t dj_publication_message(dj_group_t *group, const dj_group_step_t *step,
                                   const dj_incoming_t *incoming, void **memory_p, void **token_p)
{
    return dj_group_refuse(group, "no publications yet");
}

bool dj_publications_tend(dj_group_t *group)
{
    return false;
}

void dj_publications_lost(dj_group_t *group, uint32_t member)
{
}

void dj_publications_fini(dj_group_t *group)
{
}
