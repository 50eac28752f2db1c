/* member.c - the lifeline's other end. What was told is kept, so that it can be told again. */
#include "launcher/member.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "comm/control.h"
#include "runtime/base/clock.h"
#include "runtime/base/hash.h"
#include "runtime/base/log.h"

#define DJ_LOG_MODULE "launcher"
#define BEAT_NS (200 * DJ_NS_PER_MS)
#define GRACE_NS (10 * DJ_NS_PER_S)
#define TRY_NS (400 * DJ_NS_PER_MS) /* three round trips, between distant sites too */
#define BETWEEN_TRIES_NS (200 * DJ_NS_PER_MS)

typedef struct told {
    uint32_t kind; /* dj_crew_kind_t; 0: nothing yet */
    uint32_t incarnation;
} told_t;

struct dj_member {
    dj_control_t *control; /* NULL: cut */
    char lifeline[DJ_ENDPOINT_TEXT_MAX];
    uint8_t token[32];
    dj_muster_t about;
    uint32_t suspect_ms;
    told_t *told; /* of each of our ranks */
    bool started, done;
    int32_t done_value;
    uint64_t beat_ns, cut_ns, try_ns;
};

static dj_status_t say(dj_member_t *member, const dj_crew_t *crew)
{
    return dj_control_post(member->control, DJ_MESSAGE_CREW, crew, sizeof *crew, NULL, 0);
}

/* ---- coming ---- */

static dj_status_t greet(const char *address, const uint8_t token[32], uint64_t deadline_ns,
                         dj_control_t **control_p, dj_frame_t *frame, const void **body_p)
{
    dj_hello_t hello = {.role = DJ_ROLE_SUPERVISOR,
                        .uid = (uint32_t)getuid(),
                        .pid = (uint32_t)getpid(),
                        .host = dj_host_identity()};
    dj_status_t status = dj_control_connect(address, deadline_ns, control_p);
    if (status != DJ_OK)
        return status;
    status = dj_control_greet(*control_p, token, &hello, NULL, deadline_ns, frame, body_p);
    if (status == DJ_ERR_VERSION) /* our version, so that both sides know */
        dj_control_post(*control_p, DJ_MESSAGE_HELLO, &hello, sizeof hello, NULL, 0);
    if (status != DJ_OK) {
        dj_control_close(*control_p);
        *control_p = NULL;
    }
    return status;
}

dj_status_t dj_member_find(const char *address, const uint8_t token[32], uint64_t deadline_ns,
                           char lifeline[DJ_ENDPOINT_TEXT_MAX])
{
    dj_control_t *control;
    dj_frame_t frame;
    const void *body;
    dj_status_t status = greet(address, token, deadline_ns, &control, &frame, &body);
    if (status != DJ_OK)
        return status;
    const dj_redirect_t *redirect = body;
    if (frame.type == DJ_MESSAGE_REDIRECT)
        snprintf(lifeline, DJ_ENDPOINT_TEXT_MAX, "%s", redirect->endpoint);
    else
        status = dj_fail(DJ_ERR_PROTOCOL, "%s does not tell where its supervisor is", address);
    dj_control_close(control);
    return status;
}

static dj_status_t take_seat(const dj_crew_t *crew, dj_member_seats_t *seats)
{
    if (seats->count == 0) {
        uint64_t count = crew->value >= 0 ? (uint64_t)crew->value + 1 : 0;
        if (crew->ranks > DJ_RANKS_MAX || count == 0 || count > crew->ranks ||
            crew->rank > crew->ranks - count)
            return dj_fail(DJ_ERR_PROTOCOL, "seats %u and %d more of %u make no sense", crew->rank,
                           crew->value, crew->ranks);
        seats->incarnations = calloc(count, sizeof *seats->incarnations);
        if (!seats->incarnations)
            return dj_fail(DJ_ERR_MEMORY, "no memory for %u ranks", (uint32_t)count);
        seats->size = crew->ranks;
        seats->first = crew->rank;
        seats->count = (uint32_t)count;
    }
    uint32_t at = crew->rank - seats->first;
    if (at >= seats->count || (uint32_t)crew->value != seats->count - 1 - at)
        return dj_fail(DJ_ERR_PROTOCOL, "seat %u does not follow", crew->rank);
    seats->incarnations[at] = crew->incarnation;
    return at + 1 == seats->count ? DJ_OK : DJ_IN_PROGRESS;
}

static dj_status_t wait_for_seats(dj_control_t *control, uint64_t deadline_ns,
                                  dj_member_seats_t *seats)
{
    dj_status_t status = DJ_IN_PROGRESS;
    while (status == DJ_IN_PROGRESS) {
        dj_frame_t frame;
        const void *body;
        const dj_crew_t *crew;
        status = dj_control_receive(control, deadline_ns, &frame, &body);
        crew = body;
        if (status != DJ_OK)
            return status;
        status = DJ_IN_PROGRESS;
        if (frame.type == DJ_MESSAGE_REFUSE)
            status = dj_control_refused(control, body);
        else if (frame.type == DJ_MESSAGE_HEARTBEAT) /* others are awaited; we live, too */
            status = dj_control_post(control, DJ_MESSAGE_HEARTBEAT, body, sizeof(dj_heartbeat_t),
                                     NULL, 0);
        else if (frame.type == DJ_MESSAGE_CREW && crew->kind == DJ_CREW_SEAT)
            status = take_seat(crew, seats);
        else
            return dj_fail(DJ_ERR_PROTOCOL, "%s in the place of seats", dj_message_name(frame.type));
        if (frame.type == DJ_MESSAGE_HEARTBEAT && status == DJ_OK)
            status = DJ_IN_PROGRESS;
    }
    return status;
}

static dj_status_t come(dj_member_t *member, uint64_t deadline_ns, dj_member_seats_t *seats)
{
    dj_frame_t frame;
    const void *body;
    dj_status_t status = greet(member->lifeline, member->token, deadline_ns, &member->control,
                               &frame, &body);
    if (status != DJ_OK)
        return status;
    if (frame.type == DJ_MESSAGE_WELCOME) {
        member->suspect_ms = ((const dj_welcome_t *)body)->suspect_ms;
        dj_control_set_patience(member->control, member->suspect_ms);
        status = dj_control_post(member->control, DJ_MESSAGE_MUSTER, &member->about,
                                 sizeof member->about, NULL, 0);
        if (status == DJ_OK)
            status = wait_for_seats(member->control, deadline_ns, seats);
    } else {
        status = dj_fail(DJ_ERR_PROTOCOL, "%s is no lifeline", member->lifeline);
    }
    if (status != DJ_OK) {
        dj_control_close(member->control);
        member->control = NULL;
    }
    return status;
}

dj_status_t dj_member_open(const char *lifeline, const uint8_t token[32], dj_muster_t *about,
                           uint64_t deadline_ns, dj_member_seats_t *seats, dj_member_t **member_p)
{
    dj_member_t *member = calloc(1, sizeof *member);
    if (!member)
        return dj_fail(DJ_ERR_MEMORY, "no memory for the lifeline");
    do
        about->member = dj_random_u64();
    while (about->member < 16); /* small numbers are the head's own */
    snprintf(about->version, sizeof about->version, "%s", DJINN_VERSION);
    snprintf(member->lifeline, sizeof member->lifeline, "%s", lifeline);
    memcpy(member->token, token, sizeof member->token);
    member->about = *about;
    *seats = (dj_member_seats_t){0};
    dj_status_t status = come(member, deadline_ns, seats);
    if (status == DJ_OK) {
        member->about.first_rank = seats->first;
        member->about.n_ranks = seats->count;
        member->told = calloc(seats->count, sizeof *member->told);
        if (!member->told)
            status = dj_fail(DJ_ERR_MEMORY, "no memory for %u ranks", seats->count);
    }
    if (status != DJ_OK) {
        free(seats->incarnations);
        seats->incarnations = NULL;
        dj_member_close(member);
        return status;
    }
    *member_p = member;
    return DJ_OK;
}

void dj_member_close(dj_member_t *member)
{
    if (!member)
        return;
    dj_control_close(member->control);
    free(member->told);
    free(member);
}

/* ---- telling ---- */

static dj_status_t tell_rank(dj_member_t *member, uint32_t at)
{
    const told_t *told = &member->told[at];
    dj_crew_t crew = {.kind = told->kind,
                      .rank = member->about.first_rank + at,
                      .incarnation = told->incarnation};
    return told->kind ? say(member, &crew) : DJ_OK;
}

static dj_status_t tell_done(dj_member_t *member)
{
    dj_crew_t crew = {.kind = DJ_CREW_DONE, .value = member->done_value};
    return member->done ? say(member, &crew) : DJ_OK;
}

void dj_member_tell(dj_member_t *member, dj_crew_kind_t kind, uint32_t rank, uint32_t incarnation,
                    int32_t value)
{
    uint32_t at = rank - member->about.first_rank;
    if (kind == DJ_CREW_DONE) {
        member->done = true;
        member->done_value = value;
        if (member->control)
            tell_done(member);
    } else if (at < member->about.n_ranks) {
        member->told[at] = (told_t){kind, incarnation};
        if (member->control)
            tell_rank(member, at);
    }
}

/* ---- a turn ---- */

static dj_member_news_t come_again(dj_member_t *member, uint64_t now)
{
    dj_member_seats_t seats = {0};
    if (now < member->try_ns)
        return DJ_MEMBER_NOTHING;
    dj_status_t status = come(member, now + TRY_NS, &seats);
    bool nobody_listens = status == DJ_ERR_CONNECT && errno == ECONNREFUSED;
    free(seats.incarnations);
    member->try_ns = dj_clock_ns() + BETWEEN_TRIES_NS;
    if (status == DJ_OK) {
        dj_log(WARN, "the lifeline to rank 0's supervisor is back after %.1f s",
               (double)(now - member->cut_ns) / 1e9);
        for (uint32_t i = 0; i < member->about.n_ranks; i++)
            tell_rank(member, i);
        tell_done(member);
        return DJ_MEMBER_NOTHING;
    }
    if (status == DJ_ERR_STALE)
        return DJ_MEMBER_REPLACED;
    if (nobody_listens) {
        dj_fail(DJ_ERR_PEER_DIED, "rank 0's supervisor is gone: nobody listens at %s",
                member->lifeline);
        return DJ_MEMBER_LOST;
    }
    if (now - member->cut_ns < GRACE_NS)
        return DJ_MEMBER_NOTHING;
    dj_fail(DJ_ERR_PEER_DIED, "rank 0's supervisor at %s was not reached for %d s",
            member->lifeline, (int)(GRACE_NS / DJ_NS_PER_S));
    return DJ_MEMBER_LOST;
}

static void cut(dj_member_t *member, uint64_t now, const char *why)
{
    dj_log(INFO, "the lifeline to rank 0's supervisor is cut: %s", why);
    dj_control_close(member->control);
    member->control = NULL;
    member->cut_ns = now;
    member->try_ns = now;
}

/* DJ_IN_PROGRESS: nothing more is here. */
static dj_status_t hear(dj_member_t *member, dj_member_news_t *news_p)
{
    dj_frame_t frame;
    const void *body;
    dj_status_t status;
    while ((status = dj_control_try_receive(member->control, &frame, &body)) == DJ_OK) {
        const dj_crew_t *crew = body;
        if (frame.type == DJ_MESSAGE_REFUSE)
            return dj_control_refused(member->control, body);
        if (frame.type != DJ_MESSAGE_CREW)
            continue;
        member->started = member->started || crew->kind == DJ_CREW_START;
        if (crew->kind == DJ_CREW_END)
            *news_p = DJ_MEMBER_END;
    }
    return status;
}

dj_member_news_t dj_member_turn(dj_member_t *member, uint64_t *again_at_ns_p)
{
    dj_member_news_t news = DJ_MEMBER_NOTHING;
    uint64_t now = dj_clock_ns();
    if (!member->control) {
        news = come_again(member, now);
        *again_at_ns_p = member->control ? now : member->try_ns;
        return news;
    }
    dj_status_t status = hear(member, &news);
    uint64_t heard = dj_control_last_heard_ns(member->control);
    uint64_t patience_ns = member->suspect_ms * DJ_NS_PER_MS;
    if (!member->started && patience_ns < DJ_LIFELINE_START_NS)
        patience_ns = DJ_LIFELINE_START_NS;
    if (status == DJ_IN_PROGRESS && now > heard && now - heard > patience_ns)
        status = dj_fail(DJ_ERR_PEER_DIED, "nothing was heard for %llu ms",
                         (unsigned long long)(patience_ns / DJ_NS_PER_MS));
    if (status == DJ_IN_PROGRESS && now - member->beat_ns >= BEAT_NS) {
        dj_heartbeat_t beat = {.sent_ns = now};
        member->beat_ns = now;
        if (dj_control_post(member->control, DJ_MESSAGE_HEARTBEAT, &beat, sizeof beat, NULL, 0) !=
            DJ_OK)
            status = DJ_ERR_PEER_DIED;
    }
    if (status == DJ_ERR_STALE)
        return DJ_MEMBER_REPLACED;
    if (status != DJ_IN_PROGRESS)
        cut(member, now, dj_error_text());
    *again_at_ns_p = member->control ? member->beat_ns + BEAT_NS : now;
    return news;
}

int dj_member_fd(const dj_member_t *member)
{
    return member->control ? dj_control_fd(member->control) : -1;
}

bool dj_member_started(const dj_member_t *member)
{
    return member->started;
}
