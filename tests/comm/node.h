/* node.h - processes that talk through comm: the fixture of the endpoint tests.
 *
 * The test program itself never touches UCX; each node is a forked child with a comm of its own,
 * which learns its peers' addresses over socket pairs (the part of the control socket) and ends
 * with status 0 or with the first failed CHECK(). A child that hangs is ended by its alarm, so
 * every test ends. */
#ifndef DJ_TESTS_COMM_NODE_H
#define DJ_TESTS_COMM_NODE_H

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "comm/endpoint.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: node %d: %s failed; %s\n", __FILE__, __LINE__, node_number,    \
                    #condition, dj_error_text());                                                  \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

enum { NODES_MAX = 18, NODE_SECONDS = 60, NODE_SHARED_BYTES = 4096 };

typedef enum transport {
    TRANSPORT_SHM,
    TRANSPORT_TCP,
    TRANSPORT_LOOPBACK,
} transport_t;

static int node_number = -1;

typedef struct node {
    int number, count;
    transport_t transport;
    int links[NODES_MAX]; /* a socket to each other node; its EOF tells of a death */
    dj_comm_t *comm;
    dj_endpoint_t *endpoints[NODES_MAX];
    void *state;  /* of the test's handler */
    void *shared; /* NODE_SHARED_BYTES that all nodes of a run see */
} node_t;

typedef void (*node_main_t)(node_t *node);

typedef struct test_message {
    dj_header_t header;
    dj_upload_t upload;
} test_message_t;

static inline test_message_t make_message(const node_t *node, uint64_t request, uint64_t bytes)
{
    return (test_message_t){{.magic = DJ_HEADER_MAGIC,
                             .version = DJ_PROTOCOL_VERSION,
                             .type = DJ_MESSAGE_UPLOAD,
                             .session = (uint64_t)node->number,
                             .request = request},
                            {.ref = request, .bytes = bytes}};
}

static inline void node_open(node_t *node, dj_message_fn_t handler)
{
    const dj_comm_options_t options = {.shared_memory = node->transport == TRANSPORT_SHM,
                                       .loopback_only = node->transport == TRANSPORT_LOOPBACK,
                                       .on_message = handler,
                                       .context = node};
    CHECK(dj_comm_create(&options, &node->comm) == DJ_OK);
}

/* Swaps worker addresses with one other node and makes the endpoint. */
static inline dj_status_t node_try_join(node_t *node, int other)
{
    const void *address;
    uint32_t bytes, their_bytes = 0;
    uint8_t theirs[DJ_ADDRESS_BYTES_MAX];
    CHECK(dj_comm_address(node->comm, &address, &bytes) == DJ_OK);
    CHECK(write(node->links[other], &bytes, sizeof(bytes)) == sizeof(bytes));
    CHECK(write(node->links[other], address, bytes) == (ssize_t)bytes);
    CHECK(recv(node->links[other], &their_bytes, sizeof(bytes), MSG_WAITALL) == sizeof(bytes));
    CHECK(their_bytes <= sizeof(theirs));
    CHECK(recv(node->links[other], theirs, their_bytes, MSG_WAITALL) == (ssize_t)their_bytes);
    return dj_endpoint_create(node->comm, theirs, their_bytes, &node->endpoints[other]);
}

static inline void node_join(node_t *node, int other)
{
    CHECK(node_try_join(node, other) == DJ_OK);
}

static inline void node_tell(node_t *node, int other, char word)
{
    CHECK(send(node->links[other], &word, 1, MSG_NOSIGNAL) == 1);
}

static inline bool node_heard(node_t *node, int other, char *word_p)
{
    return recv(node->links[other], word_p, 1, MSG_DONTWAIT) >= 0;
}

/* Progress until both sides have come here. */
static inline void node_meet(node_t *node, int other)
{
    char word = 0;
    node_tell(node, other, 'm');
    while (!node_heard(node, other, &word))
        dj_comm_wait(node->comm, 20000, 10);
    CHECK(word == 'm');
}

static inline void node_close(node_t *node)
{
    dj_comm_destroy(node->comm);
}

static inline void run_child(node_t *node, node_main_t start, int pairs[NODES_MAX][NODES_MAX][2])
{
    node_number = node->number;
    for (int a = 0; a < node->count; ++a) {
        for (int b = a + 1; b < node->count; ++b) {
            for (int side = 0; side < 2; ++side) {
                if ((side == 0 ? a : b) == node->number)
                    node->links[side == 0 ? b : a] = pairs[a][b][side];
                else
                    close(pairs[a][b][side]);
            }
        }
    }
    alarm(NODE_SECONDS);
    dj_hash_setup();
    dj_log_init("warn", "node");
    start(node);
    _exit(0);
}

/* Starts one process a main, connected all to all; statuses[i] is waitpid()'s. pids may be NULL. */
static inline void run_nodes(int count, const node_main_t *mains, transport_t transport,
                             int *statuses)
{
    static int pairs[NODES_MAX][NODES_MAX][2];
    pid_t pids[NODES_MAX];
    for (int a = 0; a < count; ++a)
        for (int b = a + 1; b < count; ++b)
            if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pairs[a][b]) != 0)
                abort();
    void *shared = mmap(NULL, NODE_SHARED_BYTES, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        abort();
    fflush(NULL);
    for (int i = 0; i < count; ++i) {
        node_t node = {.number = i, .count = count, .transport = transport, .shared = shared};
        pids[i] = fork();
        if (pids[i] == 0)
            run_child(&node, mains[i], pairs);
    }
    for (int a = 0; a < count; ++a)
        for (int b = a + 1; b < count; ++b)
            for (int side = 0; side < 2; ++side)
                close(pairs[a][b][side]);
    for (int i = 0; i < count; ++i)
        waitpid(pids[i], &statuses[i], 0);
    munmap(shared, NODE_SHARED_BYTES);
}

#endif
