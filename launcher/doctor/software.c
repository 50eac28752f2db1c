/* software.c - UCX, its variables, our own programs, and torch. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "comm/fabric.h"
#include "comm/path.h"
#include "launcher/doctor/check.h"
#include "runtime/base/config.h"

enum { DEVICES_MAX = 64 };

/* ---- UCX ---- */

/* Where a version's fault is worked around, nothing is said. */
const char *dj_judge_ucx(unsigned major, unsigned minor, const char **next_p)
{
    *next_p = "a UCX from 1.14 on (conda-forge has one; ucx_info -v shows which is loaded)";
    if (major < 1 || (major == 1 && minor < 13))
        return "older than any that Djinn was tested with (1.13)";
    if (major == 1 && minor == 13)
        return "over tcp it may abort a rank whose peer dies or whose link is cut in the middle of "
               "a connection (about once in 400 times); the supervisor starts the rank anew";
    bool deaf = major == 1 && minor == 20;
    *next_p = deaf ? "UCX 1.19 or 1.21 (scripts/build-ucx builds one), or UCX_NET_DEVICES=all for ranks and clients"
                   : "";
    return deaf ? "it finds no way over the loopback interface by tcp: processes of one machine that may not share "
                  "memory do not connect"
                : NULL;
}

dj_verdict_t dj_check_ucx(dj_exam_t *exam, dj_finding_t *finding)
{
    static dj_fabric_t fabric;
    char list[DJ_FINDING_MAX - 320] = "";
    unsigned major = 0, minor = 0;
    bool tcp = false;
    if (dj_fabric_read(&fabric) != DJ_OK)
        return dj_find(finding, DJ_VERDICT_FAIL, "compare ucx_info -d", "%s", dj_error_text());
    for (unsigned i = 0; i < fabric.n_lanes; ++i) {
        dj_list_add(list, sizeof list, "%s/%s", fabric.lanes[i].transport, fabric.lanes[i].device);
        tcp |= strcmp(fabric.lanes[i].transport, "tcp") == 0;
    }
    if (!tcp)
        return dj_find(finding, DJ_VERDICT_FAIL, "bring a network interface up, at least lo",
                       "UCX %s finds no tcp, only: %s", fabric.version, list[0] ? list : "nothing");
    const char *next = "", *fault = NULL;
    if (sscanf(fabric.version, "%u.%u", &major, &minor) == 2)
        fault = dj_judge_ucx(major, minor, &next);
    return dj_find(finding, fault ? DJ_VERDICT_WARN : DJ_VERDICT_OK, next, "UCX %s with %s%s%s",
                   fabric.version, list, fault ? "; " : "", fault ? fault : "");
}

/* The first name in "eth0,mlx5_0:1" that is neither an interface nor an RDMA device; "" if none. */
static const char *unknown_device(const dj_exam_t *exam, const char *list, char name[64])
{
    char path[DJ_FILE_PATH_MAX];
    if (strcmp(list, "all") == 0)
        return "";
    for (const char *at = list; *at;) {
        size_t span = strcspn(at, ",");
        int length = (int)strcspn(at, ",:/");
        snprintf(name, 64, "%.*s", length, at);
        snprintf(path, sizeof path, "/sys/class/net/%s", name);
        bool known = dj_exam_exists(exam, path);
        snprintf(path, sizeof path, "/sys/class/infiniband/%s", name);
        if (name[0] && !known && !dj_exam_exists(exam, path))
            return name;
        at += span + (at[span] == ',');
    }
    return "";
}

dj_verdict_t dj_check_ucx_settings(dj_exam_t *exam, dj_finding_t *finding)
{
    char list[DJ_FINDING_MAX - 128] = "", name[64];
    const char *devices = dj_environment("UCX_NET_DEVICES");
    for (char **at = environ; *at; ++at)
        if (strncmp(*at, "UCX_", 4) == 0)
            dj_list_add(list, sizeof list, "%s", *at);
    if (!list[0])
        return dj_find(finding, DJ_VERDICT_OK, "",
                       "no UCX_* variable is in the way of Djinn's settings");
    if (!dj_path_tls_allows(dj_environment("UCX_TLS"), "tcp"))
        return dj_find(finding, DJ_VERDICT_FAIL, "unset UCX_TLS, or add tcp to it",
                       "UCX_TLS forbids tcp, which processes of other users and hosts need: %s",
                       list);
    if (devices && unknown_device(exam, devices, name)[0])
        return dj_find(finding, DJ_VERDICT_FAIL,
                       "unset UCX_NET_DEVICES, or name one that "
                       "ucx_info -d shows",
                       "UCX_NET_DEVICES names %s, which is not here: %s", name, list);
    return dj_find(finding, DJ_VERDICT_WARN, "unset them unless you know that they are needed",
                   "your variables win over Djinn's settings of UCX: %s", list);
}

/* ---- our own programs ---- */

static const char *version_of(dj_ask_t *ask, const char *program, char *version, size_t room)
{
    dj_ask_state_t state = dj_ask_wait(ask);
    if (state == DJ_ASKED_MISSING)
        snprintf(version, room, "%s is missing", program);
    else if (state == DJ_ASKED_LATE)
        snprintf(version, room, "%s does not answer", program);
    else if (ask->status != 0 || !dj_ask_value(ask, program, version, room))
        snprintf(version, room, "%s --version ends with status %d", program, ask->status);
    return version;
}

dj_verdict_t dj_check_programs(dj_exam_t *exam, dj_finding_t *finding)
{
    dj_ask_t *server = &exam->asks[DJ_ASK_SERVER], *rank = &exam->asks[DJ_ASK_RANK];
    char ours[128], theirs[128];
    if (dj_ask_wait(server) == DJ_ASKED_NOT)
        return dj_find(finding, DJ_VERDICT_INFO, "",
                       "djinn %s; the programs beside it were not "
                       "asked (--quick)",
                       DJINN_VERSION);
    version_of(server, "djinn-server", ours, sizeof ours);
    version_of(rank, "djinn-rank", theirs, sizeof theirs);
    if (strcmp(ours, DJINN_VERSION) == 0 && strcmp(theirs, DJINN_VERSION) == 0)
        return dj_find(finding, DJ_VERDICT_OK, "", "djinn, djinn-server and djinn-rank %s",
                       DJINN_VERSION);
    return dj_find(finding, DJ_VERDICT_FAIL,
                   "install all programs of one version into one folder; ldd djinn-rank shows a "
                   "missing library; --rank-program names another",
                   "djinn is %s, but the programs beside it are not: djinn-server: %s; "
                   "djinn-rank: %s",
                   DJINN_VERSION, ours, theirs);
}

/* ---- torch ---- */

/* "2.13.0+cpu" and "2.13.1" have the same interface: major and minor decide. */
static bool same_minor(const char *one, const char *other)
{
    unsigned a[2], b[2];
    return sscanf(one, "%u.%u", &a[0], &a[1]) == 2 && sscanf(other, "%u.%u", &b[0], &b[1]) == 2 &&
           a[0] == b[0] && a[1] == b[1];
}

/* The driver runs CUDA of its own major version and older. */
static bool is_cuda_too_new(const char *torch, const char *driver)
{
    return strtoul(torch, NULL, 10) > strtoul(driver, NULL, 10) && driver[0];
}

typedef struct torch_facts {
    char python[32], executable[256], torch[64], cuda[32], built[64], frontend[256], shim[256],
        driver[32];
} torch_facts_t;

static dj_verdict_t judge_torch(const torch_facts_t *facts, dj_finding_t *finding)
{
    if (!facts->torch[0])
        return dj_find(finding, DJ_VERDICT_INFO, "",
                       "no torch in Python %s (%s); programs in C need none", facts->python,
                       facts->executable);
    if (facts->driver[0] && is_cuda_too_new(facts->cuda, facts->driver))
        return dj_find(finding, DJ_VERDICT_WARN,
                       "update the driver, or a torch for the driver's CUDA",
                       "torch %s wants CUDA %s, but the driver has %s", facts->torch, facts->cuda,
                       facts->driver);
    if (!facts->frontend[0])
        return dj_find(finding, DJ_VERDICT_INFO, "",
                       "torch %s in Python %s (%s), but no package djinn; put its folder into "
                       "PYTHONPATH to use djinn from PyTorch",
                       facts->torch, facts->python, facts->executable);
    if (strcmp(facts->shim, "fits") != 0)
        return dj_find(finding, DJ_VERDICT_FAIL,
                       "the python that it was built for, or build the frontend for this one "
                       "(docs/pytorch.md)",
                       "the djinn package in %s has no shim for Python %s (it has: %s)",
                       facts->frontend, facts->python, facts->shim);
    if (facts->built[0] && !same_minor(facts->built, facts->torch))
        return dj_find(finding, DJ_VERDICT_FAIL,
                       "pip install torch of that version, or build the frontend for this one "
                       "(docs/pytorch.md)",
                       "the frontend was built for torch %s, and this is %s: import djinn would "
                       "fail",
                       facts->built, facts->torch);
    return dj_find(finding, DJ_VERDICT_OK, "", "torch %s (CUDA %s) in Python %s; djinn in %s%s%s",
                   facts->torch, facts->cuda[0] ? facts->cuda : "none", facts->python,
                   facts->frontend, facts->built[0] ? ", built for torch " : "", facts->built);
}

dj_verdict_t dj_check_torch(dj_exam_t *exam, dj_finding_t *finding)
{
    dj_ask_t *ask = &exam->asks[DJ_ASK_PYTHON], *cuda = &exam->asks[DJ_ASK_CUDA];
    torch_facts_t facts;
    char line[256];
    dj_ask_state_t state = dj_ask_wait(ask);
    if (state == DJ_ASKED_NOT || state == DJ_ASKED_MISSING)
        return dj_find(finding, DJ_VERDICT_INFO, "",
                       state == DJ_ASKED_NOT ? "python3 was not asked (--quick)"
                                             : "no python3 in PATH; programs in C need none");
    if (state == DJ_ASKED_LATE || ask->status != 0)
        return dj_find(finding, DJ_VERDICT_WARN,
                       "run python3 -c 0 by hand; a slow file system "
                       "under its site-packages is the usual cause",
                       "python3 %s: %s",
                       state == DJ_ASKED_LATE ? "does not answer within 2 s" : "ends with an error",
                       dj_ask_last_line(ask, line, sizeof line));
    dj_ask_wait(cuda);
    dj_ask_value(ask, "python", facts.python, sizeof facts.python);
    dj_ask_value(ask, "executable", facts.executable, sizeof facts.executable);
    dj_ask_value(ask, "torch", facts.torch, sizeof facts.torch);
    dj_ask_value(ask, "cuda", facts.cuda, sizeof facts.cuda);
    dj_ask_value(ask, "frontend", facts.frontend, sizeof facts.frontend);
    dj_ask_value(ask, "built", facts.built, sizeof facts.built);
    dj_ask_value(ask, "shim", facts.shim, sizeof facts.shim);
    dj_ask_value(cuda, "cuda", facts.driver, sizeof facts.driver);
    return judge_torch(&facts, finding);
}
