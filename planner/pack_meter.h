/* pack_meter.h - how much of its limits a search has used. Inside the planner. */
#ifndef DJ_PLANNER_PACK_METER_H
#define DJ_PLANNER_PACK_METER_H

#include "planner/pack.h"
#include "runtime/base/clock.h"

typedef struct dj_pack_meter {
    const dj_pack_limits_t *limits;
    uint64_t nodes, random;
    bool spent; /* stays so */
} dj_pack_meter_t;

/* Costs about as much as reading the clock. */
static inline bool dj_pack_meter_spent(dj_pack_meter_t *meter)
{
    const dj_pack_limits_t *limits = meter->limits;
    meter->spent =
        meter->spent || (limits->nodes > 0 && meter->nodes >= limits->nodes) ||
        (limits->cancel != NULL && atomic_load_explicit(limits->cancel, memory_order_relaxed)) ||
        (limits->deadline_ns > 0 && dj_clock_ns() >= limits->deadline_ns);
    return meter->spent;
}

/* A bijection that leaves no pattern (the finaliser of splitmix64). */
static inline uint64_t dj_pack_mix(uint64_t value)
{
    value += 0x9e3779b97f4a7c15ull;
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ull;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebull;
    return value ^ (value >> 31);
}

#endif
