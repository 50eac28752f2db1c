/* exchange_file.h - rank 0's address and token through a file, for launchers without PMIx.
 *
 * The file is ~/.djinn/job-<job>. A file older than this process by more than two minutes is the
 * remains of a job that had the same name, and is not believed. */
#ifndef DJ_LAUNCHER_EXCHANGE_FILE_H
#define DJ_LAUNCHER_EXCHANGE_FILE_H

#include "launcher/bootstrap.h"

dj_status_t dj_exchange_file_write(const char *job, const dj_meeting_t *meeting); /* DJ_ERR_FILE */
/* Looks until the deadline. DJ_ERR_DEADLINE, DJ_ERR_AUTH, DJ_ERR_FILE, DJ_ERR_CORRUPT. */
dj_status_t dj_exchange_file_read(const char *job, dj_meeting_t *meeting, uint64_t deadline_ns);
void dj_exchange_file_remove(const char *job);

#endif
