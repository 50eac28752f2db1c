/* upkeep.h - the plan cache of a rank, looked after in the background (upkeep.c).
 *
 * Threads: started and ended by the main thread; what it does in between is on a thread of its own. */
#ifndef DJ_RUNTIME_UPKEEP_H
#define DJ_RUNTIME_UPKEEP_H

#include "runtime/rank.h"

/* Loads plans of earlier times (a file that cannot be used is a warning), then the thread, if the
 * settings leave it anything to do. DJ_ERR_MEMORY, DJ_ERR_SYSTEM; *upkeep_p may be set even so. */
dj_status_t dj_upkeep_start(dj_rank_t *rank, dj_upkeep_t **upkeep_p);
/* Ends the thread and writes the last file; no request runs any more. NULL: nothing happens. */
void dj_upkeep_end(dj_upkeep_t *upkeep);

#endif
