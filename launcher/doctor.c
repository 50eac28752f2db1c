/* doctor.c - the checks of djinn doctor, one function each. A check writes what it found and what
 * to do into its finding and returns the verdict; the table at the end is the order in which they
 * are told. */
#include "launcher/doctor.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "comm/fabric.h"
#include "comm/path.h"

enum { TEXT_MAX = 768, FILES_FEW = 4096, FILES_TOO_FEW = 128, SHM_LOW_MIB = 64, MIB = 1 << 20 };

typedef enum verdict { VERDICT_OK, VERDICT_WARN, VERDICT_FAIL } verdict_t;
static const char *const verdicts[] = {"ok", "warn", "fail"};

typedef struct finding {
    char text[TEXT_MAX], next[TEXT_MAX];
} finding_t;

static verdict_t find(finding_t *finding, verdict_t verdict, const char *next, const char *format,
                      ...) __attribute__((format(printf, 4, 5)));

static verdict_t find(finding_t *finding, verdict_t verdict, const char *next, const char *format,
                      ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(finding->text, sizeof(finding->text), format, arguments);
    va_end(arguments);
    for (char *at = finding->text; *at; ++at) /* variables and sentences of others pass through */
        *at = isprint((unsigned char)*at) ? *at : '?';
    snprintf(finding->next, sizeof(finding->next), "%s", next);
    return verdict;
}

static verdict_t check_ucx(const djinn_options_t *server, finding_t *finding)
{
    dj_fabric_t fabric;
    char list[TEXT_MAX - 64] = "";
    bool tcp = false;
    if (dj_fabric_read(&fabric) != DJ_OK)
        return find(finding, VERDICT_FAIL, "compare ucx_info -d", "%s", dj_error_text());
    for (unsigned i = 0; i < fabric.n_lanes; ++i) {
        size_t at = strlen(list);
        snprintf(list + at, sizeof(list) - at, "%s%s/%s", at ? ", " : "", fabric.lanes[i].transport,
                 fabric.lanes[i].device);
        tcp |= strcmp(fabric.lanes[i].transport, "tcp") == 0;
    }
    if (!tcp)
        return find(finding, VERDICT_FAIL, "bring a network interface up, at least lo",
                    "UCX %s finds no tcp, only: %s", fabric.version, list[0] ? list : "nothing");
    return find(finding, VERDICT_OK, "", "UCX %s with %s", fabric.version, list);
}

static verdict_t check_settings(const djinn_options_t *server, finding_t *finding)
{
    char list[TEXT_MAX - 64] = "";
    for (char **at = environ; *at; ++at) {
        size_t end = strlen(list);
        if (strncmp(*at, "UCX_", 4) == 0)
            snprintf(list + end, sizeof(list) - end, "%s%s", end ? ", " : "", *at);
    }
    if (list[0])
        return find(finding, VERDICT_WARN, "unset them unless you know that they are needed",
                    "your variables win over Djinn's settings of UCX: %s", list);
    return find(finding, VERDICT_OK, "", "no UCX_* variable is in the way of Djinn's settings");
}

static verdict_t check_shared_memory(const djinn_options_t *server, finding_t *finding)
{
    struct statvfs space;
    if (statvfs("/dev/shm", &space) != 0 || access("/dev/shm", W_OK) != 0)
        return find(finding, VERDICT_FAIL, "mount a tmpfs at /dev/shm that users may write to",
                    "/dev/shm cannot be used: %s", strerror(errno));
    unsigned long long free_mib = (unsigned long long)space.f_bavail * space.f_frsize / MIB;
    if (free_mib < SHM_LOW_MIB)
        return find(
            finding, VERDICT_WARN, "free it, or give the container a larger one (--shm-size)",
            "/dev/shm has %llu MiB left; below %d shared memory may fail", free_mib, SHM_LOW_MIB);
    return find(finding, VERDICT_OK, "", "/dev/shm has %llu MiB left", free_mib);
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

static verdict_t check_cma(const djinn_options_t *server, finding_t *finding)
{
    int error = read_child(), scope = 0;
    FILE *yama = fopen("/proc/sys/kernel/yama/ptrace_scope", "re");
    if (yama) {
        if (fscanf(yama, "%d", &scope) != 1)
            scope = 0;
        fclose(yama);
    }
    if (error)
        return find(finding, VERDICT_WARN,
                    "allow process_vm_readv (in a container: --cap-add SYS_PTRACE)",
                    "one process may not read another's memory: %s; large tensors on one host are "
                    "copied twice",
                    strerror(error));
    if (scope > 0)
        return find(finding, VERDICT_WARN, "sysctl kernel.yama.ptrace_scope=0",
                    "kernel.yama.ptrace_scope is %d: processes that are not parent and child may "
                    "not read each other's memory",
                    scope);
    return find(finding, VERDICT_OK, "", "one process may read another's memory");
}

static verdict_t check_files(const djinn_options_t *server, finding_t *finding)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    unsigned long long soft = limit.rlim_cur, hard = limit.rlim_max;
    if (soft < FILES_FEW)
        return find(finding, soft < FILES_TOO_FEW ? VERDICT_FAIL : VERDICT_WARN,
                    "ulimit -n 65536, or LimitNOFILE= of the service",
                    "%llu files may be open at once (hard limit %llu); a rank with 1,000 clients "
                    "needs %d",
                    soft, hard, FILES_FEW);
    return find(finding, VERDICT_OK, "", "%llu files may be open at once", soft);
}

static verdict_t check_locked(const djinn_options_t *server, finding_t *finding)
{
    struct rlimit limit;
    dj_path_facts_t facts = {0};
    getrlimit(RLIMIT_MEMLOCK, &limit);
    dj_path_facts_read("/sys", &facts);
    if (limit.rlim_cur == RLIM_INFINITY)
        return find(finding, VERDICT_OK, "", "memory may be locked without limit");
    unsigned long long kib = limit.rlim_cur / 1024;
    if (facts.rdma)
        return find(finding, VERDICT_WARN, "ulimit -l unlimited",
                    "%llu KiB of memory may be locked; RDMA registers whole tensors", kib);
    return find(finding, VERDICT_OK, "",
                "%llu KiB of memory may be locked; no RDMA needs more here", kib);
}

static verdict_t check_path(const djinn_options_t *server, finding_t *finding)
{
    djinn_t *djinn;
    if (!server->address)
        return find(finding, VERDICT_OK, "", "no server is known here, so no path was tried");
    if (djinn_connect(server, &djinn) != DJINN_OK)
        return find(finding, VERDICT_FAIL, "djinn info tells whether the server answers at all",
                    "%s: %s", server->address, djinn_error());
    verdict_t verdict = find(finding, VERDICT_OK, "", "to rank %d of %s: %s", djinn_rank(djinn),
                             server->address, djinn_path(djinn));
    djinn_close(djinn);
    return verdict;
}

static verdict_t check_gpu(const djinn_options_t *server, finding_t *finding)
{
    if (access("/dev/nvidiactl", F_OK) != 0)
        return find(finding, VERDICT_OK, "",
                    "no GPU is here: tensors lie in host memory, which "
                    "every path reads directly");
    return find(finding, VERDICT_WARN, "nothing to do: use --device host",
                "a GPU is here, but this build moves host memory alone");
}

static const struct {
    const char *name;
    verdict_t (*check)(const djinn_options_t *server, finding_t *finding);
} checks[] = {
    {"ucx", check_ucx},   {"ucx settings", check_settings}, {"shared memory", check_shared_memory},
    {"cma", check_cma},   {"open files", check_files},      {"locked memory", check_locked},
    {"path", check_path}, {"gpu memory", check_gpu},
};

static void print_line(const char *name, verdict_t verdict, const finding_t *finding, FILE *out)
{
    fprintf(out, "%-4s  %-13s  %s\n", verdicts[verdict], name, finding->text);
    if (finding->next[0])
        fprintf(out, "%*s-> %s\n", 21, "", finding->next);
}

bool dj_doctor_run(const djinn_options_t *server, bool as_json, FILE *out)
{
    verdict_t worst = VERDICT_OK;
    json_t *list = json_array();
    for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); ++i) {
        finding_t finding;
        verdict_t verdict = checks[i].check(server, &finding);
        worst = verdict > worst ? verdict : worst;
        if (!as_json)
            print_line(checks[i].name, verdict, &finding, out);
        json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s}", "name", checks[i].name,
                                              "verdict", verdicts[verdict], "text", finding.text,
                                              "next", finding.next));
    }
    json_t *all = json_pack("{s:o, s:s}", "checks", list, "verdict", verdicts[worst]);
    if (as_json && all) {
        json_dumpf(all, out, JSON_INDENT(2));
        fputc('\n', out);
    }
    json_decref(all);
    return worst != VERDICT_FAIL;
}
