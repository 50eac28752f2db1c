/* bootstrap.c - reads the place from the launcher's variables and picks the way of the exchange. */
#include "launcher/bootstrap.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "launcher/exchange_file.h"
#include "launcher/pmix_exchange.h"
#include "runtime/base/config.h"
#include "runtime/base/log.h"

#define DJ_LOG_MODULE "launcher"

static const char *const launcher_names[] = {
    [DJ_LAUNCHER_NONE] = "no launcher",
    [DJ_LAUNCHER_PMIX] = "pmix",
    [DJ_LAUNCHER_OPENMPI] = "open mpi",
    [DJ_LAUNCHER_SLURM] = "slurm",
};

const char *dj_launcher_name(dj_launcher_t launcher)
{
    return launcher_names[launcher];
}

static const dj_sign_t signs[] = {
    {DJ_LAUNCHER_PMIX, {"PMIX_NAMESPACE"}},
    {DJ_LAUNCHER_OPENMPI, {"OMPI_COMM_WORLD_RANK"}},
    {DJ_LAUNCHER_SLURM, {"SLURM_STEP_ID", "SLURM_PROCID"}},
    {DJ_LAUNCHER_NONE, {NULL}},
};

const dj_sign_t *dj_bootstrap_signs(void)
{
    return signs;
}

bool dj_sign_is_set(const dj_sign_t *sign)
{
    for (int i = 0; i < 2 && sign->variables[i]; i++)
        if (!dj_environment(sign->variables[i]))
            return false;
    return sign->variables[0] != NULL;
}

static bool is_present(dj_launcher_t launcher)
{
    const dj_sign_t *sign = signs;
    while (sign->launcher != launcher && sign->launcher != DJ_LAUNCHER_NONE)
        sign++;
    return dj_sign_is_set(sign);
}

/* A decimal number below `limit`. */
static dj_status_t read_count(const char *variable, uint32_t limit, uint32_t *count_p)
{
    const char *text = dj_environment(variable);
    char *end = NULL;
    errno = 0;
    unsigned long count = text && *text >= '0' && *text <= '9' ? strtoul(text, &end, 10) : limit;
    if (errno || count >= limit || (end && *end))
        return dj_fail(DJ_ERR_INVALID, "%s is '%.32s' and should be a number below %u", variable,
                       text ? text : "", limit);
    *count_p = (uint32_t)count;
    return DJ_OK;
}

/* Tasks of node `node` in "4(x2),3": four on each of two nodes, then three. 0: not in the list. */
static uint32_t tasks_of_node(const char *list, uint32_t node)
{
    while (*list) {
        char *end;
        unsigned long tasks = strtoul(list, &end, 10), repeat = 1;
        if (end == list)
            return 0;
        if (strncmp(end, "(x", 2) == 0) {
            repeat = strtoul(end + 2, &end, 10);
            end += *end == ')';
        }
        if (node < repeat)
            return tasks <= DJ_TASKS_MAX ? (uint32_t)tasks : 0;
        node -= (uint32_t)repeat;
        list = end + (*end == ',');
        if (*end && *end != ',')
            return 0;
    }
    return 0;
}

static dj_status_t read_slurm(dj_place_t *place)
{
    uint32_t node = 0;
    const char *restarts = dj_environment("SLURM_RESTART_COUNT");
    const char *list = dj_environment("SLURM_STEP_TASKS_PER_NODE");
    dj_status_t status = read_count("SLURM_STEP_NUM_TASKS", DJ_TASKS_MAX + 1, &place->size);
    if (status == DJ_OK)
        status = read_count("SLURM_PROCID", DJ_TASKS_MAX, &place->rank);
    if (status == DJ_OK)
        status = read_count("SLURM_LOCALID", DJ_TASKS_MAX, &place->local_rank);
    if (status == DJ_OK)
        status = read_count("SLURM_NODEID", DJ_TASKS_MAX, &node);
    if (status != DJ_OK)
        return status;
    place->launcher = DJ_LAUNCHER_SLURM;
    place->local_size = list ? tasks_of_node(list, node) : 0;
    if (place->local_size == 0)
        return dj_fail(DJ_ERR_INVALID, "SLURM_STEP_TASKS_PER_NODE is '%.64s': no tasks of node %u",
                       list ? list : "", node);
    place->first_here = node == 0;
    snprintf(place->job, sizeof place->job, "slurm-%.40s-%.20s-%.10s",
             dj_environment("SLURM_JOB_ID") ? dj_environment("SLURM_JOB_ID") : "0",
             dj_environment("SLURM_STEP_ID"), restarts ? restarts : "0");
    return DJ_OK;
}

static dj_status_t read_openmpi(dj_place_t *place)
{
    const char *job = dj_environment("PMIX_NAMESPACE");
    dj_status_t status = read_count("OMPI_COMM_WORLD_SIZE", DJ_TASKS_MAX + 1, &place->size);
    if (status == DJ_OK)
        status = read_count("OMPI_COMM_WORLD_RANK", DJ_TASKS_MAX, &place->rank);
    if (status == DJ_OK)
        status = read_count("OMPI_COMM_WORLD_LOCAL_RANK", DJ_TASKS_MAX, &place->local_rank);
    if (status == DJ_OK)
        status = read_count("OMPI_COMM_WORLD_LOCAL_SIZE", DJ_TASKS_MAX + 1, &place->local_size);
    if (status != DJ_OK)
        return status;
    if (!job)
        job = dj_environment("OMPI_MCA_ess_base_jobid");
    if (!job && place->size > 1)
        return dj_fail(DJ_ERR_INVALID, "OMPI_COMM_WORLD_RANK is set, but nothing names the job: "
                                       "neither PMIX_NAMESPACE nor OMPI_MCA_ess_base_jobid");
    place->launcher = DJ_LAUNCHER_OPENMPI;
    /* Open MPI fills node after node unless told otherwise. */
    place->first_here = place->local_rank == place->rank;
    snprintf(place->job, sizeof place->job, "ompi-%.100s", job ? job : "alone");
    return DJ_OK;
}

dj_status_t dj_place_from_environment(dj_place_t *place)
{
    dj_place_t found = {.size = 1, .local_size = 1, .first_here = true};
    dj_status_t status = DJ_OK;
    if (is_present(DJ_LAUNCHER_OPENMPI))
        status = read_openmpi(&found);
    else if (is_present(DJ_LAUNCHER_SLURM))
        status = read_slurm(&found);
    if (status != DJ_OK)
        return status;
    if (found.size == 0 || found.rank >= found.size || found.local_rank >= found.local_size)
        return dj_fail(DJ_ERR_INVALID, "%s gives rank %u of %u, local rank %u of %u",
                       dj_launcher_name(found.launcher), found.rank, found.size, found.local_rank,
                       found.local_size);
    *place = found;
    return DJ_OK;
}

void dj_meeting_format(const dj_meeting_t *meeting, char text[sizeof(dj_meeting_t) + 4])
{
    snprintf(text, sizeof *meeting + 4, "%s %s %s", meeting->endpoint, meeting->token,
             meeting->lifeline);
}

bool dj_meeting_parse(const char *text, dj_meeting_t *meeting)
{
    return sscanf(text, "%63s %64s %63s", meeting->endpoint, meeting->token, meeting->lifeline) ==
           3;
}

dj_status_t dj_bootstrap_open(dj_place_t *place)
{
    if (is_present(DJ_LAUNCHER_PMIX)) {
        dj_place_t found = {0};
        dj_status_t status = dj_pmix_open(&found);
        if (status != DJ_ERR_UNSUPPORTED) {
            if (status == DJ_OK)
                *place = found;
            return status;
        }
        dj_log(INFO, "PMIX_NAMESPACE is set, but not used: %s", dj_error_text());
    }
    return dj_place_from_environment(place);
}

dj_status_t dj_bootstrap_exchange(const dj_place_t *place, dj_meeting_t *meeting,
                                  uint64_t deadline_ns)
{
    if (place->launcher == DJ_LAUNCHER_PMIX)
        return dj_pmix_exchange(place, meeting, deadline_ns);
    if (place->size == 1)
        return DJ_OK;
    if (place->rank == 0)
        return dj_exchange_file_write(place->job, meeting);
    return dj_exchange_file_read(place->job, meeting, deadline_ns);
}

void dj_bootstrap_close(const dj_place_t *place)
{
    if (place->launcher != DJ_LAUNCHER_PMIX && place->size > 1 && place->rank == 0)
        dj_exchange_file_remove(place->job);
}
