/* launch.c - puts the pieces of the launcher together. */
#include "launcher/launch.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "launcher/assembly.h"
#include "launcher/attach.h"
#include "launcher/credential.h"
#include "launcher/home.h"
#include "launcher/placement/layout.h"
#include "launcher/supervisor.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"

#define DJ_LOG_MODULE "launcher"

typedef struct launch {
    dj_arguments_t arguments;
    dj_assembly_t assembly;
    dj_layout_t *layout; /* of this node; our first rank is number `first` there */
    uint32_t first;
    char program[DJ_PATH_MAX];
    int parent_fd; /* who started us: asked for at once, because it may die while the tasks meet */
} launch_t;

/* ---- places ---- */

static dj_status_t place_ranks(launch_t *launch)
{
    const dj_assembly_t *self = &launch->assembly;
    bool tasks = !self->whole_node;
    dj_layout_place_t place = {.tasks = tasks ? self->place.local_size : 1,
                               .ranks = tasks ? self->place.local_size : self->n_wards,
                               .first = tasks ? self->place.local_rank : 0,
                               .count = self->n_wards};
    place.coordinator =
        self->size > 1 && (tasks ? self->place.first_here : self->wards[0].rank == 0);
    dj_status_t status = dj_layout_find(&launch->arguments.config, &place, &launch->layout);
    for (uint32_t i = 0; i < self->n_wards && status == DJ_OK; i++)
        self->wards[i].share = launch->layout->rank[place.first + i].share;
    launch->first = place.first;
    return status;
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

static void announce(void *context)
{
    launch_t *self = context;
    const dj_assembly_t *assembly = &self->assembly;
    const char *path = self->arguments.config.address_file;
    dj_bootstrap_close(&assembly->place); /* everybody is here: nobody looks for it any more */
    if (assembly->member)
        return;
    if (path[0] && dj_address_leave(path, assembly->meeting.endpoint) != DJ_OK)
        dj_log(WARN, "clients must be given the address: %s", dj_error_text());
    if (self->arguments.command)
        return;
    if (assembly->announces && dj_address_announce(assembly->meeting.endpoint) != DJ_OK)
        dj_log(WARN, "clients must be given the address: %s", dj_error_text());
    dprintf(STDOUT_FILENO, "DJINN_ADDRESS=%s\n", assembly->meeting.endpoint);
}

/* Which rank would be where; the other tasks print theirs. */
static int dry_run(launch_t *self)
{
    const dj_assembly_t *assembly = &self->assembly;
    char node[64] = "?";
    gethostname(node, sizeof node - 1);
    for (uint32_t i = 0; i < assembly->n_wards; i++) {
        const dj_ward_t *ward = &assembly->wards[i];
        bool coordinates = ward->rank == 0 && assembly->size > 1;
        const dj_layout_rank_t *place = &self->layout->rank[self->first + i];
        printf("rank %u of %u on %s: %s, threads %u, cores %s", ward->rank, assembly->size, node,
               coordinates ? "coordinates" : self->arguments.config.device, ward->share.threads,
               ward->share.bound ? ward->share.cores : "any");
        if (place->gpu >= 0)
            printf(", GPU %s, NIC %s, NUMA node %s; %s", place->gpu_name,
                   ward->share.nic[0] ? ward->share.nic : "none",
                   ward->share.memory_node[0] ? ward->share.memory_node : "any", place->why);
        putchar('\n');
    }
    if (assembly->head)
        dj_head_dismiss(assembly->head, dj_clock_ns() + 10 * DJ_NS_PER_S);
    return 0;
}

static int run(launch_t *self)
{
    char address[DJ_ENDPOINT_TEXT_MAX + 16], token[96];
    char *variables[] = {address, token, NULL};
    const dj_arguments_t *arguments = &self->arguments;
    dj_assembly_t *assembly = &self->assembly;
    snprintf(address, sizeof address, "DJINN_ADDRESS=%s", assembly->meeting.endpoint);
    snprintf(token, sizeof token, "DJINN_TOKEN=%s", assembly->meeting.token);
    bool follows = arguments->config.follow || assembly->place.launcher != DJ_LAUNCHER_NONE;
    bool commands = arguments->config.per_node || !assembly->member;
    dj_supervisor_setup_t setup = {
        .ranks = {.config = &arguments->config,
                  .program = self->program,
                  .words = arguments->words,
                  .n_words = arguments->n_words,
                  .coordinator = assembly->meeting.endpoint,
                  .lifeline = assembly->head ? assembly->meeting.lifeline : "",
                  .size = assembly->size},
        .wards = assembly->wards,
        .n_wards = assembly->n_wards,
        .command = commands ? arguments->command : NULL,
        .variables = variables,
        .per_node = arguments->config.per_node,
        .head = assembly->head,
        .member = assembly->member,
        .parent_fd = follows ? self->parent_fd : -1,
        .quiet = arguments->quiet,
        .seats_are_open = assembly->head && assembly->place.size == 1,
        .on_ready = announce,
        .context = self,
    };
    /* By environment, not argv, which every user of the machine can read. */
    if (setenv("DJINN_TOKEN", assembly->meeting.token, 1) != 0) {
        dprintf(STDERR_FILENO, "djinn: no memory for the environment\n");
        return DJ_EXIT_LOST;
    }
    return dj_supervisor_run(&setup);
}

/* What the machine refused is no fault of the user's. */
static int status_of_failure(dj_status_t status)
{
    bool machine = status == DJ_ERR_SYSTEM || status == DJ_ERR_MEMORY;
    return machine ? DJ_EXIT_LOST : DJ_EXIT_WRONG_USE;
}

/* Two for each rank here, one for each other supervisor; many systems begin with 1024. */
static void allow_descriptors(void)
{
    struct rlimit files;
    const rlim_t enough = 4 * DJ_RANKS_MAX;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur >= enough)
        return;
    files.rlim_cur = files.rlim_max < enough ? files.rlim_max : enough;
    setrlimit(RLIMIT_NOFILE, &files);
}

static int start(launch_t *self)
{
    const dj_config_t *config = &self->arguments.config;
    dj_assembly_t *assembly = &self->assembly;
    dj_log_init(config->log, "server");
    allow_descriptors();
    dj_status_t status = find_program(self);
    if (config->attach[0])
        status = dj_attach_run(&self->arguments); /* comes back only when it fails */
    else
        status = dj_assembly_make(assembly, &self->arguments, status);
    if (status == DJ_OK)
        status = place_ranks(self);
    if (status == DJ_ERR_CANCELLED) {
        dj_log(INFO, "%s", dj_error_text());
        return DJ_EXIT_WRONG_USE;
    }
    if (status != DJ_OK) {
        fprintf(stderr, "%s: %s\n", self->arguments.program, dj_error_text());
        return status_of_failure(status);
    }
    int exit_status = config->dry_run ? dry_run(self) : run(self);
    if (config->address_file[0] && !assembly->member)
        dj_address_take(config->address_file, assembly->meeting.endpoint);
    return exit_status;
}

int dj_launch_main(const dj_launch_t *launch, int argc, char **argv)
{
    launch_t self = {.parent_fd = pidfd_open(getppid(), 0)};
    if (dj_arguments_parse(&self.arguments, argc, argv, launch->takes_command) != DJ_OK) {
        fprintf(stderr, "%s: %s\n", self.arguments.program, dj_error_text());
        return DJ_EXIT_WRONG_USE;
    }
    int exit_status = 0;
    if (self.arguments.help) {
        fputs(launch->usage, stdout);
        dj_config_print_help();
    } else if (self.arguments.version) {
        printf("%s %s\n", self.arguments.program, DJINN_VERSION);
    } else {
        exit_status = start(&self);
    }
    free(self.layout);
    if (self.parent_fd >= 0)
        close(self.parent_fd);
    dj_assembly_fini(&self.assembly);
    dj_arguments_fini(&self.arguments);
    return exit_status;
}
