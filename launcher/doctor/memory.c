/* memory.c - memory that processes share and read of one another, and how the kernel pages
 * it. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "launcher/doctor/check.h"

enum { SHM_LOW_MIB = 64, MIB = 1 << 20, NODES_MAX = 64 };

dj_verdict_t dj_check_shared_memory(dj_exam_t *exam, dj_finding_t *finding)
{
    struct statvfs space;
    char path[DJ_FILE_PATH_MAX];
    dj_exam_path(exam, path, "/dev/shm");
    if (statvfs(path, &space) != 0 || access(path, W_OK) != 0)
        return dj_find(finding, DJ_VERDICT_FAIL,
                       "mount a tmpfs at /dev/shm that users may write to",
                       "/dev/shm cannot be used: %s", strerror(errno));
    unsigned long long free_mib = (unsigned long long)space.f_bavail * space.f_frsize / MIB;
    if (free_mib < SHM_LOW_MIB)
        return dj_find(
            finding, DJ_VERDICT_WARN, "free it, or give the container a larger one (--shm-size)",
            "/dev/shm has %llu MiB left; below %d shared memory may fail", free_mib, SHM_LOW_MIB);
    return dj_find(finding, DJ_VERDICT_OK, "", "/dev/shm has %llu MiB left", free_mib);
}

/* Reads a word of a child, as one rank reads another's memory. 0, or errno. */
static int read_child(void)
{
    static char word = 'x';
    char there = 0;
    int hold[2], error = 0;
    if (pipe(hold) != 0)
        return errno;
    pid_t pid = fork();
    if (pid == 0) {
        close(hold[1]);
        ssize_t got = read(hold[0], &there, 1); /* until the parent lets go */
        _exit(got != 0);
    }
    close(hold[0]);
    if (pid < 0) {
        error = errno;
    } else {
        const struct iovec to = {&there, 1}, from = {&word, 1};
        if (process_vm_readv(pid, &to, 1, &from, 1, 0) != 1 || there != 'x')
            error = errno ? errno : EIO;
    }
    close(hold[1]);
    if (pid > 0)
        waitpid(pid, NULL, 0);
    return error;
}

dj_verdict_t dj_check_cma(dj_exam_t *exam, dj_finding_t *finding)
{
    int error = read_child();
    long long scope = 0;
    dj_exam_number(exam, "/proc/sys/kernel/yama/ptrace_scope", &scope);
    if (error)
        return dj_find(finding, DJ_VERDICT_WARN,
                       "allow process_vm_readv (in a container: --cap-add SYS_PTRACE)",
                       "one process may not read another's memory: %s; large tensors on one host "
                       "are copied twice",
                       strerror(error));
    if (scope > 0)
        return dj_find(finding, DJ_VERDICT_WARN, "sysctl kernel.yama.ptrace_scope=0",
                       "kernel.yama.ptrace_scope is %lld: processes that are not parent and child "
                       "may not read each other's memory",
                       scope);
    return dj_find(finding, DJ_VERDICT_OK, "", "one process may read another's memory");
}

/* The word in brackets: "always [madvise] never". */
dj_verdict_t dj_check_huge_pages(dj_exam_t *exam, dj_finding_t *finding)
{
    char text[128], word[32] = "";
    if (!dj_exam_read(exam, "/sys/kernel/mm/transparent_hugepage/enabled", text, sizeof text))
        return dj_find(finding, DJ_VERDICT_INFO, "", "this kernel has no transparent huge pages");
    const char *open = strchr(text, '[');
    if (open)
        sscanf(open, "[%31[^]]", word);
    if (strcmp(word, "always") == 0)
        return dj_find(finding, DJ_VERDICT_OK, "", "transparent huge pages: always");
    return dj_find(finding, DJ_VERDICT_INFO, "",
                   "transparent huge pages: %s; weights lie in pages of 4 KiB, which costs a host "
                   "device a little speed",
                   word[0] ? word : "?");
}

dj_verdict_t dj_check_numa_balancing(dj_exam_t *exam, dj_finding_t *finding)
{
    char names[NODES_MAX * 2][DJ_ENTRY_MAX];
    long long on = 0;
    int nodes = 0, n = dj_exam_entries(exam, "/sys/devices/system/node", names, NODES_MAX * 2);
    for (int i = 0; i < n; i++)
        nodes += strncmp(names[i], "node", 4) == 0;
    if (!dj_exam_number(exam, "/proc/sys/kernel/numa_balancing", &on))
        return dj_find(finding, DJ_VERDICT_INFO, "", "this kernel moves no pages between nodes");
    if (on == 0 || nodes < 2)
        return dj_find(finding, DJ_VERDICT_OK, "", "%d memory node%s; pages stay where they are",
                       nodes, nodes == 1 ? "" : "s");
    return dj_find(finding, DJ_VERDICT_WARN,
                   "sysctl kernel.numa_balancing=0, or ask an administrator for it",
                   "the kernel moves pages among %d memory nodes under ranks that are bound to "
                   "theirs: each move stops a thread",
                   nodes);
}
