/* bind.c - affinity, memory policy and the visible GPU; system calls, no library. */
#include "runtime/bind.h"

#include <errno.h>
#include <linux/mempolicy.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runtime/base/log.h"

#define DJ_LOG_MODULE "rank"
#define NODES_MAX 1024

static bool parse_number(const char **at_p, unsigned long limit, unsigned long *number_p)
{
    char *end;
    if (**at_p < '0' || **at_p > '9')
        return false;
    *number_p = strtoul(*at_p, &end, 10);
    *at_p = end;
    return *number_p < limit;
}

static bool parse_cores(const char *list, cpu_set_t *set)
{
    CPU_ZERO(set);
    for (;;) {
        unsigned long from, to;
        if (!parse_number(&list, CPU_SETSIZE, &from))
            return false;
        to = from;
        if (*list == '-') {
            list++;
            if (!parse_number(&list, CPU_SETSIZE, &to) || to < from)
                return false;
        }
        for (unsigned long i = from; i <= to; i++)
            CPU_SET(i, set);
        if (*list == '\0')
            return true;
        if (*list++ != ',')
            return false;
    }
}

void dj_bind_thread(const char *cores, const char *name)
{
    cpu_set_t set;
    if (!cores[0])
        return;
    if (!parse_cores(cores, &set))
        dj_log(WARN, "%s thread: '%s' is no list of cores like 0-3,8; not bound", name, cores);
    else if (sched_setaffinity(0, sizeof set, &set) != 0)
        dj_log(WARN, "%s thread: cannot be bound to cores %s: %s", name, cores, strerror(errno));
    else
        dj_log(DEBUG, "%s thread: cores %s", name, cores);
}

/* Preferred, not demanded: a full node is slower than a kill by the kernel is bad. */
static void prefer_node(const char *text)
{
    unsigned long node, mask[NODES_MAX / (8 * sizeof(unsigned long))] = {0};
    const char *at = text;
    if (!parse_number(&at, NODES_MAX, &node) || *at) {
        dj_log(WARN, "memory node '%s' is no number of a NUMA node", text);
        return;
    }
    mask[node / (8 * sizeof mask[0])] = 1ul << node % (8 * sizeof mask[0]);
    if (syscall(SYS_set_mempolicy, MPOL_PREFERRED, mask, (unsigned long)NODES_MAX) != 0)
        dj_log(WARN, "memory cannot come from NUMA node %lu first: %s", node, strerror(errno));
    else
        dj_log(DEBUG, "memory comes from NUMA node %lu first", node);
}

/* Threads made later begin with our cores now, whichever thread makes them. */
static void keep_for_new_threads(void)
{
    pthread_attr_t attributes;
    cpu_set_t now;
    if (sched_getaffinity(0, sizeof now, &now) != 0 || pthread_attr_init(&attributes) != 0)
        return;
    if (pthread_attr_setaffinity_np(&attributes, sizeof now, &now) == 0)
        pthread_setattr_default_np(&attributes);
    pthread_attr_destroy(&attributes);
}

void dj_bind_rank(const dj_config_t *config)
{
    if (config->gpu[0]) {
        /* Numbers count as the supervisor counted. */
        if (setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID", 1) != 0 ||
            setenv("CUDA_VISIBLE_DEVICES", config->gpu, 1) != 0)
            dj_log(WARN, "no memory to name GPU %s to CUDA", config->gpu);
    }
    if (config->memory_node[0])
        prefer_node(config->memory_node);
    if (config->progress_cores[0] || config->device_cores[0] || config->heartbeat_cores[0])
        keep_for_new_threads();
}
