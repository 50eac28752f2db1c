/* topology.c - opens a topology: this machine quickly, a file or a text in a process of its own.
 *
 * The quick way looks at cores alone and reads them from the system instead of asking each with
 * cpuid (30 ms become 3).
 *
 * The guarded way: a child fills a topology in memory that it shares with us and ends by _exit();
 * it has limits on processor time and memory, its standard error goes nowhere (hwloc and libxml2
 * write to it), and we wait only so long. Whatever the parser does, what comes back is a status and
 * a topology whose counts were checked here. */
#include "launcher/placement/topology.h"

#include <errno.h>
#include <fcntl.h>
#include <hwloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "launcher/placement/topology_read.h"

enum {
    GUARD_CPU_SECONDS = 3,
    GUARD_SECONDS = 10, /* on a busy machine */
    GUARD_BYTES = 1 << 30,
};

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define GUARD_MEMORY false /* their shadow is terabytes of address space */
#else
#define GUARD_MEMORY true
#endif

/* ---- what hwloc is asked for ---- */

/* Left out: x86 asks each core by cpuid, gl and opencl open displays and drivers, and pci knows
 * nothing that the system's own tables do not tell. */
static const char *const left_out[] = {"x86", "gl", "opencl", "pci"};

/* Cores alone, or whatever carries devices. */
static dj_status_t open_hwloc(bool devices, hwloc_topology_t *loaded_p)
{
    if (hwloc_topology_init(loaded_p) != 0)
        return dj_fail(DJ_ERR_SYSTEM, "hwloc cannot start: %s", strerror(errno));
    for (size_t i = 0; i < sizeof left_out / sizeof left_out[0]; i++)
        hwloc_topology_set_components(*loaded_p, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST,
                                      left_out[i]);
    hwloc_topology_set_all_types_filter(*loaded_p, HWLOC_TYPE_FILTER_KEEP_NONE);
    hwloc_topology_set_type_filter(*loaded_p, HWLOC_OBJ_CORE, HWLOC_TYPE_FILTER_KEEP_ALL);
    if (devices) {
        hwloc_topology_set_type_filter(*loaded_p, HWLOC_OBJ_PACKAGE, HWLOC_TYPE_FILTER_KEEP_ALL);
        /* NUMA nodes hang on them. */
        hwloc_topology_set_type_filter(*loaded_p, HWLOC_OBJ_GROUP,
                                       HWLOC_TYPE_FILTER_KEEP_STRUCTURE);
        hwloc_topology_set_io_types_filter(*loaded_p, HWLOC_TYPE_FILTER_KEEP_IMPORTANT);
    }
    return DJ_OK;
}

dj_status_t dj_topology_find(bool devices, dj_topology_t **topology_p)
{
    hwloc_topology_t loaded;
    cpu_set_t binding;
    dj_topology_t *topology = calloc(1, sizeof *topology);
    if (!topology)
        return dj_fail(DJ_ERR_MEMORY, "no memory for the list of cores");
    dj_status_t status = open_hwloc(devices, &loaded);
    if (status != DJ_OK) {
        free(topology);
        return status;
    }
    snprintf(topology->source, sizeof topology->source, "this machine");
    if (hwloc_topology_load(loaded) == 0) {
        /* HWLOC_XMLFILE may have put a file in its place, which knows nothing of our binding. */
        topology->is_this_machine = hwloc_topology_is_thissystem(loaded);
        bool ours =
            topology->is_this_machine && sched_getaffinity(0, sizeof binding, &binding) == 0;
        dj_topology_read_cores(topology, loaded, ours ? &binding : NULL, devices);
        if (devices)
            dj_topology_read_devices(topology, loaded);
        if (devices && topology->is_this_machine)
            dj_topology_check_gpus(topology);
    }
    hwloc_topology_destroy(loaded);
    if (topology->n_cores == 0) {
        free(topology);
        return dj_fail(DJ_ERR_SYSTEM, "hwloc finds no core that this process may use");
    }
    *topology_p = topology;
    return DJ_OK;
}

/* ---- a process of its own ---- */

typedef struct shared {
    bool done;
    dj_topology_t topology;
} shared_t;

typedef struct foreign {
    const char *xml; /* or NULL */
    size_t xml_bytes;
    const char *synthetic;
} foreign_t;

static void confine(void)
{
    struct rlimit seconds = {GUARD_CPU_SECONDS, GUARD_CPU_SECONDS},
                  bytes = {GUARD_BYTES, GUARD_BYTES};
    struct rlimit none = {0, 0};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setrlimit(RLIMIT_CPU, &seconds);
    setrlimit(RLIMIT_CORE, &none);
    if (GUARD_MEMORY)
        setrlimit(RLIMIT_AS, &bytes);
    int nothing = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (nothing >= 0)
        dup2(nothing, STDERR_FILENO);
}

static void parse_and_exit(const foreign_t *foreign, shared_t *shared)
{
    hwloc_topology_t loaded;
    confine();
    if (open_hwloc(true, &loaded) != DJ_OK)
        _exit(1);
    int set = foreign->xml
                  ? hwloc_topology_set_xmlbuffer(loaded, foreign->xml, (int)foreign->xml_bytes)
                  : hwloc_topology_set_synthetic(loaded, foreign->synthetic);
    if (set != 0 || hwloc_topology_load(loaded) != 0)
        _exit(1);
    dj_topology_read_cores(&shared->topology, loaded, NULL, true);
    dj_topology_read_devices(&shared->topology, loaded);
    shared->done = true;
    _exit(0);
}

/* True when the child ended by itself and said that it was done. */
static bool wait_for(pid_t pid, const shared_t *shared)
{
    int how = 0, fd = pidfd_open(pid, 0);
    struct pollfd watch = {.fd = fd, .events = POLLIN};
    int ready = fd >= 0 ? poll(&watch, 1, GUARD_SECONDS * 1000) : 0;
    if (ready <= 0)
        kill(pid, SIGKILL);
    if (fd >= 0)
        close(fd);
    while (waitpid(pid, &how, 0) < 0) {
        if (errno != EINTR)
            return false;
    }
    return WIFEXITED(how) && WEXITSTATUS(how) == 0 && shared->done;
}

static bool is_place(const dj_topology_t *topology, int32_t node, int32_t package)
{
    return node >= -1 && node < (int32_t)topology->n_nodes && package >= -1 &&
           package < DJ_PACKAGES_MAX;
}

/* The child wrote into our memory: nothing in it is believed unseen. */
static bool is_sound(const dj_topology_t *topology)
{
    bool good = topology->n_cores >= 1 && topology->n_cores <= DJ_CORES_MAX &&
                topology->n_packages >= 1 && topology->n_packages <= DJ_PACKAGES_MAX &&
                topology->n_nodes >= 1 && topology->n_nodes <= DJ_NODES_MAX &&
                topology->n_gpus <= DJ_GPUS_MAX && topology->n_nics <= DJ_NICS_MAX;
    for (uint32_t i = 0; good && i < topology->n_cores; i++)
        good = is_place(topology, topology->core[i].node, topology->core[i].package);
    for (uint32_t i = 0; good && i < topology->n_gpus; i++)
        good = is_place(topology, topology->gpu[i].node, topology->gpu[i].package);
    for (uint32_t i = 0; good && i < topology->n_nics; i++)
        good = is_place(topology, topology->nic[i].node, topology->nic[i].package);
    for (uint32_t i = 0; good && i < topology->n_nodes * topology->n_nodes; i++)
        good = topology->distance[i / topology->n_nodes][i % topology->n_nodes] <= 255;
    return good;
}

static void end_names(dj_topology_t *topology)
{
    topology->processor[sizeof topology->processor - 1] = '\0';
    for (uint32_t i = 0; i < topology->n_gpus; i++) {
        dj_gpu_t *gpu = &topology->gpu[i];
        gpu->bus_id[sizeof gpu->bus_id - 1] = gpu->name[sizeof gpu->name - 1] = '\0';
        gpu->model[sizeof gpu->model - 1] = gpu->uuid[sizeof gpu->uuid - 1] = '\0';
    }
    for (uint32_t i = 0; i < topology->n_nics; i++) {
        dj_nic_t *nic = &topology->nic[i];
        nic->bus_id[sizeof nic->bus_id - 1] = nic->name[sizeof nic->name - 1] = '\0';
        nic->network[sizeof nic->network - 1] = '\0';
    }
}

static dj_status_t parse_guarded(const foreign_t *foreign, dj_topology_t **topology_p)
{
    dj_topology_t *topology = malloc(sizeof *topology);
    shared_t *shared =
        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (!topology || shared == MAP_FAILED) {
        free(topology);
        if (shared != MAP_FAILED)
            munmap(shared, sizeof *shared);
        return dj_fail(DJ_ERR_MEMORY, "no memory for a topology");
    }
    dj_status_t status = DJ_OK;
    pid_t pid = fork();
    if (pid == 0)
        parse_and_exit(foreign, shared);
    if (pid < 0)
        status = dj_fail(DJ_ERR_SYSTEM, "no process to read a topology in: %s", strerror(errno));
    else if (!wait_for(pid, shared) || !is_sound(&shared->topology))
        status = dj_fail(DJ_ERR_CORRUPT, "hwloc cannot read it as %s",
                         foreign->xml ? "a topology; it takes what lstopo 2.x writes with --of xml"
                                      : "a machine; try pack:2 numa:2 core:8 pu:2");
    if (status == DJ_OK) {
        memcpy(topology, &shared->topology, sizeof *topology);
        end_names(topology);
        *topology_p = topology;
    } else {
        free(topology);
    }
    munmap(shared, sizeof *shared);
    return status;
}

/* ---- a file ---- */

static dj_status_t read_file(const char *path, char **text_p, size_t *bytes_p)
{
    struct stat about;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 || fstat(fd, &about) != 0) {
        if (fd >= 0)
            close(fd);
        return dj_fail(DJ_ERR_FILE, "cannot open it: %s", strerror(errno));
    }
    dj_status_t status = DJ_OK;
    size_t room = 0, got = 0;
    char *text = NULL;
    if (!S_ISREG(about.st_mode))
        status = dj_fail(DJ_ERR_FILE, "not a regular file");
    else if (about.st_size > DJ_TOPOLOGY_FILE_BYTES_MAX)
        status = dj_fail(DJ_ERR_LIMIT, "%lld bytes; a topology has at most %d",
                         (long long)about.st_size, DJ_TOPOLOGY_FILE_BYTES_MAX);
    if (status == DJ_OK) {
        room = (size_t)about.st_size;
        text = malloc(room + 1);
        if (!text)
            status = dj_fail(DJ_ERR_MEMORY, "no memory for %zu bytes", room);
    }
    while (status == DJ_OK && got < room) {
        ssize_t size = read(fd, text + got, room - got);
        if (size <= 0)
            status = dj_fail(DJ_ERR_FILE, "cannot read it: %s",
                             size < 0 ? strerror(errno) : "it became shorter");
        else
            got += (size_t)size;
    }
    close(fd);
    if (status != DJ_OK) {
        free(text);
        return status;
    }
    text[got] = '\0';
    *text_p = text;
    *bytes_p = got + 1; /* hwloc wants the zero counted */
    return DJ_OK;
}

static void put_source(dj_topology_t *topology, const char *text)
{
    snprintf(topology->source, sizeof topology->source, "%s", text);
    for (char *at = topology->source; *at; at++) {
        if (*at < ' ' || *at > '~')
            *at = '?';
    }
}

dj_status_t dj_topology_read(const char *path, dj_topology_t **topology_p)
{
    foreign_t foreign = {0};
    char *text = NULL;
    dj_topology_t *topology = NULL;
    dj_status_t status = read_file(path, &text, &foreign.xml_bytes);
    if (status == DJ_OK) {
        foreign.xml = text;
        status = parse_guarded(&foreign, &topology);
        free(text);
    }
    if (status != DJ_OK)
        return dj_fail_prefix(status, "%.200s", path);
    const char *slash = strrchr(path, '/');
    put_source(topology, slash ? slash + 1 : path);
    *topology_p = topology;
    return DJ_OK;
}

/* ---- a text ---- */

typedef struct extra {
    uint32_t gpus, nics, gigabytes;
} extra_t;

/* Takes "gpu:8" and the like out of the words; the rest is hwloc's. */
static dj_status_t take_extra(char *word, extra_t *extra, bool *taken_p)
{
    static const char *const names[] = {"gpu:", "nic:", "nvlink:"};
    static const uint32_t most[] = {DJ_GPUS_MAX, DJ_NICS_MAX, 100000};
    uint32_t *values[] = {&extra->gpus, &extra->nics, &extra->gigabytes};
    *taken_p = false;
    for (uint32_t i = 0; i < 3 && !*taken_p; i++) {
        char *end, *number = word + strlen(names[i]);
        if (strncmp(word, names[i], strlen(names[i])) != 0)
            continue;
        unsigned long value = strtoul(number, &end, 10);
        if (*number < '0' || *number > '9' || *end != '\0' || value > most[i])
            return dj_fail(DJ_ERR_INVALID, "'%.32s': a number from 0 to %u belongs behind %s", word,
                           most[i], names[i]);
        *values[i] = (uint32_t)value;
        *taken_p = true;
    }
    return DJ_OK;
}

/* GPU i is in the node i of n lies in, behind a switch with NIC i. */
static void add_devices(dj_topology_t *topology, const extra_t *extra)
{
    for (uint32_t i = 0; i < extra->gpus; i++) {
        uint32_t node = i * topology->n_nodes / extra->gpus;
        dj_gpu_t *gpu = &topology->gpu[i];
        *gpu = (dj_gpu_t){.node = (int32_t)node, .cuda = true};
        gpu->package = (int32_t)topology->node[node].package;
        snprintf(gpu->bus_id, sizeof gpu->bus_id, "%04x:01:00.0", i & 0xffff);
        snprintf(gpu->name, sizeof gpu->name, "cuda%u", i);
    }
    for (uint32_t i = 0; i < extra->nics; i++) {
        uint32_t node = i * topology->n_nodes / extra->nics;
        dj_nic_t *nic = &topology->nic[i];
        *nic = (dj_nic_t){.node = (int32_t)node, .rdma = true, .active = true, .port = 1};
        nic->package = (int32_t)topology->node[node].package;
        snprintf(nic->bus_id, sizeof nic->bus_id, "%04x:02:00.0", i & 0xffff);
        snprintf(nic->name, sizeof nic->name, "mlx5_%u", i);
    }
    topology->n_gpus = extra->gpus;
    topology->n_nics = extra->nics;
}

static dj_near_t near_by_place(const int32_t nodes[2], const int32_t packages[2])
{
    if (nodes[0] == nodes[1])
        return DJ_NEAR_NODE;
    return packages[0] == packages[1] ? DJ_NEAR_PACKAGE : DJ_NEAR_FAR;
}

static void join_devices(dj_topology_t *topology, const extra_t *extra)
{
    for (uint32_t i = 0; i < topology->n_gpus; i++) {
        const dj_gpu_t *gpu = &topology->gpu[i];
        for (uint32_t k = 0; k < topology->n_gpus; k++) {
            const dj_gpu_t *other = &topology->gpu[k];
            topology->gpu_gpu[i][k] = (uint8_t)near_by_place(
                (int32_t[]){gpu->node, other->node}, (int32_t[]){gpu->package, other->package});
            topology->nvlink_mbps[i][k] = i == k ? 0 : extra->gigabytes * 1000;
        }
        for (uint32_t k = 0; k < topology->n_nics; k++) {
            const dj_nic_t *nic = &topology->nic[k];
            dj_near_t near = near_by_place((int32_t[]){gpu->node, nic->node},
                                           (int32_t[]){gpu->package, nic->package});
            bool paired = i * topology->n_nics / topology->n_gpus == k ||
                          k * topology->n_gpus / topology->n_nics == i;
            topology->gpu_nic[i][k] = near == DJ_NEAR_NODE && paired ? DJ_NEAR_SWITCH : near;
        }
    }
}

dj_status_t dj_topology_parse(const char *text, dj_topology_t **topology_p)
{
    char words[DJ_TOPOLOGY_TEXT_BYTES_MAX], rest[DJ_TOPOLOGY_TEXT_BYTES_MAX + 2] = "", *save;
    extra_t extra = {0};
    dj_topology_t *topology = NULL;
    if (strlen(text) >= sizeof words)
        return dj_fail(DJ_ERR_LIMIT, "a synthetic text has less than %zu bytes", sizeof words);
    snprintf(words, sizeof words, "%s", text);
    for (char *word = strtok_r(words, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
        bool taken;
        dj_status_t status = take_extra(word, &extra, &taken);
        if (status != DJ_OK)
            return status;
        if (!taken) {
            strcat(rest, word); /* words and rest have the same length at most */
            strcat(rest, " ");
        }
    }
    foreign_t foreign = {.synthetic = rest};
    dj_status_t status = parse_guarded(&foreign, &topology);
    if (status != DJ_OK)
        return dj_fail_prefix(status, "'%.100s'", text);
    put_source(topology, text);
    add_devices(topology, &extra);
    join_devices(topology, &extra);
    *topology_p = topology;
    return DJ_OK;
}

/* ---- words ---- */

const char *dj_near_text(dj_near_t near)
{
    static const char *const texts[] = {"behind one PCI switch",
                                        "behind several PCI bridges",
                                        "behind one PCI host bridge",
                                        "in one NUMA node",
                                        "in one package",
                                        "far"};
    return (uint32_t)near < sizeof texts / sizeof texts[0] ? texts[near] : "far";
}

bool dj_processors_format(const cpu_set_t *set, char *text, uint32_t room)
{
    uint32_t used = 0;
    text[0] = '\0';
    for (int from = 0; from < CPU_SETSIZE; from++) {
        int to = from;
        if (!CPU_ISSET(from, set))
            continue;
        while (to + 1 < CPU_SETSIZE && CPU_ISSET(to + 1, set))
            to++;
        const char *comma = used ? "," : "";
        int length = from == to ? snprintf(text + used, room - used, "%s%d", comma, from)
                                : snprintf(text + used, room - used, "%s%d-%d", comma, from, to);
        used += (uint32_t)length;
        if (used >= room) {
            text[0] = '\0';
            return false;
        }
        from = to;
    }
    return true;
}
