/* server.c - the server that is known here: the way to it, its version, its clock. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timex.h>
#include <time.h>

#include "launcher/doctor/check.h"

enum {
    SKEW_MS = 5000,         /* beyond it, logs of two nodes are hard to read together */
    SKEW_MUNGE_MS = 300000, /* beyond it, MUNGE refuses credentials as expired or from the future */
};

dj_verdict_t dj_check_path(dj_exam_t *exam, dj_finding_t *finding)
{
    const djinn_options_t *server = &exam->doctor->server;
    djinn_t *djinn;
    if (!server->address)
        return dj_find(finding, DJ_VERDICT_INFO, "",
                       "no server is known here, so no path was "
                       "tried");
    if (djinn_connect(server, &djinn) != DJINN_OK) {
        exam->info_asked = true; /* once is enough to wait for a server that does not answer */
        return dj_find(finding, DJ_VERDICT_FAIL,
                       "djinn info tells whether the server answers at all", "%s: %s",
                       server->address, djinn_error());
    }
    dj_verdict_t verdict = dj_find(finding, DJ_VERDICT_OK, "", "to rank %d of %s: %s",
                                   djinn_rank(djinn), server->address, djinn_path(djinn));
    djinn_close(djinn);
    return verdict;
}

static int64_t real_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Asks once; NULL when there is no server or no answer. */
static json_t *server_info(dj_exam_t *exam)
{
    if (!exam->info_asked && exam->doctor->server.address) {
        exam->info_sent_ms = real_ms();
        if (djinn_info(&exam->doctor->server, &exam->info) != DJINN_OK)
            exam->info = NULL;
        exam->info_got_ms = real_ms();
    }
    exam->info_asked = true;
    return exam->info ? json_loads(exam->info, 0, NULL) : NULL;
}

static int count_serving(const json_t *root, int *lost_p)
{
    const json_t *ranks = json_object_get(root, "ranks");
    int serving = 0;
    for (size_t i = 0; i < json_array_size(ranks); i++) {
        const char *state = json_string_value(json_object_get(json_array_get(ranks, i), "state"));
        bool serves = state && strcmp(state, "serving") == 0;
        serving += serves;
        *lost_p += !serves;
    }
    return serving;
}

dj_verdict_t dj_check_server(dj_exam_t *exam, dj_finding_t *finding)
{
    json_t *root = server_info(exam);
    const char *version = json_string_value(json_object_get(root, "version"));
    long long expected = json_integer_value(json_object_get(root, "ranks_expected"));
    int lost = 0, serving = count_serving(root, &lost);
    dj_verdict_t verdict;
    if (!root)
        verdict = dj_find(finding, DJ_VERDICT_INFO, "",
                          exam->doctor->server.address ? "the server does not describe itself; see "
                                                         "the check 'path'"
                                                       : "no server is known here");
    else if (!version || strcmp(version, DJINN_VERSION) != 0)
        verdict = dj_find(finding, DJ_VERDICT_WARN,
                          "install the same version on both sides; a protocol of another version "
                          "is refused",
                          "the server is version %.32s, this is %s", version ? version : "?",
                          DJINN_VERSION);
    else if (lost > 0 || serving < expected)
        verdict = dj_find(finding, DJ_VERDICT_WARN,
                          "djinn info names them; the server's log says "
                          "why",
                          "%d of %lld ranks serve", serving, expected);
    else
        verdict = dj_find(finding, DJ_VERDICT_OK, "", "version %s, %d of %lld ranks serve", version,
                          serving, expected);
    json_decref(root);
    return verdict;
}

dj_verdict_t dj_judge_clock(bool synchronised, bool has_server, long long skew_ms,
                            dj_finding_t *finding)
{
    const char *remedy = "start chronyd or systemd-timesyncd on both machines";
    long long off = skew_ms < 0 ? -skew_ms : skew_ms;
    if (has_server && off > SKEW_MS)
        return dj_find(finding, off > SKEW_MUNGE_MS ? DJ_VERDICT_FAIL : DJ_VERDICT_WARN, remedy,
                       "the server's clock is %.1f s %s ours%s", (double)off / 1000,
                       skew_ms > 0 ? "before" : "behind",
                       off > SKEW_MUNGE_MS ? ": MUNGE refuses credentials beyond 300 s" : "");
    if (has_server)
        return dj_find(finding, DJ_VERDICT_OK, "", "the server's clock is %lld ms from ours", off);
    if (!synchronised)
        return dj_find(finding, DJ_VERDICT_INFO, "",
                       "nobody keeps this machine's clock (the kernel says that it is not "
                       "synchronised); across nodes MUNGE allows 300 s");
    return dj_find(finding, DJ_VERDICT_OK, "", "the clock is synchronised");
}

dj_verdict_t dj_check_clock(dj_exam_t *exam, dj_finding_t *finding)
{
    struct timex kept = {0};
    int state = adjtimex(&kept);
    json_t *root = server_info(exam);
    const json_t *time = json_object_get(root, "time_ms");
    bool has_server = json_is_integer(time);
    long long there = json_integer_value(time);
    json_decref(root);
    /* Half-way between the question and the answer, give or take half of what it took. */
    long long here = (exam->info_sent_ms + exam->info_got_ms) / 2;
    return dj_judge_clock(state != TIME_ERROR && !(kept.status & STA_UNSYNC), has_server,
                          there - here, finding);
}
