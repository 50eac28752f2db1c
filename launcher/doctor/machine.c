/* machine.c - the kernel, the container around us, the clock of the cores. */
#include <stdio.h>
#include <string.h>

#include "launcher/doctor/check.h"
#include "runtime/base/config.h"

enum { CORES_MAX = 512 };

dj_verdict_t dj_check_kernel(dj_exam_t *exam, dj_finding_t *finding)
{
    char text[128];
    unsigned major = 0, minor = 0;
    if (!dj_exam_read(exam, "/proc/sys/kernel/osrelease", text, sizeof text) ||
        sscanf(text, "%u.%u", &major, &minor) != 2)
        return dj_find(finding, DJ_VERDICT_INFO, "", "the kernel does not tell its version");
    if (major < 5 || (major == 5 && minor < 3))
        return dj_find(finding, DJ_VERDICT_FAIL,
                       "a kernel from 5.11 on, as Debian 12 and "
                       "RHEL 9 have",
                       "Linux %s has no pidfd_open (5.3): supervisors cannot watch their ranks",
                       text);
    if (major == 5 && minor < 11)
        return dj_find(finding, DJ_VERDICT_WARN,
                       "a kernel from 5.11 on, as Debian 12 and "
                       "RHEL 9 have",
                       "Linux %s has no close_range with CLOEXEC (5.11): ranks inherit what the "
                       "launcher left open",
                       text);
    return dj_find(finding, DJ_VERDICT_OK, "", "Linux %s", text);
}

static const char *container_of(const dj_exam_t *exam)
{
    static const struct {
        const char *path, *name;
    } signs[] = {
        {"/.dockerenv", "a Docker container"},
        {"/run/.containerenv", "a Podman container"},
        {"/.singularity.d", "an Apptainer container"},
        {"/run/systemd/container", "a container"},
        {"/var/run/secrets/kubernetes.io", "a Kubernetes pod"},
    };
    if (dj_environment("APPTAINER_CONTAINER") || dj_environment("SINGULARITY_CONTAINER"))
        return "an Apptainer container";
    if (dj_environment("KUBERNETES_SERVICE_HOST"))
        return "a Kubernetes pod";
    for (size_t i = 0; i < sizeof signs / sizeof signs[0]; i++)
        if (dj_exam_exists(exam, signs[i].path))
            return signs[i].name;
    return NULL;
}

dj_verdict_t dj_check_container(dj_exam_t *exam, dj_finding_t *finding)
{
    const char *container = container_of(exam);
    if (!container)
        return dj_find(finding, DJ_VERDICT_OK, "", "no container");
    return dj_find(finding, DJ_VERDICT_INFO, "",
                   "this is %s; to processes outside it the path is tcp or rdma, not shared "
                   "memory, unless both share PID and IPC namespaces",
                   container);
}

dj_verdict_t dj_check_governor(dj_exam_t *exam, dj_finding_t *finding)
{
    static char cores[CORES_MAX][DJ_ENTRY_MAX];
    char path[DJ_FILE_PATH_MAX], text[64], odd[64] = "";
    int slow = 0, told = 0;
    int n = dj_exam_entries(exam, "/sys/devices/system/cpu", cores, CORES_MAX);
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof path, "/sys/devices/system/cpu/%.63s/cpufreq/scaling_governor",
                 cores[i]);
        if (!dj_exam_read(exam, path, text, sizeof text))
            continue;
        told++;
        if (strcmp(text, "performance") != 0 && slow++ == 0)
            snprintf(odd, sizeof odd, "%s", text);
    }
    if (told == 0)
        return dj_find(finding, DJ_VERDICT_INFO, "", "nothing tells how the cores are clocked");
    if (slow == 0)
        return dj_find(finding, DJ_VERDICT_OK, "", "the governor of the cores is performance");
    return dj_find(finding, DJ_VERDICT_INFO, "",
                   "the governor of %d of %d cores is %s: the first microseconds of an answer may "
                   "run at a low clock; cpupower frequency-set -g performance changes it",
                   slow, told, odd);
}
