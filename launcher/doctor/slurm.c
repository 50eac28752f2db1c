/* slurm.c - what Slurm says of itself, and MUNGE, which it leans on. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>

#include "launcher/doctor/check.h"
#include "runtime/base/config.h"

enum { LINE_MAX_BYTES = 256, LOCKED_FEW_MIB = 64, FILES_FEW = 4096, MIB = 1 << 20 };

/* Says why there is nothing to say of Slurm; false when scontrol has answered. */
static bool no_slurm(dj_exam_t *exam, dj_finding_t *finding)
{
    dj_ask_t *ask = &exam->asks[DJ_ASK_SCONTROL];
    dj_ask_state_t state = dj_ask_wait(ask);
    if (state == DJ_ASKED_ANSWERED && ask->status == 0)
        return false;
    dj_find(finding, DJ_VERDICT_INFO, "", "%s",
            state == DJ_ASKED_NOT       ? "Slurm was not asked (--quick)"
            : state == DJ_ASKED_MISSING ? "no Slurm here (scontrol is not in PATH)"
                                        : "Slurm does not answer; see the check 'slurm'");
    return true;
}

dj_verdict_t dj_check_slurm(dj_exam_t *exam, dj_finding_t *finding)
{
    dj_ask_t *ask = &exam->asks[DJ_ASK_SCONTROL];
    char line[LINE_MAX_BYTES], cluster[64];
    if (!no_slurm(exam, finding)) {
        dj_ask_value(ask, "SLURM_VERSION", line, sizeof line);
        dj_ask_value(ask, "ClusterName", cluster, sizeof cluster);
        return dj_find(finding, DJ_VERDICT_OK, "", "Slurm %s, cluster %s%s%s", line, cluster,
                       dj_environment("SLURM_JOB_ID") ? ", in job " : "",
                       dj_environment("SLURM_JOB_ID") ? dj_environment("SLURM_JOB_ID") : "");
    }
    bool in_job = dj_environment("SLURM_JOB_ID") != NULL;
    const char *remedy = in_job ? "sinfo from a login node tells whether slurmctld is up; inside a "
                                  "container bind /etc/slurm and /run/munge"
                                : "nothing where Slurm is installed and not used; else sinfo, "
                                  "SLURM_CONF and slurmctld";
    if (ask->state == DJ_ASKED_LATE)
        return dj_find(finding, in_job ? DJ_VERDICT_FAIL : DJ_VERDICT_WARN, remedy,
                       "scontrol show config does not end within %d s", DJ_ASK_MS / 1000);
    if (ask->state == DJ_ASKED_ANSWERED)
        return dj_find(finding, in_job ? DJ_VERDICT_FAIL : DJ_VERDICT_WARN, remedy,
                       "scontrol show config ends with status %d: %s", ask->status,
                       dj_ask_last_line(ask, line, sizeof line));
    return DJ_VERDICT_INFO;
}

dj_verdict_t dj_check_slurm_mpi(dj_exam_t *exam, dj_finding_t *finding)
{
    dj_ask_t *ask = &exam->asks[DJ_ASK_SRUN_MPI];
    char usual[64], line[LINE_MAX_BYTES];
    if (no_slurm(exam, finding))
        return DJ_VERDICT_INFO;
    dj_ask_state_t state = dj_ask_wait(ask);
    if (state == DJ_ASKED_MISSING)
        return dj_find(finding, DJ_VERDICT_WARN, "put srun into PATH (module load slurm)",
                       "scontrol is here, but srun is not in PATH");
    if (state != DJ_ASKED_ANSWERED || ask->status != 0)
        return dj_find(finding, DJ_VERDICT_WARN, "srun --mpi=list should list pmix",
                       "srun --mpi=list does not answer: %s",
                       dj_ask_last_line(ask, line, sizeof line));
    dj_ask_value(&exam->asks[DJ_ASK_SCONTROL], "MpiDefault", usual, sizeof usual);
    if (!strstr(ask->text, "pmix"))
        return dj_find(finding, DJ_VERDICT_WARN,
                       "srun --mpi=none with a home folder that all nodes share, or ask an "
                       "administrator for Slurm's plugin mpi_pmix",
                       "srun --mpi=list has no pmix; MpiDefault is %s", usual);
    if (strncmp(usual, "pmix", 4) != 0)
        return dj_find(finding, DJ_VERDICT_OK, "",
                       "srun has pmix, but MpiDefault is %s: write srun --mpi=pmix", usual);
    return dj_find(finding, DJ_VERDICT_OK, "", "srun has pmix, and MpiDefault is %s", usual);
}

/* Whether srun carries the limit of this name into a job. */
static bool is_carried(const dj_ask_t *ask, const char *limit)
{
    char all[LINE_MAX_BYTES], except[LINE_MAX_BYTES];
    bool some = dj_ask_value(ask, "PropagateResourceLimits", all, sizeof all) && all[0] != '(';
    bool not = dj_ask_value(ask, "PropagateResourceLimitsExcept", except, sizeof except) &&
               except[0] != '(';
    if (not )
        return !strcasestr(except, limit);
    if (!some || strcasecmp(all, "NONE") == 0)
        return false;
    return strcasecmp(all, "ALL") == 0 || strcasestr(all, limit);
}

dj_verdict_t dj_check_slurm_limits(dj_exam_t *exam, dj_finding_t *finding)
{
    const dj_ask_t *ask = &exam->asks[DJ_ASK_SCONTROL];
    struct rlimit locked, files;
    char low[256] = "";
    if (no_slurm(exam, finding))
        return DJ_VERDICT_INFO;
    getrlimit(RLIMIT_MEMLOCK, &locked);
    getrlimit(RLIMIT_NOFILE, &files);
    bool carries_locked = is_carried(ask, "MEMLOCK"), carries_files = is_carried(ask, "NOFILE");
    if (carries_locked && locked.rlim_cur / MIB < LOCKED_FEW_MIB)
        dj_list_add(low, sizeof low, "%llu KiB of locked memory",
                    (unsigned long long)locked.rlim_cur / 1024);
    if (carries_files && files.rlim_cur < FILES_FEW)
        dj_list_add(low, sizeof low, "%llu open files", (unsigned long long)files.rlim_cur);
    if (low[0])
        return dj_find(finding, DJ_VERDICT_WARN,
                       "ulimit -l unlimited; ulimit -n 65536 before sbatch and srun, or "
                       "--propagate=NONE, or PropagateResourceLimitsExcept=MEMLOCK,NOFILE in "
                       "slurm.conf",
                       "Slurm carries the limits of the submitting shell into the job, and here "
                       "they are low: %s",
                       low);
    return dj_find(finding, DJ_VERDICT_OK, "",
                   carries_locked || carries_files
                       ? "Slurm carries the limits of this shell into a job, and they are wide"
                       : "Slurm carries no limit of this shell into a job that matters here");
}

/* Slurm may use another munged than the usual one: "AuthInfo = socket=/run/munge/slurm.socket". */
static bool ask_slurms_socket(const dj_ask_t *slurm, dj_ask_t *again)
{
    char info[LINE_MAX_BYTES];
    if (!dj_ask_value(slurm, "AuthInfo", info, sizeof info))
        return false;
    char *socket = strstr(info, "socket=");
    if (!socket)
        return false;
    socket += strlen("socket=");
    socket[strcspn(socket, ", ")] = '\0';
    const char *const words[] = {"munge", "-n", "-S", socket, NULL};
    dj_ask_start(again, words, NULL, NULL);
    return dj_ask_wait(again) == DJ_ASKED_ANSWERED && again->status == 0 &&
           strncmp(again->text, "MUNGE:", 6) == 0;
}

static dj_verdict_t judge_munge_silent(const dj_exam_t *exam, bool slurm_answers,
                                       dj_finding_t *finding)
{
    const dj_ask_t *ask = &exam->asks[DJ_ASK_MUNGE];
    char line[LINE_MAX_BYTES];
    bool late = ask->state == DJ_ASKED_LATE;
    bool needed = dj_environment("SLURM_JOB_ID") && !slurm_answers;
    return dj_find(finding, needed ? DJ_VERDICT_FAIL : DJ_VERDICT_WARN,
                   "systemctl start munge (an administrator); in a container bind /run/munge; "
                   "where it runs, compare its key and the clock with other nodes'",
                   "%s%s%s%s",
                   late ? "munge -n does not end within 2 s" : "munge gives no credential: ",
                   late ? "" : dj_ask_last_line(ask, line, sizeof line),
                   dj_exam_exists(exam, "/run/munge/munge.socket.2")
                       ? ""
                       : " (/run/munge/munge.socket.2 is not there)",
                   slurm_answers ? "; Slurm answers all the same" : "");
}

dj_verdict_t dj_check_munge(dj_exam_t *exam, dj_finding_t *finding)
{
    static dj_ask_t again;
    dj_ask_t *ask = &exam->asks[DJ_ASK_MUNGE], *slurm = &exam->asks[DJ_ASK_SCONTROL];
    bool in_job = dj_environment("SLURM_JOB_ID") != NULL;
    dj_ask_state_t state = dj_ask_wait(ask);
    bool slurm_answers = dj_ask_wait(slurm) == DJ_ASKED_ANSWERED && slurm->status == 0;
    if (state == DJ_ASKED_NOT)
        return dj_find(finding, DJ_VERDICT_INFO, "",
                       "munge was not asked (--quick); its socket "
                       "is %s",
                       dj_exam_exists(exam, "/run/munge/munge.socket.2") ? "there" : "not there");
    if (state == DJ_ASKED_MISSING && in_job)
        return dj_find(finding, DJ_VERDICT_WARN, "put munge into PATH, to be able to look",
                       "no munge in PATH, though this is a job of Slurm");
    if (state == DJ_ASKED_MISSING)
        return dj_find(finding, DJ_VERDICT_INFO, "", "no munge in PATH; Djinn alone needs none");
    if (state == DJ_ASKED_ANSWERED && ask->status == 0 && strncmp(ask->text, "MUNGE:", 6) == 0)
        return dj_find(finding, DJ_VERDICT_OK, "", "munged gives credentials");
    if (slurm_answers && ask_slurms_socket(slurm, &again))
        return dj_find(finding, DJ_VERDICT_OK, "",
                       "Slurm's own munged gives credentials; the "
                       "usual socket has none");
    return judge_munge_silent(exam, slurm_answers, finding);
}
