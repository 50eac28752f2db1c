/* supervisor.c - the loop. */
#include "launcher/supervisor.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "launcher/child.h"
#include "runtime/base/clock.h"

#define SETTLE_NS DJ_NS_PER_S /* beyond the time in which ranks drain */
#define COMMAND_END_NS (5 * DJ_NS_PER_S)
#define PATIENCE_NS (5 * DJ_NS_PER_S)
#define KILL_WAIT_NS                                                                               \
    (2 * DJ_NS_PER_S) /* a process that SIGKILL does not end by then hangs in a driver */
#define NEVER UINT64_MAX

typedef struct supervisor {
    const dj_supervisor_setup_t *setup;
    int signal_fd;
    bool stopping, killed, was_ready;
    bool was_told; /* on_ready, with open seats */
    bool hurries;  /* others' commands are not waited for */
    bool told_first; /* rank 0 knows that it ends */
    uint64_t began_ns, tell_first_at_ns, kill_at_ns, leave_at_ns;
    uint64_t crew_at_ns;  /* head or member want to be called again */
    uint64_t patience_ns; /* at the start: when people are told what is waited for */
    pid_t command; /* 0: none runs */
    bool command_ended;
    uint64_t command_kill_at_ns; /* NEVER unless it was told to end */
    int exit_status;
} supervisor_t;

static void signal_all(supervisor_t *self, int number)
{
    for (uint32_t i = 0; i < self->setup->n_wards; i++) {
        if (self->setup->wards[i].pid > 0)
            kill(self->setup->wards[i].pid, number);
    }
}

static void kill_ranks(supervisor_t *self)
{
    if (!self->killed)
        signal_all(self, SIGKILL);
    self->killed = true;
    self->leave_at_ns = dj_clock_ns() + KILL_WAIT_NS;
}

/* Rank 0 ends last, so that the workers need not take it for dead. */
static void tell_first(supervisor_t *self)
{
    const dj_ward_t *wards = self->setup->wards;
    bool others = false;
    for (uint32_t i = 0; i < self->setup->n_wards; i++)
        others = others || (wards[i].rank > 0 && wards[i].pid > 0);
    if (self->setup->head)
        others = others || dj_head_members(self->setup->head) > 0;
    if (self->told_first || (others && dj_clock_ns() < self->tell_first_at_ns))
        return;
    self->told_first = true;
    if (wards[0].rank == 0 && wards[0].pid > 0)
        kill(wards[0].pid, SIGTERM);
}

static void stop(supervisor_t *self, int exit_status)
{
    if (self->stopping)
        return;
    self->stopping = true;
    self->exit_status = exit_status;
    uint64_t now = dj_clock_ns(), drain_ns = self->setup->ranks.config->drain_ms * DJ_NS_PER_MS;
    self->tell_first_at_ns = now + drain_ns + SETTLE_NS;
    self->kill_at_ns = now + drain_ns + 2 * SETTLE_NS;
    if (self->setup->head)
        dj_head_end(self->setup->head);
    for (uint32_t i = 0; i < self->setup->n_wards; i++) {
        const dj_ward_t *ward = &self->setup->wards[i];
        if (ward->rank > 0 && ward->pid > 0)
            kill(ward->pid, SIGTERM);
    }
    tell_first(self);
}

static void tell_command(supervisor_t *self, int number)
{
    kill(self->command, number);
    if (number != SIGINT && self->command_kill_at_ns == NEVER)
        self->command_kill_at_ns = dj_clock_ns() + COMMAND_END_NS;
}

static void take_signal(supervisor_t *self, const struct signalfd_siginfo *info)
{
    int number = (int)info->ssi_signo;
    if (number == SIGCHLD)
        return;
    if (self->command > 0) {
        self->hurries = self->hurries || number != SIGINT;
        if (number != SIGINT || info->ssi_code <= 0)
            tell_command(self, number);
    } else if (self->stopping) {
        kill_ranks(self);
    } else {
        stop(self, self->setup->command ? 128 + number : 0);
    }
}

static void start_command(supervisor_t *self)
{
    dj_status_t status = dj_child_start(
        &(dj_child_setup_t){
            .program = self->setup->command[0],
            .argv = self->setup->command,
            .variables = self->setup->variables,
        },
        &self->command);
    if (status == DJ_OK)
        return;
    dprintf(STDERR_FILENO, "djinn: %s\n", dj_error_text());
    self->command = 0;
    stop(self, 1);
}

static void say_ready(const supervisor_t *self, const dj_ward_t *ward)
{
    double seconds = (double)(dj_clock_ns() - ward->started_ns) / 1e9;
    if (self->setup->quiet)
        return;
    if (ward->incarnation > 0)
        dprintf(STDERR_FILENO, "djinn: rank %u serves again at %s, restart %u, %.3f s\n",
                ward->rank, ward->endpoint, ward->incarnation, seconds);
    else
        dprintf(STDERR_FILENO, "djinn: rank %u ready at %s, %.3f s\n", ward->rank, ward->endpoint,
                seconds);
}

static void all_ready(supervisor_t *self)
{
    const dj_supervisor_setup_t *setup = self->setup;
    self->was_ready = true;
    if (setup->head)
        dj_head_start(setup->head);
    if (!setup->quiet && !setup->member && setup->ranks.size > 1)
        dprintf(STDERR_FILENO, "djinn: %u ranks ready in %.3f s\n", setup->ranks.size,
                (double)(dj_clock_ns() - self->began_ns) / 1e9);
    if (!setup->seats_are_open)
        setup->on_ready(setup->context);
    if (setup->command)
        start_command(self);
}

static bool ours_serve(const supervisor_t *self)
{
    for (uint32_t i = 0; i < self->setup->n_wards; i++) {
        if (self->setup->wards[i].state != DJ_WARD_SERVING)
            return false;
    }
    return true;
}

/* Every rank of the server, ours and others', serves. */
static bool is_ready(const supervisor_t *self)
{
    const dj_supervisor_setup_t *setup = self->setup;
    if (setup->head)
        return dj_head_all_serve(setup->head);
    return setup->member ? dj_member_started(setup->member) : ours_serve(self);
}

static void hear_wards(supervisor_t *self)
{
    const dj_supervisor_setup_t *setup = self->setup;
    for (uint32_t i = 0; i < setup->n_wards; i++) {
        dj_ward_t *ward = &setup->wards[i];
        if (!dj_ward_hear(ward))
            continue;
        say_ready(self, ward);
        if (setup->head)
            dj_head_serves(setup->head, ward->rank, ward->incarnation);
        if (setup->member)
            dj_member_tell(setup->member, DJ_CREW_SERVES, ward->rank, ward->incarnation, 0);
    }
    if (setup->seats_are_open && !self->was_told && ours_serve(self)) {
        self->was_told = true;
        setup->on_ready(setup->context);
    }
    if (!self->was_ready && !self->stopping && is_ready(self))
        all_ready(self);
}

/* ---- the other supervisors ---- */

static void hear_members(supervisor_t *self)
{
    dj_head_t *head = self->setup->head;
    self->crew_at_ns = dj_head_turn(head);
    if (self->stopping)
        return;
    dj_status_t state = self->was_ready ? DJ_OK : dj_head_state(head);
    if (state != DJ_OK) {
        dprintf(STDERR_FILENO, "djinn: %s\n", dj_error_text());
        bool never_met = state == DJ_ERR_VERSION || state == DJ_ERR_DEADLINE ||
                         state == DJ_ERR_UNSUPPORTED;
        stop(self, never_met ? DJ_EXIT_WRONG_USE : DJ_EXIT_LOST);
    } else if (self->command_ended && dj_head_busy(head) == 0) {
        stop(self, self->exit_status);
    }
}

static void hear_head(supervisor_t *self)
{
    if (self->stopping && dj_member_fd(self->setup->member) < 0) { /* we do not come again */
        self->crew_at_ns = NEVER;
        return;
    }
    dj_member_news_t news = dj_member_turn(self->setup->member, &self->crew_at_ns);
    /* While ranks drain, our heartbeats keep rank 0 waiting for them; whatever it says, we end. */
    if (news == DJ_MEMBER_NOTHING || (self->stopping && news != DJ_MEMBER_REPLACED))
        return;
    if (self->command > 0)
        tell_command(self, SIGTERM);
    if (news == DJ_MEMBER_END) {
        stop(self, self->exit_status);
        return;
    }
    dprintf(STDERR_FILENO, "djinn: %s; the ranks here end\n", dj_error_text());
    stop(self, DJ_EXIT_LOST);
    if (news == DJ_MEMBER_REPLACED) /* nobody may meet both */
        kill_ranks(self);
}

static void hear_crew(supervisor_t *self)
{
    if (self->setup->head)
        hear_members(self);
    else if (self->setup->member)
        hear_head(self);
}

static void tell_lost(supervisor_t *self, const dj_ward_t *ward)
{
    bool gone = ward->state == DJ_WARD_LOST || ward->state == DJ_WARD_FINISHED;
    if (gone && self->setup->member)
        dj_member_tell(self->setup->member, DJ_CREW_LOST, ward->rank, ward->incarnation, 0);
}

/* A start that takes long says what it waits for. */
static void say_patience(supervisor_t *self, uint64_t now)
{
    const dj_supervisor_setup_t *setup = self->setup;
    uint32_t missing = setup->ranks.size;
    if (self->was_ready || now < self->patience_ns)
        return;
    self->patience_ns = now + PATIENCE_NS;
    if (setup->quiet || setup->member)
        return;
    for (uint32_t i = setup->n_wards; i-- > 0 && !setup->head;)
        missing = setup->wards[i].state == DJ_WARD_SERVING ? missing : setup->wards[i].rank;
    if (setup->head)
        missing = dj_head_missing(setup->head);
    dprintf(STDERR_FILENO, "djinn: rank %u of %u does not serve yet, %.0f s after the start\n",
            missing, setup->ranks.size, (double)(now - self->began_ns) / 1e9);
}

/* Behind a cut lifeline nothing is started: others may mind our ranks by now, and of two incarnations
 * the coordinator believes the newer one. For the same reason rank 0's supervisor has to know of one
 * before it exists. */
static bool may_start(const supervisor_t *self)
{
    return !self->setup->member || dj_member_fd(self->setup->member) >= 0;
}

/* Starts what is due and kills what hangs. A start that fails is tried again like a death. */
static void mind_wards(supervisor_t *self)
{
    uint64_t now = dj_clock_ns();
    for (uint32_t i = 0; i < self->setup->n_wards && !self->stopping; i++) {
        dj_ward_t *ward = &self->setup->wards[i];
        if (ward->state == DJ_WARD_WAITING && ward->start_at_ns <= now && may_start(self)) {
            if (self->setup->member)
                dj_member_tell(self->setup->member, DJ_CREW_STARTS, ward->rank, ward->incarnation, 0);
            if (dj_ward_start(ward, &self->setup->ranks) != DJ_OK) {
                dprintf(STDERR_FILENO, "djinn: %s\n", dj_error_text());
                dj_ward_ended(ward, SIGABRT, self->setup->ranks.config->restarts);
            }
        } else if (ward->state == DJ_WARD_STARTING && ward->pid > 0 &&
                   now - ward->started_ns > DJ_WARD_READY_LIMIT_S * DJ_NS_PER_S) {
            dprintf(STDERR_FILENO, "djinn: rank %u does not serve after %d s: killed\n", ward->rank,
                    DJ_WARD_READY_LIMIT_S);
            kill(ward->pid, SIGKILL);
            ward->started_ns = now;
        }
    }
}

/* Without rank 0 nobody finds the server; without any rank there is none. */
static void judge(supervisor_t *self)
{
    uint32_t alive = 0;
    bool failed = false, served = self->was_ready || self->was_told;
    for (uint32_t i = 0; i < self->setup->n_wards; i++) {
        const dj_ward_t *ward = &self->setup->wards[i];
        bool gone = ward->state == DJ_WARD_LOST || ward->state == DJ_WARD_FINISHED;
        alive += !gone;
        failed = failed || (ward->state == DJ_WARD_LOST && (ward->rank == 0 || !served));
    }
    if (failed || alive == 0)
        stop(self, failed || self->setup->command ? 1 : 0);
}

static void command_ended(supervisor_t *self, int wait_status)
{
    const dj_supervisor_setup_t *setup = self->setup;
    self->command = 0;
    self->command_ended = true;
    self->exit_status = dj_exit_status(wait_status);
    if (setup->member && !self->stopping)
        dj_member_tell(setup->member, DJ_CREW_DONE, 0, 0, self->exit_status);
    else if (!setup->per_node || self->hurries || !setup->head || dj_head_busy(setup->head) == 0)
        stop(self, self->exit_status);
}

static void reap(supervisor_t *self)
{
    int wait_status;
    pid_t pid;
    while ((pid = waitpid(-1, &wait_status, WNOHANG)) > 0) {
        if (pid == self->command) {
            command_ended(self, wait_status);
            continue;
        }
        for (uint32_t i = 0; i < self->setup->n_wards; i++) {
            dj_ward_t *ward = &self->setup->wards[i];
            if (ward->pid != pid)
                continue;
            if (self->stopping)
                ward->pid = 0;
            else
                dj_ward_ended(ward, wait_status, self->setup->ranks.config->restarts);
            tell_lost(self, ward);
        }
    }
    if (!self->stopping)
        judge(self);
}

static bool any_rank(const supervisor_t *self)
{
    bool any = false;
    for (uint32_t i = 0; i < self->setup->n_wards && !any; i++)
        any = self->setup->wards[i].pid > 0;
    return any;
}

static uint64_t next_event_ns(const supervisor_t *self)
{
    uint64_t next = self->command_kill_at_ns;
    if (self->crew_at_ns < next)
        next = self->crew_at_ns;
    if (!self->was_ready && !self->stopping && self->patience_ns < next)
        next = self->patience_ns;
    if (self->stopping) {
        uint64_t end = self->killed       ? self->leave_at_ns
                       : self->told_first ? self->kill_at_ns
                                          : self->tell_first_at_ns;
        bool waits = any_rank(self) && (!self->killed || dj_clock_ns() < end);
        return waits && end < next ? end : next;
    }
    for (uint32_t i = 0; i < self->setup->n_wards; i++) {
        const dj_ward_t *ward = &self->setup->wards[i];
        uint64_t at = NEVER;
        if (ward->state == DJ_WARD_WAITING && may_start(self))
            at = ward->start_at_ns;
        else if (ward->state == DJ_WARD_STARTING)
            at = ward->started_ns + (DJ_WARD_READY_LIMIT_S + 1) * DJ_NS_PER_S;
        next = at < next ? at : next;
    }
    return next;
}

static int wait_ms(const supervisor_t *self)
{
    uint64_t now = dj_clock_ns(), next = next_event_ns(self);
    if (next == NEVER)
        return -1;
    uint64_t ms = next > now ? (next - now + DJ_NS_PER_MS - 1) / DJ_NS_PER_MS : 0;
    return ms < 60000 ? (int)ms : 60000;
}

static void take_signals(supervisor_t *self)
{
    struct signalfd_siginfo info;
    /* All signals before any death: ranks that SIGTERM reached together with us are not restarted.
     */
    while (read(self->signal_fd, &info, sizeof info) == (ssize_t)sizeof info)
        take_signal(self, &info);
    reap(self);
}

/* What happens by time alone. False: nothing more to wait for. */
static bool take_time(supervisor_t *self)
{
    uint64_t now = dj_clock_ns();
    if (now >= self->command_kill_at_ns && self->command > 0) {
        kill(self->command, SIGKILL);
        self->command_kill_at_ns = NEVER;
    }
    if (!self->stopping) {
        mind_wards(self);
        say_patience(self, now);
        return true;
    }
    tell_first(self);
    if (!any_rank(self))
        return self->command > 0; /* it may go on without a server (fallback=local) */
    if (!self->killed && now >= self->kill_at_ns) {
        dprintf(STDERR_FILENO, "djinn: ranks do not end after %d s: killed\n",
                (int)((self->setup->ranks.config->drain_ms + 2000) / 1000));
        kill_ranks(self);
        self->exit_status = self->exit_status ? self->exit_status : 1;
    }
    return !self->killed || now < self->leave_at_ns || self->command > 0;
}

static int loop(supervisor_t *self, struct pollfd *polled)
{
    const dj_supervisor_setup_t *setup = self->setup;
    while (take_time(self)) {
        nfds_t n = 0;
        polled[n++] = (struct pollfd){.fd = self->signal_fd, .events = POLLIN};
        polled[n++] =
            (struct pollfd){.fd = self->stopping ? -1 : setup->parent_fd, .events = POLLIN};
        for (uint32_t i = 0; i < setup->n_wards; i++) {
            if (setup->wards[i].ready_fd >= 0)
                polled[n++] = (struct pollfd){.fd = setup->wards[i].ready_fd, .events = POLLIN};
        }
        if (setup->member)
            polled[n++] = (struct pollfd){.fd = dj_member_fd(setup->member), .events = POLLIN};
        if (setup->head)
            n += dj_head_watch(setup->head, polled + n, dj_head_room(setup->head));
        if (poll(polled, n, wait_ms(self)) < 0 && errno != EINTR)
            stop(self, 1);
        hear_crew(self);
        hear_wards(self);
        take_signals(self);
        if (polled[1].revents && self->command > 0)
            tell_command(self, SIGTERM);
        if (polled[1].revents)
            stop(self, 0);
    }
    return self->exit_status;
}

/* A signal that was ignored when we started (nohup, a shell's background job) stays ignored. */
static void watch_unless_ignored(sigset_t *watched, int number)
{
    struct sigaction action;
    if (sigaction(number, NULL, &action) != 0 || action.sa_handler != SIG_IGN)
        sigaddset(watched, number);
}

int dj_supervisor_run(const dj_supervisor_setup_t *setup)
{
    uint64_t now = dj_clock_ns();
    supervisor_t self = {.setup = setup, .began_ns = now, .command_kill_at_ns = NEVER,
                         .crew_at_ns = setup->head || setup->member ? now : NEVER,
                         .patience_ns = now + PATIENCE_NS};
    nfds_t room = setup->n_wards + 3 + (setup->head ? dj_head_room(setup->head) : 0);
    sigset_t watched;
    int exit_status = 1;
    sigemptyset(&watched);
    sigaddset(&watched, SIGCHLD);
    sigaddset(&watched, SIGTERM);
    watch_unless_ignored(&watched, SIGINT);
    watch_unless_ignored(&watched, SIGHUP);
    if (setup->member && !setup->command) /* nobody waits for a command that does not come */
        dj_member_tell(setup->member, DJ_CREW_DONE, 0, 0, 0);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_DFL); /* ignored by who started us, it would stay so: nobody hears of deaths */
    sigprocmask(SIG_BLOCK, &watched, NULL);
    self.signal_fd = signalfd(-1, &watched, SFD_NONBLOCK | SFD_CLOEXEC);
    struct pollfd *polled = calloc(room, sizeof *polled);
    if (self.signal_fd < 0 || !polled)
        dprintf(STDERR_FILENO, "djinn: cannot watch the ranks: %s\n", strerror(errno));
    else
        exit_status = loop(&self, polled);
    free(polled);
    if (self.signal_fd >= 0)
        close(self.signal_fd);
    /* The mask stays: the process ends now, and says how, even if it is asked to end once more. */
    return exit_status;
}
