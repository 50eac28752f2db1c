/* head.c - the lifelines of a server, one small state machine each.
 *
 * A connection begins as a stranger (CHALLENGE sent), is greeted when its HELLO proves the token,
 * mustered when it said who it is, and seated when it knows its ranks. */
#include "launcher/head.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "comm/control.h"
#include "launcher/member.h"
#include "runtime/base/clock.h"
#include "runtime/base/hash.h"
#include "runtime/base/log.h"

#define DJ_LOG_MODULE "launcher"
#define GREET_NS (2 * DJ_NS_PER_S)
#define BEAT_NS (200 * DJ_NS_PER_MS)

enum { STRANGERS_MAX = 64, OWN = 1 /* the head's own number as a member */ };

typedef enum stage { STAGE_STRANGER, STAGE_GREETED, STAGE_MUSTERED, STAGE_SEATED } stage_t;

typedef struct line {
    dj_control_t *control;
    stage_t stage;
    uint8_t nonce[32];
    dj_muster_t about;
    uint64_t since_ns;
    bool done; /* its command is over */
} line_t;

struct dj_head {
    dj_head_options_t options;
    int listen_fd;
    line_t *lines;
    uint32_t n_lines, room;
    dj_seats_t seats;
    uint32_t *first, *count; /* of each task, once seated */
    uint32_t *waiting;       /* lines of each task that have mustered and have no seats */
    bool started, ended;
    uint32_t n_left; /* seated members that went */
    dj_status_t failed; /* with failure; DJ_OK: not */
    char failure[DJ_ERROR_TEXT_MAX];
    uint64_t beat_ns; /* when the last heartbeats left */
    uint64_t deadline_ns; /* every task has to be here by then */
    char foreign[DJ_ERROR_TEXT_MAX]; /* somebody of another version knocked */
    bool awaits;      /* tasks that have not come */
    bool rests;       /* no descriptor was left: nobody is let in before the next heartbeat */
};

dj_status_t dj_head_open(const dj_head_options_t *options, const char *listen,
                         char endpoint[DJ_ENDPOINT_TEXT_MAX], dj_head_t **head_p)
{
    dj_head_t *head = calloc(1, sizeof *head);
    uint32_t room = options->n_tasks + STRANGERS_MAX;
    if (!head)
        return dj_fail(DJ_ERR_MEMORY, "no memory for the lifeline");
    *head = (dj_head_t){.options = *options, .listen_fd = -1, .room = room,
                        .deadline_ns = options->deadline_ns};
    head->lines = calloc(room, sizeof *head->lines);
    head->first = calloc(options->n_tasks, sizeof *head->first);
    head->count = calloc(options->n_tasks, sizeof *head->count);
    head->waiting = calloc(options->n_tasks, sizeof *head->waiting);
    dj_status_t status = head->lines && head->first && head->count && head->waiting
                             ? dj_control_listen(listen, &head->listen_fd, endpoint)
                             : dj_fail(DJ_ERR_MEMORY, "no memory for %u lifelines", room);
    if (status != DJ_OK)
        dj_head_close(head);
    else
        *head_p = head;
    return status;
}

void dj_head_close(dj_head_t *head)
{
    if (!head)
        return;
    for (uint32_t i = 0; i < head->n_lines; i++)
        dj_control_close(head->lines[i].control);
    if (head->listen_fd >= 0)
        close(head->listen_fd);
    dj_seats_fini(&head->seats);
    free(head->lines);
    free(head->first);
    free(head->count);
    free(head->waiting);
    free(head);
}

/* ---- saying ---- */

static bool say(line_t *line, dj_message_t type, const void *body, uint32_t bytes)
{
    return dj_control_post(line->control, type, body, bytes, NULL, 0) == DJ_OK;
}

static bool say_crew(line_t *line, dj_crew_kind_t kind, int32_t value)
{
    dj_crew_t crew = {.kind = kind, .value = value};
    return say(line, DJ_MESSAGE_CREW, &crew, sizeof crew);
}

/* False, for the caller to end the connection. */
static bool refuse(line_t *line, dj_status_t status)
{
    dj_refuse_t text = {.status = status};
    snprintf(text.text, sizeof text.text, "%s", dj_error_text());
    dj_log(INFO, "%s is refused: %s", dj_control_peer(line->control), text.text);
    say(line, DJ_MESSAGE_REFUSE, &text, sizeof text);
    return false;
}

static void fail(dj_head_t *head, dj_status_t status)
{
    if (head->failed != DJ_OK || head->started)
        return;
    head->failed = status;
    snprintf(head->failure, sizeof head->failure, "%s", dj_error_text());
}

/* The server cannot start. Who joins by itself is no condition of that: another one can. */
static void fail_task(dj_head_t *head, const line_t *line, dj_status_t status)
{
    if (line->about.task != DJ_TASK_NONE)
        fail(head, status);
}

static void tell_all(dj_head_t *head, dj_crew_kind_t kind)
{
    for (uint32_t i = 0; i < head->n_lines; i++) {
        if (head->lines[i].stage == STAGE_SEATED)
            say_crew(&head->lines[i], kind, 0);
    }
}

/* ---- who comes ---- */

static bool has_come(const dj_head_t *head, uint32_t task)
{
    if (!head->seats.n)
        return head->waiting[task] > 0;
    return head->seats.of_rank[head->first[task]].last_member != 0;
}

/* The first task that has not come; n_tasks: all have. */
static uint32_t missing_task(const dj_head_t *head)
{
    uint32_t task = 1;
    while (task < head->options.n_tasks && has_come(head, task))
        task++;
    return task;
}

/* Who has proven nothing is not believed: only when a task is still missing a while later was it
 * that one. */
static void note_version(dj_head_t *head)
{
    uint64_t until_ns = dj_clock_ns() + GREET_NS;
    snprintf(head->foreign, sizeof head->foreign, "%s", dj_error_text());
    if (until_ns < head->deadline_ns)
        head->deadline_ns = until_ns;
}

/* True while tasks are awaited. */
static bool await_tasks(dj_head_t *head, uint64_t now)
{
    uint32_t missing = head->started ? head->options.n_tasks : missing_task(head);
    if (missing == head->options.n_tasks)
        return false;
    if (now >= head->deadline_ns && head->foreign[0])
        fail(head, dj_fail(DJ_ERR_VERSION, "task %u of %u did not come; somebody else did: %s",
                           missing, head->options.n_tasks, head->foreign));
    else if (now >= head->deadline_ns)
        fail(head, dj_fail(DJ_ERR_DEADLINE, "task %u of %u did not come in time; did its node start "
                                            "djinn, and can it reach this one?",
                           missing, head->options.n_tasks));
    return true;
}

static bool take_hello(dj_head_t *head, line_t *line, const dj_hello_t *hello, uint32_t length)
{
    uint8_t proof[DJ_PROOF_BYTES];
    dj_hello_t unproven = *hello;
    dj_welcome_t welcome = {.host = dj_host_identity(), .suspect_ms = head->options.suspect_ms};
    memset(unproven.proof, 0, sizeof unproven.proof);
    dj_hello_prove(proof, head->options.token, line->nonce, &unproven, hello + 1,
                   length - (uint32_t)sizeof *hello);
    if (!dj_proof_equal(proof, hello->proof))
        return refuse(line, dj_fail(DJ_ERR_AUTH, "the token is not this server's"));
    if (hello->role != DJ_ROLE_SUPERVISOR)
        return refuse(line, dj_fail(DJ_ERR_PROTOCOL, "only supervisors have business here; "
                                                     "clients go to %s", head->options.address));
    dj_control_trust(line->control);
    line->stage = STAGE_GREETED;
    return say(line, DJ_MESSAGE_WELCOME, &welcome, sizeof welcome);
}

static bool is_text(const char *text, size_t room)
{
    const char *end = memchr(text, '\0', room);
    for (const char *at = text; end && at < end; at++) {
        if (*at < ' ' || *at > '~')
            return false;
    }
    return end != NULL;
}

static bool give_seats(dj_head_t *head, line_t *line, uint32_t first, uint32_t count)
{
    line->stage = STAGE_SEATED;
    for (uint32_t i = 0; i < count; i++) {
        dj_crew_t crew = {.kind = DJ_CREW_SEAT,
                          .rank = first + i,
                          .incarnation = head->seats.of_rank[first + i].incarnation,
                          .value = (int32_t)(count - 1 - i),
                          .ranks = head->seats.n};
        if (!say(line, DJ_MESSAGE_CREW, &crew, sizeof crew))
            return false;
    }
    dj_log(INFO, "ranks %u to %u are minded on %s", first, first + count - 1, line->about.node);
    if (head->started && !say_crew(line, DJ_CREW_START, 0))
        return false;
    return !head->ended || say_crew(line, DJ_CREW_END, 0);
}

/* Seats for a member that has said who it is: its task's, its old ones, or those nobody minds. */
static bool seat(dj_head_t *head, line_t *line)
{
    dj_muster_t *about = &line->about;
    bool again = about->n_ranks > 0, joins = about->task == DJ_TASK_NONE;
    uint32_t first = about->first_rank, count = about->n_ranks;
    if (!again && !joins) {
        first = head->first[about->task];
        count = head->count[about->task];
    }
    if (!again && joins) {
        /* What nobody has minded yet is for the tasks that are still to come. */
        bool waits = missing_task(head) < head->options.n_tasks;
        if (!waits && dj_seats_join(&head->seats, about->member, about->capacity, &first, &count))
            return give_seats(head, line, first, count);
        return refuse(line, dj_fail(DJ_ERR_BUSY, "all %u ranks have a supervisor: there is "
                                                 "nothing to join", head->seats.n));
    }
    if (dj_seats_take(&head->seats, about->member, first, count))
        return give_seats(head, line, first, count);
    return refuse(line, dj_fail(DJ_ERR_STALE, "ranks %u to %u were replaced: another supervisor "
                                              "minds them", first, first + count - 1));
}

static bool take_muster(dj_head_t *head, line_t *line, const dj_muster_t *about)
{
    bool joins = about->task == DJ_TASK_NONE;
    if (!is_text(about->version, sizeof about->version) ||
        !is_text(about->node, sizeof about->node) || about->member <= OWN ||
        (!joins && (about->task == 0 || about->task >= head->options.n_tasks)))
        return refuse(line, dj_fail(DJ_ERR_PROTOCOL, "a MUSTER that makes no sense"));
    if (strcmp(about->version, DJINN_VERSION) != 0) {
        dj_fail(DJ_ERR_VERSION, "node %s has djinn %s, rank 0's has %s; install the same version "
                                "on all nodes", about->node, about->version, DJINN_VERSION);
        if (!joins)
            fail(head, DJ_ERR_VERSION);
        return refuse(line, DJ_ERR_VERSION);
    }
    if (!joins && about->capacity == 0) {
        dj_fail(DJ_ERR_UNSUPPORTED, "no device for task %u on node %s; ask the launcher for GPUs "
                                    "there, or take --device host", about->task, about->node);
        fail(head, DJ_ERR_UNSUPPORTED);
        return refuse(line, DJ_ERR_UNSUPPORTED);
    }
    line->about = *about;
    line->stage = STAGE_MUSTERED;
    if (!joins)
        head->waiting[about->task]++;
    return !head->seats.n || seat(head, line);
}

static dj_seat_t *seat_of(dj_head_t *head, const line_t *line, uint32_t rank)
{
    if (rank >= head->seats.n || head->seats.of_rank[rank].member != line->about.member)
        return NULL;
    return &head->seats.of_rank[rank];
}

static bool take_crew(dj_head_t *head, line_t *line, const dj_crew_t *crew)
{
    dj_seat_t *seat = seat_of(head, line, crew->rank);
    switch (crew->kind) {
    case DJ_CREW_STARTS:
    case DJ_CREW_SERVES:
    case DJ_CREW_LOST:
        if (!seat)
            return refuse(line, dj_fail(DJ_ERR_PROTOCOL, "rank %u is not yours", crew->rank));
        seat->serves = crew->kind == DJ_CREW_SERVES;
        if (crew->incarnation > seat->incarnation)
            seat->incarnation = crew->incarnation;
        if (crew->kind == DJ_CREW_LOST)
            fail_task(head, line,
                      dj_fail(DJ_ERR_PEER_DIED, "rank %u cannot be started on node %s; the lines of "
                                                "that node say why", crew->rank, line->about.node));
        return true;
    case DJ_CREW_DONE:
        line->done = true;
        return true;
    default:
        return refuse(line, dj_fail(DJ_ERR_PROTOCOL, "CREW of kind %u", crew->kind));
    }
}

static bool take_frame(dj_head_t *head, line_t *line, const dj_frame_t *frame, const void *body)
{
    if (line->stage == STAGE_STRANGER && frame->type == DJ_MESSAGE_HELLO)
        return take_hello(head, line, body, frame->length);
    if (line->stage == STAGE_GREETED && frame->type == DJ_MESSAGE_MUSTER)
        return take_muster(head, line, body);
    if (line->stage == STAGE_SEATED && frame->type == DJ_MESSAGE_CREW)
        return take_crew(head, line, body);
    if (line->stage >= STAGE_GREETED && frame->type == DJ_MESSAGE_HEARTBEAT)
        return true;
    return refuse(line, dj_fail(DJ_ERR_PROTOCOL, "%s has no place here",
                                dj_message_name(frame->type)));
}

/* ---- who goes ---- */

static void say_lost(const dj_head_t *head, const line_t *line, uint32_t first, uint32_t count)
{
    if (head->ended || count == 0)
        return;
    dprintf(STDERR_FILENO, "djinn: the supervisor of rank%s %u", count > 1 ? "s" : "", first);
    if (count > 1)
        dprintf(STDERR_FILENO, " to %u", first + count - 1);
    dprintf(STDERR_FILENO, " on node %s is lost; another takes its place with djinn-server --join "
                           "%s\n", line->about.node, head->options.address);
}

static void drop(dj_head_t *head, uint32_t index)
{
    line_t *line = &head->lines[index];
    uint32_t first = 0, count = 0;
    if (line->stage == STAGE_SEATED) {
        head->n_left++;
        /* A member that came again before its old connection ended keeps its seats. */
        bool other = false;
        for (uint32_t i = 0; i < head->n_lines; i++)
            other = other || (i != index && head->lines[i].stage == STAGE_SEATED &&
                              head->lines[i].about.member == line->about.member);
        if (!other)
            count = dj_seats_leave(&head->seats, line->about.member, &first);
        say_lost(head, line, first, count);
        if (count && !head->ended)
            fail_task(head, line,
                      dj_fail(DJ_ERR_PEER_DIED, "the supervisor on node %s was lost before all "
                                                "ranks served", line->about.node));
    }
    if (line->stage == STAGE_MUSTERED && line->about.task != DJ_TASK_NONE)
        head->waiting[line->about.task]--;
    dj_control_close(line->control);
    *line = head->lines[--head->n_lines];
}

static void welcome_strangers(dj_head_t *head)
{
    while (head->n_lines < head->room && !head->rests) {
        int fd = accept4(head->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        line_t *line = &head->lines[head->n_lines];
        dj_challenge_t challenge = {0};
        *line = (line_t){.since_ns = dj_clock_ns()};
        if (fd < 0) {
            head->rests = errno != EAGAIN && errno != EINTR && errno != ECONNABORTED;
            return;
        }
        if (dj_control_adopt(fd, &line->control) != DJ_OK) {
            close(fd);
            continue;
        }
        dj_random_bytes(line->nonce, sizeof line->nonce);
        memcpy(challenge.nonce, line->nonce, sizeof challenge.nonce);
        dj_control_set_patience(line->control, head->options.suspect_ms);
        head->n_lines++;
        if (!say(line, DJ_MESSAGE_CHALLENGE, &challenge, sizeof challenge))
            drop(head, head->n_lines - 1);
    }
}

/* False: the connection is to be ended. */
static bool hear(dj_head_t *head, line_t *line)
{
    dj_frame_t frame;
    const void *body;
    for (;;) {
        dj_status_t status = dj_control_try_receive(line->control, &frame, &body);
        if (status == DJ_IN_PROGRESS)
            return true;
        if (status == DJ_ERR_VERSION && line->stage == STAGE_STRANGER)
            note_version(head);
        if (status != DJ_OK || !take_frame(head, line, &frame, body))
            return false;
    }
}

static bool is_silent(const dj_head_t *head, const line_t *line, uint64_t now)
{
    if (line->stage < STAGE_MUSTERED)
        return now - line->since_ns > GREET_NS;
    uint64_t heard = dj_control_last_heard_ns(line->control);
    uint64_t patience_ns = head->options.suspect_ms * DJ_NS_PER_MS;
    if (!head->started && patience_ns < DJ_LIFELINE_START_NS)
        patience_ns = DJ_LIFELINE_START_NS;
    return now > heard && now - heard > patience_ns;
}

uint64_t dj_head_turn(dj_head_t *head)
{
    welcome_strangers(head);
    uint64_t now = dj_clock_ns();
    bool beats = now - head->beat_ns >= BEAT_NS;
    for (uint32_t i = head->n_lines; i-- > 0;) {
        line_t *line = &head->lines[i];
        dj_heartbeat_t beat = {.sent_ns = now};
        bool good = hear(head, line) && !is_silent(head, line, now);
        if (good && beats && line->stage >= STAGE_GREETED)
            good = say(line, DJ_MESSAGE_HEARTBEAT, &beat, sizeof beat);
        if (good && dj_control_unsent(line->control))
            good = dj_control_flush(line->control) >= 0;
        if (!good)
            drop(head, i);
    }
    if (beats) {
        head->beat_ns = now;
        head->rests = false;
    }
    head->awaits = await_tasks(head, now);
    return head->awaits || head->n_lines || head->rests ? head->beat_ns + BEAT_NS : UINT64_MAX;
}

nfds_t dj_head_room(const dj_head_t *head)
{
    return head->room + 1;
}

nfds_t dj_head_watch(const dj_head_t *head, struct pollfd *polled, nfds_t room)
{
    nfds_t n = 0;
    if (n < room && head->n_lines < head->room && !head->rests)
        polled[n++] = (struct pollfd){.fd = head->listen_fd, .events = POLLIN};
    for (uint32_t i = 0; i < head->n_lines && n < room; i++) {
        const dj_control_t *control = head->lines[i].control;
        short events = dj_control_unsent(control) ? POLLIN | POLLOUT : POLLIN;
        polled[n++] = (struct pollfd){.fd = dj_control_fd(control), .events = events};
    }
    return n;
}

/* ---- the start ---- */

dj_status_t dj_head_muster(dj_head_t *head, uint32_t *capacity, bool *lonely_p)
{
    struct pollfd *polled = calloc(dj_head_room(head), sizeof *polled);
    dj_status_t status = polled ? DJ_OK : dj_fail(DJ_ERR_MEMORY, "no memory for the lifeline");
    head->awaits = true;
    while (status == DJ_OK && head->awaits) {
        poll(polled, dj_head_watch(head, polled, dj_head_room(head)), 50);
        dj_head_turn(head);
        status = dj_head_state(head);
    }
    *lonely_p = true;
    for (uint32_t i = 0; i < head->n_lines && status == DJ_OK; i++) {
        const line_t *line = &head->lines[i];
        if (line->stage != STAGE_MUSTERED || line->about.task == DJ_TASK_NONE)
            continue;
        capacity[line->about.task] = line->about.capacity;
        *lonely_p = *lonely_p && line->about.tasks_here == 1;
    }
    free(polled);
    return status;
}

dj_status_t dj_head_seat(dj_head_t *head, const uint32_t *counts, uint32_t size)
{
    uint32_t next = 0;
    dj_status_t status = dj_seats_init(&head->seats, size);
    if (status != DJ_OK)
        return status;
    for (uint32_t i = 0; i < head->options.n_tasks; i++) {
        head->first[i] = next;
        head->count[i] = counts[i];
        next += counts[i];
    }
    dj_seats_take(&head->seats, OWN, 0, counts[0]);
    for (uint32_t i = head->n_lines; i-- > 0;) {
        if (head->lines[i].stage == STAGE_MUSTERED && !seat(head, &head->lines[i]))
            drop(head, i);
    }
    return DJ_OK;
}

/* ---- what the supervisor says and asks ---- */

void dj_head_serves(dj_head_t *head, uint32_t rank, uint32_t incarnation)
{
    head->seats.of_rank[rank].serves = true;
    head->seats.of_rank[rank].incarnation = incarnation;
}

bool dj_head_all_serve(const dj_head_t *head)
{
    return dj_seats_all_serve(&head->seats);
}

dj_status_t dj_head_state(const dj_head_t *head)
{
    return head->failed == DJ_OK ? DJ_OK : dj_fail(head->failed, "%s", head->failure);
}

void dj_head_start(dj_head_t *head)
{
    head->started = true;
    tell_all(head, DJ_CREW_START);
}

void dj_head_end(dj_head_t *head)
{
    if (!head->ended)
        tell_all(head, DJ_CREW_END);
    head->ended = true;
}

void dj_head_dismiss(dj_head_t *head, uint64_t deadline_ns)
{
    struct pollfd *polled = calloc(dj_head_room(head), sizeof *polled);
    head->ended = true; /* who goes is not missed */
    while (polled && head->n_left < head->options.n_tasks - 1 && dj_clock_ns() < deadline_ns) {
        poll(polled, dj_head_watch(head, polled, dj_head_room(head)), 50);
        dj_head_turn(head);
    }
    free(polled);
}

uint32_t dj_head_members(const dj_head_t *head)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < head->n_lines; i++)
        count += head->lines[i].stage == STAGE_SEATED;
    return count;
}

uint32_t dj_head_busy(const dj_head_t *head)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < head->n_lines; i++)
        count += head->lines[i].stage == STAGE_SEATED && !head->lines[i].done;
    return count;
}

uint32_t dj_head_missing(const dj_head_t *head)
{
    uint32_t rank = 0;
    while (rank < head->seats.n && head->seats.of_rank[rank].serves)
        rank++;
    return rank;
}
