/* launch.c - which launcher we are under, and what mpirun and PMIx are here. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "launcher/bootstrap.h"
#include "launcher/doctor/check.h"

/* "pmix (PMIX_NAMESPACE: not set), open mpi (...), slurm (...)" */
static const dj_sign_t *list_order(char *list, size_t room)
{
    const dj_sign_t *sign = dj_bootstrap_signs(), *decides = NULL;
    list[0] = '\0';
    for (; sign->launcher != DJ_LAUNCHER_NONE; sign++) {
        bool set = dj_sign_is_set(sign);
        dj_list_add(list, room, "%s (%s%s%s: %s)", dj_launcher_name(sign->launcher),
                    sign->variables[0], sign->variables[1] ? " and " : "",
                    sign->variables[1] ? sign->variables[1] : "", set ? "set" : "not set");
        if (set && !decides)
            decides = sign;
    }
    return decides;
}

/* No launcher of ours: is it another's, or a job without a step? */
static dj_verdict_t judge_alone(dj_finding_t *finding, const char *order)
{
    const char *nodes = dj_environment("SLURM_JOB_NUM_NODES"), *rank = dj_environment("PMI_RANK");
    if (!rank)
        rank = dj_environment("PALS_RANKID");
    if (rank)
        return dj_find(finding, DJ_VERDICT_FAIL,
                       "start it by Open MPI's mpirun or by srun (MPICH's and Intel's mpiexec "
                       "speak PMI, which Djinn does not)",
                       "a launcher that speaks PMI alone started this: every task of it would be "
                       "a server of its own; asked in this order: %s",
                       order);
    if (nodes && strtoul(nodes, NULL, 10) > 1)
        return dj_find(finding, DJ_VERDICT_WARN,
                       "srun djinn-run -- COMMAND, or mpirun, reaches all nodes of the job",
                       "this is a job of %.16s nodes, but no step of it: what is started here "
                       "stands alone on this node; asked in this order: %s",
                       nodes, order);
    return dj_find(finding, DJ_VERDICT_OK, "",
                   "no launcher: what is started here stands alone; "
                   "asked in this order: %s",
                   order);
}

dj_verdict_t dj_check_launch(dj_exam_t *exam, dj_finding_t *finding)
{
    char order[512], missing[256];
    dj_place_t place;
    const dj_sign_t *sign = list_order(order, sizeof order);
    dj_ask_t *ask = &exam->asks[DJ_ASK_PMIX];
    if (!sign)
        return judge_alone(finding, order);
    const char *name = dj_launcher_name(sign->launcher);
    if (sign->launcher == DJ_LAUNCHER_PMIX && dj_ask_wait(ask) != DJ_ASKED_NOT &&
        !dj_ask_value(ask, "pmix", missing, sizeof missing)) {
        if (!dj_ask_value(ask, "pmix-missing", missing, sizeof missing))
            snprintf(missing, sizeof missing, "it does not load in time");
        return dj_find(finding, DJ_VERDICT_FAIL,
                       "put libpmix.so.2 where this process finds it (LD_LIBRARY_PATH, or the "
                       "package libpmix2), or srun --mpi=none with a shared home folder",
                       "PMIX_NAMESPACE is set, but there is no PMIx: %s; asked in this order: %s",
                       missing, order);
    }
    if (sign->launcher != DJ_LAUNCHER_PMIX && dj_place_from_environment(&place) != DJ_OK)
        return dj_find(finding, DJ_VERDICT_FAIL,
                       "unset what an older job left in this shell, or start a new one",
                       "%s; asked in this order: %s", dj_error_text(), order);
    return dj_find(finding, DJ_VERDICT_OK, "",
                   "%s started this, because %s is set; asked in this "
                   "order: %s",
                   name, sign->variables[0], order);
}

dj_verdict_t dj_check_pmix(dj_exam_t *exam, dj_finding_t *finding)
{
    dj_ask_t *ask = &exam->asks[DJ_ASK_PMIX];
    char text[256];
    if (dj_ask_wait(ask) == DJ_ASKED_NOT)
        return dj_find(finding, DJ_VERDICT_INFO, "", "libpmix.so.2 was not loaded (--quick)");
    if (dj_ask_value(ask, "pmix", text, sizeof text))
        return dj_find(finding, DJ_VERDICT_OK, "", "%s", text);
    if (!dj_ask_value(ask, "pmix-missing", text, sizeof text))
        snprintf(text, sizeof text, "libpmix.so.2 does not load within %d s", DJ_ASK_MS / 1000);
    return dj_find(finding, DJ_VERDICT_WARN,
                   "nothing on one machine; under srun --mpi=pmix and mpirun install libpmix2, or "
                   "share the home folder among the nodes",
                   "no PMIx: %s", text);
}

dj_verdict_t dj_check_open_mpi(dj_exam_t *exam, dj_finding_t *finding)
{
    dj_ask_t *ask = &exam->asks[DJ_ASK_MPIRUN];
    const char *remedy = "put Open MPI's mpirun first in PATH (module load openmpi), or use srun";
    char line[256];
    switch (dj_ask_wait(ask)) {
    case DJ_ASKED_NOT:
        return dj_find(finding, DJ_VERDICT_INFO, "", "mpirun was not asked (--quick)");
    case DJ_ASKED_MISSING:
        return dj_find(finding, DJ_VERDICT_INFO, "",
                       "no mpirun in PATH; djinn-run and srun need "
                       "none");
    case DJ_ASKED_ANSWERED:
        break;
    default:
        return dj_find(finding, DJ_VERDICT_WARN, remedy,
                       "mpirun --version does not end within "
                       "%d s",
                       DJ_ASK_MS / 1000);
    }
    snprintf(line, sizeof line, "%.*s", (int)strcspn(ask->text, "\r\n"), ask->text);
    if (ask->status != 0)
        return dj_find(finding, DJ_VERDICT_WARN, remedy, "mpirun --version ends with status %d: %s",
                       ask->status, line);
    if (!strstr(ask->text, "Open MPI") && !strstr(ask->text, "OpenRTE") &&
        !strstr(ask->text, "PRRTE"))
        return dj_find(finding, DJ_VERDICT_WARN, remedy,
                       "the mpirun in PATH is not Open MPI's (%s): every task would stand alone",
                       line);
    return dj_find(finding, DJ_VERDICT_OK, "", "%s", line);
}
