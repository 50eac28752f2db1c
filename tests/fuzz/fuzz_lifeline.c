/* fuzz_lifeline.c - both ends of a lifeline: the head that supervisors come to, and a member whose head
 * lies.
 *
 * Input: flags:u8 (1 the member's end, 2 polite, 4 the proof is made right, 8 seats are given out before
 * the peer comes), then the peer's stream (fuzz.h). The head must have ended the connection when the peer
 * left, and its seats must be whole; the member must come back with seats that make sense, or a sentence. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "comm/control.h"
#include "launcher/head.h"
#include "launcher/member.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "tests/fuzz/fuzz.h"

enum { TURNS_MAX = 2000, RANKS = 6 };

static const uint8_t token[32] = {1, 2, 3};

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    FUZZ_ASSERT(dj_hash_setup());
    dj_log_init("error", "fuzz");
    return 0;
}

static int dial(const char *endpoint)
{
    struct linger reset = {1, 0};
    dj_control_t *control;
    FUZZ_ASSERT(dj_control_connect(endpoint, dj_clock_ns() + 5 * DJ_NS_PER_S, &control) == DJ_OK);
    int fd = dj_control_release(control);
    FUZZ_ASSERT(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    return fd;
}

static bool has_challenge(int fd, uint8_t nonce[32])
{
    struct {
        dj_frame_t frame;
        dj_challenge_t challenge;
    } first;
    if (recv(fd, &first, sizeof(first), MSG_DONTWAIT) != (ssize_t)sizeof(first))
        return false;
    memcpy(nonce, first.challenge.nonce, 32);
    return true;
}

static void at_the_head(dj_bytes_t *wire, uint8_t flags)
{
    static const uint32_t counts[3] = {2, 1, 1};
    dj_head_options_t options = {.n_tasks = 3, .suspect_ms = 60000,
                                 .deadline_ns = UINT64_MAX, .address = "127.0.0.1:1"};
    char endpoint[DJ_ENDPOINT_TEXT_MAX];
    uint8_t nonce[32];
    dj_head_t *head;
    int turns = 0;
    memcpy(options.token, token, sizeof(token));
    FUZZ_ASSERT(dj_head_open(&options, "127.0.0.1:0", endpoint, &head) == DJ_OK);
    if (flags & 8)
        FUZZ_ASSERT(dj_head_seat(head, counts, RANKS) == DJ_OK);
    int fd = dial(endpoint);
    while (!has_challenge(fd, nonce) && turns++ < TURNS_MAX)
        dj_head_turn(head);
    FUZZ_ASSERT(turns < TURNS_MAX);
    if (flags & 4)
        fuzz_prove(wire, token, nonce, NULL);
    if (wire->size)
        send(fd, wire->data, wire->size, MSG_NOSIGNAL);
    dj_head_turn(head);
    if (!(flags & 8))
        FUZZ_ASSERT(dj_head_seat(head, counts, RANKS) == DJ_OK);
    dj_head_turn(head);
    dj_head_end(head); /* a loss is told to people no more */
    close(fd);
    for (turns = 0; dj_head_members(head) && turns < TURNS_MAX; turns++)
        dj_head_turn(head);
    FUZZ_ASSERT(turns < TURNS_MAX && !dj_head_all_serve(head) && dj_head_missing(head) == 0);
    dj_head_close(head);
}

typedef struct liar {
    int listen_fd;
    const dj_bytes_t *wire;
} liar_t;

static void *lie(void *argument)
{
    liar_t *liar = argument;
    struct timeval patience = {.tv_sec = 1};
    char bytes[4096];
    int fd = accept4(liar->listen_fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return NULL;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    if (liar->wire->size)
        send(fd, liar->wire->data, liar->wire->size, MSG_NOSIGNAL);
    shutdown(fd, SHUT_WR);
    while (recv(fd, bytes, sizeof(bytes), 0) > 0)
        ;
    close(fd);
    return NULL;
}

static void at_the_member(const dj_bytes_t *wire)
{
    char endpoint[DJ_ENDPOINT_TEXT_MAX];
    dj_muster_t about = {.task = 1, .tasks_here = 1, .capacity = 1, .node = "fuzz"};
    dj_member_seats_t seats;
    dj_member_t *member;
    uint64_t again;
    liar_t liar = {.wire = wire};
    pthread_t thread;
    FUZZ_ASSERT(dj_control_listen("127.0.0.1:0", &liar.listen_fd, endpoint) == DJ_OK);
    FUZZ_ASSERT(fcntl(liar.listen_fd, F_SETFL, 0) == 0);
    FUZZ_ASSERT(pthread_create(&thread, NULL, lie, &liar) == 0);
    dj_status_t status = dj_member_open(endpoint, token, &about, dj_clock_ns() + DJ_NS_PER_S,
                                        &seats, &member);
    if (status == DJ_OK) {
        FUZZ_ASSERT(seats.count > 0 && seats.first < seats.size && seats.incarnations &&
                    seats.count <= seats.size - seats.first && seats.size <= DJ_RANKS_MAX);
        dj_member_tell(member, DJ_CREW_SERVES, seats.first, 0, 0);
        dj_member_turn(member, &again);
        dj_member_tell(member, DJ_CREW_DONE, 0, 0, 1);
        dj_member_close(member);
        free(seats.incarnations);
    } else {
        fuzz_check_text(dj_error_text());
    }
    pthread_join(thread, NULL);
    close(liar.listen_fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    dj_reader_t reader;
    dj_bytes_t wire = {0};
    dj_reader_init(&reader, data, size);
    uint8_t flags = dj_reader_u8(&reader);
    fuzz_put_stream(&reader, &wire, flags & 2, 0);
    if (flags & 1)
        at_the_member(&wire);
    else
        at_the_head(&wire, flags);
    dj_bytes_fini(&wire);
    return 0;
}
