/* bound_text.h - what an executable remembers of bind(): the Text behind each binding. It is compared, never followed: an
 * executable holds no weight, only the request that runs does, so weights go with their sessions. The same for
 * every device.
 *
 * Threads: the executable's. */
#ifndef DJ_GPU_BOUND_TEXT_H
#define DJ_GPU_BOUND_TEXT_H

#include "gpu/text.h"

typedef struct dj_bound_text {
    dj_text_t *text;
    uint64_t serial;
} dj_bound_text_t;

static inline void dj_bound_texts_set(dj_bound_text_t *bound, dj_text_t *const *texts, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        bound[i] = (dj_bound_text_t){texts[i], texts[i] ? texts[i]->serial : 0};
}

static inline bool dj_bound_texts_are(const dj_bound_text_t *bound, dj_text_t *const *texts, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (bound[i].text != texts[i] || (texts[i] && bound[i].serial != texts[i]->serial))
            return false;
    return true;
}

#endif
