/* launch.c - puts the pieces of the launcher together. */
#include "launcher/launch.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "comm/control.h"
#include "launcher/arguments.h"
#include "launcher/bootstrap.h"
#include "launcher/credential.h"
#include "launcher/home.h"
#include "launcher/network.h"
#include "launcher/supervisor.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"

#define DJ_LOG_MODULE "launcher"
#define EXCHANGE_S 60

typedef struct launch {
    dj_arguments_t arguments;
    dj_place_t place;
    dj_meeting_t meeting;
    bool announces; /* others find us by ~/.djinn/address */
    uint32_t size, n_wards;
    dj_ward_t *wards;
    char program[DJ_PATH_MAX];
} launch_t;

/* ---- bootstrap within a bounded time ---- */

static void exchange_hangs(int number)
{
    static const char text[] = "djinn: the launcher did not let the tasks meet in time; is one of "
                               "them missing?\n";
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0)
        _exit(2);
    _exit(1);
}

/* The launcher's library has waits of its own that know no deadline: an alarm ends them. */
static dj_status_t find_place(launch_t *self)
{
    signal(SIGALRM, exchange_hangs);
    alarm(EXCHANGE_S + 10);
    dj_status_t status = dj_bootstrap_open(&self->place);
    if (status != DJ_OK)
        return status;
    uint64_t asked = self->arguments.config.ranks;
    self->size = self->place.size > 1 ? self->place.size : (uint32_t)asked;
    self->n_wards = self->place.size > 1 ? 1 : self->size;
    if (self->place.size > 1 && asked > 1 && asked != self->place.size)
        return dj_fail(DJ_ERR_INVALID,
                       "the launcher started %u tasks, one for each rank, but %llu "
                       "ranks are asked for; leave -n and DJINN_RANKS out",
                       self->place.size, (unsigned long long)asked);
    if (self->place.size > 1 && self->arguments.command)
        return dj_fail(DJ_ERR_INVALID,
                       "a command is run once, but the launcher started %u tasks; "
                       "start djinn-server there and the command beside it",
                       self->place.size);
    self->wards = calloc(self->n_wards, sizeof *self->wards);
    if (!self->wards)
        return dj_fail(DJ_ERR_MEMORY, "no memory for %u ranks", self->n_wards);
    for (uint32_t i = 0; i < self->n_wards; i++) {
        self->wards[i].rank = self->place.rank + i;
        self->wards[i].listen_fd = self->wards[i].ready_fd = -1;
    }
    dj_log(INFO, "%s: task %u of %u, %u of %u on this node", dj_launcher_name(self->place.launcher),
           self->place.rank, self->place.size, self->place.local_rank, self->place.local_size);
    return DJ_OK;
}

static dj_status_t open_first(launch_t *self)
{
    char listen[DJ_ENDPOINT_TEXT_MAX], host[DJ_ENDPOINT_TEXT_MAX], port[DJ_ENDPOINT_TEXT_MAX];
    dj_credential_t credential;
    const dj_config_t *config = &self->arguments.config;
    bool is_private = self->arguments.command != NULL;
    dj_status_t status = dj_credential_find(config, is_private, &credential);
    if (status != DJ_OK)
        return status;
    self->announces = credential.shared && !is_private;
    snprintf(self->meeting.token, sizeof self->meeting.token, "%s", credential.token);
    status = dj_network_split(config->listen, host, port);
    if (status != DJ_OK)
        return dj_fail_prefix(status, "listen");
    if (self->place.local_size < self->place.size)
        status = dj_network_first_listen(config->listen, listen);
    else
        snprintf(listen, sizeof listen, "%s", config->listen);
    if (status != DJ_OK)
        return status;
    status = dj_control_listen(listen, &self->wards[0].listen_fd, self->wards[0].endpoint);
    if (status == DJ_OK)
        snprintf(self->meeting.endpoint, sizeof self->meeting.endpoint, "%s",
                 self->wards[0].endpoint);
    return status;
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

static dj_status_t open_sockets(launch_t *self)
{
    char listen[DJ_ENDPOINT_TEXT_MAX];
    dj_status_t status = self->place.rank == 0 ? open_first(self) : DJ_OK;
    if (status == DJ_OK && self->place.rank == 0)
        status = make_reachable(self->meeting.endpoint);
    if (status == DJ_OK)
        status = dj_bootstrap_exchange(&self->place, &self->meeting,
                                       dj_clock_ns() + EXCHANGE_S * DJ_NS_PER_S);
    alarm(0);
    if (status == DJ_OK && self->size > 1)
        status = dj_network_facing(self->meeting.endpoint, listen);
    for (uint32_t i = 0; i < self->n_wards && status == DJ_OK; i++) {
        dj_ward_t *ward = &self->wards[i];
        if (ward->rank > 0)
            status = dj_control_listen(listen, &ward->listen_fd, ward->endpoint);
    }
    return status;
}

/* ---- cores ---- */

/* The ranks on this node that run kernels: all but a rank 0 that only coordinates. */
static dj_status_t place_ranks(launch_t *self)
{
    dj_machine_t *machine;
    dj_status_t status = dj_machine_find(&machine);
    if (status != DJ_OK)
        return status;
    bool tasks = self->place.size > 1;
    uint32_t here = tasks ? self->place.local_size : self->size;
    uint32_t coordinators = self->size > 1 && (tasks ? self->place.first_here : true);
    uint32_t workers = here - coordinators;
    bool apart = tasks && dj_machine_is_apart(machine, here);
    for (uint32_t i = 0; i < self->n_wards; i++) {
        dj_ward_t *ward = &self->wards[i];
        uint32_t local = tasks ? self->place.local_rank : i;
        ward->share.threads = 1;
        if (self->size > 1 && ward->rank == 0)
            continue;
        uint32_t index = local >= coordinators ? local - coordinators : 0;
        dj_share_compute(machine, apart ? 0 : index, apart ? 1 : workers, &ward->share);
        dj_log(DEBUG, "rank %u: threads %u, cores %s", ward->rank, ward->share.threads,
               ward->share.bound ? ward->share.cores : "not bound");
    }
    free(machine);
    return DJ_OK;
}

/* ---- the run ---- */

static dj_status_t find_program(launch_t *self)
{
    const char *given = self->arguments.config.rank_program;
    if (given[0]) {
        snprintf(self->program, sizeof self->program, "%s", given);
    } else {
        ssize_t size = readlink("/proc/self/exe", self->program, sizeof self->program - 16);
        char *slash = NULL;
        if (size > 0) {
            self->program[size] = '\0';
            slash = strrchr(self->program, '/');
        }
        if (!slash)
            return dj_fail(DJ_ERR_SYSTEM, "cannot read /proc/self/exe: %s", strerror(errno));
        snprintf(slash + 1, 16, "djinn-rank");
    }
    if (access(self->program, X_OK) != 0)
        return dj_fail(DJ_ERR_FILE, "cannot run the rank program %.2000s: %s", self->program,
                       strerror(errno));
    return DJ_OK;
}

static void print_address(void *context)
{
    launch_t *self = context;
    if (self->place.rank != 0 || self->arguments.command)
        return;
    if (self->announces && dj_address_announce(self->meeting.endpoint) != DJ_OK)
        dj_log(WARN, "clients must be given the address: %s", dj_error_text());
    dprintf(STDOUT_FILENO, "DJINN_ADDRESS=%s\n", self->meeting.endpoint);
}

static int run(launch_t *self)
{
    char address[DJ_ENDPOINT_TEXT_MAX + 16], token[96];
    char *variables[] = {address, token, NULL};
    const dj_arguments_t *arguments = &self->arguments;
    snprintf(address, sizeof address, "DJINN_ADDRESS=%s", self->meeting.endpoint);
    snprintf(token, sizeof token, "DJINN_TOKEN=%s", self->meeting.token);
    bool follows = arguments->config.follow || self->place.launcher != DJ_LAUNCHER_NONE;
    dj_supervisor_setup_t setup = {
        .ranks = {.config = &arguments->config,
                  .program = self->program,
                  .words = arguments->words,
                  .n_words = arguments->n_words,
                  .coordinator = self->meeting.endpoint,
                  .size = self->size},
        .wards = self->wards,
        .n_wards = self->n_wards,
        .command = arguments->command,
        .variables = variables,
        .parent_fd = follows ? pidfd_open(getppid(), 0) : -1,
        .quiet = arguments->quiet,
        .on_ready = print_address,
        .context = self,
    };
    /* By environment, not argv, which every user of the machine can read. */
    if (setenv("DJINN_TOKEN", self->meeting.token, 1) != 0) {
        dprintf(STDERR_FILENO, "djinn: no memory for the environment\n");
        return 1;
    }
    int exit_status = dj_supervisor_run(&setup);
    if (setup.parent_fd >= 0)
        close(setup.parent_fd);
    return exit_status;
}

static void close_all(launch_t *self)
{
    if (self->announces)
        dj_address_withdraw(self->meeting.endpoint);
    dj_bootstrap_close(&self->place);
    for (uint32_t i = 0; i < self->n_wards && self->wards; i++) {
        if (self->wards[i].listen_fd >= 0)
            close(self->wards[i].listen_fd);
    }
    free(self->wards);
    dj_arguments_fini(&self->arguments);
}

int dj_launch_main(const dj_launch_t *launch, int argc, char **argv)
{
    launch_t self = {.place = {.size = 1, .local_size = 1, .first_here = true}};
    if (dj_arguments_parse(&self.arguments, argc, argv, launch->takes_command) != DJ_OK) {
        fprintf(stderr, "%s: %s\n", self.arguments.program, dj_error_text());
        return 2;
    }
    int exit_status = 0;
    if (self.arguments.help) {
        fputs(launch->usage, stdout);
        dj_config_print_help();
    } else if (self.arguments.version) {
        printf("%s %s\n", self.arguments.program, DJINN_VERSION);
    } else {
        dj_log_init(self.arguments.config.log, "server");
        dj_status_t status = find_program(&self);
        if (status == DJ_OK)
            status = find_place(&self);
        if (status == DJ_OK)
            status = open_sockets(&self);
        if (status == DJ_OK)
            status = place_ranks(&self);
        if (status != DJ_OK)
            fprintf(stderr, "%s: %s\n", self.arguments.program, dj_error_text());
        exit_status = status == DJ_OK ? run(&self) : status == DJ_ERR_INVALID ? 2 : 1;
    }
    close_all(&self);
    return exit_status;
}
