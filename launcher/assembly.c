/* assembly.c - see assembly.h. */
#include "launcher/assembly.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "comm/control.h"
#include "launcher/credential.h"
#include "launcher/home.h"
#include "launcher/network.h"
#include "launcher/placement/devices.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"

#define DJ_LOG_MODULE "launcher"
#define NO_MEETING "!"
#define JOIN_AGAIN_NS (50 * (long)DJ_NS_PER_MS)

dj_status_t dj_ranks_per_node(const dj_config_t *config, uint32_t *workers_p)
{
    const char *text = config->ranks_per_node;
    char *end = NULL;
    *workers_p = 0;
    if (strcmp(text, "auto") == 0 || strcmp(text, "task") == 0)
        return DJ_OK;
    unsigned long count = *text >= '0' && *text <= '9' ? strtoul(text, &end, 10) : 0;
    if (count == 0 || count >= DJ_RANKS_MAX || *end)
        return dj_fail(DJ_ERR_INVALID, "--ranks-per-node %.32s: auto, task or a number from 1 to %d",
                       text, DJ_RANKS_MAX - 1);
    *workers_p = (uint32_t)count;
    return DJ_OK;
}

/* What this node can mind under --ranks-per-node: the host device any number, else one a device. */
static dj_status_t count_workers(const dj_config_t *config, uint32_t *workers_p)
{
    uint32_t fixed, devices;
    dj_status_t status = dj_ranks_per_node(config, &fixed);
    if (status == DJ_OK)
        status = dj_devices_count(config->device, &devices);
    if (status != DJ_OK)
        return status;
    bool any = fixed && strcmp(config->device, "host") == 0;
    *workers_p = any || (fixed && fixed < devices) ? fixed : devices;
    return DJ_OK;
}

/* The lifeline's proof: ranks that ask for no token have none. */
static dj_status_t lifeline_token(const dj_assembly_t *self, uint8_t token[32])
{
    memset(token, 0, 32);
    if (strcmp(self->arguments->config.auth, "none") == 0)
        return DJ_OK;
    return dj_token_parse(self->meeting.token, token);
}

static dj_status_t make_wards(dj_assembly_t *self, uint32_t first, uint32_t count)
{
    self->wards = calloc(count, sizeof *self->wards);
    if (!self->wards)
        return dj_fail(DJ_ERR_MEMORY, "no memory for %u ranks", count);
    self->n_wards = count;
    for (uint32_t i = 0; i < count; i++) {
        self->wards[i].rank = first + i;
        self->wards[i].listen_fd = self->wards[i].ready_fd = -1;
    }
    return DJ_OK;
}

/* ---- sockets ---- */

/* Whether ranks of other nodes must reach us. */
static bool spans_nodes(const dj_assembly_t *self)
{
    return self->place.local_size < self->place.size;
}

static dj_status_t find_credential(dj_assembly_t *self)
{
    const dj_arguments_t *arguments = self->arguments;
    /* A supervisor that joins later needs the token, so a server of several tasks has the user's. */
    bool is_private = arguments->command && self->place.size == 1;
    dj_credential_t credential;
    dj_status_t status =
        dj_credential_find(&arguments->config, is_private || arguments->config.dry_run, &credential);
    if (status != DJ_OK)
        return status;
    self->announces = credential.shared && !arguments->command;
    snprintf(self->meeting.token, sizeof self->meeting.token, "%s", credential.token);
    return DJ_OK;
}

/* Rank 0 may listen on every address; the others need one that they can reach. */
static dj_status_t make_reachable(char endpoint[DJ_ENDPOINT_TEXT_MAX])
{
    char host[DJ_ENDPOINT_TEXT_MAX], port[DJ_ENDPOINT_TEXT_MAX], found[DJ_ENDPOINT_TEXT_MAX];
    dj_status_t status = dj_network_split(endpoint, host, port);
    if (status != DJ_OK || !dj_network_is_any(host))
        return status;
    if (dj_network_first_listen(endpoint, found) != DJ_OK)
        snprintf(found, sizeof found, "127.0.0.1:%.5s", port);
    snprintf(endpoint, DJ_ENDPOINT_TEXT_MAX, "%s", found);
    return DJ_OK;
}

/* Somebody will wait for the address file: it is tried while nothing has been started. */
static dj_status_t try_address_file(const dj_config_t *config)
{
    struct stat info;
    char beside[DJ_PATH_MAX + 8];
    const char *path = config->address_file;
    if (!path[0] || config->dry_run)
        return DJ_OK;
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode))
        return dj_fail(DJ_ERR_FILE, "--address-file %.2000s: that is no regular file", path);
    snprintf(beside, sizeof beside, "%s.try", path);
    dj_status_t status = dj_address_leave(beside, "");
    if (status != DJ_OK)
        return dj_fail_prefix(status, "--address-file");
    unlink(beside);
    return DJ_OK;
}

/* Rank 0's socket, before its ward is there to have it. */
static dj_status_t open_first(dj_assembly_t *self, int *fd_p)
{
    char listen[DJ_ENDPOINT_TEXT_MAX], host[DJ_ENDPOINT_TEXT_MAX], port[DJ_ENDPOINT_TEXT_MAX];
    const dj_config_t *config = &self->arguments->config;
    dj_status_t status = try_address_file(config);
    if (status == DJ_OK)
        status = find_credential(self);
    if (status != DJ_OK)
        return status;
    status = dj_network_split(config->listen, host, port);
    if (status != DJ_OK)
        return dj_fail_prefix(status, "listen");
    if (spans_nodes(self))
        status = dj_network_first_listen(config->listen, listen);
    else
        snprintf(listen, sizeof listen, "%s", config->listen);
    if (status == DJ_OK)
        status = dj_control_listen(listen, fd_p, self->meeting.endpoint);
    return status == DJ_OK ? make_reachable(self->meeting.endpoint) : status;
}

static dj_status_t open_head(dj_assembly_t *self, uint64_t deadline_ns)
{
    char listen[DJ_ENDPOINT_TEXT_MAX], host[DJ_ENDPOINT_TEXT_MAX], port[DJ_ENDPOINT_TEXT_MAX];
    dj_head_options_t options = {.n_tasks = self->place.size,
                                 .suspect_ms = (uint32_t)self->arguments->config.suspect_ms,
                                 .deadline_ns = deadline_ns,
                                 .address = self->meeting.endpoint};
    dj_status_t status = lifeline_token(self, options.token);
    if (status == DJ_OK)
        status = dj_network_split(self->meeting.endpoint, host, port);
    if (status != DJ_OK)
        return status;
    snprintf(listen, sizeof listen, strchr(host, ':') ? "[%.55s]:0" : "%.60s:0", host);
    return dj_head_open(&options, listen, self->meeting.lifeline, &self->head);
}

/* Of all ranks but rank 0, which listens already. */
static dj_status_t open_sockets(dj_assembly_t *self)
{
    char listen[DJ_ENDPOINT_TEXT_MAX];
    dj_status_t status = DJ_OK;
    if (self->size > 1)
        status = dj_network_facing(self->meeting.endpoint, listen);
    for (uint32_t i = 0; i < self->n_wards && status == DJ_OK; i++) {
        dj_ward_t *ward = &self->wards[i];
        if (ward->rank > 0)
            status = dj_control_listen(listen, &ward->listen_fd, ward->endpoint);
    }
    return status;
}

/* ---- rank 0's supervisor ---- */

/* Who minds what, among the tasks of a launcher. */
static dj_status_t share_out(dj_assembly_t *self, uint32_t *counts)
{
    const dj_config_t *config = &self->arguments->config;
    uint32_t n = self->place.size, asked = config->ranks > 1 ? (uint32_t)config->ranks : 0;
    bool by_task = strcmp(config->ranks_per_node, "task") == 0 || asked == n;
    bool lonely = self->place.local_size == 1;
    uint32_t fixed, *capacity = calloc(n, sizeof *capacity);
    dj_status_t status = capacity ? dj_ranks_per_node(config, &fixed)
                                  : dj_fail(DJ_ERR_MEMORY, "no memory for %u tasks", n);
    if (status == DJ_OK && !by_task && lonely)
        status = count_workers(config, &capacity[0]);
    if (status == DJ_OK && !by_task && lonely)
        status = dj_head_muster(self->head, capacity, &lonely);
    self->whole_node = !by_task && lonely;
    if (status == DJ_OK && fixed && !self->whole_node)
        status = dj_fail(DJ_ERR_INVALID, "--ranks-per-node %u wants one task a node, but the "
                                         "launcher started several on one; give it -N %u -n %u, or "
                                         "leave the option out", fixed, n, n);
    if (status == DJ_OK && !self->whole_node && asked && asked != n)
        status = dj_fail(DJ_ERR_INVALID, "the launcher started %u tasks, one for each rank, but %u "
                                         "ranks are asked for; leave -n and DJINN_RANKS out", n,
                         asked);
    for (uint32_t i = 0; i < n && status == DJ_OK; i++) {
        counts[i] = 1;
        if (self->whole_node && capacity[i] < fixed)
            status = dj_fail(DJ_ERR_INVALID,
                             "--ranks-per-node %u, but the node of task %u has GPUs for %u ranks; "
                             "ask for fewer, or give --device host",
                             fixed, i, capacity[i]);
    }
    if (status == DJ_OK && self->whole_node)
        status = dj_seats_split(asked, n, capacity, counts);
    free(capacity);
    return status;
}

static dj_status_t make_first(dj_assembly_t *self, int fd, const uint32_t *counts)
{
    self->size = 0;
    for (uint32_t i = 0; i < self->place.size; i++)
        self->size += counts[i];
    if (self->size > DJ_RANKS_MAX)
        return dj_fail(DJ_ERR_LIMIT, "%u ranks, but the limit is %d", self->size, DJ_RANKS_MAX);
    dj_status_t status = make_wards(self, 0, counts[0]);
    if (status != DJ_OK)
        return status;
    self->wards[0].listen_fd = fd;
    return dj_control_endpoint(fd, self->wards[0].endpoint);
}

static dj_status_t lead_tasks(dj_assembly_t *self, int fd, uint64_t deadline_ns)
{
    uint32_t *counts = calloc(self->place.size, sizeof *counts);
    dj_status_t status = dj_bootstrap_exchange(&self->place, &self->meeting, deadline_ns);
    alarm(0);
    if (status == DJ_OK && !counts)
        status = dj_fail(DJ_ERR_MEMORY, "no memory for %u tasks", self->place.size);
    if (status == DJ_OK)
        status = share_out(self, counts);
    if (status == DJ_OK)
        status = make_first(self, fd, counts);
    if (status == DJ_OK)
        status = dj_head_seat(self->head, counts, self->size);
    free(counts);
    return status;
}

/* All ranks, or the first ones, and the others are for supervisors that join. */
static dj_status_t lead_alone(dj_assembly_t *self, int fd, uint64_t deadline_ns)
{
    const dj_config_t *config = &self->arguments->config;
    uint32_t workers, size = (uint32_t)config->ranks, here = size;
    /* Nobody to tell anything: PMIx is left, with its thread, which would take our signals. */
    dj_status_t status = dj_bootstrap_exchange(&self->place, &self->meeting, deadline_ns);
    if (status == DJ_OK)
        status = dj_ranks_per_node(config, &workers);
    if (status == DJ_OK && workers && size == 1)
        size = here = workers > 1 ? workers + 1 : 1;
    if (status == DJ_OK && workers && workers + 1 < size)
        here = workers + 1;
    if (status == DJ_OK)
        status = make_first(self, fd, &here);
    self->size = size;
    self->whole_node = true;
    if (status == DJ_OK && here < size)
        status = open_head(self, deadline_ns);
    return status == DJ_OK && here < size ? dj_head_seat(self->head, &here, size) : status;
}

/* The other tasks would wait for us for a minute: they are told that nothing will come. A file has
 * to lie there until they have looked. */
static void call_off(dj_assembly_t *self, uint64_t deadline_ns)
{
    char why[DJ_ERROR_TEXT_MAX];
    snprintf(why, sizeof why, "%s", dj_error_text());
    self->meeting = (dj_meeting_t){.endpoint = NO_MEETING, .token = "-", .lifeline = "-"};
    dj_bootstrap_exchange(&self->place, &self->meeting, deadline_ns);
    if (self->place.launcher != DJ_LAUNCHER_PMIX)
        nanosleep(&(struct timespec){.tv_sec = 1}, NULL);
    dj_fail(DJ_ERR_CANCELLED, "%s", why);
}

static dj_status_t lead(dj_assembly_t *self, uint64_t deadline_ns)
{
    int fd = -1;
    dj_status_t status = open_first(self, &fd);
    if (status == DJ_OK && self->place.size > 1)
        status = open_head(self, deadline_ns);
    if (status == DJ_OK)
        status = self->place.size > 1 ? lead_tasks(self, fd, deadline_ns)
                                      : lead_alone(self, fd, deadline_ns);
    else if (self->place.size > 1)
        call_off(self, deadline_ns);
    if (status != DJ_OK && self->head && self->place.size > 1 &&
        self->place.launcher != DJ_LAUNCHER_PMIX) {
        dj_head_close(self->head); /* who has come hears it by that, who is late by the file */
        self->head = NULL;
        call_off(self, deadline_ns);
    }
    if (fd >= 0 && !self->wards)
        close(fd);
    return status;
}

/* ---- the others ---- */

static dj_status_t take_seats(dj_assembly_t *self, dj_member_seats_t *seats)
{
    dj_status_t status = make_wards(self, seats->first, seats->count);
    for (uint32_t i = 0; i < seats->count && status == DJ_OK; i++)
        self->wards[i].incarnation = seats->incarnations[i];
    self->size = seats->size;
    free(seats->incarnations);
    seats->incarnations = NULL;
    return status;
}

static dj_status_t muster(dj_assembly_t *self, uint32_t task, uint32_t capacity,
                          uint64_t deadline_ns)
{
    dj_muster_t about = {.task = task,
                         .tasks_here = self->place.local_size,
                         .capacity = capacity,
                         .pid = (uint32_t)getpid()};
    dj_member_seats_t seats;
    uint8_t token[32];
    if (gethostname(about.node, sizeof about.node - 1) != 0)
        snprintf(about.node, sizeof about.node, "?");
    dj_status_t status = lifeline_token(self, token);
    if (status == DJ_OK)
        status = dj_member_open(self->meeting.lifeline, token, &about, deadline_ns, &seats,
                                &self->member);
    return status == DJ_OK ? take_seats(self, &seats) : status;
}

static dj_status_t follow(dj_assembly_t *self, uint64_t deadline_ns)
{
    const dj_config_t *config = &self->arguments->config;
    uint32_t capacity = 1;
    dj_status_t status = dj_bootstrap_exchange(&self->place, &self->meeting, deadline_ns);
    alarm(0);
    if (status == DJ_OK && strcmp(self->meeting.endpoint, NO_MEETING) == 0)
        return dj_fail(DJ_ERR_CANCELLED, "rank 0's task cannot start");
    if (status != DJ_OK)
        return status;
    bool able = count_workers(config, &capacity) == DJ_OK; /* if not, rank 0's task says it */
    status = muster(self, self->place.rank, able ? capacity : 0, deadline_ns);
    if (!able || status == DJ_ERR_PEER_DIED || status == DJ_ERR_VERSION ||
        (status == DJ_ERR_CONNECT && errno == ECONNREFUSED))
        return DJ_ERR_CANCELLED; /* rank 0's task says why, for all */
    self->whole_node = status == DJ_OK && self->place.local_size == 1;
    return status;
}

/* A supervisor that was lost a moment ago is missed after --suspect-ms: until then there may be
 * nothing to join. */
static dj_status_t join(dj_assembly_t *self)
{
    const dj_config_t *config = &self->arguments->config;
    const struct timespec pause = {.tv_nsec = JOIN_AGAIN_NS};
    uint64_t deadline_ns = dj_clock_ns() + config->connect_ms * DJ_NS_PER_MS;
    uint64_t busy_until_ns = dj_clock_ns() + (config->suspect_ms + 500) * DJ_NS_PER_MS;
    uint8_t token[32];
    uint32_t workers = 0;
    const dj_sign_t *sign = dj_bootstrap_signs();
    while (sign->launcher != DJ_LAUNCHER_NONE && !dj_sign_is_set(sign))
        sign++;
    /* Whoever started us is followed to its end, whether we are alone in its job or not. */
    self->place = (dj_place_t){.launcher = sign->launcher, .size = 1, .local_size = 1};
    dj_status_t status = dj_ranks_per_node(config, &workers);
    if (status == DJ_OK)
        status = dj_address_read(config->join, deadline_ns, self->meeting.endpoint);
    if (status == DJ_OK)
        status = dj_credential_known(config, self->meeting.token);
    if (status == DJ_OK)
        status = lifeline_token(self, token);
    if (status == DJ_OK)
        status = dj_member_find(self->meeting.endpoint, token, deadline_ns, self->meeting.lifeline);
    if (status != DJ_OK)
        return dj_fail_prefix(status, "--join");
    do
        status = muster(self, DJ_TASK_NONE, workers,
                        dj_clock_ns() + config->connect_ms * DJ_NS_PER_MS);
    while (status == DJ_ERR_BUSY && dj_clock_ns() < busy_until_ns && nanosleep(&pause, NULL) == 0);
    self->whole_node = true;
    return status == DJ_OK ? DJ_OK : dj_fail_prefix(status, "--join");
}

/* ---- all together ---- */

static void exchange_hangs(int number)
{
    static const char text[] = "djinn: the launcher did not let the tasks meet in time; is one of "
                               "them missing?\n";
    _exit(write(STDERR_FILENO, text, sizeof text - 1) < 0 ? 1 : 2);
}

/* We cannot start. Where the first task cannot, either, its sentence is enough for all. */
static dj_status_t give_up(dj_assembly_t *self, dj_status_t ready, uint64_t deadline_ns)
{
    char why[DJ_ERROR_TEXT_MAX];
    snprintf(why, sizeof why, "%s", dj_error_text());
    if (self->place.size == 1)
        return ready;
    if (self->place.rank == 0) {
        call_off(self, deadline_ns);
        return ready;
    }
    dj_status_t status = dj_bootstrap_exchange(&self->place, &self->meeting, deadline_ns);
    if (status == DJ_OK && strcmp(self->meeting.endpoint, NO_MEETING) == 0)
        return DJ_ERR_CANCELLED;
    return dj_fail(ready, "%s", why);
}

static dj_status_t make(dj_assembly_t *self, dj_status_t ready)
{
    const dj_config_t *config = &self->arguments->config;
    uint64_t deadline_ns = dj_clock_ns() + config->meet_ms * DJ_NS_PER_MS;
    if (config->join[0])
        return ready == DJ_OK ? join(self) : ready;
    /* The launcher's library has waits of its own that know no deadline: an alarm ends them. */
    signal(SIGALRM, exchange_hangs);
    alarm((unsigned)(config->meet_ms / 1000) + 10);
    dj_status_t status = dj_bootstrap_open(&self->place);
    if (status != DJ_OK)
        return status;
    if (ready != DJ_OK)
        return give_up(self, ready, deadline_ns);
    dj_log(INFO, "%s: task %u of %u, %u of %u on this node", dj_launcher_name(self->place.launcher),
           self->place.rank, self->place.size, self->place.local_rank, self->place.local_size);
    status = self->place.rank == 0 ? lead(self, deadline_ns) : follow(self, deadline_ns);
    alarm(0);
    return status;
}

dj_status_t dj_assembly_make(dj_assembly_t *self, const dj_arguments_t *arguments,
                             dj_status_t ready)
{
    *self = (dj_assembly_t){.arguments = arguments,
                            .place = {.size = 1, .local_size = 1, .first_here = true}};
    dj_status_t status = make(self, ready);
    return status == DJ_OK ? open_sockets(self) : status;
}

void dj_assembly_fini(dj_assembly_t *self)
{
    if (self->announces)
        dj_address_withdraw(self->meeting.endpoint);
    dj_bootstrap_close(&self->place);
    dj_head_close(self->head);
    dj_member_close(self->member);
    for (uint32_t i = 0; i < self->n_wards && self->wards; i++) {
        if (self->wards[i].listen_fd >= 0)
            close(self->wards[i].listen_fd);
    }
    free(self->wards);
    self->wards = NULL;
}
