/* place_chain.c - see place_chain.h. Who hands over to whom is settled in order of time, each
 * newcomer taking the first that it may; those who die in a group are found by the step they die
 * at. */
#include "planner/place_chain.h"

#include <stdlib.h>
#include <string.h>

#define LOOKS_MAX 256u /* at places that died in its group, by one newcomer */

typedef struct dying {
    uint32_t *head, *next; /* by step; by place: another one that dies at the same step */
    uint32_t n_steps;
} dying_t;

static void list_dying(dying_t *dying, const dj_place_t *places, uint32_t n_places)
{
    for (uint32_t i = 0; i < dying->n_steps; i++)
        dying->head[i] = DJ_CHAIN_NONE;
    for (uint32_t i = n_places; i-- > 0;) {
        if (!places[i].hands_over || places[i].bytes == 0)
            continue;
        dying->next[i] = dying->head[places[i].last];
        dying->head[places[i].last] = i;
    }
}

/* The link to a place that this one may take over from, with `of` one that is in a chain; NULL:
 * there is none. *all_p: all were looked at. */
static uint32_t *find_donor(dying_t *dying, const dj_place_t *places, uint32_t number,
                            const uint32_t *of, bool *all_p)
{
    const dj_place_t *place = &places[number];
    uint32_t looks = 0;
    *all_p = true;
    for (uint32_t step = place->from; step < place->first; step++)
        for (uint32_t *link = &dying->head[step]; *link != DJ_CHAIN_NONE;
             link = &dying->next[*link]) {
            *all_p = ++looks <= LOOKS_MAX;
            if (!*all_p)
                return NULL;
            if (*link != number && (of == NULL || of[*link] != DJ_CHAIN_NONE) &&
                dj_places_meet(place, &places[*link]) &&
                dj_place_may_take_over(place, &places[*link]))
                return link;
        }
    return NULL;
}

static void join(dj_chains_t *chains, const dj_place_t *places, uint32_t n_places,
                 const uint32_t *by_time, dying_t *dying)
{
    for (uint32_t i = 0; i < n_places; i++)
        chains->of[i] = DJ_CHAIN_NONE;
    for (uint32_t i = 0; i < n_places; i++) {
        const dj_place_t *place = &places[by_time[i]];
        if (place->bytes == 0)
            continue;
        bool all;
        uint32_t *link =
            place->takes_over ? find_donor(dying, places, by_time[i], chains->of, &all) : NULL;
        if (link != NULL) {
            uint32_t donor = *link;
            *link = dying->next[donor]; /* it hands over once */
            dj_chain_t *chain = &chains->list[chains->of[donor]];
            chain->last = place->last > chain->last ? place->last : chain->last;
            chains->of[by_time[i]] = chains->of[donor];
            continue;
        }
        chains->of[by_time[i]] = chains->n;
        chains->list[chains->n++] =
            (dj_chain_t){.units = dj_align_up(place->bytes) / DJ_ALIGN_BYTES,
                         .from = place->from,
                         .last = place->last};
    }
}

static dj_status_t init_dying(dying_t *dying, const dj_place_t *places, uint32_t n_places,
                              uint32_t n_steps)
{
    dying->n_steps = n_steps;
    dying->head = malloc((n_steps + n_places + 1ull) * sizeof dying->head[0]);
    if (dying->head == NULL)
        return dj_fail(DJ_ERR_MEMORY, "no memory for %u steps and %u places", n_steps, n_places);
    dying->next = dying->head + n_steps;
    list_dying(dying, places, n_places);
    return DJ_OK;
}

/* Two places that are alive at once share no bytes; one that could take over is alive only from its
 * own first step, because it may lie where another lay before. */
dj_status_t dj_places_alive(const dj_place_t *places, uint32_t n_places, uint32_t n_steps,
                            uint64_t alignment, uint64_t *bytes_p)
{
    dying_t dying;
    uint64_t *change = calloc(n_steps + 1ull, sizeof *change), alive = 0, most = 0;
    if (change == NULL)
        return dj_fail(DJ_ERR_MEMORY, "no memory for %u steps", n_steps);
    dj_status_t status = init_dying(&dying, places, n_places, n_steps);
    for (uint32_t i = 0; i < n_places && status == DJ_OK; i++) {
        uint64_t bytes = (places[i].bytes + alignment - 1) / alignment * alignment;
        bool all = true, inherits = places[i].takes_over && places[i].from < places[i].first &&
                                    find_donor(&dying, places, i, NULL, &all) != NULL;
        change[inherits || !all ? places[i].first : places[i].from] += bytes;
        change[places[i].last + 1] -= bytes; /* wraps; the sums do not */
    }
    for (uint32_t i = 0; i < n_steps && status == DJ_OK; i++) {
        alive += change[i];
        most = alive > most ? alive : most;
    }
    free(change);
    if (status != DJ_OK)
        return status;
    free(dying.head);
    *bytes_p = most;
    return DJ_OK;
}

dj_status_t dj_chains_init(dj_chains_t *chains, const dj_place_t *places, uint32_t n_places,
                           const uint32_t *by_time)
{
    dying_t dying = {0};
    *chains = (dj_chains_t){0};
    for (uint32_t i = 0; i < n_places; i++)
        dying.n_steps = places[i].last >= dying.n_steps ? places[i].last + 1 : dying.n_steps;
    dj_status_t status = init_dying(&dying, places, n_places, dying.n_steps);
    chains->list = malloc((n_places + 1ull) * sizeof chains->list[0]);
    chains->of = malloc((n_places + 1ull) * sizeof chains->of[0]);
    if (status != DJ_OK || chains->list == NULL || chains->of == NULL) {
        free(status == DJ_OK ? dying.head : NULL);
        return dj_fail(DJ_ERR_MEMORY, "no memory to place %u tensors", n_places);
    }
    join(chains, places, n_places, by_time, &dying);
    free(dying.head);
    return DJ_OK;
}

void dj_chains_fini(dj_chains_t *chains)
{
    free(chains->list);
    free(chains->of);
    *chains = (dj_chains_t){0};
}

uint64_t dj_chains_end(const dj_chains_t *chains, const dj_place_t *places, uint32_t n_places,
                       uint64_t base)
{
    uint64_t end = base;
    for (uint32_t i = 0; i < n_places; i++) {
        if (chains->of[i] == DJ_CHAIN_NONE)
            continue;
        uint64_t own = base + chains->list[chains->of[i]].offset * DJ_ALIGN_BYTES + places[i].bytes;
        end = own > end ? own : end;
    }
    return end;
}

uint64_t dj_chains_apply(const dj_chains_t *chains, dj_place_t *places, uint32_t n_places,
                         uint64_t base)
{
    for (uint32_t i = 0; i < n_places; i++)
        places[i].offset = chains->of[i] == DJ_CHAIN_NONE
                               ? base
                               : base + chains->list[chains->of[i]].offset * DJ_ALIGN_BYTES;
    return dj_chains_end(chains, places, n_places, base);
}

/* Units alive at each step up to the last end; NULL: no memory. The caller frees it. */
static uint64_t *list_alive(const dj_chains_t *chains, uint32_t *first_p, uint32_t *n_steps_p)
{
    uint32_t n_steps = 0, first = UINT32_MAX;
    for (uint32_t i = 0; i < chains->n; i++) {
        n_steps = chains->list[i].last >= n_steps ? chains->list[i].last + 1 : n_steps;
        first = chains->list[i].from < first ? chains->list[i].from : first;
    }
    uint64_t *alive = calloc(n_steps + 1ull, sizeof alive[0]);
    for (uint32_t i = 0; alive != NULL && i < chains->n; i++) { /* changes first, then sums */
        alive[chains->list[i].from] += chains->list[i].units;
        alive[chains->list[i].last + 1] -= chains->list[i].units; /* wraps; the sums do not */
    }
    for (uint32_t i = 1; alive != NULL && i < n_steps; i++)
        alive[i] += alive[i - 1];
    *first_p = first;
    *n_steps_p = n_steps;
    return alive;
}

dj_status_t dj_chains_alive(const dj_chains_t *chains, uint64_t *least_p, uint64_t *most_p)
{
    uint32_t n_steps, first;
    uint64_t least = UINT64_MAX, most = 0, *alive = list_alive(chains, &first, &n_steps);
    if (alive == NULL)
        return dj_fail(DJ_ERR_MEMORY, "no memory for %u steps", n_steps);
    for (uint32_t i = first; i < n_steps; i++) {
        most = alive[i] > most ? alive[i] : most;
        least = alive[i] < least ? alive[i] : least;
    }
    free(alive);
    *least_p = chains->n > 0 ? least : 0;
    *most_p = most;
    return DJ_OK;
}

bool dj_chains_crowd(dj_chains_t *chains, uint64_t looks)
{
    uint32_t n_steps, first;
    uint64_t needed = 0;
    for (uint32_t i = 0; i < chains->n; i++) {
        chains->list[i].crowd = 0;
        needed += chains->list[i].last - chains->list[i].from + 1ull;
    }
    uint64_t *alive = needed <= looks ? list_alive(chains, &first, &n_steps) : NULL;
    for (uint32_t i = 0; alive != NULL && i < chains->n; i++) {
        dj_chain_t *chain = &chains->list[i];
        for (uint32_t step = chain->from; step <= chain->last; step++)
            chain->crowd = alive[step] > chain->crowd ? alive[step] : chain->crowd;
    }
    bool known = alive != NULL;
    free(alive);
    return known;
}
