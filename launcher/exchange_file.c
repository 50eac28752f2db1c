/* exchange_file.c - one writer, readers that look again every few milliseconds (a shared home
 * brings no notification from another node). */
#include "launcher/exchange_file.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "launcher/home.h"
#include "runtime/base/clock.h"

#define LOOK_NS (5 * (long)DJ_NS_PER_MS)
#define STALE_S 120

/* The job's name comes from another program's variable: only harmless letters reach the path. */
static dj_status_t job_path(const char *job, char path[DJ_PATH_MAX])
{
    char name[DJ_JOB_TEXT_MAX + 8];
    snprintf(name, sizeof name, "job-%s", job);
    for (char *at = name; *at; at++) {
        bool plain = (*at >= 'a' && *at <= 'z') || (*at >= 'A' && *at <= 'Z') ||
                     (*at >= '0' && *at <= '9') || *at == '-';
        if (!plain)
            *at = '_';
    }
    return dj_home_path(name, path);
}

dj_status_t dj_exchange_file_write(const char *job, const dj_meeting_t *meeting)
{
    char path[DJ_PATH_MAX], text[sizeof *meeting + 4];
    dj_status_t status = job_path(job, path);
    if (status != DJ_OK)
        return status;
    dj_meeting_format(meeting, text);
    return dj_home_write(path, text);
}

dj_status_t dj_exchange_file_read(const char *job, dj_meeting_t *meeting, uint64_t deadline_ns)
{
    char path[DJ_PATH_MAX], text[sizeof *meeting + 4];
    const struct timespec pause = {.tv_nsec = LOOK_NS};
    long long started_s = (long long)time(NULL), modified_s = 0;
    dj_status_t status = job_path(job, path);
    if (status != DJ_OK)
        return status;
    for (;;) {
        status = dj_home_read(path, text, sizeof text, &modified_s);
        if (status == DJ_OK && modified_s + STALE_S >= started_s)
            break;
        if (status != DJ_OK && status != DJ_ERR_FILE)
            return status;
        if (dj_clock_ns() >= deadline_ns)
            return dj_fail(DJ_ERR_DEADLINE,
                           "rank 0 did not write %s; is the home folder shared by all nodes? If "
                           "not, start with a launcher that has PMIx: srun --mpi=pmix, or mpirun",
                           path);
        nanosleep(&pause, NULL);
    }
    if (!dj_meeting_parse(text, meeting))
        return dj_fail(DJ_ERR_CORRUPT, "%s does not hold two addresses and a token", path);
    return DJ_OK;
}

void dj_exchange_file_remove(const char *job)
{
    char path[DJ_PATH_MAX];
    if (job_path(job, path) == DJ_OK)
        unlink(path);
}
