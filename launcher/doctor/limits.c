/* limits.c - how much a process may have: files, locked memory, threads, and what its cgroup
 * allows. */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "comm/path.h"
#include "launcher/doctor/check.h"

enum {
    FILES_FEW = 4096,
    FILES_TOO_FEW = 128,
    LOCKED_TOO_LITTLE_MIB = 64,
    PROCESSES_FEW = 1024,
    PROCESSES_TOO_FEW = 128,
    MIB = 1 << 20,
    CGROUP_LEFT_MIB = 256,
};

static const char *limit_text(rlim_t limit, unsigned unit, char text[32])
{
    if (limit == RLIM_INFINITY)
        snprintf(text, 32, "unlimited");
    else
        snprintf(text, 32, "%llu", (unsigned long long)limit / unit);
    return text;
}

dj_verdict_t dj_check_open_files(dj_exam_t *exam, dj_finding_t *finding)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    unsigned long long soft = limit.rlim_cur, hard = limit.rlim_max;
    if (hard < FILES_FEW)
        return dj_find(finding, hard < FILES_TOO_FEW ? DJ_VERDICT_FAIL : DJ_VERDICT_WARN,
                       "raise the hard limit: /etc/security/limits.conf, LimitNOFILE= of the "
                       "service, --ulimit nofile of the container",
                       "%llu files may be open at once (hard limit %llu); a rank with 1,000 "
                       "clients needs %d",
                       soft, hard, FILES_FEW);
    if (soft < FILES_TOO_FEW)
        return dj_find(finding, DJ_VERDICT_WARN, "ulimit -n 4096 before the client starts",
                       "%llu files may be open at once; ranks raise that to the hard limit (%llu), "
                       "clients do not",
                       soft, hard);
    return dj_find(finding, DJ_VERDICT_OK, "",
                   "%llu files may be open at once; ranks raise that to the hard limit, %llu", soft,
                   hard);
}

dj_verdict_t dj_check_locked_memory(dj_exam_t *exam, dj_finding_t *finding)
{
    struct rlimit limit;
    dj_path_facts_t facts = {0};
    char system[DJ_FILE_PATH_MAX], soft[32], hard[32];
    getrlimit(RLIMIT_MEMLOCK, &limit);
    dj_path_facts_read(dj_exam_path(exam, system, "/sys"), &facts);
    if (limit.rlim_cur == RLIM_INFINITY)
        return dj_find(finding, DJ_VERDICT_OK, "", "memory may be locked without limit");
    limit_text(limit.rlim_cur, 1024, soft);
    if (!facts.rdma)
        return dj_find(finding, DJ_VERDICT_OK, "",
                       "%s KiB of memory may be locked; no RDMA needs more here", soft);
    dj_find(finding, DJ_VERDICT_WARN,
            limit.rlim_max == RLIM_INFINITY
                ? "ulimit -l unlimited, also in the job script (see slurm-limits)"
                : "an administrator sets 'memlock unlimited' in /etc/security/limits.conf and "
                  "LimitMEMLOCK=infinity in slurmd.service",
            "%s KiB of memory may be locked (hard limit %s); RDMA registers whole tensors and "
            "fails beyond that",
            soft, limit_text(limit.rlim_max, 1024, hard));
    return limit.rlim_max / MIB < LOCKED_TOO_LITTLE_MIB ? DJ_VERDICT_FAIL : DJ_VERDICT_WARN;
}

/* ---- cgroups ---- */

/* "max", or v1's 9223372036854771712: no limit. */
static double parse_amount(const dj_exam_t *exam, const char *folder, const char *text)
{
    char *end;
    double amount = strtod(text, &end);
    return end == text || amount > 1e18 ? -1 : amount;
}

dj_verdict_t dj_check_processes(dj_exam_t *exam, dj_finding_t *finding)
{
    static const dj_cgroup_file_t pids = {"pids", "pids.max", "pids.max"};
    struct rlimit limit;
    char folder[DJ_FILE_PATH_MAX];
    bool is_v2 = false;
    getrlimit(RLIMIT_NPROC, &limit);
    double tasks = dj_cgroup_limit(exam, &pids, parse_amount, folder, &is_v2);
    double most = limit.rlim_cur == RLIM_INFINITY ? -1 : (double)limit.rlim_cur;
    bool by_cgroup = tasks >= 0 && (most < 0 || tasks < most);
    if (by_cgroup)
        most = tasks;
    if (most < 0)
        return dj_find(finding, DJ_VERDICT_OK, "", "processes and threads without limit");
    if (most >= PROCESSES_FEW)
        return dj_find(finding, DJ_VERDICT_OK, "", "%.0f processes and threads", most);
    return dj_find(finding, most < PROCESSES_TOO_FEW ? DJ_VERDICT_FAIL : DJ_VERDICT_WARN,
                   by_cgroup ? "give the container or service more (--pids-limit, TasksMax=)"
                             : "ulimit -u 4096, or nproc in /etc/security/limits.conf",
                   "%.0f processes and threads at once%s%s; every rank has one a core, and a few",
                   most, by_cgroup ? ", by cgroup " : "", folder);
}

static double usage_of(const dj_exam_t *exam, const char *folder, bool is_v2)
{
    char name[DJ_FILE_PATH_MAX + 64];
    long long used = 0;
    snprintf(name, sizeof name, "%s/%s", folder,
             is_v2 ? "memory.current" : "memory.usage_in_bytes");
    return dj_exam_number(exam, name, &used) ? (double)used : 0;
}

dj_verdict_t dj_check_cgroup_memory(dj_exam_t *exam, dj_finding_t *finding)
{
    static const dj_cgroup_file_t most = {"memory", "memory.limit_in_bytes", "memory.max"};
    static const dj_cgroup_file_t slow = {"memory", "memory.limit_in_bytes", "memory.high"};
    const char *remedy = "ask for more (--mem of the job, --memory of the container), or bound "
                         "the rank: --text-bytes, --data-bytes, --stack-bytes";
    char folder[DJ_FILE_PATH_MAX], throttled[DJ_FILE_PATH_MAX];
    bool is_v2 = false;
    double limit = dj_cgroup_limit(exam, &most, parse_amount, folder, &is_v2);
    double high = dj_cgroup_limit(exam, &slow, parse_amount, throttled, &is_v2);
    double wanted = (double)exam->doctor->config->text_bytes;
    if (is_v2 && high >= 0 && (limit < 0 || high < limit))
        return dj_find(finding, DJ_VERDICT_WARN, remedy,
                       "beyond %.0f MiB the kernel slows this process down (memory.high of %s): "
                       "heartbeats come late",
                       high / MIB, throttled);
    if (limit < 0)
        return dj_find(finding, DJ_VERDICT_OK, "", "no cgroup limits memory");
    double left = limit - usage_of(exam, folder, is_v2);
    if (left < CGROUP_LEFT_MIB * (double)MIB)
        return dj_find(finding, DJ_VERDICT_FAIL, remedy,
                       "%.0f MiB of memory are left of the %.0f that cgroup %s allows; beyond "
                       "that the kernel kills a rank",
                       left > 0 ? left / MIB : 0.0, limit / MIB, folder);
    if (limit < wanted)
        return dj_find(finding, DJ_VERDICT_WARN, remedy,
                       "cgroup %s allows %.0f MiB of memory, but a rank may hold %.0f MiB of "
                       "weights (--text-bytes): the kernel would kill it",
                       folder, limit / MIB, wanted / MIB);
    return dj_find(finding, DJ_VERDICT_OK, "", "%.0f MiB of memory, by cgroup %s", limit / MIB,
                   folder);
}

/* v2: "150000 100000" or "max 100000"; v1: the quota alone, -1 for none, its period beside it. */
static double parse_cpus(const dj_exam_t *exam, const char *folder, const char *text)
{
    char name[2 * DJ_FILE_PATH_MAX], *end;
    long long beside = 0;
    double quota = strtod(text, &end), period = strtod(end, NULL);
    if (end == text || quota <= 0)
        return -1;
    snprintf(name, sizeof name, "%s/cpu.cfs_period_us", folder);
    if (period <= 0 && dj_exam_number(exam, name, &beside))
        period = (double)beside;
    return period > 0 ? quota / period : -1;
}

dj_verdict_t dj_check_cgroup_cpus(dj_exam_t *exam, dj_finding_t *finding)
{
    static const dj_cgroup_file_t quota = {"cpu", "cpu.cfs_quota_us", "cpu.max"};
    char folder[DJ_FILE_PATH_MAX];
    bool is_v2 = false;
    cpu_set_t set;
    CPU_ZERO(&set);
    int usable = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 0;
    double cpus = dj_cgroup_limit(exam, &quota, parse_cpus, folder, &is_v2);
    if (cpus < 0 || cpus >= usable)
        return dj_find(finding, DJ_VERDICT_OK, "", "%d cores, and all of their time", usable);
    dj_find(finding, DJ_VERDICT_WARN, "",
            "the time of %.2f cores, by cgroup %s, though %d may be used: threads beyond that are "
            "stopped for up to 100 ms at a time",
            cpus, folder, usable);
    dj_advise(finding, "--threads %d, or cores of its own (--cpuset-cpus) in place of a share",
              cpus < 1 ? 1 : (int)cpus);
    return DJ_VERDICT_WARN;
}
