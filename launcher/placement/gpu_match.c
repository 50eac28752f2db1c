/* gpu_match.c - picks GPUs for ranks, orders them along their links, gives each a NIC. */
#include <stdlib.h>
#include <string.h>

#include "launcher/placement/flow.h"
#include "launcher/placement/placement_steps.h"
#include "launcher/placement/route.h"

#define TIE 4096 /* above any sum of indices: of equals, the lower GPU */

uint32_t dj_near_cost(dj_near_t near)
{
    static const uint32_t costs[] = {0, 1, 2, 4, 6, 16};
    return (uint32_t)near < sizeof costs / sizeof costs[0] ? costs[near] : 16;
}

static uint32_t fastest_link(const dj_topology_t *topology)
{
    uint32_t best = 0;
    for (uint32_t i = 0; i < topology->n_gpus; i++) {
        for (uint32_t k = 0; k < topology->n_gpus; k++) {
            if (topology->nvlink_mbps[i][k] > best)
                best = topology->nvlink_mbps[i][k];
        }
    }
    return best;
}

static uint32_t link_cost(const dj_topology_t *topology, uint32_t a, uint32_t b, uint32_t fastest)
{
    uint64_t mbps = topology->nvlink_mbps[a][b];
    if (mbps == 0)
        return 8 + dj_near_cost(topology->gpu_gpu[a][b]);
    return (uint32_t)(7 - 7 * mbps / fastest);
}

uint32_t dj_link_cost(const dj_topology_t *topology, uint32_t gpu_a, uint32_t gpu_b)
{
    return link_cost(topology, gpu_a, gpu_b, fastest_link(topology));
}

static bool counts(const dj_nic_t *nic)
{
    return nic->rdma && nic->active;
}

/* ---- NICs, and which GPUs, by flow ---- */

/* Of the GPUs in `set`, `n` with a NIC each at the least cost. Writes the pairs in rising order of
 * GPU where they are asked for. Nodes: source, sink, GPUs, NICs. */
static dj_status_t pick_by_flow(const dj_topology_t *topology, uint64_t set, uint32_t n,
                                int32_t *gpus, int32_t *nics, uint32_t *cost_p)
{
    uint32_t own[DJ_GPUS_MAX], pair[DJ_GPUS_MAX][DJ_NICS_MAX];
    const uint32_t sink = 1, gpu_0 = 2, nic_0 = gpu_0 + topology->n_gpus;
    uint32_t edges = DJ_GPUS_MAX + topology->n_gpus * topology->n_nics + topology->n_nics * n;
    dj_flow_t *flow;
    int64_t cost;
    dj_status_t status = dj_flow_create(nic_0 + topology->n_nics, edges, &flow);
    if (status != DJ_OK)
        return status;
    for (uint32_t g = 0; g < topology->n_gpus; g++) {
        if (!(set >> g & 1))
            continue;
        own[g] = dj_flow_edge(flow, 0, gpu_0 + g, 1, (int32_t)g);
        for (uint32_t k = 0; k < topology->n_nics; k++) {
            if (counts(&topology->nic[k]))
                pair[g][k] = dj_flow_edge(flow, gpu_0 + g, nic_0 + k, 1,
                                          TIE * (int32_t)dj_near_cost(topology->gpu_nic[g][k]));
        }
    }
    for (uint32_t k = 0; k < topology->n_nics; k++) {
        for (uint32_t guest = 0; guest < n && counts(&topology->nic[k]); guest++)
            dj_flow_edge(flow, nic_0 + k, sink, 1, (int32_t)(TIE * DJ_SHARED_NIC_COST * guest));
    }
    dj_flow_run(flow, 0, sink, n, &cost);
    *cost_p = (uint32_t)(cost / TIE);
    uint32_t at = 0;
    for (uint32_t g = 0; g < topology->n_gpus && gpus; g++) {
        if (!(set >> g & 1) || dj_flow_on(flow, own[g]) == 0)
            continue;
        gpus[at] = (int32_t)g;
        for (uint32_t k = 0; k < topology->n_nics; k++) {
            if (counts(&topology->nic[k]) && dj_flow_on(flow, pair[g][k]))
                nics[at] = (int32_t)k;
        }
        at++;
    }
    dj_flow_destroy(flow);
    return DJ_OK;
}

static bool any_nic_counts(const dj_topology_t *topology)
{
    bool any = false;
    for (uint32_t k = 0; k < topology->n_nics; k++)
        any = any || counts(&topology->nic[k]);
    return any;
}

/* n GPUs of `set` and their NICs, in rising order. */
static dj_status_t pick(dj_match_t *match, uint64_t set)
{
    uint32_t at = 0;
    for (uint32_t i = 0; i < DJ_GPUS_MAX; i++)
        match->nic[i] = -1;
    if (any_nic_counts(match->topology))
        return pick_by_flow(match->topology, set, match->n, match->gpu, match->nic,
                            &match->nic_cost);
    for (uint32_t g = 0; g < match->topology->n_gpus && at < match->n; g++) {
        if (set >> g & 1)
            match->gpu[at++] = (int32_t)g;
    }
    match->nic_cost = 0;
    return DJ_OK;
}

/* ---- the order ---- */

/* Puts GPUs and their NICs into the order that `order` gives. */
static void reorder(dj_match_t *match, const uint32_t *order)
{
    int32_t nic_of[DJ_GPUS_MAX];
    for (uint32_t i = 0; i < match->n; i++)
        nic_of[match->gpu[i]] = match->nic[i];
    for (uint32_t i = 0; i < match->n; i++) {
        match->gpu[i] = (int32_t)order[i];
        match->nic[i] = nic_of[order[i]];
    }
}

static uint32_t links_of(const dj_topology_t *topology, const uint32_t *order, uint32_t n,
                         uint32_t fastest)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i + 1 < n; i++)
        sum += link_cost(topology, order[i], order[i + 1], fastest);
    return sum;
}

/* Nearest neighbour, then reversing stretches while that helps. */
static void order_roughly(const dj_topology_t *topology, uint32_t *order, uint32_t n,
                          uint32_t fastest)
{
    for (uint32_t i = 1; i < n; i++) {
        uint32_t best = i;
        for (uint32_t k = i + 1; k < n; k++) {
            if (link_cost(topology, order[i - 1], order[k], fastest) <
                link_cost(topology, order[i - 1], order[best], fastest))
                best = k;
        }
        uint32_t taken = order[best];
        memmove(&order[i + 1], &order[i], (best - i) * sizeof order[0]);
        order[i] = taken;
    }
    for (uint32_t turn = 0, better = 1; better && turn < 32; turn++) {
        better = 0;
        for (uint32_t from = 0; from < n; from++) {
            for (uint32_t to = from + 1; to < n; to++) {
                uint32_t was = links_of(topology, order, n, fastest);
                for (uint32_t a = from, b = to; a < b; a++, b--) {
                    uint32_t kept = order[a];
                    order[a] = order[b];
                    order[b] = kept;
                }
                if (links_of(topology, order, n, fastest) < was) {
                    better = 1;
                    continue;
                }
                for (uint32_t a = from, b = to; a < b; a++, b--) {
                    uint32_t kept = order[a];
                    order[a] = order[b];
                    order[b] = kept;
                }
            }
        }
    }
}

static int by_place(const void *a, const void *b, void *context)
{
    const dj_topology_t *topology = context;
    const uint32_t *left = a, *right = b;
    const dj_gpu_t *x = &topology->gpu[*left], *y = &topology->gpu[*right];
    if (x->package != y->package)
        return x->package < y->package ? -1 : 1;
    if (x->node != y->node)
        return x->node < y->node ? -1 : 1;
    return *left < *right ? -1 : *left > *right;
}

/* ---- sets for the dynamic program ---- */

typedef struct sets {
    const dj_topology_t *topology;
    uint32_t gpu[DJ_ROUTE_MAX], alone[DJ_ROUTE_MAX]; /* of each place: its GPU, its cost alone */
    uint32_t n_places, pick;
    bool failed;
} sets_t;

static uint32_t surcharge(void *context, uint32_t places)
{
    sets_t *sets = context;
    uint64_t set = 0;
    uint32_t alone = 0, cost;
    for (uint32_t i = 0; i < sets->n_places; i++) {
        if (places >> i & 1) {
            set |= 1ull << sets->gpu[i];
            alone += sets->alone[i];
        }
    }
    if (pick_by_flow(sets->topology, set, sets->pick, NULL, NULL, &cost) != DJ_OK) {
        sets->failed = true;
        return 0;
    }
    return cost - alone;
}

static dj_status_t order_exactly(dj_match_t *match, uint32_t fastest)
{
    const dj_topology_t *topology = match->topology;
    sets_t sets = {.topology = topology, .pick = match->n};
    uint32_t order[DJ_ROUTE_MAX];
    bool nics = any_nic_counts(topology);
    dj_route_t route = {.pick = match->n, .context = &sets, .surcharge = nics ? surcharge : NULL};
    for (uint32_t g = 0; g < topology->n_gpus; g++) {
        if (!(match->usable >> g & 1))
            continue;
        uint32_t least = nics ? UINT32_MAX : 0;
        for (uint32_t k = 0; k < topology->n_nics && nics; k++) {
            uint32_t cost = dj_near_cost(topology->gpu_nic[g][k]);
            if (counts(&topology->nic[k]) && cost < least)
                least = cost;
        }
        sets.alone[route.n] = least;
        route.place[route.n] = (uint16_t)least;
        sets.gpu[route.n++] = g;
    }
    sets.n_places = route.n;
    for (uint32_t i = 0; i < route.n; i++) {
        for (uint32_t k = 0; k < route.n; k++)
            route.step[i][k] =
                i == k ? 0 : (uint16_t)link_cost(topology, sets.gpu[i], sets.gpu[k], fastest);
    }
    dj_status_t status = dj_route_find(&route, order, &match->exact);
    if (status == DJ_OK && sets.failed)
        status = dj_fail(DJ_ERR_MEMORY, "no memory to compare sets of GPUs");
    uint64_t set = 0;
    for (uint32_t i = 0; i < match->n && status == DJ_OK; i++) {
        order[i] = sets.gpu[order[i]];
        set |= 1ull << order[i];
    }
    if (status == DJ_OK)
        status = pick(match, set);
    if (status == DJ_OK)
        reorder(match, order);
    return status;
}

/* Whether it makes no difference which of the usable GPUs are neighbours. */
static bool is_even(const dj_match_t *match, uint32_t fastest)
{
    uint32_t seen = UINT32_MAX;
    for (uint32_t i = 0; i < match->topology->n_gpus; i++) {
        for (uint32_t k = 0; k < i; k++) {
            if (!(match->usable >> i & 1) || !(match->usable >> k & 1))
                continue;
            uint32_t cost = link_cost(match->topology, i, k, fastest);
            if (seen != UINT32_MAX && cost != seen)
                return false;
            seen = cost;
        }
    }
    return true;
}

dj_status_t dj_match_gpus(dj_match_t *match)
{
    uint32_t order[DJ_GPUS_MAX], fastest = fastest_link(match->topology);
    uint32_t usable = (uint32_t)__builtin_popcountll(match->usable);
    bool even = is_even(match, fastest) || match->n <= 1;
    match->exact = true;
    if (match->n == 0)
        return DJ_OK;
    dj_status_t status;
    if (!even && usable <= DJ_ROUTE_MAX) {
        status = order_exactly(match, fastest);
    } else {
        status = pick(match, match->usable);
        match->exact = even;
    }
    if (status != DJ_OK)
        return status;
    for (uint32_t i = 0; i < match->n; i++)
        order[i] = (uint32_t)match->gpu[i];
    if (!even && usable > DJ_ROUTE_MAX)
        order_roughly(match->topology, order, match->n, fastest);
    if (match->by_place) {
        match->exact = match->exact && even;
        qsort_r(order, match->n, sizeof order[0], by_place, (void *)match->topology);
    }
    reorder(match, order);
    match->link_cost = links_of(match->topology, order, match->n, fastest);
    return DJ_OK;
}
