/* bind.h - where the threads and the memory of this rank live, as the supervisor placed them.
 *
 * The supervisor hands down lists of cores, a NUMA node and a GPU (config.h, "Set by the supervisor
 * for its ranks"); empty ones change nothing. What the system refuses is logged and done without: a
 * rank in a worse place still serves. */
#ifndef DJ_RUNTIME_BIND_H
#define DJ_RUNTIME_BIND_H

#include "runtime/base/config.h"

/* Once, before the first thread: CUDA_VISIBLE_DEVICES, the node that memory comes from first
 * (buffers pinned later by any thread among it), and the cores of every thread not named below,
 * which must not inherit those of the thread that makes it. */
void dj_bind_rank(const dj_config_t *config);
/* The calling thread to a list of cores, as 0-3,8. `name`: of the thread, for the log. */
void dj_bind_thread(const char *cores, const char *name);

#endif
