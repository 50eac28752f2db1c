/* pmix_exchange.h - the four calls of PMIx that we need, from a library loaded only when it is
 * there. */
#ifndef DJ_LAUNCHER_PMIX_EXCHANGE_H
#define DJ_LAUNCHER_PMIX_EXCHANGE_H

#include "launcher/bootstrap.h"

/* DJ_ERR_UNSUPPORTED: no library, or no PMIx server behind the variables. */
dj_status_t dj_pmix_open(dj_place_t *place);
/* Ends PMIx in every case. */
dj_status_t dj_pmix_exchange(const dj_place_t *place, dj_meeting_t *meeting, uint64_t deadline_ns);

#endif
