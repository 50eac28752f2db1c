/* ward.c - starts an incarnation, hears that it serves, judges its end. */
#include "launcher/ward.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "launcher/child.h"
#include "runtime/base/clock.h"
#include "runtime/rank.h" /* exit statuses alone: nothing of it is linked */

#define OWN_WORDS 15
#define WORD_BYTES (DJ_CORES_TEXT_MAX + 16)
#define EARLY_NS DJ_NS_PER_S
#define FIRST_PAUSE_NS (10 * DJ_NS_PER_MS)
#define LONGEST_PAUSE_NS (5 * DJ_NS_PER_S)

typedef struct words {
    char text[OWN_WORDS][WORD_BYTES];
    char *argv[];
} words_t;

/* What the rank is told of its place beside its cores; nothing of what it has not. */
static int add_place(words_t *words, int own, const dj_share_t *share)
{
    const struct {
        const char *name, *value;
    } places[] = {
        {"gpu", share->gpu},
        {"net-devices", share->net_devices},
        {"memory-node", share->memory_node},
        {"progress-cores", share->progress_cores},
        {"device-cores", share->device_cores},
        {"heartbeat-cores", share->heartbeat_cores},
    };
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        if (places[i].value[0])
            snprintf(words->text[own++], WORD_BYTES, "--%s=%s", places[i].name, places[i].value);
    }
    return own;
}

/* The user's options first: ours come later and win. */
static words_t *make_words(const dj_ward_t *ward, const dj_ward_setup_t *setup, int ready_fd)
{
    size_t count = (size_t)setup->n_words + OWN_WORDS + 2;
    words_t *words = calloc(1, sizeof *words + count * sizeof words->argv[0]);
    if (!words)
        return NULL;
    uint64_t threads = setup->config->threads ? setup->config->threads : ward->share.threads;
    int at = 0, own = 0;
    words->argv[at++] = (char *)setup->program;
    for (int i = 0; i < setup->n_words; i++)
        words->argv[at++] = setup->words[i];
    snprintf(words->text[own++], WORD_BYTES, "--rank=%u", ward->rank);
    snprintf(words->text[own++], WORD_BYTES, "--ranks=%u", setup->size);
    snprintf(words->text[own++], WORD_BYTES, "--incarnation=%u", ward->incarnation);
    snprintf(words->text[own++], WORD_BYTES, "--listen-fd=%d", ward->listen_fd);
    snprintf(words->text[own++], WORD_BYTES, "--ready-fd=%d", ready_fd);
    snprintf(words->text[own++], WORD_BYTES, "--coordinator=%s", setup->coordinator);
    if (ward->rank == 0)
        snprintf(words->text[own++], WORD_BYTES, "--lifeline=%s", setup->lifeline);
    snprintf(words->text[own++], WORD_BYTES, "--cores=%s", ward->share.cores);
    snprintf(words->text[own++], WORD_BYTES, "--threads=%llu", (unsigned long long)threads);
    own = add_place(words, own, &ward->share);
    for (int i = 0; i < own; i++)
        words->argv[at++] = words->text[i];
    return words;
}

dj_status_t dj_ward_start(dj_ward_t *ward, const dj_ward_setup_t *setup)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0)
        return dj_fail(DJ_ERR_SYSTEM, "cannot start rank %u: pipe: %s", ward->rank,
                       strerror(errno));
    words_t *words = make_words(ward, setup, ends[1]);
    dj_status_t status = DJ_OK;
    if (words) {
        const int kept[] = {ward->listen_fd, ends[1]};
        status = dj_child_start(
            &(dj_child_setup_t){
                .program = setup->program,
                .argv = words->argv,
                .kept_fds = kept,
                .n_kept_fds = 2,
                .processors = ward->share.bound ? &ward->share.processors : NULL,
                .is_rank = true,
            },
            &ward->pid);
    } else {
        status = dj_fail(DJ_ERR_MEMORY, "no memory to start rank %u", ward->rank);
    }
    free(words);
    close(ends[1]);
    if (status != DJ_OK) {
        close(ends[0]);
        return status;
    }
    ward->ready_fd = ends[0];
    ward->state = DJ_WARD_STARTING;
    ward->started_ns = dj_clock_ns();
    return DJ_OK;
}

static void close_ready(dj_ward_t *ward)
{
    if (ward->ready_fd >= 0)
        close(ward->ready_fd);
    ward->ready_fd = -1;
}

bool dj_ward_hear(dj_ward_t *ward)
{
    char text[64];
    if (ward->ready_fd < 0)
        return false;
    ssize_t size = read(ward->ready_fd, text, sizeof text);
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (size > 0 && !memchr(text, '\n', (size_t)size))
        return false;
    close_ready(ward);
    if (size <= 0) /* the end of the process follows */
        return false;
    ward->state = DJ_WARD_SERVING;
    ward->has_served = true;
    return true;
}

static uint64_t pause_before_next(dj_ward_t *ward, uint64_t now)
{
    uint64_t pause = FIRST_PAUSE_NS;
    bool early = ward->state != DJ_WARD_SERVING || now - ward->started_ns < EARLY_NS;
    ward->early_deaths = early ? ward->early_deaths + 1 : 0;
    if (!early)
        return 0;
    for (uint32_t i = 1; i < ward->early_deaths && pause < LONGEST_PAUSE_NS; i++)
        pause *= 2;
    return pause < LONGEST_PAUSE_NS ? pause : LONGEST_PAUSE_NS;
}

/* What a rank died by. */
static void describe_end(int wait_status, char *how, unsigned room)
{
    if (WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == DJ_RANK_EXIT_DEVICE)
        snprintf(how, room, "the failure of its GPU (exit status %d)", DJ_RANK_EXIT_DEVICE);
    else
        dj_exit_describe(wait_status, how, room);
}

void dj_ward_ended(dj_ward_t *ward, int wait_status, uint64_t restarts)
{
    char how[64];
    uint64_t now = dj_clock_ns();
    dj_ward_hear(ward); /* it may have served and died between two looks */
    close_ready(ward);
    ward->pid = 0;
    describe_end(wait_status, how, sizeof how);
    if (WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0) {
        ward->state = DJ_WARD_FINISHED;
        dprintf(STDERR_FILENO, "djinn: rank %u ended by request\n", ward->rank);
    } else if (WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == DJ_RANK_EXIT_REPLACED) {
        ward->state = DJ_WARD_LOST;
        dprintf(STDERR_FILENO, "djinn: rank %u was replaced by one of another supervisor\n",
                ward->rank);
    } else if (WIFEXITED(wait_status) && !ward->has_served) {
        ward->state = DJ_WARD_LOST;
        dprintf(STDERR_FILENO, "djinn: rank %u could not start: %s\n", ward->rank, how);
    } else if (ward->restarts >= restarts) {
        ward->state = DJ_WARD_LOST;
        dprintf(STDERR_FILENO,
                "djinn: rank %u died by %s and was restarted %u times, the most that "
                "DJINN_RESTARTS allows\n",
                ward->rank, how, ward->restarts);
    } else {
        ward->start_at_ns = now + pause_before_next(ward, now);
        ward->state = DJ_WARD_WAITING;
        ward->incarnation++;
        ward->restarts++;
        dprintf(STDERR_FILENO, "djinn: rank %u died by %s; restart %u\n", ward->rank, how,
                ward->incarnation);
    }
}
