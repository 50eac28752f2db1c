/* reaper.h - the memory of sessions that have ended goes back on a thread of its own.
 *
 * Gibibytes of pages take a tenth of a second to return, and a GPU's driver may wait for kernels meanwhile; no other
 * session waits for that. A session that is here is in no table and no thread but the reaper's knows it.
 *
 * Threads: the progress thread, but for dj_reaper_bytes(). */
#ifndef DJ_RUNTIME_REAPER_H
#define DJ_RUNTIME_REAPER_H

#include "runtime/rank.h"

/* DJ_ERR_MEMORY, DJ_ERR_SYSTEM. */
dj_status_t dj_reaper_start(dj_rank_t *rank, dj_reaper_t **reaper_p);
/* Waits until all that was taken has gone back. NULL is allowed. */
void dj_reaper_end(dj_reaper_t *reaper);
/* Takes the session over; its connection ends when its memory is back, if its client waits for that. */
void dj_reaper_take(dj_reaper_t *reaper, dj_session_t *session);
/* Now and then: those whose memory is back. True: there were some. */
bool dj_reaper_turn(dj_reaper_t *reaper);
/* Of Data that is still to go back. Any thread. */
uint64_t dj_reaper_bytes(const dj_reaper_t *reaper);

#endif
