/* gauge.h - a number that one thread at a time changes and any thread may read, whenever it likes.
 *
 * For what is reported: a reader sees some value the number had, in no order with anything else. A change is
 * a plain load and store, without a locked instruction. */
#ifndef DJ_BASE_GAUGE_H
#define DJ_BASE_GAUGE_H

#include <stdatomic.h>
#include <stdint.h>

typedef struct dj_gauge {
    _Atomic uint64_t value;
} dj_gauge_t;

static inline uint64_t dj_gauge_get(const dj_gauge_t *gauge)
{
    return atomic_load_explicit(&gauge->value, memory_order_relaxed);
}

static inline void dj_gauge_set(dj_gauge_t *gauge, uint64_t value)
{
    atomic_store_explicit(&gauge->value, value, memory_order_relaxed);
}

static inline void dj_gauge_add(dj_gauge_t *gauge, uint64_t n)
{
    dj_gauge_set(gauge, dj_gauge_get(gauge) + n);
}

static inline void dj_gauge_subtract(dj_gauge_t *gauge, uint64_t n)
{
    dj_gauge_set(gauge, dj_gauge_get(gauge) - n);
}

#endif
